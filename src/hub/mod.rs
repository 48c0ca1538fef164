//! Who on this replica follows what, and up to where each chat has been given to them. Pure memory:
//! [`feed`] does the reading.
//!
//! A chat's cursor is the `ev` up to which everything went out. The next one goes out, an older one
//! is dropped, a gap is given a moment for the straggler and then filled from Postgres.

mod compare;
mod feed;
mod queue;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::OnceCell;

pub use self::{
    feed::{Attached, Feed, Following, Sources},
    queue::{Inbox, QUEUE, Queue, queue},
};
use crate::{
    metrics::Metrics,
    model::{ChatId, Epoch, Time, UserId},
    protocol::{Frame, Publication, ResetReason},
    trace,
};

/// Publications kept past a gap of one chat. More means that the gap is no straggler; what is
/// dropped here is read from Postgres with the gap.
const MAX_PENDING: usize = 512;

/// How old a `typing` may be when it arrives, in microseconds: it is said anew every few seconds, and
/// two machines' clocks may differ by a second.
const TYPING_LIFETIME_MICROS: i64 = 5_000_000;

/// Locks, so that delivery in one chat does not wait for another's.
const SHARDS: usize = 16;

/// Something for a socket.
#[derive(Debug, Clone)]
pub enum Delivery {
    Event {
        chat_id: ChatId,
        epoch: Epoch,
        ev: i64,
        /// When it was committed, in microseconds since 1970.
        micros: i64,
        frame: Frame,
    },
    /// What changed in a gap, as it is now.
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
    /// On a user's inbox: a chat moved to `ev`.
    ChatMoved {
        chat_id: ChatId,
        ev: i64,
    },
    /// On a user's inbox: anything may have moved.
    Inbox,
    /// The user was erased.
    Erased,
    /// The user's tokens issued before `at` are void.
    Revoked {
        at: Time,
    },
}

/// A gap's content: changes ascending by `ev`, from where it began up to the head they were read at.
#[derive(Debug)]
pub struct Fill {
    pub epoch: Epoch,
    pub after_ev: i64,
    pub frames: Vec<(i64, Frame)>,
    pub head_ev: i64,
}

/// One followed chat.
#[derive(Debug)]
struct Entry {
    followers: Vec<Queue>,
    /// The history that all numbers here are of; `None` while there are none.
    epoch: Option<Epoch>,
    /// `None` until the first follower has read where the chat stands.
    cursor: Option<i64>,
    /// The highest `ev` heard of.
    heard: i64,
    /// Publications that wait for those before them, each with the moment of its commit.
    pending: BTreeMap<i64, (i64, Frame)>,
    /// A task is on its way to fill the gap.
    filling: bool,
    /// When a publication or Postgres last said that the cursor is right.
    confirmed: Instant,
    /// Redis has acknowledged the subscription, once.
    subscribed: Arc<OnceCell<()>>,
    /// Since when nobody follows.
    idle_since: Option<Instant>,
}

impl Entry {
    fn new() -> Self {
        Self {
            followers: Vec::new(),
            epoch: None,
            cursor: None,
            heard: 0,
            pending: BTreeMap::new(),
            filling: false,
            confirmed: Instant::now(),
            subscribed: Arc::default(),
            idle_since: None,
        }
    }

    fn push(&self, delivery: &Delivery) {
        let shared = Arc::new(delivery.clone());
        self.followers.iter().for_each(|queue| queue.push(&shared));
    }

    /// Whether numbers of this history count here: while nothing was read, those of the last one heard of.
    fn is_of(&mut self, epoch: &Epoch) -> bool {
        if self.epoch.as_ref() == Some(epoch) {
            return true;
        }
        if self.cursor.is_some() {
            return false;
        }
        self.pending.clear();
        self.heard = 0;
        self.epoch = Some(Epoch::clone(epoch));
        true
    }

    /// Gives out what follows the cursor without a gap.
    fn advance(&mut self, chat_id: ChatId) {
        let (Some(mut cursor), Some(epoch)) = (self.cursor, self.epoch.clone()) else { return };
        while let Some(entry) = self.pending.first_entry() {
            let ev = *entry.key();
            if ev > cursor + 1 {
                break;
            }
            let (micros, frame) = entry.remove();
            if ev == cursor + 1 {
                cursor = ev;
                let epoch = Epoch::clone(&epoch);
                self.push(&Delivery::Event { chat_id, epoch, ev, micros, frame });
            }
        }
        self.cursor = Some(cursor);
    }

    fn has_gap(&self) -> bool {
        self.cursor.is_some_and(|cursor| self.heard > cursor)
    }
}

/// A gap that wants filling: nobody is on it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap(pub ChatId);

/// What a publication has led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Taken,
    Gap(Gap),
    /// The chat is not held any more.
    Ended,
    /// It is of another history than the chat is held in.
    Foreign,
}

type Shard = HashMap<ChatId, Entry>;

/// A user's sockets here, each with whether it carries the inbox.
type Users = HashMap<UserId, Vec<(Queue, bool)>>;

/// All that is followed on this replica.
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
        // A panic under the lock leaves at worst an entry that the next comparison puts right.
        self.chats[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on publications of the chat go to `queue`. The cell is set once Redis has
    /// acknowledged the chat's subscription.
    pub(crate) fn add_follower(&self, chat_id: ChatId, queue: &Queue) -> Arc<OnceCell<()>> {
        let mut shard = self.shard(chat_id);
        let entry = shard.entry(chat_id).or_insert_with(Entry::new);
        entry.idle_since = None;
        if !entry.followers.iter().any(|other| other.is(queue)) {
            entry.followers.push(queue.clone());
        }
        Arc::clone(&entry.subscribed)
    }

    pub(crate) fn remove_follower(&self, chat_id: ChatId, queue: &Queue) {
        if let Some(entry) = self.shard(chat_id).get_mut(&chat_id) {
            entry.followers.retain(|other| !other.is(queue));
            if entry.followers.is_empty() {
                entry.idle_since = Some(Instant::now());
            }
        }
    }

    /// A follower has read the chat at `head_ev`, after it was registered. Gives the cursor: where it
    /// is past `head_ev`, what lies between went out before the follower could take it. `None`: the chat
    /// is held in another history.
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
        Some((entry.cursor.unwrap_or(head_ev), claim(entry, chat_id)))
    }

    pub(crate) fn add_user(&self, user_id: &UserId, queue: &Queue, inbox: bool) {
        self.users().entry(user_id.clone()).or_default().push((queue.clone(), inbox));
    }

    /// Where it was the user's last socket here, `unsubscribe` is called, under the lock, so that
    /// it can't overtake a later subscription.
    pub(crate) fn remove_user(&self, user_id: &UserId, queue: &Queue, unsubscribe: impl FnOnce()) {
        let mut users = self.users();
        let Some(queues) = users.get_mut(user_id) else { return };
        queues.retain(|(other, _)| !other.is(queue));
        if queues.is_empty() {
            users.remove(user_id);
            unsubscribe();
        }
    }

    /// How many sockets a user has here.
    pub fn count_user(&self, user_id: &UserId) -> usize {
        self.users().get(user_id).map_or(0, Vec::len)
    }

    /// A publication on a chat's channel.
    pub(crate) fn receive(&self, chat_id: ChatId, publication: Publication) -> Received {
        let mut shard = self.shard(chat_id);
        let Some(entry) = shard.get_mut(&chat_id) else { return Received::Taken };
        if publication.epoch().is_some_and(|epoch| !entry.is_of(epoch)) {
            return Received::Foreign;
        }
        match publication {
            Publication::Event { ev, micros, trace, frame, .. } => {
                trace::delivered(trace.as_deref(), chat_id, ev, entry.followers.len());
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
                // Who has not read it yet may find it in another history.
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
        claim(entry, chat_id).map_or(Received::Taken, Received::Gap)
    }

    /// A chat is gone in this history, whichever it was followed in.
    pub(crate) fn end(&self, chat_id: ChatId, epoch: &Epoch) {
        if let Some(entry) = self.shard(chat_id).remove(&chat_id) {
            entry.push(&Delivery::Deleted { chat_id, epoch: Epoch::clone(epoch) });
        }
    }

    /// A publication on a user's channel.
    pub(crate) fn receive_for_user(&self, user_id: &UserId, publication: &Publication) {
        if let Publication::ChatMoved { chat_id, ev, .. } = publication {
            self.push_to_user(user_id, &Delivery::ChatMoved { chat_id: *chat_id, ev: *ev });
        }
    }

    /// The sockets of an erased person are to be closed.
    pub(crate) fn close_user(&self, user_id: &UserId) {
        self.push_to_user(user_id, &Delivery::Erased);
    }

    /// The sockets of a person are to be closed that were opened with a token issued before `at`.
    pub(crate) fn revoke_user(&self, user_id: &UserId, at: Time) {
        self.push_to_user(user_id, &Delivery::Revoked { at });
    }

    fn push_to_user(&self, user_id: &UserId, delivery: &Delivery) {
        let shared = Arc::new(delivery.clone());
        for (queue, _) in self.users().get(user_id).into_iter().flatten() {
            queue.push(&shared);
        }
    }

    /// Everybody who has a socket here.
    pub(crate) fn attached_users(&self) -> Vec<UserId> {
        self.users().keys().cloned().collect()
    }

    /// Everybody whose inbox is followed here.
    pub(crate) fn inbox_users(&self) -> Vec<UserId> {
        let users = self.users();
        let followed = users.iter().filter(|(_, queues)| queues.iter().any(|(_, inbox)| *inbox));
        followed.map(|(user_id, _)| user_id.clone()).collect()
    }

    /// Any of the user's chats may have moved.
    pub(crate) fn poke_inbox(&self, user_id: &UserId) {
        self.push_to_user(user_id, &Delivery::Inbox);
    }

    /// Where the gap's reader has to begin, and in which history; `None` where the straggler came or
    /// nobody follows, and then the gap is no longer claimed.
    pub(crate) fn gap_start(&self, Gap(chat_id): Gap) -> Option<(i64, Epoch)> {
        let mut shard = self.shard(chat_id);
        let entry = shard.get_mut(&chat_id)?;
        if entry.has_gap() && !entry.followers.is_empty() {
            return entry.cursor.zip(entry.epoch.clone());
        }
        entry.filling = false;
        None
    }

    /// Gives out what was read for a gap. What came by itself meanwhile is left out.
    /// False where nothing moved.
    pub(crate) fn fill(&self, Gap(chat_id): Gap, fill: Fill) -> bool {
        let mut shard = self.shard(chat_id);
        let Some(entry) = shard.get_mut(&chat_id) else { return false };
        let cursor = entry.cursor.unwrap_or(0);
        let moves = entry.epoch.as_ref() == Some(&fill.epoch) && fill.head_ev > cursor;
        if moves {
            self.metrics.gaps_filled.inc();
            let head_ev = fill.head_ev;
            entry.push(&Delivery::Catchup { chat_id, fill: Arc::new(fill) });
            move_cursor(entry, chat_id, head_ev);
        }
        entry.heard = entry.heard.max(entry.cursor.unwrap_or(0));
        moves
    }

    /// The followers must read the history again: from `head_ev` on everything comes.
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
        move_cursor(entry, chat_id, head_ev);
    }

    /// The comparison with Postgres found the head of a chat whose cursor was `seen`.
    pub(crate) fn compare(
        &self,
        chat_id: ChatId,
        seen: i64,
        head_ev: i64,
        epoch: &Epoch,
    ) -> Option<Gap> {
        let mut shard = self.shard(chat_id);
        let entry = shard.get_mut(&chat_id)?;
        // Within a history no head goes back, unless somebody has put an old copy in its place and not said
        // so.
        if !entry.is_of(epoch) || head_ev < seen {
            let reason = ResetReason::UnknownPosition;
            self.reset_entry(entry, chat_id, head_ev, epoch, reason);
            return None;
        }
        if head_ev > seen {
            entry.heard = entry.heard.max(head_ev);
            let gap = claim(entry, chat_id);
            if gap.is_some() {
                self.metrics.head_check_finds.inc();
            }
            return gap;
        }
        entry.confirmed = Instant::now();
        None
    }

    /// Followed chats and their cursors, those confirmed after `since` left out. Without it all, also those
    /// that nobody follows any more, and somebody may again.
    pub(crate) fn cursors(&self, since: Option<Instant>) -> Vec<(ChatId, i64)> {
        let mut all = Vec::new();
        for shard in &self.chats {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().filter_map(|(chat_id, entry)| {
                let wanted = since
                    .is_none_or(|since| entry.confirmed < since && !entry.followers.is_empty());
                wanted.then_some((*chat_id, entry.cursor?))
            }));
        }
        all
    }

    /// Forgets a chat, if nobody follows it; `unsubscribe` is called under the lock, so that it can't
    /// overtake a later subscription.
    pub(crate) fn forget(&self, chat_id: ChatId, unsubscribe: impl FnOnce()) {
        let mut shard = self.shard(chat_id);
        if shard.get(&chat_id).is_some_and(|entry| entry.followers.is_empty()) {
            shard.remove(&chat_id);
            unsubscribe();
        }
    }

    /// Forgets chats that nobody has followed since `before`; `unsubscribe` is called under the
    /// lock, so that it can't overtake a later subscription.
    pub(crate) fn forget_idle(&self, before: Instant, unsubscribe: impl Fn(ChatId)) {
        for shard in &self.chats {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|chat_id, entry| {
                let keep = !entry.followers.is_empty()
                    || entry.idle_since.is_none_or(|since| since > before);
                if !keep {
                    unsubscribe(*chat_id);
                }
                keep
            });
        }
    }

    /// Chats held in memory, and sockets that follow them.
    pub fn size(&self) -> (usize, usize) {
        self.chats.iter().fold((0, 0), |(chats, followers), shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let here: usize = shard.values().map(|entry| entry.followers.len()).sum();
            (chats + shard.len(), followers + here)
        })
    }
}

/// All up to `head_ev` was given out.
fn move_cursor(entry: &mut Entry, chat_id: ChatId, head_ev: i64) {
    entry.cursor = Some(head_ev);
    entry.confirmed = Instant::now();
    entry.pending = entry.pending.split_off(&(head_ev + 1));
    entry.advance(chat_id);
}

/// Claims the filling of a gap, if there is one and nobody is on it.
fn claim(entry: &mut Entry, chat_id: ChatId) -> Option<Gap> {
    if !entry.has_gap() || entry.filling {
        return None;
    }
    entry.filling = true;
    Some(Gap(chat_id))
}

#[cfg(test)]
mod tests;
