//! What REST takes and answers, where it is not one of the [`model`](crate::model)'s objects.
//! Paths are below `/api/v1`; `{chat}` is a `chat_id` or a `room_name`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{Chat, ChatId, Message, Report, Time, UserId};

/// With whom a chat is to be opened.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewChat {
    /// The second person; the caller is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Both, for `chat:admin`.
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_ids: Option<Vec<UserId>>,
}

/// A chat, and whether it is new.
// Not read back: a flattened object can't give metadata as it was sent. A client reads a `Chat`, and the
// status says whether it is new.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenedChat {
    #[serde(flatten)]
    pub chat: Chat,
    pub created: bool,
}

/// A page of chats.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatPage {
    /// Latest activity first.
    pub results: Vec<Chat>,
    /// The `cursor` of the next page; null where there is none.
    pub next: Option<String>,
}

/// A page of history with the position it was read at.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryView {
    /// Ascending by `seq`.
    pub results: Vec<Message>,
    pub has_more_before: bool,
    pub has_more_after: bool,
    /// The `before` of the page before this one; null where there is none.
    pub before: Option<i64>,
    /// The `after` of the page after this one; null where there is none.
    pub after: Option<i64>,
    pub head_seq: i64,
    /// Never newer than `results`: a socket with `after_ev` of this loses nothing.
    pub head_ev: i64,
    pub epoch: String,
    pub read_seq: i64,
    pub peer_read_seq: i64,
}

/// One chat's counter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnreadChat {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    pub room_name: String,
    pub unread_count: i64,
    pub last_seq: i64,
    pub read_seq: i64,
}

/// All counters of a user, latest activity first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnreadSummary {
    pub total: i64,
    pub chats: Vec<UnreadChat>,
}

/// How far a reader has read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MarkRead {
    /// A safeguard: of another chat than the path's, nothing is marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_name: Option<String>,
    /// Up to which `seq`; without it all sent up to now.
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_seq: Option<i64>,
}

/// Where a read marker stands after a mark.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadResult {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    pub room_name: String,
    pub read_seq: i64,
    pub unread_count: i64,
    pub total_unread: i64,
}

/// A message to send.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewMessage {
    /// 1 to 4,000 Unicode scalar values, not only white space, no U+0000; kept as sent.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 4000, example = "Привет!")
    )]
    pub text: String,
    /// The host application's own JSON object, up to 4 KiB.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// Makes a retry safe, for ever: the same id never makes a second message.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64, example = "c0ffee-1"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_msg_id: Option<String>,
}

/// An edit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Edit {
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4000))]
    pub text: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchHit {
    pub message: Message,
    /// Start and length of each, in UTF-16 code units of `text`.
    pub highlights: Vec<[u32; 2]>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchPage {
    /// Newest first.
    pub results: Vec<SearchHit>,
    /// The `before` to go on with; null where all was searched.
    pub next: Option<i64>,
    /// False where the time was up before the chat's beginning or enough hits.
    pub complete: bool,
}

/// Why a message is reported.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewReport {
    #[cfg_attr(feature = "openapi", schema(max_length = 1000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A page of reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportPage {
    /// Latest first.
    pub results: Vec<Report>,
    /// The `cursor` of the next page; null where there is none.
    pub next: Option<String>,
}

/// How to open a chat's socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatTicket {
    /// With the ticket in it; opens one socket.
    pub ws_url: String,
    pub ticket: String,
    /// Seconds.
    pub expires_in: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub protocol: Cow<'static, str>,
    pub heartbeat_ms: u64,
    pub head_ev: i64,
    pub head_seq: i64,
    pub epoch: String,
}

/// How to open the many-chats socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManyChatsTicket {
    /// With the ticket in it; opens one socket.
    pub ws_url: String,
    pub ticket: String,
    /// Seconds.
    pub expires_in: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub protocol: Cow<'static, str>,
    pub heartbeat_ms: u64,
    pub epoch: String,
}

/// What the host application says of a person.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewProfile {
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub name: Option<String>,
    #[cfg_attr(feature = "openapi", schema(max_length = 2048))]
    pub avatar_url: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewUser {
    pub user_id: UserId,
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub name: Option<String>,
    #[cfg_attr(feature = "openapi", schema(max_length = 2048))]
    pub avatar_url: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewUsers {
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub users: Vec<NewUser>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkResult {
    pub created: usize,
    pub updated: usize,
    /// Passed over, as they were erased: only `PUT` brings somebody back.
    pub erased: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Block {
    pub user_id: UserId,
    pub created_at: Time,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BlockPage {
    /// Latest first.
    pub results: Vec<Block>,
    /// The `cursor` of the next page; null where there is none.
    pub next: Option<String>,
}
