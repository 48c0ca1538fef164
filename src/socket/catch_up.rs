//! Catching up with missed changes of a chat: always from Postgres, page by page, as one who may read
//! them now.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    connection::{BEHIND_LIMIT, Connection, End, Flow},
    subscriptions::RESUME_PAGE,
};
use crate::{
    error::Error,
    model::{ChatId, Head},
    protocol::{Close, ResetReason, ServerFrame, change_frame},
    store::Changes,
};

/// Pause after a failed read from Postgres.
pub(super) const RETRY: Duration = Duration::from_millis(500);

impl Connection {
    pub(super) fn read_later(&mut self, chat_id: ChatId) {
        self.missing.insert(chat_id);
        self.retry_at = Some(Instant::now() + RETRY);
    }

    /// Sends changes page by page, each page written before the next is read.
    pub(super) async fn replay(&mut self, chat_id: ChatId, after_ev: i64, first: Changes) -> Flow {
        let mut after_ev = after_ev;
        let mut page = first;
        let epoch = page.head.epoch.clone();
        loop {
            if page.head.epoch != epoch {
                self.reset(chat_id, &page.head, ResetReason::UnknownPosition);
                return Ok(());
            }
            let is_too_far = self.context.chats.is_too_far(chat_id, after_ev, &page.head).await;
            if is_too_far.map_err(|error| End::Close(Close::from(&error)))? {
                self.reset(chat_id, &page.head, ResetReason::TooFar);
                return Ok(());
            }
            // Each change is dropped once encoded, so that nothing is held twice while the client
            // reads slowly.
            for change in page.changes {
                self.out.push(change_frame(chat_id, &change));
            }
            if !page.more {
                self.synced(chat_id, &page.head);
                return Ok(());
            }
            after_ev = page.up_to;
            self.flush().await?;
            page = match self.read_changes(chat_id, after_ev, RESUME_PAGE).await {
                Ok(page) => page,
                // The chat is not the user's any more.
                Err(Error::ChatNotFound) => return self.leave_chat(chat_id, &epoch).await,
                Err(error) => return Err(End::Close(Close::from(&error))),
            };
        }
    }

    pub(super) fn synced(&mut self, chat_id: ChatId, head: &Head) {
        self.session.set_position(chat_id, head);
        self.out.push(ServerFrame::Synced { chat_id, ev: head.ev }.encode());
    }

    pub(super) fn reset(&mut self, chat_id: ChatId, head: &Head, reason: ResetReason) {
        self.context.metrics.resets.inc();
        let (head_ev, epoch) = (head.ev, head.epoch.as_str());
        self.out.push(ServerFrame::Reset { chat_id, head_ev, epoch, reason }.encode());
        self.synced(chat_id, head);
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
            // The delivery about it may be the one that did not fit into the queue.
            Err(Error::ChatNotFound) => return self.leave_chat(chat_id, &epoch).await,
            Err(_) => {
                self.read_later(chat_id);
                return Ok(());
            }
        };
        if *epoch != *page.head.epoch || page.head.ev < after_ev {
            self.reset(chat_id, &page.head, ResetReason::UnknownPosition);
            return Ok(());
        }
        if page.head.ev == after_ev {
            return Ok(());
        }
        self.session.tell_skipped(chat_id, &mut self.out);
        self.out.push(ServerFrame::Catchup { chat_id, after_ev }.encode());
        self.replay(chat_id, after_ev, page).await
    }

    /// After a reset of the hub, of which no reader's rights are known: reads the head as this user, and
    /// what was missed where that is little.
    pub(super) async fn recheck(&mut self, chat_id: ChatId) -> Flow {
        if self.missing.contains(&chat_id) {
            return Ok(());
        }
        let Some((ev, epoch)) = self.session.position(chat_id) else { return Ok(()) };
        let head = match self.read_changes(chat_id, i64::MAX, 0).await {
            Ok(changes) => changes.head,
            Err(Error::ChatNotFound) => return self.leave_chat(chat_id, &epoch).await,
            Err(_) => {
                self.read_later(chat_id);
                return Ok(());
            }
        };
        if *epoch != *head.epoch || head.ev < ev {
            self.reset(chat_id, &head, ResetReason::UnknownPosition);
            return Ok(());
        }
        match self.context.chats.is_too_far(chat_id, ev, &head).await {
            Ok(true) => self.reset(chat_id, &head, ResetReason::TooFar),
            Ok(false) => self.catch_up(chat_id).await?,
            Err(_) => self.read_later(chat_id),
        }
        Ok(())
    }

    /// Ends the subscription of a chat that is not the user's any more: nothing of it goes out after this.
    async fn leave_chat(&mut self, chat_id: ChatId, epoch: &str) -> Flow {
        let chats = self.context.chats.clone();
        let user_id = self.session.user_id();
        // An erased user has left all groups.
        if chats.get_admission(user_id).await.is_ok_and(|admission| admission.erased) {
            return Err(End::Close(Close::UserGone));
        }
        let reason = chats.get_gone_reason(user_id, chat_id).await.unwrap_or_default();
        self.session.unsubscribe(chat_id);
        self.end_subscription(chat_id);
        if self.session.is_single() {
            let gone = ServerFrame::ChatDeleted { chat_id, total_unread: None, reason, epoch };
            self.out.push(gone.encode());
            return Err(End::Close(Close::ChatGone));
        }
        // Told at once: by the time that the inbox reads the chat, the user may be a member again, and the
        // client would not know that its subscription has ended.
        if let Some(chats) = &mut self.chats {
            chats.on_gone(chat_id, reason, &mut self.out);
        }
        self.mark_chat(chat_id);
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
