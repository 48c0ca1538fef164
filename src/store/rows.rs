//! Turns rows into objects. Several statements return the same columns, so each group is named once here.

use serde_json::value::RawValue;
use tokio_postgres::{Row, types::Json};

use crate::model::{ChatId, Epoch, Message, Time, UserId};

/// The state of a chat after a write: enough for both members' counters.
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
    /// The history that the state belongs to, read by the same statement.
    pub epoch: Epoch,
}

/// The columns that [`message`] reads, of a table named `m`. The prefix keeps them apart from a chat's and
/// a report's.
macro_rules! message_columns {
    () => {
        "m.seq AS m_seq, m.ev AS m_ev, m.message_id AS m_message_id, m.sender_id AS m_sender_id, \
         m.client_msg_id AS m_client_msg_id, m.text AS m_text, m.metadata AS m_metadata, \
         m.created_at AS m_created_at, m.edited_at AS m_edited_at, m.deleted_at AS m_deleted_at"
    };
}
pub(super) use message_columns;

/// The function `epoch()` as an expression, since a call would be planned with every statement. As a
/// column its name is `epoch`.
macro_rules! epoch {
    () => {
        "(SELECT incarnation || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS epoch FROM instance)"
    };
}
pub(super) use epoch;

/// Reads the column of [`epoch!`].
pub(super) fn epoch_of(row: &Row) -> Epoch {
    row.get::<_, &str>("epoch").into()
}

/// A user id from the database was checked when it came in.
pub(super) fn user(raw: &str) -> UserId {
    UserId::trusted(raw)
}

pub(super) fn time(row: &Row, column: &str) -> Time {
    Time(row.get(column))
}

pub(super) fn opt_time(row: &Row, column: &str) -> Option<Time> {
    row.get::<_, Option<jiff::Timestamp>>(column).map(Time)
}

pub(super) fn json(row: &Row, column: &str) -> Option<Box<RawValue>> {
    row.get::<_, Option<Json<Box<RawValue>>>>(column).map(|json| json.0)
}

/// Whether the row has a message: an outer join may have found none.
pub(super) fn has_message(row: &Row) -> bool {
    row.get::<_, Option<i64>>("m_seq").is_some()
}

/// Reads [`message_columns!`].
pub(super) fn message(chat_id: ChatId, row: &Row) -> Message {
    Message {
        chat_id,
        seq: row.get("m_seq"),
        ev: row.get("m_ev"),
        message_id: row.get("m_message_id"),
        sender_id: user(row.get("m_sender_id")),
        client_msg_id: row.get("m_client_msg_id"),
        text: row.get("m_text"),
        metadata: json(row, "m_metadata"),
        created_at: time(row, "m_created_at"),
        edited_at: opt_time(row, "m_edited_at"),
        deleted_at: opt_time(row, "m_deleted_at"),
    }
}

/// Reads the columns of the type `chat_state`, and the epoch.
pub(super) fn chat_state(row: &Row) -> ChatState {
    ChatState {
        chat_id: row.get("chat_id"),
        room_name: row.get("room_name"),
        user_lo: user(row.get("user_lo")),
        user_hi: user(row.get("user_hi")),
        last_seq: row.get("last_seq"),
        last_ev: row.get("last_ev"),
        activity: time(row, "activity"),
        lo_read: row.get("lo_read"),
        lo_unread: row.get("lo_unread"),
        hi_read: row.get("hi_read"),
        hi_unread: row.get("hi_unread"),
        epoch: epoch_of(row),
    }
}
