//! The sockets of this replica that subscribe to each chat, and the revision up to which they
//! received it. Memory only; [`feed`] does the I/O.
//!
//! A chat's cursor is the `ev` up to which all changes were delivered. The next change is
//! delivered, an older one is dropped, and a gap waits a moment for the late publication before it
//! is filled from Postgres.

mod compare;
mod delivery;
mod entry;
mod feed;
mod follow;
mod gaps;
mod queue;
mod typing;
mod users;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::OnceCell;

use self::entry::Entry;
pub use self::{
    delivery::{Delivery, Fill},
    feed::{Attached, Feed, Sources, Subscription},
    follow::Follow,
    queue::{Inbox, QUEUE, Queue, Recipient, queue},
};
use crate::{
    metrics::Metrics,
    model::{ChatId, Epoch, UserId},
    protocol::Publication,
    trace,
};

/// Maximum publications kept beyond a gap of one chat. More mean that the missing one is lost;
/// those dropped here are read from Postgres with the gap.
const MAX_PENDING: usize = 512;

/// Maximum age of a `typing` on arrival, in microseconds: clients repeat it every few seconds, and
/// the clocks of two machines may differ by a second.
const TYPING_LIFETIME_MICROS: i64 = 5_000_000;

/// Number of locks, so that delivery in one chat rarely waits for another's.
const SHARDS: usize = 16;

/// A gap claimed for filling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap(pub ChatId);

/// The result of a publication.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Taken,
    Gap(Gap),
    /// The chat was deleted, and the hub has dropped it.
    Ended,
    /// The publication belongs to another epoch than the chat here.
    Foreign,
}

type Shard = HashMap<ChatId, Entry>;

/// The sockets of each user on this replica, and whether each carries the inbox.
type Users = HashMap<UserId, Vec<(Queue, bool)>>;

/// The subscriptions of this replica.
#[derive(Debug)]
pub struct Hub {
    chats: [Mutex<Shard>; SHARDS],
    users: Mutex<Users>,
    metrics: Arc<Metrics>,
}

impl Hub {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { chats: Default::default(), users: Mutex::default(), metrics }
    }

    fn shard(&self, chat_id: ChatId) -> MutexGuard<'_, Shard> {
        let shard = usize::from(chat_id.as_bytes()[15]) % SHARDS;
        // A panic under the lock leaves at worst an entry that the next comparison corrects.
        self.chats[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `queue` to the subscribers of a chat. The returned cell is set once Redis has
    /// acknowledged the chat's subscription.
    pub(crate) fn add_subscriber(&self, chat_id: ChatId, queue: &Queue) -> Arc<OnceCell<()>> {
        let mut shard = self.shard(chat_id);
        let entry = shard.entry(chat_id).or_insert_with(Entry::new);
        entry.idle_since = None;
        if !entry.subscribers.iter().any(|other| other.is(queue)) {
            entry.subscribers.push(queue.clone());
        }
        Arc::clone(&entry.subscribed)
    }

    pub(crate) fn remove_subscriber(&self, chat_id: ChatId, queue: &Queue) {
        if let Some(entry) = self.shard(chat_id).get_mut(&chat_id) {
            entry.subscribers.retain(|other| !other.is(queue));
            if entry.subscribers.is_empty() {
                entry.idle_since = Some(Instant::now());
            }
        }
    }

    /// Notes that a registered subscriber has read the chat at `head_ev`. Returns the cursor: if it
    /// is beyond `head_ev`, the changes between were delivered before the subscriber had a
    /// position. `None`: the hub holds the chat in another epoch.
    pub(crate) fn note_head(
        &self,
        chat_id: ChatId,
        head_ev: i64,
        epoch: &Epoch,
    ) -> Option<(i64, Option<Gap>)> {
        let mut shard = self.shard(chat_id);
        let Some(entry) = shard.get_mut(&chat_id) else { return Some((head_ev, None)) };
        if !entry.is_of(epoch) {
            return None;
        }
        if entry.cursor.is_none() {
            entry.cursor = Some(head_ev);
            entry.confirmed = Instant::now();
            entry.advance(chat_id);
        }
        entry.hear(chat_id, head_ev);
        Some((entry.cursor.unwrap_or(head_ev), entry.claim(chat_id)))
    }

    /// Handles a publication on a chat's channel.
    pub(crate) fn receive(&self, chat_id: ChatId, publication: Publication) -> Received {
        let mut shard = self.shard(chat_id);
        let Some(entry) = shard.get_mut(&chat_id) else { return Received::Taken };
        if publication.epoch().is_some_and(|epoch| !entry.is_of(epoch)) {
            return Received::Foreign;
        }
        match publication {
            Publication::Event { ev, micros, trace, frame, .. } => {
                trace::delivered(trace.as_deref(), chat_id, ev, entry.subscribers.len());
                entry.hear(chat_id, ev);
                let is_old = entry.cursor.is_some_and(|cursor| ev <= cursor);
                // Where only inboxes follow, nobody waits for a change to continue another.
                let is_followed_only = entry.cursor.is_none() && entry.subscribers.is_empty();
                if is_old || is_followed_only {
                    return Received::Taken;
                }
                if entry.pending.len() < MAX_PENDING {
                    entry.pending.insert(ev, (micros, frame));
                }
                entry.advance(chat_id);
                entry.confirmed = Instant::now();
            }
            Publication::Head { ev, .. } => entry.hear(chat_id, ev),
            Publication::Deleted { epoch } => {
                entry.push(Delivery::Deleted { chat_id, epoch });
                entry.tell_followers(chat_id);
                // A subscriber that has not read the chat yet may find it in another epoch.
                if entry.cursor.is_none() {
                    return Received::Taken;
                }
                shard.remove(&chat_id);
                return Received::Ended;
            }
            Publication::Typing { user_id, micros, typing, frame } => {
                let age = jiff::Timestamp::now().as_microsecond() - micros;
                if age <= TYPING_LIFETIME_MICROS
                    && entry.typists.admit(&user_id, typing, Instant::now())
                {
                    entry.push(Delivery::Typing { chat_id, user_id, frame });
                }
            }
            Publication::Presence { user_id, frame } => {
                entry.push(Delivery::Presence { chat_id, user_id, frame });
            }
            Publication::ChatMoved { .. }
            | Publication::OwnRead { .. }
            | Publication::Erased { .. }
            | Publication::Revoked { .. } => {}
        }
        entry.claim(chat_id).map_or(Received::Taken, Received::Gap)
    }

    /// Ends a chat that does not exist in `epoch`, whatever its epoch here.
    pub(crate) fn end(&self, chat_id: ChatId, epoch: &Epoch) {
        if let Some(entry) = self.shard(chat_id).remove(&chat_id) {
            entry.push(Delivery::Deleted { chat_id, epoch: Epoch::clone(epoch) });
            entry.tell_followers(chat_id);
        }
    }

    /// Drops a chat that nobody subscribes to; calls `unsubscribe` under the lock, so that it cannot
    /// overtake a later subscription. Inboxes that follow the chat go on.
    pub(crate) fn forget(&self, chat_id: ChatId, unsubscribe: impl FnOnce()) {
        let mut shard = self.shard(chat_id);
        let Some(entry) = shard.get_mut(&chat_id) else { return };
        if entry.is_unused() {
            shard.remove(&chat_id);
            unsubscribe();
        } else if entry.subscribers.is_empty() {
            entry.rest();
        }
    }

    /// Drops chats that nobody has subscribed to since `before`; calls `unsubscribe` under the lock,
    /// so that it cannot overtake a later subscription. Inboxes that follow a chat go on.
    pub(crate) fn forget_idle(&self, before: Instant, unsubscribe: impl Fn(ChatId)) {
        for shard in &self.chats {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|chat_id, entry| {
                if entry.idle_since.is_none_or(|since| since > before) {
                    return true;
                }
                let unused = entry.is_unused();
                if unused {
                    unsubscribe(*chat_id);
                } else {
                    entry.rest();
                }
                !unused
            });
        }
    }

    /// The number of chats in memory, and of subscriptions to them.
    pub fn size(&self) -> (usize, usize) {
        self.chats.iter().fold((0, 0), |(chats, subscribers), shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let here: usize = shard.values().map(|entry| entry.subscribers.len()).sum();
            (chats + shard.len(), subscribers + here)
        })
    }
}

#[cfg(test)]
mod tests;
