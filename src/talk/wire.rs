//! What the service says, as far as it is shown here. Fields and frames that are not known are
//! ignored, as the protocol asks of its clients.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A room, as it was opened or found.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Room {
    pub(super) chat_id: Uuid,
    pub(super) other_user: Person,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Person {
    pub(super) user_id: String,
    pub(super) name: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Message {
    pub(super) seq: i64,
    pub(super) ev: i64,
    pub(super) sender_id: String,
    pub(super) text: String,
    #[serde(default)]
    pub(super) client_msg_id: Option<String>,
    pub(super) created_at: Timestamp,
    #[serde(default)]
    pub(super) edited_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) deleted_at: Option<Timestamp>,
}

/// A page of history.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Page {
    pub(super) results: Vec<Message>,
    pub(super) has_more_before: bool,
    pub(super) has_more_after: bool,
    pub(super) head_seq: i64,
    pub(super) head_ev: i64,
    pub(super) epoch: String,
    pub(super) read_seq: i64,
    pub(super) peer_read_seq: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ticket {
    pub(super) ws_url: String,
}

/// A failure, by RFC 9457.
#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    #[serde(default)]
    pub(super) detail: String,
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
}

/// From the service.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum Frame {
    #[serde(rename = "hello")]
    Hello { heartbeat_ms: u64 },
    #[serde(rename = "subscribed")]
    Subscribed { peer_read_seq: i64, online: Vec<String> },
    #[serde(rename = "message.created", alias = "message.updated")]
    Message { ev: i64, message: Message },
    #[serde(rename = "message.deleted")]
    Deleted { ev: i64, seq: i64 },
    #[serde(rename = "chat.read")]
    Read { ev: i64, user_id: String, read_seq: i64 },
    #[serde(rename = "synced")]
    Synced { ev: i64 },
    #[serde(rename = "catchup")]
    Catchup {},
    #[serde(rename = "reset")]
    Reset {},
    #[serde(rename = "typing")]
    Typing { user_id: String, typing: bool },
    #[serde(rename = "presence")]
    Presence { user_id: String, online: bool },
    #[serde(rename = "ack")]
    Ack {
        #[serde(default)]
        id: Option<String>,
        #[serde(default)]
        message: Option<Message>,
        #[serde(default)]
        read_seq: Option<i64>,
    },
    #[serde(rename = "error")]
    Error {
        #[serde(default)]
        id: Option<String>,
        code: String,
        detail: String,
        #[serde(default)]
        retry_after_ms: Option<u64>,
    },
    #[serde(rename = "token.expiring")]
    TokenExpiring {},
    #[serde(rename = "bye")]
    Bye { reconnect_in_ms: u64 },
    #[serde(other)]
    Unknown,
}

/// To the service.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Command<'a> {
    Send { id: &'a str, text: &'a str, client_msg_id: &'a str },
    MarkRead { id: &'a str, up_to_seq: i64 },
    Auth { id: &'a str, token: &'a str },
    Ping,
}
