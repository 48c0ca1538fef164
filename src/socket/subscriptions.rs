//! Following a chat, and catching up with what was missed: always from Postgres, page by page.

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

/// Changes read at once when a socket resumes, of which the store gives fewer where they are large:
/// bounds what it holds while its reader is slow.
const RESUME_PAGE: i64 = 500;

/// Pause before Postgres is asked again for what it could not give.
const RETRY: Duration = Duration::from_millis(500);

impl Connection {
    pub(super) async fn subscribe(
        &mut self,
        chat_id: ChatId,
        id: Option<&RawValue>,
        after: Option<Position>,
    ) -> Result<Result<(), Error>, End> {
        if let Err(error) = self.context.limits.check(self.session.user_id(), Class::Reads) {
            return Ok(Err(error));
        }
        self.follow(chat_id, id, after).await
    }

    /// Follows a chat: registered and subscribed first, then what was missed, then live. The inner
    /// error is the client's, the outer one the socket's.
    async fn follow(
        &mut self,
        chat_id: ChatId,
        id: Option<&RawValue>,
        after: Option<Position>,
    ) -> Result<Result<(), Error>, End> {
        match self.begin_following(chat_id, after.as_ref()).await {
            Ok(changes) => self.give_followed(chat_id, id, after, changes).await.map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    pub(super) fn end_following(&mut self, chat_id: ChatId) {
        self.following.retain(|following| following.chat_id() != chat_id);
    }

    /// Registers and subscribes, then reads what was missed, which must then be given.
    pub(super) async fn begin_following(
        &mut self,
        chat_id: ChatId,
        after: Option<&Position>,
    ) -> Result<Changes, Error> {
        // Followed already: ended first, since the end of the old one would end the new one too.
        self.end_following(chat_id);
        let following = self.context.feed.follow(chat_id, &self.queue).await;
        let (after_ev, limit) = after.map_or((i64::MAX, 0), |position| (position.ev, RESUME_PAGE));
        let changes = self.read_changes(chat_id, after_ev, limit).await;
        match &changes {
            Err(Error::ChatNotFound) if !self.session.follows(chat_id) => following.abandon(),
            Err(_) if !self.session.follows(chat_id) => drop(following),
            // Where it failed, one that is followed stays so: what came in between shows as a gap.
            _ => self.following.push(following),
        }
        changes
    }

    /// Tells of the chat, and gives what was missed.
    pub(super) async fn give_followed(
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
        if !self.context.link.is_up() {
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
            // Another follower was quicker, and what lies between went out before this one could take it.
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
        let store = self.context.chats.store();
        store.get_changes(chat_id, Some(user_id), after_ev, limit).await?.ok_or(Error::ChatNotFound)
    }

    /// Those of the chat's two who are online and may be seen.
    pub(super) async fn online(&mut self, chat_id: ChatId) -> Vec<UserId> {
        let me = self.session.user_id();
        let Ok(chat) = self.context.chats.get_chat(me, chat_id).await else {
            return vec![me.clone()];
        };
        let other = chat.other_user;
        std::iter::once(me.clone()).chain(other.online.then_some(other.user_id)).collect()
    }

    /// Gives what changed, page by page, written out as it is read.
    async fn replay(&mut self, chat_id: ChatId, after_ev: i64, first: Changes) -> Flow {
        let mut after_ev = after_ev;
        let mut page = first;
        loop {
            if page.head.ev - after_ev > MAX_REPLAY {
                self.reset(chat_id, &page, ResetReason::TooFar);
                return Ok(());
            }
            // Each goes as it is told: nothing is held twice while the client takes its time.
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
                // Deleted meanwhile: the inbox tells of it, and the other chats go on.
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

    /// Reads what this socket missed of a chat, unless that is to be tried again in a moment anyway: while
    /// Postgres does not answer, each try makes the socket deaf for as long as a statement may take.
    pub(super) async fn catch_up(&mut self, chat_id: ChatId) -> Flow {
        if self.missing.contains(&chat_id) {
            return Ok(());
        }
        let Some((after_ev, epoch)) = self.session.position(chat_id) else { return Ok(()) };
        self.context.metrics.catchups.inc();
        let page = match self.read_changes(chat_id, after_ev, RESUME_PAGE).await {
            Ok(page) => page,
            // Deleted, and the hub's word of it may be what did not fit into the queue.
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

    /// A chat turned out to be gone.
    fn on_gone(&mut self, chat_id: ChatId, epoch: Epoch) -> Flow {
        match self.session.on_delivery(Delivery::Deleted { chat_id, epoch }, &mut self.out) {
            Effect::Close(reason) => return Err(End::Close(reason)),
            Effect::Refresh(chat_id) => self.mark_chat(chat_id),
            _ => {}
        }
        Ok(())
    }

    /// Reads again what Postgres could not give.
    pub(super) async fn retry(&mut self) -> Flow {
        self.retry_at = None;
        for chat_id in std::mem::take(&mut self.missing) {
            self.catch_up(chat_id).await?;
            // It may be here since the hub and this socket were in two histories.
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

    pub(super) fn needs_inbox_turn(&self) -> bool {
        self.chats.as_ref().is_some_and(|chats| chats.needs_turn())
    }

    /// Tells of the chats that moved, where these are few and known. Else the loop takes a turn first.
    pub(super) async fn refresh_chats(&mut self) {
        if !self.needs_inbox_turn() {
            self.read_chats().await;
        }
    }

    /// Tells of chats that moved, a page of them; what can't be read now is tried again.
    pub(super) async fn read_chats(&mut self) {
        let Some(chats) = &mut self.chats else { return };
        let user_id = self.session.user_id();
        if let Err(error) = chats.refresh(&self.context, user_id, &mut self.out).await {
            tracing::warn!(error = chain(&error), "reading an inbox failed");
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    /// The queue ran over: what was lost is in Postgres, for all chats of this socket.
    pub(super) async fn catch_up_if_behind(&mut self) -> Flow {
        if !self.inbox.take_behind() {
            // A moment without loss, and the queue empty: it keeps up again.
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
        for chat_id in self.session.followed() {
            Box::pin(self.catch_up(chat_id)).await?;
            // A chat's page at most is held, however many chats there are.
            self.flush().await?;
        }
        self.mark_all_chats();
        Ok(())
    }
}
