//! The export of a user's data, in lines of JSON.

use serde::{Deserialize, Serialize};

use super::{
    Attachment, ChatId, ChatKind, Device, Message, MessageId, ReportId, Role, Time, UserId,
};
use crate::tagged;

/// A line of an export.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExportLine {
    Profile(ExportedProfile),
    Device(Device),
    Block(ExportedBlock),
    Chat(ExportedChat),
    /// A message of the user. Those of a chat follow the chat.
    Message(ExportedMessage),
    Reaction(ExportedReaction),
    Attachment(ExportedAttachment),
    Report(ExportedReport),
    /// The last line, and only of a complete export.
    End(ExportEnd),
}

impl ExportLine {
    /// Decodes a line.
    ///
    /// ```
    /// use beseda_protocol::model::ExportLine;
    ///
    /// let line = r#"{"type":"end","devices":0,"blocks":0,"chats":1,"messages":2,"reactions":0,"reports":0}"#;
    /// assert!(matches!(ExportLine::decode(line)?, ExportLine::End(end) if end.messages == 2));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// The text is no line of an export.
    pub fn decode(line: &str) -> Result<Self, serde_json::Error> {
        match &*tagged::kind(line)? {
            "profile" => serde_json::from_str(line).map(Self::Profile),
            "device" => serde_json::from_str(line).map(Self::Device),
            "block" => serde_json::from_str(line).map(Self::Block),
            "chat" => serde_json::from_str(line).map(Self::Chat),
            "message" => serde_json::from_str(line).map(Self::Message),
            "reaction" => serde_json::from_str(line).map(Self::Reaction),
            "attachment" => serde_json::from_str(line).map(Self::Attachment),
            "report" => serde_json::from_str(line).map(Self::Report),
            "end" => serde_json::from_str(line).map(Self::End),
            kind => Err(serde::de::Error::unknown_variant(
                kind,
                &[
                    "profile",
                    "device",
                    "block",
                    "chat",
                    "message",
                    "reaction",
                    "attachment",
                    "report",
                    "end",
                ],
            )),
        }
    }
}

/// The user.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedProfile {
    pub user_id: UserId,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
    /// When the user was created.
    pub created_at: Time,
    pub last_seen_at: Option<Time>,
}

/// A user whom the exported user has blocked.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedBlock {
    pub user_id: UserId,
    pub created_at: Time,
}

/// A chat of the exported user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedChat {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    pub room_name: String,
    pub kind: ChatKind,
    /// Null in a direct chat.
    pub title: Option<String>,
    pub created_at: Time,
    pub created_by: UserId,
    /// Null in a group.
    pub other_user_id: Option<UserId>,
    /// The user's role, the last one where they have left.
    pub role: Role,
    pub joined_at: Time,
    /// The `seq` up to which the user has read.
    pub read_seq: i64,
    /// The newest `seq` of the chat. The user's own messages up to it follow.
    pub last_seq: i64,
}

/// A message of the exported user. It has a `type` of its own, so it is a member of its line.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedMessage {
    pub message: Box<Message>,
}

/// A reaction of the exported user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedReaction {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub message_id: MessageId,
    pub seq: i64,
    pub emoji: String,
    pub created_at: Time,
}

/// An attachment that the exported user has announced, sent or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedAttachment {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    /// The number of the message that it was sent with; null: it was not sent.
    pub seq: Option<i64>,
    pub attachment: Attachment,
    pub created_at: Time,
    /// Where its bytes can be read until `expires_at`; null: there are none.
    pub url: Option<String>,
    pub expires_at: Option<Time>,
}

/// A report by the exported user, without the message's text, which is another user's data.
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
    /// The sender of the message.
    pub sender_id: UserId,
    pub reason: Option<String>,
    pub created_at: Time,
}

/// The number of lines of each kind.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportEnd {
    pub devices: u64,
    pub blocks: u64,
    pub chats: u64,
    pub messages: u64,
    #[serde(default)]
    pub reactions: u64,
    #[serde(default)]
    pub attachments: u64,
    pub reports: u64,
}
