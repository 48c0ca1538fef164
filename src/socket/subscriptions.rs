//! Subscribing to a chat, and catching up with missed changes: always from Postgres, page by page.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    connection::{BEHIND_LIMIT, Connection, End, Flow},
    session::Effect,
};
use crate::{
    error::{Error, chain},
    hub::Delivery,
    limits::Class,
    model::{ChatId, Epoch, Position, UserId},
    protocol::{Close, MAX_REPLAY, ResetReason, ServerFrame, change_frame, subscribed_frame},
    store::Changes,
};

/// Changes read at once when a socket resumes; the store returns fewer where they are large. Bounds
/// the memory of a socket whose client reads slowly.
const RESUME_PAGE: i64 = 500;

/// Pause after a failed read from Postgres.
const RETRY: Duration = Duration::from_millis(500);

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
        let changes = self.read_changes(chat_id, after_ev, limit).await;
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
        let mut online = vec![self.session.user_id().clone()];
        online.extend(self.context.chats.presence().online(changes.visible.as_slice()).await);
        if !self.context.redis.is_up() {
            self.presence_recheck.add(chat_id);
        }
        self.out.push(subscribed_frame(id, chat_id, &head, online));
        match after {
            None => self.synced(chat_id, head.ev, &head.epoch),
            Some(position) => {
                self.context.metrics.resumes.inc();
                let foreign = position.epoch.is_some_and(|epoch| epoch != head.epoch);
                if foreign || position.ev > head.ev {
                    self.reset(chat_id, &changes, ResetReason::UnknownPosition);
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

    fn read_later(&mut self, chat_id: ChatId) {
        self.missing.insert(chat_id);
        self.retry_at = Some(Instant::now() + RETRY);
    }

    async fn read_changes(
        &mut self,
        chat_id: ChatId,
        after_ev: i64,
        limit: i64,
    ) -> Result<Changes, Error> {
        let user_id = self.session.user_id();
        self.context.chats.get_changes(user_id, chat_id, after_ev, limit).await
    }

    /// The chat's members who are online and visible to this user.
    pub(super) async fn online(&mut self, chat_id: ChatId) -> Vec<UserId> {
        let me = self.session.user_id();
        let Ok(chat) = self.context.chats.get_chat(me, chat_id).await else {
            return vec![me.clone()];
        };
        let other = chat.other_user;
        std::iter::once(me.clone()).chain(other.online.then_some(other.user_id)).collect()
    }

    /// Sends changes page by page, each page written before the next is read.
    async fn replay(&mut self, chat_id: ChatId, after_ev: i64, first: Changes) -> Flow {
        let mut after_ev = after_ev;
        let mut page = first;
        loop {
            if page.head.ev - after_ev > MAX_REPLAY {
                self.reset(chat_id, &page, ResetReason::TooFar);
                return Ok(());
            }
            // Each change is dropped once encoded, so that nothing is held twice while the client
            // reads slowly.
            for change in page.changes {
                after_ev = change.ev();
                self.out.push(change_frame(chat_id, &change));
            }
            if !page.more {
                self.synced(chat_id, page.head.ev, &page.head.epoch);
                return Ok(());
            }
            self.flush().await?;
            page = match self.read_changes(chat_id, after_ev, RESUME_PAGE).await {
                Ok(page) => page,
                // The chat was deleted meanwhile: the inbox reports it, and the other chats go on.
                Err(Error::ChatNotFound) if !self.session.is_single() => return Ok(()),
                Err(error) => return Err(End::Close(Close::from(&error))),
            };
        }
    }

    fn synced(&mut self, chat_id: ChatId, ev: i64, epoch: &str) {
        self.session.set_position(chat_id, ev, epoch);
        self.out.push(ServerFrame::Synced { chat_id, ev }.encode());
    }

    fn reset(&mut self, chat_id: ChatId, page: &Changes, reason: ResetReason) {
        self.context.metrics.resets.inc();
        let (head_ev, epoch) = (page.head.ev, page.head.epoch.as_str());
        self.out.push(ServerFrame::Reset { chat_id, head_ev, epoch, reason }.encode());
        self.synced(chat_id, head_ev, epoch);
    }

    /// Reads what this socket missed of a chat, unless a retry is scheduled: while Postgres does
    /// not answer, each try blocks the socket for the whole time-out of a statement.
    pub(super) async fn catch_up(&mut self, chat_id: ChatId) -> Flow {
        if self.missing.contains(&chat_id) {
            return Ok(());
        }
        let Some((after_ev, epoch)) = self.session.position(chat_id) else { return Ok(()) };
        self.context.metrics.catchups.inc();
        let page = match self.read_changes(chat_id, after_ev, RESUME_PAGE).await {
            Ok(page) => page,
            // The chat was deleted; the hub's delivery about it may be the one that did not fit
            // into the queue.
            Err(Error::ChatNotFound) => return self.on_gone(chat_id, epoch),
            Err(_) => {
                self.read_later(chat_id);
                return Ok(());
            }
        };
        if *epoch != *page.head.epoch || page.head.ev < after_ev {
            self.reset(chat_id, &page, ResetReason::UnknownPosition);
            return Ok(());
        }
        if page.head.ev == after_ev {
            return Ok(());
        }
        self.out.push(ServerFrame::Catchup { chat_id, after_ev }.encode());
        self.replay(chat_id, after_ev, page).await
    }

    /// Treats the chat as deleted.
    fn on_gone(&mut self, chat_id: ChatId, epoch: Epoch) -> Flow {
        match self.session.on_delivery(Delivery::Deleted { chat_id, epoch }, &mut self.out) {
            Effect::Close(reason) => return Err(End::Close(reason)),
            Effect::Refresh(chat_id) => self.mark_chat(chat_id),
            _ => {}
        }
        Ok(())
    }

    /// Repeats the reads that failed.
    pub(super) async fn retry(&mut self) -> Flow {
        self.retry_at = None;
        for chat_id in std::mem::take(&mut self.missing) {
            self.catch_up(chat_id).await?;
            // The chat may be missing because the hub and this socket were in different epochs.
            if let Some((ev, epoch)) = self.session.position(chat_id)
                && self.context.feed.note_head(chat_id, ev, &epoch).is_none()
            {
                self.read_later(chat_id);
            }
            self.flush().await?;
        }
        self.refresh_chats().await;
        Ok(())
    }

    pub(super) fn mark_chat(&mut self, chat_id: ChatId) {
        if let Some(chats) = &mut self.chats {
            chats.mark(chat_id);
        }
    }

    pub(super) fn mark_all_chats(&mut self) {
        if let Some(chats) = &mut self.chats {
            chats.mark_all();
        }
    }

    pub(super) fn needs_inbox_permit(&self) -> bool {
        self.chats.as_ref().is_some_and(|chats| chats.needs_permit())
    }

    /// Sends the chats that changed, where these are few and known. Otherwise the loop gets a
    /// permit first.
    pub(super) async fn refresh_chats(&mut self) {
        if !self.needs_inbox_permit() {
            self.read_chats().await;
        }
    }

    /// Sends a page of the chats that changed; a failed read is retried.
    pub(super) async fn read_chats(&mut self) {
        let Some(chats) = &mut self.chats else { return };
        let user_id = self.session.user_id();
        if let Err(error) = chats.refresh(&self.context, user_id, &mut self.out).await {
            tracing::warn!(error = chain(&error), "reading an inbox failed");
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    /// After an overflow of the queue, reads all chats of this socket from Postgres.
    pub(super) async fn catch_up_if_behind(&mut self) -> Flow {
        if !self.inbox.take_behind() {
            // No loss since the last look and an empty queue: the socket keeps up again.
            if self.inbox.is_empty() {
                self.behind_since = None;
            }
            return Ok(());
        }
        self.context.metrics.sockets_behind.inc();
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        if since.elapsed() > BEHIND_LIMIT {
            return Err(End::Close(Close::TooSlow));
        }
        for chat_id in self.session.subscribed() {
            Box::pin(self.catch_up(chat_id)).await?;
            // Flushed per chat, so that at most one chat's page is held.
            self.flush().await?;
        }
        self.mark_all_chats();
        Ok(())
    }
}
