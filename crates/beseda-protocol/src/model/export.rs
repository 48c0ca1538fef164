//! What is kept of a person, as lines of an export.

use serde::{Deserialize, Serialize};

use super::{ChatId, Message, MessageId, ReportId, Time, UserId};
use crate::tagged;

/// A line of an export.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExportLine {
    Profile(ExportedProfile),
    Block(ExportedBlock),
    Chat(ExportedChat),
    /// One of the person's own; those of a chat follow it.
    Message(Box<Message>),
    Report(ExportedReport),
    /// The last line, where the export is complete, and only there.
    End(ExportEnd),
}

impl ExportLine {
    /// Decodes a line.
    ///
    /// ```
    /// use beseda_protocol::model::ExportLine;
    ///
    /// let line = r#"{"type":"end","blocks":0,"chats":1,"messages":2,"reports":0}"#;
    /// assert!(matches!(ExportLine::decode(line)?, ExportLine::End(end) if end.messages == 2));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// It is no line of an export.
    pub fn decode(line: &str) -> Result<Self, serde_json::Error> {
        match &*tagged::kind(line)? {
            "profile" => serde_json::from_str(line).map(Self::Profile),
            "block" => serde_json::from_str(line).map(Self::Block),
            "chat" => serde_json::from_str(line).map(Self::Chat),
            "message" => serde_json::from_str(line).map(Self::Message),
            "report" => serde_json::from_str(line).map(Self::Report),
            "end" => serde_json::from_str(line).map(Self::End),
            kind => Err(serde::de::Error::unknown_variant(
                kind,
                &["profile", "block", "chat", "message", "report", "end"],
            )),
        }
    }
}

/// The person.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedProfile {
    pub user_id: UserId,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
    /// When they became known.
    pub created_at: Time,
    pub last_seen_at: Option<Time>,
}

/// Somebody whom the person has blocked.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedBlock {
    pub user_id: UserId,
    pub created_at: Time,
}

/// A chat of the person's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedChat {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    pub room_name: String,
    pub created_at: Time,
    pub created_by: UserId,
    pub other_user_id: UserId,
    /// Up to which `seq` the person has read.
    pub read_seq: i64,
    /// How many messages the chat has, of both; the person's own up to it follow.
    pub last_seq: i64,
}

/// A report that the person has made; without the message, which is somebody else's words.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedReport {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub report_id: ReportId,
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub message_id: MessageId,
    pub seq: i64,
    /// Whose message it is.
    pub sender_id: UserId,
    pub reason: Option<String>,
    pub created_at: Time,
}

/// How many lines of each kind there were.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportEnd {
    pub blocks: u64,
    pub chats: u64,
    pub messages: u64,
    pub reports: u64,
}
