//! A counter, and its text in Redis.

use std::collections::{HashMap, hash_map::Entry};

use uuid::Uuid;

use crate::{
    model::{ChatId, ChatKind, Epoch, OwnFlags, Time, UserId},
    store::{GroupHead, MemberState},
};

/// Smallest encoded counter, in bytes: two ids, five one-digit numbers, a time, a flag, separators.
const LEAST_OF_ONE: usize = 36 + 22 + 5 * 2 + 17 + 2 + 2;

/// The length of a chat's id. The hash's own fields are shorter, those of groups longer.
const ID_LENGTH: usize = 36;

/// A user's unread counter of one chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    pub chat_id: ChatId,
    pub room_name: String,
    pub kind: ChatKind,
    /// Grows with every change, see [`MemberState::version`].
    pub version: i64,
    pub unread: i64,
    /// Those of the unread messages that mention the user.
    pub mentions: i64,
    pub last_seq: i64,
    pub read_seq: i64,
    /// When the chat was last active.
    pub activity: Time,
    pub flags: OwnFlags,
}

/// What is to be written: of members, of groups, and which chats are no more.
#[derive(Debug, Default)]
pub struct Copies {
    pub(crate) changes: Vec<Change>,
    /// Where groups stand.
    pub(crate) heads: HashMap<ChatId, GroupHead>,
    /// Chats that were deleted.
    pub(crate) ended: Vec<(ChatId, Epoch)>,
}

impl Copies {
    /// Those of these states of members.
    pub fn of(states: &[MemberState]) -> Self {
        let mut copies = Self::default();
        states.iter().for_each(|state| copies.add_state(state));
        copies
    }

    pub fn append(&mut self, mut later: Self) {
        self.changes.append(&mut later.changes);
        later.heads.into_values().for_each(|head| self.add_head(head));
        self.ended.append(&mut later.ended);
    }

    /// Adds what is kept of a member's state.
    pub fn add_state(&mut self, state: &MemberState) {
        self.add(&state.user_id, &state.epoch, CounterChange::of(state));
        if let Some(head) = state.head() {
            self.add_head(head);
        }
    }

    /// Adds where a group stands.
    pub fn add_head(&mut self, head: GroupHead) {
        match self.heads.entry(head.chat_id) {
            Entry::Vacant(entry) => drop(entry.insert(head)),
            Entry::Occupied(mut entry) if entry.get().last_ev < head.last_ev => {
                entry.insert(head);
            }
            Entry::Occupied(_) => {}
        }
    }

    pub fn add(&mut self, user: &UserId, epoch: &Epoch, counter: CounterChange) {
        let (user, epoch) = (user.clone(), Epoch::clone(epoch));
        self.changes.push(Change { user, epoch, counter });
    }

    /// Adds that a chat was deleted.
    pub fn end(&mut self, chat_id: ChatId, epoch: &Epoch) {
        self.ended.push((chat_id, Epoch::clone(epoch)));
    }
}

/// A change of a user's hash, in an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) user: UserId,
    pub(crate) epoch: Epoch,
    pub(crate) counter: CounterChange,
}

/// The new value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterChange {
    /// Of a direct chat.
    Direct(Counter),
    /// Of a group that the user is in.
    Group(GroupCounter),
    /// The user is out of a group, as of a `rev`.
    Out { chat_id: ChatId, rev: i64 },
    /// The chat was deleted, and no late write may restore its counter.
    Gone { chat_id: ChatId },
}

/// A user's counter of a group as it was at a revision. Of later messages the group's head tells, so that
/// none of them writes a counter of each member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCounter {
    pub counter: Counter,
    /// Of the member's row. Read markers of large groups move without the chat's lock, so their states are
    /// in the order of this number and not in that of the version.
    pub rev: i64,
    pub ev: i64,
    /// The number of messages up to there that count as unread for somebody.
    pub counted: i64,
}

/// What is known of all chats of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserCounters {
    pub counters: Vec<Counter>,
    /// Groups of the user whose counters are not among these, with the `rev` of the copy: Postgres has
    /// them.
    pub unknown: Vec<(ChatId, i64)>,
}

impl From<&MemberState> for Counter {
    fn from(state: &MemberState) -> Self {
        Self {
            chat_id: state.chat_id,
            room_name: state.room_name.clone(),
            kind: state.kind,
            version: state.version(),
            unread: state.unread,
            mentions: state.mentions,
            last_seq: state.last_seq,
            read_seq: state.read_seq,
            activity: state.activity,
            flags: state.flags,
        }
    }
}

impl CounterChange {
    /// What Redis keeps of a member's state.
    pub fn of(state: &MemberState) -> Self {
        match state.kind {
            ChatKind::Direct => Self::Direct(state.into()),
            ChatKind::Group if state.gone => Self::Out { chat_id: state.chat_id, rev: state.rev },
            ChatKind::Group => Self::Group(GroupCounter {
                counter: state.into(),
                rev: state.rev,
                ev: state.last_ev,
                counted: state.counted,
            }),
        }
    }

    /// The field and its value. `heads` is the beginning of heads' keys: the field of a group is named as the
    /// key of its head.
    pub(super) fn encode(&self, heads: &str) -> (String, String) {
        match self {
            Self::Direct(counter) => (counter.chat_id.to_string(), counter.encode()),
            Self::Group(GroupCounter { counter, rev, ev, counted }) => {
                let (field, rest) = (format!("{heads}{}", counter.chat_id), counter.encode_rest());
                (field, format!("{rev}|{ev}|{counted}|{rest}"))
            }
            Self::Out { chat_id, rev } => (format!("{heads}{chat_id}"), format!("{rev}|out")),
            Self::Gone { chat_id } => (chat_id.to_string(), "gone".to_owned()),
        }
    }
}

impl UserCounters {
    /// The counters of all chats, as Postgres gave them.
    pub(super) fn loaded(states: &[MemberState]) -> Self {
        Self { counters: states.iter().map(Counter::from).collect(), unknown: Vec::new() }
    }

    /// Decodes a whole hash: fields and values in turn, a line each; then, after a line with `heads`, a
    /// line with the head of each group, in the order of their fields, and empty where there is none.
    /// Heads of another epoch or generation are none.
    pub(super) fn decode(text: &str, epoch: &str, generation: &str) -> Self {
        let mut counters = Vec::with_capacity(text.len() / LEAST_OF_ONE);
        let mut groups = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (field, value);
            (field, rest) = cut(rest, b'\n');
            if field == "heads" {
                break;
            }
            (value, rest) = cut(rest, b'\n');
            match field.len().checked_sub(ID_LENGTH) {
                Some(0) => counters.extend(Counter::decode(field, value)),
                Some(prefix) => {
                    let chat = field.get(prefix..).unwrap_or_default();
                    groups.push(GroupCounter::decode(chat, value));
                }
                None => {}
            }
        }
        let (mut unknown, valid) = (Vec::new(), format!("{epoch}|{generation}|"));
        for group in groups {
            let head;
            (head, rest) = cut(rest, b'\n');
            let Some(group) = group else { continue };
            let known = (group.counter.chat_id, group.rev);
            let head = head.strip_prefix(&*valid).and_then(Head::decode);
            match head.and_then(|head| group.at(&head)) {
                Some(counter) => counters.push(counter),
                None => unknown.push(known),
            }
        }
        Self { counters, unknown }
    }
}

impl Counter {
    fn encode(&self) -> String {
        format!("{}|{}", self.version, self.encode_rest())
    }

    /// All but the version.
    fn encode_rest(&self) -> String {
        let Self { unread, last_seq, read_seq, mentions, flags, room_name, .. } = self;
        let activity = self.activity.0.as_microsecond();
        format!("{unread}|{last_seq}|{read_seq}|{activity}|{mentions}|{flags}|{room_name}")
    }

    /// `None` for tombstones and for the hash's own fields.
    pub(super) fn decode(field: &str, value: &str) -> Option<Self> {
        let chat_id = Uuid::parse_str(field).ok()?;
        let (version, rest) = number(value)?;
        Self::decode_rest(chat_id, ChatKind::Direct, version, rest)
    }

    fn decode_rest(chat_id: ChatId, kind: ChatKind, version: i64, text: &str) -> Option<Self> {
        let (unread, rest) = number(text)?;
        let (last_seq, rest) = number(rest)?;
        let (read_seq, rest) = number(rest)?;
        let (activity, rest) = number(rest)?;
        let (mentions, rest) = number(rest)?;
        let (flags, room_name) = cut(rest, b'|');
        Some(Self {
            chat_id,
            room_name: room_name.to_owned(),
            kind,
            version,
            unread,
            mentions,
            last_seq,
            read_seq,
            activity: Time::from_micros(activity)?,
            flags: OwnFlags::parse(flags)?,
        })
    }
}

impl GroupCounter {
    /// `None` for a group that the user is not in.
    fn decode(chat: &str, value: &str) -> Option<Self> {
        let chat_id = Uuid::parse_str(chat).ok()?;
        let (rev, rest) = number(value)?;
        let (ev, rest) = number(rest)?;
        let (counted, rest) = number(rest)?;
        let counter = Counter::decode_rest(chat_id, ChatKind::Group, rev + ev, rest)?;
        Some(Self { counter, rev, ev, counted })
    }

    /// The counter where the group stands at `head`. A head that is older than the copy has nothing to add.
    /// `None`: something has happened since that only Postgres can count.
    fn at(mut self, head: &Head) -> Option<Counter> {
        if head.ev > self.ev {
            if head.recount_ev > self.ev {
                return None;
            }
            // All of them by others: a message of the user's own writes their copy before the head.
            self.counter.unread += head.counted - self.counted;
            self.counter.last_seq = head.last_seq;
            self.counter.activity = head.activity;
        }
        Some(self.counter)
    }
}

/// Where a group stands, as Redis has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    ev: i64,
    counted: i64,
    last_seq: i64,
    activity: Time,
    recount_ev: i64,
}

/// The value of a group's head, without its epoch and generation.
pub(super) fn encode_head(head: &GroupHead) -> String {
    let GroupHead { last_ev, counted, last_seq, activity, recount_ev, .. } = head;
    let activity = activity.0.as_microsecond();
    format!("{last_ev}|{counted}|{last_seq}|{activity}|{recount_ev}")
}

impl Head {
    fn decode(text: &str) -> Option<Self> {
        let (ev, rest) = number(text)?;
        let (counted, rest) = number(rest)?;
        let (last_seq, rest) = number(rest)?;
        let (activity, rest) = number(rest)?;
        let (recount_ev, _) = number(rest)?;
        Some(Self { ev, counted, last_seq, activity: Time::from_micros(activity)?, recount_ev })
    }
}

/// Reads a number and skips the separator behind it.
fn number(text: &str) -> Option<(i64, &str)> {
    let (digits, rest) = cut(text, b'|');
    Some((digits.parse().ok()?, rest))
}

/// Splits at the first `separator`. Uses memchr, because the standard library's search showed in the
/// profile of users with hundreds of chats.
fn cut(text: &str, separator: u8) -> (&str, &str) {
    match memchr::memchr(separator, text.as_bytes()) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}
