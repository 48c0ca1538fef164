//! What a message may carry beside its text: a quote, attachments and reactions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Message, MessageId, UserId};

/// An attachment's id: a UUIDv7.
pub type AttachmentId = Uuid;

/// The message that another one answers, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quote {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub message_id: MessageId,
    pub seq: i64,
    /// Null: a system message.
    pub sender_id: Option<UserId>,
    /// The first 200 characters of its text; empty once it is deleted.
    pub text: String,
    pub deleted: bool,
}

impl Quote {
    /// Quotes a message as it is now.
    pub fn of(message: &Message) -> Self {
        Self {
            message_id: message.message_id,
            seq: message.seq,
            sender_id: message.sender_id.clone(),
            text: message.text.chars().take(200).collect(),
            deleted: message.deleted_at.is_some(),
        }
    }
}

/// Those who reacted to a message with one emoji.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reaction {
    /// One emoji, or a name such as `:party:`.
    pub emoji: String,
    pub count: i64,
    /// The first 20 of them, in the order of their reactions.
    pub user_ids: Vec<UserId>,
}

/// A file that was sent with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attachment {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub attachment_id: AttachmentId,
    /// As its sender named it: 1 to 255 characters, no path.
    pub name: String,
    pub content_type: String,
    /// In bytes.
    pub size: i64,
    /// Of an image, in pixels; null: unknown.
    pub width: Option<i32>,
    pub height: Option<i32>,
    /// Of audio and video, in milliseconds; null: unknown.
    pub duration_ms: Option<i64>,
    /// A [short text](https://blurha.sh) to paint until the image is there; null: none.
    pub blurhash: Option<String>,
    /// Whether it can be had in small, as `?variant=thumbnail`.
    pub thumbnail: bool,
    pub status: AttachmentStatus,
}

/// Whether an attachment can be had. Clients must expect others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttachmentStatus {
    Ready,
    /// Only its sender gets it until it was scanned.
    Scanning,
    /// The scanner refused it: nobody gets it. Unknown ones decode as this one.
    #[serde(other)]
    Blocked,
}

/// What a revision changed in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangedPart {
    /// Its text, or whom it mentions.
    Text,
    Reactions,
    /// Whether it is pinned.
    Pinned,
    /// The status of an attachment.
    Attachments,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}
