//! Gaps in a chat's publications, and the comparison of its cursor with Postgres.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use super::{Delivery, Fill, Gap, Hub, entry::Entry};
use crate::{
    model::{ChatId, Epoch},
    protocol::ResetReason,
};

impl Hub {
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
        // Without a cursor there is no gap: the next subscriber reads the chat first.
        let Some(cursor) = entry.cursor else { return false };
        let moves = entry.epoch.as_ref() == Some(&fill.epoch) && fill.head_ev > cursor;
        if moves {
            self.metrics.gaps_filled.inc();
            let head_ev = fill.head_ev;
            entry.push(Delivery::Catchup { chat_id, fill: Arc::new(fill) });
            entry.move_cursor(chat_id, head_ev);
        }
        entry.hear(chat_id, entry.cursor.unwrap_or(cursor));
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
        if let Some(entry) = self.shard(chat_id).get_mut(&chat_id)
            && entry.cursor.is_some()
        {
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
        entry.push(Delivery::Reset { chat_id, head_ev, epoch: Epoch::clone(epoch), reason });
        entry.epoch = Some(Epoch::clone(epoch));
        entry.heard = head_ev;
        entry.pending.clear();
        entry.move_cursor(chat_id, head_ev);
        entry.tell_followers(chat_id);
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
        let entry = shard.get_mut(&chat_id).filter(|entry| entry.cursor.is_some())?;
        // Within an epoch no head goes back, unless an old copy of the database was restored
        // without a new epoch.
        if !entry.is_of(epoch) || head_ev < seen {
            let reason = ResetReason::UnknownPosition;
            self.reset_entry(entry, chat_id, head_ev, epoch, reason);
            return None;
        }
        if head_ev > seen {
            entry.hear(chat_id, head_ev);
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
}
