//! What a client knows of one chat: a window of its messages without holes, the position in its
//! changes, the markers, and what is on its way out.
//!
//! Two orders must not be mixed up. `seq` places a message; `ev` says how new a piece of knowledge is.
//! A frame is dropped by the chat's `ev`, a version of a message by the message's own.

use std::collections::BTreeMap;

use beseda_protocol::{
    ReceivedFrame,
    model::{Message, MessageId, Time, UserId},
    rest::HistoryView,
};

use super::{
    carried,
    outbox::{Outbox, Pending},
};
use crate::Window;

/// Most messages kept; beyond that the far end is dropped, and read again when it is needed.
const MAX_WINDOW: usize = 600;

/// Where a client stands: it knows what happened up to `ev` in the history named `epoch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub ev: i64,
    pub epoch: String,
}

/// A message's place.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Message(Box<Message>),
    /// Of a message that was deleted before this client saw it: nobody knows whose it was.
    Tombstone {
        message_id: MessageId,
        seq: i64,
        ev: i64,
        deleted_at: Option<Time>,
    },
}

impl Entry {
    pub fn seq(&self) -> i64 {
        match self {
            Self::Message(message) => message.seq,
            Self::Tombstone { seq, .. } => *seq,
        }
    }

    fn ev(&self) -> i64 {
        match self {
            Self::Message(message) => message.ev,
            Self::Tombstone { ev, .. } => *ev,
        }
    }

    /// The message, or what is left of one that was deleted.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Tombstone { .. } => None,
        }
    }

    pub fn is_deleted(&self) -> bool {
        self.message().is_none_or(|message| message.deleted_at.is_some())
    }
}

/// What a frame was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    News,
    Old,
    /// Something before it is missing; nothing was taken.
    Gap,
}

/// One chat.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Ascending by `seq`.
    entries: Vec<Entry>,
    pub(super) outbox: Outbox,
    loaded: bool,
    has_more_before: bool,
    at_end: bool,
    head_seq: i64,
    position: Option<Position>,
    read_seq: i64,
    peer_read_seq: i64,
    /// How far each other member has read.
    receipts: BTreeMap<UserId, i64>,
    online_count: Option<i32>,
    /// Whether every `ev` comes now, one by one.
    synced: bool,
    /// Frames that came while a page is on its way, and may be newer than it.
    meanwhile: Option<Vec<ReceivedFrame>>,
    /// Counts the fresh starts: a page asked for before the latest one does not fit any more.
    generation: u64,
    pages_in_flight: usize,
    /// Up to where it is to be marked as read, and whether a mark is in flight.
    pub(super) to_mark: i64,
    pub(super) marking: bool,
}

impl Timeline {
    /// Nothing but what is on its way out.
    pub(super) fn with_outbox(outbox: Outbox) -> Self {
        Self { outbox, ..Self::default() }
    }

    /// Ascending by `seq`, without a hole.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is on its way out, in the order of sending; with what failed.
    pub fn pending(&self) -> &[Pending] {
        &self.outbox.pending
    }

    /// Where to resume; `None` before the first page.
    pub fn position(&self) -> Option<Position> {
        self.position.clone().filter(|_| self.loaded)
    }

    /// Whether there is a first page.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether every change comes now, one by one.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    pub fn has_more_before(&self) -> bool {
        self.has_more_before
    }

    /// Whether the window reaches the newest message.
    pub fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// The newest message's number.
    pub fn head_seq(&self) -> i64 {
        self.head_seq
    }

    pub fn read_seq(&self) -> i64 {
        self.read_seq
    }

    /// Up to which message somebody else has read: in a direct chat the other member, in a group the one
    /// who has read furthest. 0 in a chat without receipts.
    pub fn peer_read_seq(&self) -> i64 {
        self.peer_read_seq
    }

    /// How far each other member has read, known from the subscription on. Who is missing has read nothing;
    /// empty in a chat without receipts.
    pub fn receipts(&self) -> &BTreeMap<UserId, i64> {
        &self.receipts
    }

    /// How many members are online, as the latest subscription said; `None`: unknown, or the chat is too large.
    /// In a chat without receipts nothing else tells who is.
    pub fn online_count(&self) -> Option<i32> {
        self.online_count
    }

    pub(super) fn low_seq(&self) -> i64 {
        self.entries.first().map_or(0, Entry::seq)
    }

    pub(super) fn high_seq(&self) -> i64 {
        self.entries.last().map_or(0, Entry::seq)
    }

    pub(super) fn is_loading(&self) -> bool {
        self.pages_in_flight > 0
    }

    /// A page is asked for; gives the number to answer under.
    pub(super) fn begin_load(&mut self, window: Window) -> u64 {
        if window == Window::Newest {
            self.generation += 1;
        }
        self.pages_in_flight += 1;
        self.meanwhile.get_or_insert_default();
        self.generation
    }

    /// The page that was asked for, or none. Whether it was still wanted.
    ///
    /// Frames that overtook it are applied once more on top of it: they may have found nothing to
    /// change the first time.
    pub(super) fn end_load(
        &mut self,
        load: u64,
        window: Window,
        page: Option<&HistoryView>,
        me: Option<&UserId>,
    ) -> bool {
        self.pages_in_flight = self.pages_in_flight.saturating_sub(1);
        let wanted = load == self.generation;
        if let Some(page) = page.filter(|_| wanted) {
            self.take_page(window, page, me);
            for frame in self.meanwhile.clone().unwrap_or_default() {
                self.change(&frame, me);
            }
        }
        if self.pages_in_flight == 0 {
            self.meanwhile = None;
        }
        wanted
    }

    fn take_page(&mut self, window: Window, page: &HistoryView, me: Option<&UserId>) {
        let entries = || page.results.iter().cloned().map(Box::new).map(Entry::Message);
        match window {
            Window::Newest | Window::Around(_) => {
                self.entries = entries().collect();
                self.has_more_before = page.has_more_before;
                self.at_end = !page.has_more_after;
                // What came while the page was on its way is applied on top of it.
                let came = self.position.take().filter(|position| position.epoch == page.epoch);
                let ev = came.map_or(page.head_ev, |position| position.ev.max(page.head_ev));
                self.position = Some(Position { ev, epoch: page.epoch.clone() });
                self.read_seq = page.read_seq;
                self.peer_read_seq = page.peer_read_seq.unwrap_or_else(|| self.furthest());
                (self.head_seq, self.loaded) = (page.head_seq, true);
            }
            // Where the window has moved since, there would be a hole.
            Window::Before(low) if low == self.low_seq() => {
                self.entries.splice(..0, entries().filter(|entry| entry.seq() < low));
                self.has_more_before = page.has_more_before;
                if self.entries.len() > MAX_WINDOW {
                    self.entries.truncate(MAX_WINDOW);
                    self.at_end = false;
                }
            }
            Window::After(high) if high == self.high_seq() => {
                self.entries.extend(entries().filter(|entry| entry.seq() > high));
                self.at_end = !page.has_more_after;
                self.trim_start();
            }
            Window::Before(_) | Window::After(_) => {}
        }
        self.head_seq = self.head_seq.max(page.head_seq);
        self.read_seq = self.read_seq.max(page.read_seq);
        self.peer_read_seq = self.peer_read_seq.max(page.peer_read_seq.unwrap_or(0));
        for message in &page.results {
            self.forget_pending(message, me);
        }
    }

    /// Takes a frame of this chat.
    pub(super) fn apply(&mut self, frame: &ReceivedFrame, me: Option<&UserId>) -> Taken {
        match frame {
            ReceivedFrame::Reset { head_ev, epoch, .. } => {
                self.position = Some(Position { ev: *head_ev, epoch: epoch.clone() });
                self.synced = false;
                self.generation += 1;
                if let Some(meanwhile) = &mut self.meanwhile {
                    meanwhile.clear();
                }
                Taken::News
            }
            // What was superseded is left out from here to `synced`, so numbers may be skipped.
            ReceivedFrame::Subscribed {
                read_seq, peer_read_seq, receipts, online_count, ..
            } => {
                self.synced = false;
                self.online_count = *online_count;
                // A mark without a number is in no resume.
                self.read_seq = self.read_seq.max(*read_seq);
                let others = receipts.iter().filter(|receipt| Some(&receipt.user_id) != me);
                self.receipts = others.map(|one| (one.user_id.clone(), one.read_seq)).collect();
                let furthest = self.furthest().max(peer_read_seq.unwrap_or(0));
                self.peer_read_seq = self.peer_read_seq.max(furthest);
                Taken::News
            }
            ReceivedFrame::Catchup { .. } => {
                self.synced = false;
                Taken::News
            }
            ReceivedFrame::ChatRead { ev: None, .. } => {
                self.remember(frame);
                self.change(frame, me);
                Taken::News
            }
            ReceivedFrame::Synced { ev, .. } => {
                if let Some(position) = &mut self.position {
                    position.ev = position.ev.max(*ev);
                }
                self.synced = true;
                Taken::News
            }
            _ => self.apply_change(frame, me),
        }
    }

    fn apply_change(&mut self, frame: &ReceivedFrame, me: Option<&UserId>) -> Taken {
        let (Some((_, ev)), Some(position)) = (frame.change(), &mut self.position) else {
            return Taken::Old;
        };
        if ev <= position.ev {
            return Taken::Old;
        }
        // `skipped` stands for all numbers up to its own.
        let may_skip = !self.synced || matches!(frame, ReceivedFrame::Skipped { .. });
        if !may_skip && ev > position.ev + 1 {
            return Taken::Gap;
        }
        position.ev = ev;
        self.remember(frame);
        self.change(frame, me);
        Taken::News
    }

    fn remember(&mut self, frame: &ReceivedFrame) {
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.push(frame.clone());
        }
    }

    fn change(&mut self, frame: &ReceivedFrame, me: Option<&UserId>) {
        match frame {
            ReceivedFrame::MessageCreated { message, .. }
            | ReceivedFrame::MessageUpdated { message, .. } => self.accept(message.clone(), me),
            ReceivedFrame::MessageDeleted { ev, message_id, seq, deleted_at, .. } => {
                self.bury(*ev, *message_id, *seq, *deleted_at);
            }
            ReceivedFrame::ChatRead { user_id, read_seq, .. } if Some(user_id) == me => {
                self.read_seq = self.read_seq.max(*read_seq);
            }
            ReceivedFrame::ChatRead { user_id, read_seq, .. } => {
                let marker = self.receipts.entry(user_id.clone()).or_default();
                *marker = (*marker).max(*read_seq);
                self.peer_read_seq = self.peer_read_seq.max(*read_seq);
            }
            ReceivedFrame::MemberLeft { user_id, .. } => {
                self.receipts.remove(user_id);
            }
            // A chat that has outgrown its receipts tells of none any more.
            ReceivedFrame::ChatChanged(change) if !change.receipts => self.receipts.clear(),
            _ => {}
        }
    }

    fn furthest(&self) -> i64 {
        self.receipts.values().copied().max().unwrap_or(0)
    }

    /// Takes a version of a message, from a frame or from an answer.
    pub(super) fn accept(&mut self, mut message: Message, me: Option<&UserId>) {
        self.forget_pending(&message, me);
        let before = self.find(message.seq).ok().and_then(|at| self.entries[at].message());
        carried::keep_own_reactions(&mut message, before, me);
        self.place(Entry::Message(Box::new(message)));
    }

    /// A deleted message keeps what the frame does not repeat: whose it was, and when.
    fn bury(&mut self, ev: i64, message_id: MessageId, seq: i64, deleted_at: Option<Time>) {
        let known = self.entries.iter().filter_map(Entry::message);
        let known = known.into_iter().find(|message| message.message_id == message_id);
        let entry = match known.cloned() {
            Some(mut message) => {
                carried::bury(&mut message, ev, deleted_at);
                Entry::Message(Box::new(message))
            }
            None => Entry::Tombstone { message_id, seq, ev, deleted_at },
        };
        self.place(entry);
    }

    fn place(&mut self, entry: Entry) {
        let seq = entry.seq();
        self.head_seq = self.head_seq.max(seq);
        match self.find(seq) {
            Ok(at) if entry.ev() >= self.entries[at].ev() => {
                self.quote_again(&entry);
                self.entries[at] = entry;
            }
            Ok(_) => {}
            Err(at) => {
                self.quote_again(&entry);
                if self.is_in_window(seq) {
                    self.entries.insert(at, entry);
                    if at + 1 == self.entries.len() {
                        self.trim_start();
                    }
                }
            }
        }
    }

    fn find(&self, seq: i64) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&seq, Entry::seq)
    }

    /// Brings the answers to a message up to date, which may not be in the window itself.
    fn quote_again(&mut self, answered: &Entry) {
        // Answers come later than what they answer.
        let from = self.entries.partition_point(|entry| entry.seq() <= answered.seq());
        for entry in &mut self.entries[from..] {
            if let Entry::Message(message) = entry {
                match answered {
                    Entry::Message(answered) => carried::quote_again(message, answered),
                    Entry::Tombstone { message_id, .. } => {
                        carried::bury_quote(message, *message_id)
                    }
                }
            }
        }
    }

    fn is_in_window(&self, seq: i64) -> bool {
        if seq > self.high_seq() {
            return self.loaded && self.at_end;
        }
        self.loaded && (seq > self.low_seq() || !self.has_more_before)
    }

    fn trim_start(&mut self) {
        let excess = self.entries.len().saturating_sub(MAX_WINDOW);
        if excess > 0 && self.at_end {
            self.entries.drain(..excess);
            self.has_more_before = true;
        }
    }

    /// Keys are the sender's own: another person's message may have the same.
    fn forget_pending(&mut self, message: &Message, me: Option<&UserId>) {
        if let Some(id) = message.client_msg_id.as_deref()
            && message.sender_id.is_some()
            && message.sender_id.as_ref() == me
        {
            self.outbox.forget(id);
        }
    }

    pub(super) fn marked(&mut self, read_seq: i64) {
        self.read_seq = self.read_seq.max(read_seq);
    }
}
