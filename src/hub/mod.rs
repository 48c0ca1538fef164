//! The sockets of this replica that subscribe to each chat, and the revision up to which they
//! received it. Memory only; [`feed`] does the I/O.
//!
//! A chat's cursor is the `ev` up to which all changes were delivered. The next change is
//! delivered, an older one is dropped, and a gap waits a moment for the late publication before it
//! is filled from Postgres.

mod compare;
mod entry;
mod feed;
mod queue;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::OnceCell;

use self::entry::Entry;
pub use self::{
    feed::{Attached, Feed, Sources, Subscription},
    queue::{Inbox, QUEUE, Queue, queue},
};
use crate::{
    metrics::Metrics,
    model::{ChatId, Epoch, Time, UserId},
    protocol::{Frame, Publication, ResetReason},
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

/// A delivery to a socket.
#[derive(Debug, Clone)]
pub enum Delivery {
    Event {
        chat_id: ChatId,
        epoch: Epoch,
        ev: i64,
        /// Time of the commit, in microseconds since 1970.
        micros: i64,
        frame: Frame,
    },
    /// The changes of a filled gap, in their current state.
    Catchup {
        chat_id: ChatId,
        fill: Arc<Fill>,
    },
    Reset {
        chat_id: ChatId,
        head_ev: i64,
        epoch: Epoch,
        reason: ResetReason,
    },
    Deleted {
        chat_id: ChatId,
        epoch: Epoch,
    },
    Typing {
        chat_id: ChatId,
        user_id: UserId,
        frame: Frame,
    },
    Presence {
        chat_id: ChatId,
        user_id: UserId,
        frame: Frame,
    },
    /// To a user's inbox: a chat has reached `ev`.
    ChatMoved {
        chat_id: ChatId,
        ev: i64,
    },
    /// To a user's inbox: any chat may have changed.
    Inbox,
    /// The user was erased.
    Erased,
    /// The user's tokens issued before `at` are void.
    Revoked {
        at: Time,
    },
}

/// The content of a gap: changes ascending by `ev`, from its start to the head at which they were
/// read.
#[derive(Debug)]
pub struct Fill {
    pub epoch: Epoch,
    pub after_ev: i64,
    pub frames: Vec<(i64, Frame)>,
    pub head_ev: i64,
}

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
        entry.heard = entry.heard.max(head_ev);
        Some((entry.cursor.unwrap_or(head_ev), entry.claim(chat_id)))
    }

    pub(crate) fn add_user(&self, user_id: &UserId, queue: &Queue, inbox: bool) {
        self.users().entry(user_id.clone()).or_default().push((queue.clone(), inbox));
    }

    /// Removes a user's socket. If it was the last one here, calls `unsubscribe` under the lock, so
    /// that it cannot overtake a later subscription.
    pub(crate) fn remove_user(&self, user_id: &UserId, queue: &Queue, unsubscribe: impl FnOnce()) {
        let mut users = self.users();
        let Some(queues) = users.get_mut(user_id) else { return };
        queues.retain(|(other, _)| !other.is(queue));
        if queues.is_empty() {
            users.remove(user_id);
            unsubscribe();
        }
    }

    /// The number of the user's sockets on this replica.
    pub fn count_user(&self, user_id: &UserId) -> usize {
        self.users().get(user_id).map_or(0, Vec::len)
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
                entry.heard = entry.heard.max(ev);
                if entry.cursor.is_some_and(|cursor| ev <= cursor) {
                    return Received::Taken;
                }
                if entry.pending.len() < MAX_PENDING {
                    entry.pending.insert(ev, (micros, frame));
                }
                entry.advance(chat_id);
                entry.confirmed = Instant::now();
            }
            Publication::Head { ev, .. } => entry.heard = entry.heard.max(ev),
            Publication::Deleted { epoch } => {
                entry.push(&Delivery::Deleted { chat_id, epoch });
                // A subscriber that has not read the chat yet may find it in another epoch.
                if entry.cursor.is_none() {
                    return Received::Taken;
                }
                shard.remove(&chat_id);
                return Received::Ended;
            }
            Publication::Typing { user_id, micros, frame } => {
                let age = jiff::Timestamp::now().as_microsecond() - micros;
                if age <= TYPING_LIFETIME_MICROS {
                    entry.push(&Delivery::Typing { chat_id, user_id, frame });
                }
            }
            Publication::Presence { user_id, frame } => {
                entry.push(&Delivery::Presence { chat_id, user_id, frame });
            }
            Publication::ChatMoved { .. }
            | Publication::Erased { .. }
            | Publication::Revoked { .. } => {}
        }
        entry.claim(chat_id).map_or(Received::Taken, Received::Gap)
    }

    /// Ends a chat that does not exist in `epoch`, whatever its epoch here.
    pub(crate) fn end(&self, chat_id: ChatId, epoch: &Epoch) {
        if let Some(entry) = self.shard(chat_id).remove(&chat_id) {
            entry.push(&Delivery::Deleted { chat_id, epoch: Epoch::clone(epoch) });
        }
    }

    /// Handles a publication on a user's channel.
    pub(crate) fn receive_for_user(&self, user_id: &UserId, publication: &Publication) {
        if let Publication::ChatMoved { chat_id, ev, .. } = publication {
            self.push_to_user(user_id, &Delivery::ChatMoved { chat_id: *chat_id, ev: *ev });
        }
    }

    /// Tells the sockets of an erased user to close.
    pub(crate) fn close_user(&self, user_id: &UserId) {
        self.push_to_user(user_id, &Delivery::Erased);
    }

    /// Tells a user's sockets to close if their token was issued before `at`.
    pub(crate) fn revoke_user(&self, user_id: &UserId, at: Time) {
        self.push_to_user(user_id, &Delivery::Revoked { at });
    }

    fn push_to_user(&self, user_id: &UserId, delivery: &Delivery) {
        let shared = Arc::new(delivery.clone());
        for (queue, _) in self.users().get(user_id).into_iter().flatten() {
            queue.push(&shared);
        }
    }

    /// The users with a socket on this replica.
    pub(crate) fn attached_users(&self) -> Vec<UserId> {
        self.users().keys().cloned().collect()
    }

    /// The users with an inbox socket on this replica.
    pub(crate) fn inbox_users(&self) -> Vec<UserId> {
        let users = self.users();
        let followed = users.iter().filter(|(_, queues)| queues.iter().any(|(_, inbox)| *inbox));
        followed.map(|(user_id, _)| user_id.clone()).collect()
    }

    /// Tells a user's inboxes that any chat may have changed.
    pub(crate) fn poke_inbox(&self, user_id: &UserId) {
        self.push_to_user(user_id, &Delivery::Inbox);
    }

    /// Returns the `ev` after which to read a gap, and its epoch. `None`, with the claim released,
    /// if the late publication came or nobody subscribes.
    pub(crate) fn gap_start(&self, Gap(chat_id): Gap) -> Option<(i64, Epoch)> {
        let mut shard = self.shard(chat_id);
        let entry = shard.get_mut(&chat_id)?;
        if entry.has_gap() && !entry.subscribers.is_empty() {
            return entry.cursor.zip(entry.epoch.clone());
        }
        entry.filling = false;
        None
    }

    /// Delivers the content of a gap, without changes that arrived meanwhile; false if the cursor
    /// did not move.
    pub(crate) fn fill(&self, Gap(chat_id): Gap, fill: Fill) -> bool {
        let mut shard = self.shard(chat_id);
        let Some(entry) = shard.get_mut(&chat_id) else { return false };
        let cursor = entry.cursor.unwrap_or(0);
        let moves = entry.epoch.as_ref() == Some(&fill.epoch) && fill.head_ev > cursor;
        if moves {
            self.metrics.gaps_filled.inc();
            let head_ev = fill.head_ev;
            entry.push(&Delivery::Catchup { chat_id, fill: Arc::new(fill) });
            entry.move_cursor(chat_id, head_ev);
        }
        entry.heard = entry.heard.max(entry.cursor.unwrap_or(0));
        moves
    }

    /// Tells the subscribers to read the chat again; deliveries continue from `head_ev`.
    pub(crate) fn reset(
        &self,
        Gap(chat_id): Gap,
        head_ev: i64,
        epoch: &Epoch,
        reason: ResetReason,
    ) {
        if let Some(entry) = self.shard(chat_id).get_mut(&chat_id) {
            self.reset_entry(entry, chat_id, head_ev, epoch, reason);
        }
    }

    fn reset_entry(
        &self,
        entry: &mut Entry,
        chat_id: ChatId,
        head_ev: i64,
        epoch: &Epoch,
        reason: ResetReason,
    ) {
        self.metrics.resets.inc();
        entry.push(&Delivery::Reset { chat_id, head_ev, epoch: Epoch::clone(epoch), reason });
        entry.epoch = Some(Epoch::clone(epoch));
        entry.heard = head_ev;
        entry.pending.clear();
        entry.move_cursor(chat_id, head_ev);
    }

    /// Compares a chat whose cursor was `seen` with its head in Postgres.
    pub(crate) fn compare(
        &self,
        chat_id: ChatId,
        seen: i64,
        head_ev: i64,
        epoch: &Epoch,
    ) -> Option<Gap> {
        let mut shard = self.shard(chat_id);
        let entry = shard.get_mut(&chat_id)?;
        // Within an epoch no head goes back, unless an old copy of the database was restored
        // without a new epoch.
        if !entry.is_of(epoch) || head_ev < seen {
            let reason = ResetReason::UnknownPosition;
            self.reset_entry(entry, chat_id, head_ev, epoch, reason);
            return None;
        }
        if head_ev > seen {
            entry.heard = entry.heard.max(head_ev);
            let gap = entry.claim(chat_id);
            if gap.is_some() {
                self.metrics.head_check_finds.inc();
            }
            return gap;
        }
        entry.confirmed = Instant::now();
        None
    }

    /// Returns subscribed chats and their cursors, except those confirmed after `since`. Without
    /// `since` it returns all chats, also those kept without subscribers.
    pub(crate) fn cursors(&self, since: Option<Instant>) -> Vec<(ChatId, i64)> {
        let mut all = Vec::new();
        for shard in &self.chats {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().filter_map(|(chat_id, entry)| {
                let wanted = since
                    .is_none_or(|since| entry.confirmed < since && !entry.subscribers.is_empty());
                wanted.then_some((*chat_id, entry.cursor?))
            }));
        }
        all
    }

    /// Drops a chat without subscribers; calls `unsubscribe` under the lock, so that it cannot
    /// overtake a later subscription.
    pub(crate) fn forget(&self, chat_id: ChatId, unsubscribe: impl FnOnce()) {
        let mut shard = self.shard(chat_id);
        if shard.get(&chat_id).is_some_and(|entry| entry.subscribers.is_empty()) {
            shard.remove(&chat_id);
            unsubscribe();
        }
    }

    /// Drops chats without subscribers since `before`; calls `unsubscribe` under the lock, so that
    /// it cannot overtake a later subscription.
    pub(crate) fn forget_idle(&self, before: Instant, unsubscribe: impl Fn(ChatId)) {
        for shard in &self.chats {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|chat_id, entry| {
                let keep = !entry.subscribers.is_empty()
                    || entry.idle_since.is_none_or(|since| since > before);
                if !keep {
                    unsubscribe(*chat_id);
                }
                keep
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
