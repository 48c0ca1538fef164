//! The comparison with Postgres: finds a *last* publication that was lost, a Redis that was split
//! off, an erasure or a revocation that was not heard of, a database that went back in time.

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

/// How often heads are compared while Redis can't be relied on: then the comparison *is* the
/// delivery, which takes this, its jitter, and half a second until we know: below a second.
const COMPARE_WITHOUT_REDIS: Duration = Duration::from_millis(400);

/// Chats a comparison asks for at once: 2 ms of Postgres a thousand.
const COMPARE_CHUNK: usize = 1_000;

/// How long a chat stays subscribed after its last follower left: people reload pages.
const LINGER: Duration = Duration::from_secs(5);

/// How often inboxes are compared while nothing is amiss: who is told of each change anyway is only
/// checked upon.
const COMPARE_INBOXES: Duration = Duration::from_secs(60);

/// The part of the time that comparing inboxes may take, as its inverse, however many there are.
const INBOXES_SHARE: u32 = 10;

impl Feed {
    /// Compares the heads of followed chats with Postgres, for ever: this alone finds a *last*
    /// publication that was lost, and a Redis that was split off.
    pub(super) async fn compare(self, interval: Duration) {
        // Commands have one connection, publications another: either can be dead alone.
        let mut redis = self.shared.link.subscribe_state();
        let mut hearing = self.shared.broker.subscribe_hearing();
        let mut inboxes = Inboxes::default();
        // Not all is set right yet since the history is another one.
        let mut unsettled = false;
        loop {
            let connected = *redis.borrow_and_update() & *hearing.borrow_and_update();
            let pause = if connected { interval } else { COMPARE_WITHOUT_REDIS.min(interval) };
            // Jitter, so that replicas do not ask all at once.
            let pause = pause.mul_f64(rand::random_range(0.8..1.2));
            let asked = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = self.shared.history.doubted() => true,
                // It went: what was published last may be lost, and what comes next will be.
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
            if let Some(before) = Instant::now().checked_sub(LINGER) {
                let broker = &self.shared.broker;
                self.shared
                    .hub
                    .forget_idle(before, |chat_id| broker.unsubscribe(&Channel::Chat(chat_id)));
            }
            // However many chats there are and however often Redis stumbles: half of the time at
            // most.
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    /// Closes the sockets of people whose erasure, or whose tokens' revocation, was not heard of. A
    /// socket with a newer token stays.
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

    /// Compares all chats but those confirmed after `since`. In another history than before, all: every
    /// position is void.
    async fn compare_heads(
        &self,
        since: Option<Instant>,
        unsettled: &mut bool,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        // Asked also where nobody follows a chat: counters belong to a history too.
        let epoch = shared.store.get_epoch().await?;
        // Before any chat is set right: what is published from here on is either taken by a chat that is,
        // or asks for one comparison more.
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
                // It changes right now.
                shared.history.doubt();
                return Ok(());
            }
            // In no order: that is the planner's, and changes with the table's statistics.
            for (chat_id, head) in heads {
                if let Some(seen) = seen.get(&chat_id) {
                    self.compare_head(chat_id, *seen, head, &epoch);
                }
            }
        }
        if std::mem::take(unsettled) {
            // They see for themselves that what they told is void.
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

/// Where the chats of each inbox stood, as a sum that moves with any of them.
#[derive(Default)]
struct Inboxes {
    known: HashMap<UserId, (i64, i64)>,
    due: Option<Instant>,
    /// After the last comparison, which may have taken long.
    not_before: Option<Instant>,
}

impl Inboxes {
    /// Something may be lost: compare as soon as it is decent.
    fn hurry(&mut self) {
        self.due = None;
    }

    /// Tells the sockets of those whose chats moved since last time to look for themselves; they
    /// know what they have told already.
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
