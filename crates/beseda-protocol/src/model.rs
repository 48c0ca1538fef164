//! The objects that clients see: users, chats, messages, reports, and the lines of an export.

mod carried;
mod device;
mod export;
mod group;

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::bounds::MAX_USER_ID_CHARS;

pub use self::{
    carried::{Attachment, AttachmentId, AttachmentStatus, ChangedPart, Quote, Reaction},
    device::{Device, PushPlatform},
    export::{
        ExportEnd, ExportLine, ExportedAttachment, ExportedBlock, ExportedChat, ExportedMessage,
        ExportedProfile, ExportedReaction, ExportedReport,
    },
    group::{
        Ban, GroupChange, GroupSettings, HistoryRule, Invite, InviteRule, JoinRule, LeftReason,
        Member, Mentions, Notify, PostRule, Role, SystemEvent, SystemEventKind,
    },
};

/// A chat's id: a UUIDv7, so that new chats lie together in the index.
pub type ChatId = Uuid;
/// A message's id: a UUIDv7, or a UUIDv8 that the server derives from its `client_msg_id`.
pub type MessageId = Uuid;

/// Names the history of the database that `seq` and `ev` belong to; opaque.
pub type Epoch = Arc<str>;
/// A report's id: a UUIDv7.
pub type ReportId = Uuid;

/// Parses an id in its hyphenated form only; the library would also accept braces and URNs.
///
/// ```
/// use beseda_protocol::model::parse_id;
///
/// assert!(parse_id("01a20a32-f544-7269-a867-60a8e5b5a762").is_some());
/// assert!(parse_id("{01a20a32-f544-7269-a867-60a8e5b5a762}").is_none());
/// ```
pub fn parse_id(raw: &str) -> Option<Uuid> {
    (raw.len() == uuid::fmt::Hyphenated::LENGTH).then(|| raw.parse().ok()).flatten()
}

/// The host application's id of a user, compared byte for byte.
// Behind an Arc, because every event carries one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", schema(value_type = String, min_length = 1, max_length = 128, example = "alice"))]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks an id: 1 to [`MAX_USER_ID_CHARS`] characters, no control characters.
    ///
    /// ```
    /// use beseda_protocol::model::UserId;
    ///
    /// assert!(UserId::parse("alice").is_some());
    /// assert!(UserId::parse("").is_none());
    /// ```
    pub fn parse(raw: &str) -> Option<Self> {
        let fits = !raw.is_empty()
            && raw.len() <= MAX_USER_ID_CHARS * 4
            && raw.chars().count() <= MAX_USER_ID_CHARS
            && !raw.chars().any(char::is_control);
        fits.then(|| Self(raw.into()))
    }

    /// Wraps an id that was checked before, such as one from the server's database.
    pub fn trusted(raw: &str) -> Self {
        Self(raw.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = String::deserialize(deserializer)?;
        Self::parse(&raw).ok_or_else(|| serde::de::Error::custom("not a user_id"))
    }
}

/// A time of Postgres's clock. Written as RFC 3339 in UTC with microseconds, Postgres's precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime, example = "2026-11-23T19:30:00.123456Z"))]
pub struct Time(pub Timestamp);

impl Time {
    /// Converts an untrusted number of microseconds since 1970. `None` for a negative one and for one
    /// beyond this type's range.
    pub fn from_micros(micros: i64) -> Option<Self> {
        let moment = Timestamp::from_microsecond(micros).ok();
        moment.filter(|moment| *moment >= Timestamp::UNIX_EPOCH).map(Self)
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.6}", self.0))
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    pub user_id: UserId,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
    pub online: bool,
    /// Null while online, and for a user who was never online.
    pub last_seen_at: Option<Time>,
}

/// A message, or its tombstone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub message_id: MessageId,
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    /// Its number in the chat: 1, 2, 3 … without gaps, in commit order.
    pub seq: i64,
    /// The number of its latest change, among all changes of the chat.
    pub ev: i64,
    #[serde(rename = "type")]
    pub kind: MessageKind,
    /// Null in a system message.
    pub sender_id: Option<UserId>,
    /// As sent, 1 to 4,000 characters; empty in a tombstone and in a system message.
    pub text: String,
    /// The host application's JSON object, as sent. One of more than 4 KiB is compacted: without white
    /// space and needless escapes.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// Whom it mentions; empty in a tombstone.
    pub mentions: Mentions,
    /// What a system message tells of; null in others.
    pub system: Option<SystemEvent>,
    /// The message that it answers; null: none, or a tombstone.
    #[serde(default)]
    pub reply_to: Option<Box<Quote>>,
    /// In the order of the send; empty in a tombstone.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// In the order of the first reaction with each emoji; empty in a tombstone.
    #[serde(default)]
    pub reactions: Vec<Reaction>,
    /// When it was pinned; null: it is not.
    #[serde(default)]
    pub pinned_at: Option<Time>,
    pub client_msg_id: Option<String>,
    /// Never earlier than that of the previous message.
    pub created_at: Time,
    pub edited_at: Option<Time>,
    pub deleted_at: Option<Time>,
    /// The caller's own reactions; in answers of REST only, as frames are for all members alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub my_reactions: Option<Vec<String>>,
}

/// The kind of a message. Clients must expect others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    Text,
    /// Written by the service, about a change of the chat. It is never unread.
    System,
}

impl Message {
    /// Whether it shows more than when it was sent: an edit, reactions, or a pin.
    pub fn is_changed(&self) -> bool {
        self.edited_at.is_some() || !self.reactions.is_empty() || self.pinned_at.is_some()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.message_id == other.message_id
            && self.chat_id == other.chat_id
            && self.seq == other.seq
            && self.ev == other.ev
            && self.kind == other.kind
            && self.sender_id == other.sender_id
            && self.text == other.text
            && self.metadata.as_deref().map(RawValue::get)
                == other.metadata.as_deref().map(RawValue::get)
            && self.mentions == other.mentions
            && self.system == other.system
            && self.reply_to == other.reply_to
            && self.attachments == other.attachments
            && self.reactions == other.reactions
            && self.pinned_at == other.pinned_at
            && self.client_msg_id == other.client_msg_id
            && self.created_at == other.created_at
            && self.edited_at == other.edited_at
            && self.deleted_at == other.deleted_at
            && self.my_reactions == other.my_reactions
    }
}

/// A report of a message to the host application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub report_id: ReportId,
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub message_id: MessageId,
    pub seq: i64,
    /// The sender of the message.
    pub sender_id: UserId,
    /// Null after the reporter was erased.
    pub reporter_id: Option<UserId>,
    /// The reporter's reason, up to 1,000 characters.
    pub reason: Option<String>,
    /// The message's text when it was reported, even if it was edited or deleted since; empty after its
    /// sender was erased.
    pub text: String,
    /// The message's metadata when it was reported; null after its sender was erased.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// The message's attachments when it was reported. They can be read until the report is decided; none after its
    /// sender was erased.
    pub attachments: Vec<Attachment>,
    pub created_at: Time,
}

/// The kind of a chat. Clients must expect others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    /// Of two users, for ever.
    Direct,
    /// Of one to many members, who come and go.
    Group,
}

/// A chat, as one of its members sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Chat {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    /// 22 base64url characters, unguessable.
    pub room_name: String,
    pub kind: ChatKind,
    /// 1 to 200 characters; null in a direct chat.
    pub title: Option<String>,
    pub avatar_url: Option<String>,
    /// The host application's JSON object, up to 4 KiB; null in a direct chat.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    pub member_count: i32,
    pub created_at: Time,
    pub created_by: UserId,
    /// Null in a group.
    pub other_user: Option<User>,
    /// The caller's role; `member` in a direct chat.
    pub role: Role,
    /// Null in a direct chat.
    pub settings: Option<GroupSettings>,
    /// Whether read markers are told to all members.
    pub receipts: bool,
    /// Null for the host application, which reads no messages.
    pub last_message: Option<Message>,
    pub last_seq: i64,
    pub last_ev: i64,
    /// The `seq` of the first message that the caller may see; 1: all.
    pub first_seq: i64,
    /// The `seq` up to which the caller has read.
    pub read_seq: i64,
    /// The `seq` up to which the other member has read; null in a group.
    pub peer_read_seq: Option<i64>,
    /// Messages of other members after `read_seq`, without tombstones and system messages.
    pub unread_count: i64,
    /// Those of them that mention the caller.
    pub unread_mentions: i64,
    /// What the caller wants to be notified of.
    pub notify: Notify,
    /// Whether the caller has pinned the chat.
    pub pinned: bool,
    /// Whether the caller has archived the chat.
    pub archived: bool,
}

impl PartialEq for Chat {
    fn eq(&self, other: &Self) -> bool {
        // Raw JSON has no equality of its own, so two chats are compared as the JSON that they are.
        serde_json::to_value(self).ok() == serde_json::to_value(other).ok()
    }
}

/// A reader's position in a chat: all changes up to `ev`, in the history `epoch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub ev: i64,
    /// `None` means the present epoch.
    pub epoch: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_bounded_by_characters_and_free_of_controls() {
        assert!(UserId::parse("").is_none());
        assert!(UserId::parse("a\u{0}b").is_none());
        assert!(UserId::parse("a\u{85}b").is_none());
        assert!(UserId::parse(&"я".repeat(MAX_USER_ID_CHARS)).is_some());
        assert!(UserId::parse(&"я".repeat(MAX_USER_ID_CHARS + 1)).is_none());
        assert_eq!(UserId::parse("a b/ё%").map(|u| u.to_string()).as_deref(), Some("a b/ё%"));
    }

    #[test]
    fn times_always_have_six_decimals_and_a_z() {
        let whole: Timestamp = "2026-11-23T19:30:00Z".parse().expect("a literal");
        assert_eq!(
            serde_json::to_string(&Time(whole)).expect("serializes"),
            "\"2026-11-23T19:30:00.000000Z\""
        );
    }
}
