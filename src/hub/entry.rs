//! A chat of the hub: its subscribers, the revision up to which they have its changes, and the inboxes
//! that follow it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    time::Instant,
};

use tokio::sync::OnceCell;

use super::{Delivery, Gap, Queue, queue::Round, typing::Typists};
use crate::{
    model::{ChatId, Epoch},
    protocol::AddressedFrame,
};

/// A chat with subscribers or followers.
#[derive(Debug)]
pub(super) struct Entry {
    /// Sockets that get every change.
    pub(super) subscribers: Vec<Queue>,
    /// Inboxes that are told that the chat moved, and no more.
    pub(super) followers: Vec<Follower>,
    /// The epoch of all numbers here; `None` while there are none.
    pub(super) epoch: Option<Epoch>,
    /// `None` until the first subscriber has read the chat's head.
    pub(super) cursor: Option<i64>,
    /// The highest `ev` seen in a publication.
    pub(super) heard: i64,
    /// Publications beyond the gap, with their commit times.
    pub(super) pending: BTreeMap<i64, (i64, AddressedFrame)>,
    /// Whether a task fills the gap.
    pub(super) filling: bool,
    /// When a publication or Postgres last confirmed the cursor.
    pub(super) confirmed: Instant,
    /// Set once Redis has acknowledged the subscription.
    pub(super) subscribed: Arc<OnceCell<()>>,
    /// Since when the chat has no subscribers.
    pub(super) idle_since: Option<Instant>,
    pub(super) typists: Typists,
}

/// An inbox that follows a chat.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) queue: Queue,
    /// Whether it was told and has not read the chat since. So an inbox that takes its time is woken once
    /// for all changes of that time.
    pub(super) told: Arc<AtomicBool>,
}

impl Entry {
    pub(super) fn new() -> Self {
        Self {
            subscribers: Vec::new(),
            followers: Vec::new(),
            epoch: None,
            cursor: None,
            heard: 0,
            pending: BTreeMap::new(),
            filling: false,
            confirmed: Instant::now(),
            subscribed: Arc::default(),
            idle_since: None,
            typists: Typists::default(),
        }
    }

    /// Whether nobody needs the chat's channel.
    pub(super) fn is_unused(&self) -> bool {
        self.subscribers.is_empty() && self.followers.is_empty()
    }

    /// Forgets the position, since only inboxes are left.
    pub(super) fn rest(&mut self) {
        self.cursor = None;
        self.pending.clear();
        self.idle_since = None;
    }

    pub(super) fn push(&self, delivery: Delivery) {
        let shared = Arc::new(delivery);
        let untold = self.subscribers.iter().filter(|queue| queue.add(&shared));
        Round::start(untold.cloned().collect(), shared.is_deferrable());
    }

    /// Tells the inboxes that the chat moved.
    pub(super) fn tell_followers(&self, chat_id: ChatId) {
        if self.followers.is_empty() {
            return;
        }
        let moved = Arc::new(Delivery::ChatMoved { chat_id });
        for follower in &self.followers {
            if !follower.told.swap(true, AcqRel) {
                follower.queue.push(&moved);
            }
        }
    }

    /// Whether `epoch` is this chat's. Until its head was read, the latest epoch seen is adopted.
    pub(super) fn is_of(&mut self, epoch: &Epoch) -> bool {
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

    /// Notes that a publication says that the chat has reached `ev`.
    pub(super) fn hear(&mut self, chat_id: ChatId, ev: i64) {
        // Changes are committed in the order of their numbers, so what reads after this one sees those of
        // lower numbers that are told later.
        if ev > self.heard {
            self.heard = ev;
            self.tell_followers(chat_id);
        }
    }

    /// Delivers the pending changes that continue the cursor without a gap.
    pub(super) fn advance(&mut self, chat_id: ChatId) {
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
                self.push(Delivery::Event { chat_id, epoch, ev, micros, frame });
            }
        }
        self.cursor = Some(cursor);
    }

    pub(super) fn has_gap(&self) -> bool {
        self.cursor.is_some_and(|cursor| self.heard > cursor)
    }

    /// Moves the cursor: all changes up to `head_ev` were delivered.
    pub(super) fn move_cursor(&mut self, chat_id: ChatId, head_ev: i64) {
        self.cursor = Some(head_ev);
        self.confirmed = Instant::now();
        self.pending = self.pending.split_off(&(head_ev + 1));
        self.advance(chat_id);
    }

    /// Claims a gap for filling, if there is an unclaimed one.
    pub(super) fn claim(&mut self, chat_id: ChatId) -> Option<Gap> {
        if !self.has_gap() || self.filling {
            return None;
        }
        self.filling = true;
        Some(Gap(chat_id))
    }
}
