//! A counter, and its text in Redis.

use uuid::Uuid;

use crate::{
    model::{ChatId, ChatKind, Epoch, Notify, UserId},
    store::MemberState,
};

/// Smallest encoded counter, in bytes: two ids, five one-digit numbers, a time, a flag, separators.
const LEAST_OF_ONE: usize = 36 + 22 + 5 * 2 + 17 + 2 + 2;

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
    /// When the chat was last active, in microseconds since 1970.
    pub activity: i64,
    pub notify: Notify,
    pub archived: bool,
}

/// A change of a user's hash, in an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub user: UserId,
    pub epoch: Epoch,
    pub counter: CounterChange,
}

/// The new value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterChange {
    /// Of a direct chat.
    Set(Counter),
    /// Whether the user is in a group, as of `rev`.
    Group { chat_id: ChatId, rev: i64, is_member: bool },
    /// The chat was deleted, and no late write may restore its counter.
    Gone { chat_id: ChatId },
}

/// What is known of all chats of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserCounters {
    pub counters: Vec<Counter>,
    /// Groups of the user whose counters are not among these, with the `rev` of the copy: Postgres has
    /// them.
    pub groups: Vec<(ChatId, i64)>,
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
            activity: state.activity.0.as_microsecond(),
            notify: state.notify,
            archived: state.archived,
        }
    }
}

impl CounterChange {
    /// What Redis keeps of a member's state.
    pub fn of(state: &MemberState) -> Self {
        match state.kind {
            ChatKind::Direct => Self::Set(state.into()),
            ChatKind::Group => {
                let (chat_id, rev) = (state.chat_id, state.rev);
                Self::Group { chat_id, rev, is_member: !state.gone }
            }
        }
    }

    /// The field and its value.
    pub(super) fn encode(&self) -> (String, String) {
        match self {
            Self::Set(counter) => (counter.chat_id.to_string(), counter.encode()),
            Self::Group { chat_id, rev, is_member } => {
                let state = if *is_member { "in" } else { "out" };
                (format!("g:{chat_id}"), format!("{rev}|{state}"))
            }
            Self::Gone { chat_id } => (chat_id.to_string(), "gone".to_owned()),
        }
    }
}

impl UserCounters {
    /// Whether the counters of groups must be read from Postgres.
    pub fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The counters of all chats, as Postgres gave them.
    pub(super) fn loaded(states: &[MemberState]) -> Self {
        Self { counters: states.iter().map(Counter::from).collect(), groups: Vec::new() }
    }

    /// Decodes a whole hash: fields and values in turn, a line each.
    pub(super) fn decode(text: &str) -> Self {
        let mut counters = Vec::with_capacity(text.len() / LEAST_OF_ONE);
        let mut groups = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (field, value);
            (field, rest) = cut(rest, b'\n');
            (value, rest) = cut(rest, b'\n');
            match field.strip_prefix("g:") {
                Some(chat) => groups.extend(decode_group(chat, value)),
                None => counters.extend(Counter::decode(field, value)),
            }
        }
        Self { counters, groups }
    }
}

/// `None` for a group that the user is not in.
fn decode_group(chat: &str, value: &str) -> Option<(ChatId, i64)> {
    let rev = value.strip_suffix("|in")?.parse().ok()?;
    Some((Uuid::parse_str(chat).ok()?, rev))
}

impl Counter {
    pub(super) fn encode(&self) -> String {
        let Self { version, unread, last_seq, read_seq, activity, mentions, room_name, .. } = self;
        let notify = match self.notify {
            Notify::All => "a",
            Notify::Mentions => "m",
            Notify::None => "n",
        };
        let archived = if self.archived { "A" } else { "" };
        format!(
            "{version}|{unread}|{last_seq}|{read_seq}|{activity}|{mentions}|{notify}{archived}|{room_name}"
        )
    }

    /// `None` for tombstones and for the hash's own fields.
    pub(super) fn decode(field: &str, value: &str) -> Option<Self> {
        let chat_id = Uuid::parse_str(field).ok()?;
        let mut rest = value;
        let mut number = || {
            let digits;
            (digits, rest) = cut(rest, b'|');
            digits.parse().ok()
        };
        let (version, unread, last_seq) = (number()?, number()?, number()?);
        let (read_seq, activity, mentions) = (number()?, number()?, number()?);
        let (flags, room_name) = cut(rest, b'|');
        let (notify, archived) = match flags.strip_suffix('A') {
            Some(notify) => (notify, true),
            None => (flags, false),
        };
        let notify = match notify {
            "a" => Notify::All,
            "m" => Notify::Mentions,
            "n" => Notify::None,
            _ => return None,
        };
        let (kind, room_name) = (ChatKind::Direct, room_name.to_owned());
        Some(Self {
            chat_id,
            room_name,
            kind,
            version,
            unread,
            mentions,
            last_seq,
            read_seq,
            activity,
            notify,
            archived,
        })
    }
}

/// Splits at the first `separator`. Uses memchr, because the standard library's search showed in the
/// profile of users with hundreds of chats.
fn cut(text: &str, separator: u8) -> (&str, &str) {
    match memchr::memchr(separator, text.as_bytes()) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}
