//! Invitations to groups.

use beseda_protocol::{bounds::DEFAULT_INVITE_SECONDS, rest::NewInvite};
use uuid::Uuid;

use super::{Caller, Chats, chats::cut};
use crate::{
    error::Error,
    model::{ChatId, Invite},
};

impl Chats {
    /// Makes an invitation.
    pub async fn create_invite(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        new: &NewInvite,
    ) -> Result<Invite, Error> {
        // A year at most.
        let lifetime = new.expires_in_s.unwrap_or(DEFAULT_INVITE_SECONDS);
        let lifetime = i32::try_from(lifetime).unwrap_or(i32::MAX);
        self.store.create_invite(chat_id, caller.actor(), lifetime, new.max_uses).await
    }

    /// Lists a page of invitations after `after` that can still be accepted, latest first, with the
    /// cursor of the next page. A plain member sees their own.
    pub async fn list_invites(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<(Vec<Invite>, Option<Uuid>), Error> {
        let mut invites =
            self.store.list_invites(chat_id, caller.actor(), after, limit + 1).await?;
        let more = cut(&mut invites, limit);
        let next = invites.last().filter(|_| more).map(|last| last.invite_id);
        Ok((invites, next))
    }

    /// Withdraws an invitation.
    pub async fn delete_invite(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        invite_id: Uuid,
    ) -> Result<(), Error> {
        self.store.delete_invite(chat_id, caller.actor(), invite_id).await
    }
}
