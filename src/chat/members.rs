//! Members of chats, and users who are kept out of groups.

use beseda_protocol::rest::{AddedMembers, MemberChange, NewBan};

use super::{Caller, Chats, chats::cut};
use crate::{
    error::Error,
    model::{Ban, Chat, ChatId, Member, MessageId, Role, Time, UserId},
    store::{MemberCursor, MemberFilter, MemberList},
};

/// A page of members.
#[derive(Debug)]
pub struct Members {
    pub members: Vec<Member>,
    /// The cursor of the next page.
    pub next: Option<MemberCursor>,
    pub member_count: i32,
}

impl Chats {
    /// Lists a page of members after `after`: the owner, admins, then by joining.
    pub async fn list_members(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        filter: MemberFilter<'_>,
        after: Option<&MemberCursor>,
        limit: i64,
    ) -> Result<Members, Error> {
        let listed =
            self.store.list_members(chat_id, caller.reader(), filter, after, limit).await?;
        let MemberList { mut members, next, member_count, show_presence } =
            listed.ok_or(Error::ChatNotFound)?;
        self.show_members(&mut members, show_presence).await;
        Ok(Members { members, next, member_count })
    }

    /// Adds presence, in chats that show it.
    async fn show_members(&self, members: &mut [Member], show_presence: bool) {
        let ids: Vec<UserId> = members.iter().map(|member| member.user.user_id.clone()).collect();
        let online = if show_presence && !ids.is_empty() {
            self.presence.online(&ids).await
        } else {
            Default::default()
        };
        for Member { user, .. } in members {
            user.online = online.contains(&user.user_id);
            if user.online || !show_presence {
                user.last_seen_at = None;
            }
        }
    }

    /// Adds users to a group, as far as they may come in.
    pub async fn add_members(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        users: &[UserId],
        role: Role,
    ) -> Result<AddedMembers, Error> {
        let (added, changed) = self
            .store
            .add_members(chat_id, caller.actor(), users, role, self.reject_unknown, self.groups)
            .await?;
        self.publish_change(chat_id, changed).await;
        Ok(added)
    }

    /// Changes a member's role or silence.
    pub async fn set_member(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        user: &UserId,
        change: &MemberChange,
    ) -> Result<Member, Error> {
        let changed =
            self.store.set_member(chat_id, caller.actor(), user, change, self.groups).await?;
        self.publish_change(chat_id, changed).await;
        let member = self.store.get_member(chat_id, user).await?;
        let (mut member, show_presence) = member.ok_or(Error::MemberNotFound)?;
        self.show_members(std::slice::from_mut(&mut member), show_presence).await;
        Ok(member)
    }

    /// Removes a member from a group; oneself: leaves it.
    pub async fn remove_member(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<(), Error> {
        let removed = self.store.remove_member(chat_id, caller.actor(), user, self.groups).await?;
        self.publish_removed(chat_id, user, removed).await;
        Ok(())
    }

    /// Makes the user a member of an open group.
    pub async fn join_group(&self, user: &UserId, chat_id: ChatId) -> Result<Chat, Error> {
        self.check_room_to_join(user, Some(chat_id)).await?;
        let changed = self.store.join_group(chat_id, user, self.groups).await?;
        self.publish_change(chat_id, changed).await;
        self.get_own_chat(user, chat_id).await
    }

    /// Makes the user a member of the group that an invitation is to.
    pub async fn accept_invite(&self, user: &UserId, code: &str) -> Result<Chat, Error> {
        let invited = self.store.get_invited_chat(code).await?;
        self.check_room_to_join(user, invited).await?;
        let (chat_id, changed) = self.store.accept_invite(code, user, self.groups).await?;
        self.publish_change(chat_id, changed).await;
        self.get_own_chat(user, chat_id).await
    }

    /// Refuses a user who has as many chats as one may have, unless this is one of them.
    async fn check_room_to_join(
        &self,
        user: &UserId,
        chat_id: Option<ChatId>,
    ) -> Result<(), Error> {
        let Err(full) = self.check_room_for(user, None).await else { return Ok(()) };
        match chat_id {
            Some(chat_id) if self.get_head(user, chat_id).await.is_ok() => Ok(()),
            _ => Err(full),
        }
    }

    /// Bans a user from a group, member or not.
    pub async fn ban_member(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        user: &UserId,
        ban: &NewBan,
    ) -> Result<Ban, Error> {
        let (ban, removed) =
            self.store.ban_member(chat_id, caller.actor(), user, ban, self.groups).await?;
        self.publish_removed(chat_id, user, removed).await;
        Ok(ban)
    }

    /// Lifts a ban, if there is one.
    pub async fn unban_member(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<(), Error> {
        self.store.unban_member(chat_id, caller.actor(), user).await
    }

    /// Lists a page of bans after `after`, latest first, with the cursor of the next page.
    pub async fn list_bans(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        after: Option<&(Time, UserId)>,
        limit: i64,
    ) -> Result<(Vec<Ban>, Option<(Time, UserId)>), Error> {
        let mut bans = self.store.list_bans(chat_id, caller.reader(), after, limit + 1).await?;
        let more = cut(&mut bans, limit);
        let next = bans.last().filter(|_| more);
        let next = next.map(|last| (last.created_at, last.user.user_id.clone()));
        Ok((bans, next))
    }

    /// Lists a page of the members who have read a message, with the cursor of the next page and how
    /// many there are in all.
    pub async fn list_readers(
        &self,
        user: &UserId,
        chat_id: ChatId,
        message_id: MessageId,
        after: Option<&UserId>,
        limit: i64,
    ) -> Result<(Vec<UserId>, Option<UserId>, i64), Error> {
        let (mut readers, count) =
            self.store.list_readers(chat_id, user, message_id, after, limit + 1).await?;
        let more = cut(&mut readers, limit);
        let next = readers.last().filter(|_| more).cloned();
        Ok((readers, next, count))
    }
}
