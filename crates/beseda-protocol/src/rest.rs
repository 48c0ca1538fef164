//! The bodies of REST calls beside the objects of [`model`](crate::model).
//! Paths are below `/api/v1`; `{chat}` is a `chat_id` or a `room_name`.

mod attachments;
mod devices;
mod groups;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::{
    attachments::{AttachmentLink, AttachmentTicket, NewAttachment, UploadLink},
    devices::{DeviceList, NewDevice, PushInfo, Subscription, SubscriptionKeys},
    groups::{
        AddedMembers, BanPage, ChatChange, InvitePage, MemberChange, MemberPage, NewBan, NewInvite,
        NewMembers, NewSettings, OwnSettings, Reader, ReaderPage, RefusedMember,
    },
};

use crate::model::{
    AttachmentId, Chat, ChatId, ChatKind, Mentions, Message, MessageId, Notify, Reaction, Report,
    Time, UserId,
};

/// A chat to open: a direct one by `user_id` (or `user_ids`), or a group by `kind`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewChat {
    /// `direct` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ChatKind>,
    /// The other member of a direct chat; the caller is the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Both members of a direct chat, for a token with `chat:admin`; the members of a group beside its
    /// owner, up to 1,000.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_ids: Option<Vec<UserId>>,
    /// The title of a group.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 200))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[cfg_attr(feature = "openapi", schema(max_length = 2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// The host application's JSON object, up to 4 KiB.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<NewSettings>,
    /// Makes a retry safe, without a time limit: the same caller and id never make a second group.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_chat_id: Option<String>,
    /// The owner of a group, for a token with `chat:admin`, which must name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<UserId>,
}

/// A chat, and whether it is new.
// Without Deserialize, because a flattened object can't give raw metadata. A client reads a `Chat`, and
// the status tells whether it is new.
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
    /// Pinned chats first, then latest activity first.
    pub results: Vec<Chat>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// Which page of a chat's history a request asks for: its query parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Newest,
    /// Below this `seq`.
    Before(i64),
    /// Above this `seq`.
    After(i64),
    /// On both sides of this `seq`.
    Around(i64),
}

/// A page of the history, with the position at which it was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryView {
    /// Ascending by `seq`.
    pub results: Vec<Message>,
    pub has_more_before: bool,
    pub has_more_after: bool,
    /// The `before` of the previous page; null on the first one.
    pub before: Option<i64>,
    /// The `after` of the next page; null on the last one.
    pub after: Option<i64>,
    pub head_seq: i64,
    /// Never newer than `results`, so a socket that resumes from it as `after_ev` misses nothing.
    pub head_ev: i64,
    pub epoch: String,
    pub read_seq: i64,
    /// Null in a group.
    pub peer_read_seq: Option<i64>,
}

/// A page of all that changed in a chat since a position.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangePage {
    /// [Frames of the socket](/docs/socket/) that have an `ev`, ascending by it: each row that changed, as it
    /// is now. The last one's `ev` is the `after_ev` of the next page.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub results: Vec<Box<RawValue>>,
    pub has_more: bool,
    pub head_ev: i64,
    /// The history that each `ev` belongs to.
    pub epoch: String,
}

/// A page of the chats that changed since a cursor was given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncPage {
    /// As they are now.
    pub results: Vec<Chat>,
    /// Chats that are the caller's no longer.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Uuid>))]
    pub gone: Vec<ChatId>,
    /// The `cursor` of the next page; on the last one, of the next time.
    pub next: String,
    pub has_more: bool,
    /// A list of all chats begins with this page: once it ends, what the client has of any other chat is of
    /// no use.
    pub reset: bool,
}

/// The unread counters of a chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnreadChat {
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub chat_id: ChatId,
    pub room_name: String,
    pub unread_count: i64,
    pub unread_mentions: i64,
    pub notify: Notify,
    pub last_seq: i64,
    pub read_seq: i64,
}

/// All unread counters of a user, latest activity first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnreadSummary {
    /// Unread messages of all chats.
    pub total: i64,
    /// Unread mentions of all chats.
    pub total_mentions: i64,
    /// What an app's badge shows: unread messages of chats with `notify` `all` and unread mentions of those
    /// with `mentions`, without archived chats.
    pub badge: i64,
    pub chats: Vec<UnreadChat>,
}

/// A move of the read marker.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MarkRead {
    /// A safeguard: if it names another chat than the path, the call fails and nothing is marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_name: Option<String>,
    /// The `seq` up to which messages are read; by default the newest.
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_seq: Option<i64>,
}

/// The read marker and the counters after a mark.
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
    /// 1 to 4,000 Unicode scalar values, not only white space, no U+0000; stored as sent. Beside attachments it
    /// may be empty.
    #[cfg_attr(feature = "openapi", schema(max_length = 4000, example = "Привет!"))]
    pub text: String,
    /// The host application's JSON object, up to 4 KiB.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// Whom the message mentions: up to 50 user ids, or `all`. Ids of users who are no members, and the
    /// sender's own, are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mentions: Option<Mentions>,
    /// The message of the same chat that it answers.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Uuid>))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// 1 to 10 attachments that the sender has uploaded to this chat, in this order; beside them `text` may be
    /// empty.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Uuid>, max_items = 10))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<AttachmentId>,
    /// Makes a retry safe, without a time limit: the same id never makes a second message.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64, example = "c0ffee-1"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_msg_id: Option<String>,
}

/// The new content of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Edit {
    /// As in a message: empty only beside attachments.
    #[cfg_attr(feature = "openapi", schema(max_length = 4000))]
    pub text: String,
    /// Whom the message mentions from now on; if it is not given, that stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mentions: Option<Mentions>,
}

/// A message that a search found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchHit {
    pub message: Message,
    /// Start and length of each match, in UTF-16 code units of `text`. A match in the name of an attachment has
    /// none.
    pub highlights: Vec<[u32; 2]>,
}

/// The reactions of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reactions {
    pub reactions: Vec<Reaction>,
}

/// One user's reaction to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserReaction {
    pub user_id: UserId,
    pub emoji: String,
    pub created_at: Time,
}

/// A page of who reacted to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReactionPage {
    /// By emoji, then in the order of the reactions.
    pub results: Vec<UserReaction>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// A page of messages, of one chat or of several.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MessagePage {
    pub results: Vec<Message>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// A page of what a search over all chats found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchAllPage {
    /// Newest first.
    pub results: Vec<SearchHit>,
    /// The `cursor` of the next page; null after all chats were searched.
    pub next: Option<String>,
    /// False if the time budget ended before the page was full or all chats were searched.
    pub complete: bool,
}

/// A page of search results.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchPage {
    /// Newest first.
    pub results: Vec<SearchHit>,
    /// The `before` of the next page; null after the whole chat was searched.
    pub next: Option<i64>,
    /// False if the time budget ended before the page was full or the whole chat was searched.
    pub complete: bool,
}

/// A report of a message.
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
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// A ticket for the socket of one chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatTicket {
    /// Contains the ticket; opens one socket.
    pub ws_url: String,
    pub ticket: String,
    /// Life of the ticket, in seconds.
    pub expires_in: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub protocol: Cow<'static, str>,
    pub heartbeat_ms: u64,
    pub head_ev: i64,
    pub head_seq: i64,
    pub epoch: String,
}

/// A ticket for the many-chats socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManyChatsTicket {
    /// Contains the ticket; opens one socket.
    pub ws_url: String,
    pub ticket: String,
    /// Life of the ticket, in seconds.
    pub expires_in: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub protocol: Cow<'static, str>,
    pub heartbeat_ms: u64,
    pub epoch: String,
}

/// The profile of a user, from the host application.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewProfile {
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub name: Option<String>,
    #[cfg_attr(feature = "openapi", schema(max_length = 2048))]
    pub avatar_url: Option<String>,
}

/// A user with a profile, from the host application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewUser {
    pub user_id: UserId,
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub name: Option<String>,
    #[cfg_attr(feature = "openapi", schema(max_length = 2048))]
    pub avatar_url: Option<String>,
}

/// A bulk request: up to 1,000 users.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewUsers {
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub users: Vec<NewUser>,
}

/// The outcome of a bulk request, in users.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkResult {
    pub created: usize,
    pub updated: usize,
    /// Skipped, because they were erased: only `PUT` restores a user.
    pub erased: usize,
}

/// A blocked user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Block {
    pub user_id: UserId,
    pub created_at: Time,
}

/// A page of blocked users.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BlockPage {
    /// Latest first.
    pub results: Vec<Block>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}
