//! Subscribing to a chat: the socket registers first, then reads what it missed from Postgres.

use serde_json::value::RawValue;

use super::connection::{Connection, End, Flow};
use crate::{
    error::Error,
    limits::Class,
    model::{ChatId, ChatKind, Position, UserId},
    protocol::{ResetReason, subscribed_frame},
    store::Changes,
};

/// Changes read at once when a socket resumes; the store returns fewer where they are large. Bounds
/// the memory of a socket whose client reads slowly.
pub(super) const RESUME_PAGE: i64 = 500;

impl Connection {
    /// Subscribes to a chat: registers first, then sends the missed changes, then live ones. The
    /// inner error is reported to the client, the outer one ends the socket.
    pub(super) async fn subscribe(
        &mut self,
        chat_id: ChatId,
        id: Option<&RawValue>,
        after: Option<Position>,
    ) -> Result<Result<(), Error>, End> {
        if let Err(error) = self.context.limits.check(self.session.user_id(), Class::Reads) {
            return Ok(Err(error));
        }
        match self.begin_subscription(chat_id, after.as_ref()).await {
            Ok(changes) => self.send_subscribed(chat_id, id, after, changes).await.map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    pub(super) fn end_subscription(&mut self, chat_id: ChatId) {
        self.subscriptions.retain(|subscription| subscription.chat_id() != chat_id);
    }

    /// Registers with the hub, then reads the missed changes, which the caller must send.
    pub(super) async fn begin_subscription(
        &mut self,
        chat_id: ChatId,
        after: Option<&Position>,
    ) -> Result<Changes, Error> {
        // An existing subscription is ended first, since ending it later would end the new one too.
        self.end_subscription(chat_id);
        let subscription = self.context.feed.subscribe_chat(chat_id, &self.queue).await;
        let (after_ev, limit) = after.map_or((i64::MAX, 0), |position| (position.ev, RESUME_PAGE));
        let mut changes = self.read_changes(chat_id, after_ev, limit).await;
        if let Ok(read) = &changes
            && self.session.is_single()
            && read.head.kind == ChatKind::Group
        {
            // Without receipts the user's own marks come on their channel, which an inbox has already.
            self.context.feed.hear_user(self.session.user_id()).await;
            if !read.head.receipts {
                changes = self.read_changes(chat_id, after_ev, limit).await;
            }
        }
        match &changes {
            Err(Error::ChatNotFound) if !self.session.is_subscribed(chat_id) => {
                subscription.abandon()
            }
            Err(_) if !self.session.is_subscribed(chat_id) => drop(subscription),
            // On an error an existing subscription stays: changes in between show as a gap.
            _ => self.subscriptions.push(subscription),
        }
        changes
    }

    /// Sends `subscribed`, then the missed changes.
    pub(super) async fn send_subscribed(
        &mut self,
        chat_id: ChatId,
        id: Option<&RawValue>,
        after: Option<Position>,
        changes: Changes,
    ) -> Flow {
        let head = changes.head.clone();
        let epoch = head.epoch.as_str().into();
        let given_out = self.context.feed.note_head(chat_id, head.ev, &epoch);
        let (online, online_count) = if head.receipts {
            let online = self.online_of(&changes.visible).await;
            if !self.context.redis.is_up() {
                self.presence_recheck.add(chat_id);
            }
            let count = i32::try_from(online.len()).ok();
            (online, count)
        } else {
            // In a chat without receipts nobody is told of anybody's presence.
            (Vec::new(), self.context.chats.count_online(chat_id, head.member_count).await)
        };
        self.out.push(subscribed_frame(
            id,
            chat_id,
            &head,
            &changes.receipts,
            online,
            online_count,
        ));
        match after {
            None => self.synced(chat_id, &head),
            Some(position) => {
                self.context.metrics.resumes.inc();
                let foreign = position.epoch.is_some_and(|epoch| epoch != head.epoch);
                if foreign || position.ev > head.ev {
                    self.reset(chat_id, &head, ResetReason::UnknownPosition);
                } else {
                    self.replay(chat_id, position.ev, changes).await?;
                }
            }
        }
        match (self.session.position(chat_id), given_out) {
            (Some(_), None) => self.read_later(chat_id),
            // The hub's cursor is ahead: the changes between went out before this socket had its
            // position.
            (Some((ev, _)), Some(given_out)) if ev < given_out => self.catch_up(chat_id).await?,
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn read_changes(
        &mut self,
        chat_id: ChatId,
        after_ev: i64,
        limit: i64,
    ) -> Result<Changes, Error> {
        let chats = &self.context.chats;
        let mut changes =
            chats.get_changes(self.session.user_id(), chat_id, after_ev, limit).await?;
        chats.presence().show(&mut changes.changes, changes.head.receipts).await;
        Ok(changes)
    }

    /// The user, and those of `visible` who are online.
    async fn online_of(&mut self, visible: &[UserId]) -> Vec<UserId> {
        let mut online = vec![self.session.user_id().clone()];
        if !visible.is_empty() {
            online.extend(self.context.chats.presence().online(visible).await);
        }
        online
    }

    /// The chat's members who are online and visible to this user.
    pub(super) async fn online(&mut self, chat_id: ChatId) -> Vec<UserId> {
        match self.read_changes(chat_id, i64::MAX, 0).await {
            Ok(changes) => self.online_of(&changes.visible).await,
            Err(_) => Vec::new(),
        }
    }
}
