//! From rows to objects, by position: several statements return the same runs of columns.

use serde_json::value::RawValue;
use tokio_postgres::{Row, types::Json};

use crate::model::{ChatId, Epoch, Message, Time, UserId};

/// What a write left a chat in: enough for both members' counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatState {
    pub chat_id: ChatId,
    pub room_name: String,
    pub user_lo: UserId,
    pub user_hi: UserId,
    pub last_seq: i64,
    pub last_ev: i64,
    /// The last message's `created_at`, else the chat's.
    pub activity: Time,
    pub lo_read: i64,
    pub lo_unread: i64,
    pub hi_read: i64,
    pub hi_unread: i64,
    /// The history that all of it is of, by the statement that wrote or read it.
    pub epoch: Epoch,
}

/// Columns of [`message`], of a table named `m`, after its `chat_id`.
macro_rules! message_columns {
    () => {
        "m.seq, m.ev, m.message_id, m.sender_id, m.client_msg_id, m.text, m.metadata, \
         m.created_at, m.edited_at, m.deleted_at"
    };
}
pub(super) use message_columns;

/// The function `epoch()` as an expression: called, it would be planned with every statement.
macro_rules! epoch {
    () => {
        "(SELECT incarnation || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM instance)"
    };
}
pub(super) use epoch;

/// What [`epoch!`] gives, in column `at`.
pub(super) fn epoch_at(row: &Row, at: usize) -> Epoch {
    row.get::<_, &str>(at).into()
}

/// A user id from the database was checked when it came in.
pub(super) fn user(raw: &str) -> UserId {
    UserId::trusted(raw)
}

pub(super) fn opt_time(row: &Row, at: usize) -> Option<Time> {
    row.get::<_, Option<jiff::Timestamp>>(at).map(Time)
}

/// `message_columns!()` from column `at` on.
pub(super) fn message(chat_id: ChatId, row: &Row, at: usize) -> Message {
    Message {
        chat_id,
        seq: row.get(at),
        ev: row.get(at + 1),
        message_id: row.get(at + 2),
        sender_id: user(row.get(at + 3)),
        client_msg_id: row.get(at + 4),
        text: row.get(at + 5),
        metadata: row.get::<_, Option<Json<Box<RawValue>>>>(at + 6).map(|json| json.0),
        created_at: Time(row.get(at + 7)),
        edited_at: opt_time(row, at + 8),
        deleted_at: opt_time(row, at + 9),
    }
}

/// The eleven columns of the type `chat_state`, from column `at` on, and then the epoch.
pub(super) fn chat_state(row: &Row, at: usize) -> ChatState {
    ChatState {
        chat_id: row.get(at),
        room_name: row.get(at + 1),
        user_lo: user(row.get(at + 2)),
        user_hi: user(row.get(at + 3)),
        last_seq: row.get(at + 4),
        last_ev: row.get(at + 5),
        activity: Time(row.get(at + 6)),
        lo_read: row.get(at + 7),
        lo_unread: row.get(at + 8),
        hi_read: row.get(at + 9),
        hi_unread: row.get(at + 10),
        epoch: epoch_at(row, at + 11),
    }
}
