//! Groups: creating and changing them, and one's own settings of any chat.

use std::collections::HashSet;

use beseda_protocol::rest::{ChatChange, OwnSettings};
use serde_json::value::RawValue;

use super::{Caller, Chats};
use crate::{
    error::Error,
    model::{Chat, ChatId, GroupSettings, UserId},
    store::{Changed, NewGroup, Removed},
};

/// A group to create, checked as far as that goes without the database.
#[derive(Debug)]
pub struct GroupDraft {
    pub owner: UserId,
    pub title: String,
    pub avatar_url: Option<String>,
    pub metadata: Option<Box<RawValue>>,
    pub settings: GroupSettings,
    /// The members beside the owner.
    pub members: Vec<UserId>,
    pub client_chat_id: Option<String>,
}

impl Chats {
    /// Creates a group, or finds the one that the caller created with the same `client_chat_id`; returns
    /// it with whether it was created.
    pub async fn create_group(
        &self,
        caller: Caller<'_>,
        draft: &GroupDraft,
    ) -> Result<(Chat, bool), Error> {
        if !caller.is_host
            && let Err(full) = self.check_room_for(caller.user, None).await
        {
            // A repeat makes no chat, so it is answered at the limit, too.
            let key = draft.client_chat_id.as_deref();
            if !self.store.is_group_key_known(caller.user, key).await? {
                return Err(full);
            }
        }
        let new = NewGroup {
            caller: caller.user,
            host: caller.is_host,
            owner: &draft.owner,
            key: draft.client_chat_id.as_deref(),
            title: &draft.title,
            avatar_url: draft.avatar_url.as_deref(),
            metadata: draft.metadata.as_deref(),
            settings: draft.settings,
            members: &draft.members,
        };
        let opened = self.store.create_group(&new, self.reject_unknown, self.groups).await?;
        if opened.created {
            let everybody: HashSet<&UserId> = draft.members.iter().chain([&draft.owner]).collect();
            let members: Vec<(ChatId, UserId)> =
                everybody.into_iter().map(|user| (opened.chat_id, user.clone())).collect();
            self.outbox.publish_members(&members, opened.noted).await;
        }
        Ok((self.get_chat(caller, opened.chat_id).await?, opened.created))
    }

    /// Changes what a group shows and how it works.
    pub async fn change_group(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        change: &ChatChange,
    ) -> Result<Chat, Error> {
        let changed = self.store.change_group(chat_id, caller.actor(), change, self.groups).await?;
        self.publish_change(chat_id, changed).await;
        self.get_chat(caller, chat_id).await
    }

    /// Changes the user's own settings of a chat. Only the user's own sockets are told.
    pub async fn set_own(
        &self,
        user: &UserId,
        chat_id: ChatId,
        settings: &OwnSettings,
    ) -> Result<Chat, Error> {
        if let Some(noted) = self.store.set_own(chat_id, user, settings).await? {
            self.outbox.publish_members(&[(chat_id, user.clone())], Some(noted)).await;
        }
        self.get_own_chat(user, chat_id).await
    }

    /// Tells of a change of a group, if there was one: returns once Redis has it, as a send does.
    pub(super) async fn publish_change(&self, chat_id: ChatId, changed: Option<Changed>) {
        if let Some(changed) = changed {
            self.outbox.publish_changes(&self.presence, chat_id, changed).await;
        }
    }

    /// Tells that a user is out of a group, and that it is gone if they were the last one.
    pub(super) async fn publish_removed(&self, chat_id: ChatId, user: &UserId, removed: Removed) {
        match removed {
            Removed::Absent => {}
            Removed::Changed(changed) => self.publish_change(chat_id, Some(changed)).await,
            Removed::Dropped(noted) => {
                self.publish_deleted(chat_id, std::slice::from_ref(user), noted).await;
            }
        }
    }
}
