//! What is kept of a person, as lines of an export.

use serde::Serialize;
use utoipa::ToSchema;

use super::{ChatId, Message, MessageId, ReportId, Time, UserId};

/// A line of an export.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExportLine {
    Profile(ExportedProfile),
    Block(ExportedBlock),
    Room(ExportedRoom),
    /// One of the person's own; those of a room follow it.
    Message(Box<Message>),
    Report(ExportedReport),
    /// The last line, where the export is complete, and only there.
    End(ExportEnd),
}

/// The person.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedProfile {
    pub user_id: UserId,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
    /// When they became known.
    pub created_at: Time,
    pub last_seen_at: Option<Time>,
}

/// Somebody whom the person has blocked.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedBlock {
    pub user_id: UserId,
    pub created_at: Time,
}

/// A room of the person's.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ExportedRoom {
    #[schema(value_type = Uuid)]
    pub chat_id: ChatId,
    pub room_name: String,
    pub created_at: Time,
    pub created_by: UserId,
    pub other_user_id: UserId,
    /// Up to which `seq` the person has read.
    pub read_seq: i64,
    /// How many messages the room has, of both; the person's own up to it follow.
    pub last_seq: i64,
}

/// A report that the person has made; without the message, which is somebody else's words.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedReport {
    #[schema(value_type = Uuid)]
    pub report_id: ReportId,
    #[schema(value_type = Uuid)]
    pub chat_id: ChatId,
    #[schema(value_type = Uuid)]
    pub message_id: MessageId,
    pub seq: i64,
    /// Whose message it is.
    pub sender_id: UserId,
    pub reason: Option<String>,
    pub created_at: Time,
}

/// How many lines of each kind there were.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct ExportEnd {
    pub blocks: u64,
    pub rooms: u64,
    pub messages: u64,
    pub reports: u64,
}
