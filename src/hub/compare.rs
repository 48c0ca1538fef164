//! The comparison with Postgres. It finds a lost *last* publication, a partitioned Redis, a missed
//! erasure or revocation, and a database that lost commits.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::feed::{Feed, Shared};
use crate::{
    broker::Channel,
    error::chain,
    model::{ChatId, Epoch, UserId},
    store::{Barred, StoreError},
};

/// Interval of comparisons while Redis is unreliable. The comparison *is* the delivery then; with
/// its jitter and half a second of detection it stays below a second.
const COMPARE_WITHOUT_REDIS: Duration = Duration::from_millis(400);

/// Chats per statement of a comparison: a thousand take 2 ms of Postgres.
const COMPARE_CHUNK: usize = 1_000;

/// How long a chat is kept after its last subscriber left, because users reload pages.
const KEEP_IDLE: Duration = Duration::from_secs(5);

/// Interval of inbox comparisons in normal operation, where they only confirm the publications.
const COMPARE_INBOXES: Duration = Duration::from_secs(60);

/// Divisor of the share of time that inbox comparisons may take, however many inboxes there are.
const INBOXES_SHARE: u32 = 10;

impl Feed {
    /// Compares the heads of subscribed chats with Postgres, for ever: nothing else finds a lost
    /// *last* publication or a partitioned Redis.
    pub(super) async fn compare(self, interval: Duration) {
        // Commands and publications have separate connections, and each can fail alone.
        let mut redis = self.shared.redis.subscribe_state();
        let mut hearing = self.shared.broker.subscribe_hearing();
        let mut inboxes = Inboxes::default();
        // Whether a comparison after a change of epoch is incomplete.
        let mut unsettled = false;
        loop {
            let connected = *redis.borrow_and_update() & *hearing.borrow_and_update();
            let pause = if connected { interval } else { COMPARE_WITHOUT_REDIS.min(interval) };
            // Jitter, so that replicas do not ask at the same moment.
            let pause = pause.mul_f64(rand::random_range(0.8..1.2));
            let asked = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = self.shared.history.doubted() => true,
                // Redis was lost: the last publications may be lost, and the next ones will be.
                Ok(()) = redis.changed() => true,
                Ok(()) = hearing.changed() => true,
            };
            let began = Instant::now();
            let skip_confirmed = connected && !asked;
            let since = skip_confirmed.then(|| Instant::now().checked_sub(pause)).flatten();
            if !connected || asked {
                inboxes.hurry();
            }
            let compared = async {
                self.compare_heads(since, &mut unsettled).await?;
                self.close_barred().await?;
                inboxes.compare(&self.shared).await
            };
            if let Err(error) = compared.await {
                tracing::warn!(error = chain(&error), "comparing with Postgres failed");
            }
            if let Some(before) = Instant::now().checked_sub(KEEP_IDLE) {
                let broker = &self.shared.broker;
                self.shared
                    .hub
                    .forget_idle(before, |chat_id| broker.unsubscribe(&Channel::Chat(chat_id)));
            }
            // The comparison takes at most half of the time, however many chats there are and
            // however often Redis fails.
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    /// Closes the sockets of users whose erasure or revocation was missed. A socket with a newer
    /// token stays.
    async fn close_barred(&self) -> Result<(), StoreError> {
        for chunk in self.shared.hub.attached_users().chunks(COMPARE_CHUNK) {
            for Barred { user_id, admission } in self.shared.store.list_barred(chunk).await? {
                if admission.erased {
                    self.shared.admissions.forget(&user_id);
                    self.shared.hub.close_user(&user_id);
                } else if let Some(at) = admission.revoked_at {
                    self.shared.hub.revoke_user(&user_id, at);
                }
            }
        }
        Ok(())
    }

    /// Compares all chats except those confirmed after `since`. After a change of epoch it compares
    /// all, because every position is void.
    async fn compare_heads(
        &self,
        since: Option<Instant>,
        unsettled: &mut bool,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        // Read even without subscribed chats, because counters belong to an epoch too.
        let epoch = shared.store.get_epoch().await?;
        // Entered before any chat is corrected: later publications are either accepted by a
        // corrected chat or request another comparison.
        if shared.history.enter(&epoch) {
            tracing::warn!(%epoch, "the database's history changed: all positions are void");
            *unsettled = true;
        }
        let since = since.filter(|_| !*unsettled);
        for chunk in shared.hub.cursors(since).chunks(COMPARE_CHUNK) {
            let ids: Vec<ChatId> = chunk.iter().map(|(chat_id, _)| *chat_id).collect();
            let seen: HashMap<ChatId, i64> = chunk.iter().copied().collect();
            let (found_in, heads) = shared.store.get_heads(&ids).await?;
            if found_in != epoch {
                // The epoch is changing right now.
                shared.history.doubt();
                return Ok(());
            }
            // Not in the order of the request: the planner chooses it.
            for (chat_id, head) in heads {
                if let Some(seen) = seen.get(&chat_id) {
                    self.compare_head(chat_id, *seen, head, &epoch);
                }
            }
        }
        if std::mem::take(unsettled) {
            // The inboxes notice the new epoch themselves.
            for user_id in shared.hub.inbox_users() {
                shared.hub.poke_inbox(&user_id);
            }
        }
        Ok(())
    }

    fn compare_head(&self, chat_id: ChatId, seen: i64, head: Option<i64>, epoch: &Epoch) {
        match head {
            None => self.end(chat_id, epoch),
            Some(head) => {
                if let Some(gap) = self.shared.hub.compare(chat_id, seen, head, epoch) {
                    self.fill_gap(gap);
                }
            }
        }
    }
}

/// A checksum of the heads of each inbox's chats.
#[derive(Default)]
struct Inboxes {
    known: HashMap<UserId, (i64, i64)>,
    due: Option<Instant>,
    /// Earliest start of the next comparison, since the last one may have taken long.
    not_before: Option<Instant>,
}

impl Inboxes {
    /// Requests a comparison as soon as `not_before` allows.
    fn hurry(&mut self) {
        self.due = None;
    }

    /// Notifies the inboxes whose checksum changed; they know which chats they have sent already.
    async fn compare(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let started = Instant::now();
        let later = |moment: Option<Instant>| moment.is_some_and(|moment| moment > started);
        if later(self.due) || later(self.not_before) {
            return Ok(());
        }
        let users = shared.hub.inbox_users();
        let mut now = HashMap::with_capacity(users.len());
        for chunk in users.chunks(COMPARE_CHUNK) {
            now.extend(shared.store.sum_chats(chunk).await?);
        }
        for user_id in &users {
            if self.known.get(user_id) != now.get(user_id) {
                shared.hub.poke_inbox(user_id);
            }
        }
        self.known = now;
        self.due = Some(Instant::now() + COMPARE_INBOXES);
        self.not_before = Some(Instant::now() + started.elapsed() * INBOXES_SHARE);
        Ok(())
    }
}
