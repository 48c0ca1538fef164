//! The frames of the socket protocol `chat.v1`: JSON text, one object a frame, with its kind in `type`.
//!
//! A server encodes a [`ServerFrame`], a client decodes it as a [`ReceivedFrame`]; a client encodes a
//! [`ClientFrame`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    model::{
        AttachmentId, ChangedPart, Chat, ChatId, GroupChange, LeftReason, Member, Mentions,
        Message, MessageId, Time, UserId,
    },
    tagged,
};

/// An encoded frame: JSON text. A clone is a reference, so all sockets share the bytes.
pub type Frame = Bytes;

/// Why a position can't be resumed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// The position is more than [`MAX_REPLAY`](crate::bounds::MAX_REPLAY) changed rows behind.
    TooFar,
    /// The position is beyond the head or of another epoch. Unknown reasons decode as this one.
    #[serde(other)]
    UnknownPosition,
}

/// Why a chat is no longer the user's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneReason {
    Left,
    Removed,
    Banned,
    /// The chat was deleted. Unknown reasons decode as this one.
    #[default]
    #[serde(other)]
    Deleted,
}

/// How far a member has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub user_id: UserId,
    pub read_seq: i64,
}

/// The `id` of a command: a string or an integer, echoed as sent.
pub type CommandId = Box<RawValue>;

/// A frame from the server to a client, borrowed for encoding. [`ReceivedFrame`] documents each frame.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub enum ServerFrame<'a> {
    #[serde(rename = "hello")]
    Hello {
        connection_id: uuid::Uuid,
        user_id: &'a UserId,
        heartbeat_ms: u64,
        token_expires_at: Time,
        epoch: &'a str,
    },
    #[serde(rename = "subscribed")]
    Subscribed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        chat_id: ChatId,
        head_ev: i64,
        head_seq: i64,
        epoch: &'a str,
        read_seq: i64,
        peer_read_seq: Option<i64>,
        receipts: &'a [Receipt],
        online: Vec<UserId>,
        online_count: Option<i32>,
    },
    #[serde(rename = "message.created")]
    MessageCreated { chat_id: ChatId, ev: i64, message: &'a Message },
    #[serde(rename = "message.updated")]
    MessageUpdated {
        chat_id: ChatId,
        ev: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        changed: Option<&'a [ChangedPart]>,
        message: &'a Message,
    },
    #[serde(rename = "message.deleted")]
    MessageDeleted {
        chat_id: ChatId,
        ev: i64,
        message_id: MessageId,
        seq: i64,
        deleted_at: Option<Time>,
    },
    #[serde(rename = "chat.read")]
    ChatRead { chat_id: ChatId, ev: Option<i64>, user_id: &'a UserId, read_seq: i64 },
    #[serde(rename = "member.joined")]
    MemberJoined { chat_id: ChatId, ev: i64, members: &'a [Member], by: Option<&'a UserId> },
    #[serde(rename = "member.updated")]
    MemberUpdated { chat_id: ChatId, ev: i64, member: &'a Member, by: Option<&'a UserId> },
    #[serde(rename = "member.left")]
    MemberLeft {
        chat_id: ChatId,
        ev: i64,
        user_id: &'a UserId,
        by: Option<&'a UserId>,
        reason: LeftReason,
    },
    #[serde(rename = "chat.changed")]
    ChatChanged(&'a GroupChange),
    #[serde(rename = "skipped")]
    Skipped { chat_id: ChatId, ev: i64 },
    #[serde(rename = "synced")]
    Synced { chat_id: ChatId, ev: i64 },
    #[serde(rename = "catchup")]
    Catchup { chat_id: ChatId, after_ev: i64 },
    #[serde(rename = "reset")]
    Reset { chat_id: ChatId, head_ev: i64, epoch: &'a str, reason: ResetReason },
    #[serde(rename = "chat.created")]
    ChatCreated { chat: &'a Chat, total_unread: i64, epoch: &'a str },
    #[serde(rename = "chat.updated")]
    ChatUpdated { chat: &'a Chat, total_unread: i64, epoch: &'a str },
    #[serde(rename = "chat.deleted")]
    ChatDeleted {
        chat_id: ChatId,
        /// On the inbox only.
        #[serde(skip_serializing_if = "Option::is_none")]
        total_unread: Option<i64>,
        reason: GoneReason,
        epoch: &'a str,
    },
    #[serde(rename = "typing")]
    Typing { chat_id: ChatId, user_id: &'a UserId, typing: bool },
    #[serde(rename = "presence")]
    Presence { user_id: &'a UserId, online: bool, last_seen_at: Option<Time> },
    #[serde(rename = "ack")]
    Ack {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        #[serde(flatten)]
        result: AckResult<'a>,
    },
    #[serde(rename = "error")]
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        code: &'a str,
        detail: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    #[serde(rename = "token.expiring")]
    TokenExpiring { expires_in: i64 },
    #[serde(rename = "bye")]
    Bye { code: u16, reason: &'a str, reconnect_in_ms: u64 },
    #[serde(rename = "pong")]
    Pong {},
}

/// The result of a command.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum AckResult<'a> {
    /// Of `send`.
    Sent { message: &'a Message },
    /// Of `mark_read`.
    Read { chat_id: ChatId, read_seq: i64, unread_count: i64, total_unread: i64 },
    /// Of `auth`.
    Authenticated { token_expires_at: Time },
    /// Of `unsubscribe`.
    Unsubscribed { chat_id: ChatId },
}

impl ServerFrame<'_> {
    /// Encodes the frame.
    ///
    /// ```
    /// use beseda_protocol::ServerFrame;
    ///
    /// assert_eq!(&*ServerFrame::TokenExpiring { expires_in: 60 }.encode(),
    ///     br#"{"type":"token.expiring","expires_in":60}"#);
    /// ```
    pub fn encode(&self) -> Frame {
        // Plain structs with string keys can't fail to serialize.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// Encodes the frame of a message in its present state: created, updated or deleted. `changed`: what this
/// revision changed, where that is known.
pub fn message_frame(message: &Message, changed: Option<&[ChangedPart]>) -> Frame {
    let (chat_id, ev) = (message.chat_id, message.ev);
    if message.deleted_at.is_some() {
        ServerFrame::MessageDeleted {
            chat_id,
            ev,
            message_id: message.message_id,
            seq: message.seq,
            deleted_at: message.deleted_at,
        }
        .encode()
    } else if changed.is_some() || message.is_changed() {
        ServerFrame::MessageUpdated { chat_id, ev, changed, message }.encode()
    } else {
        ServerFrame::MessageCreated { chat_id, ev, message }.encode()
    }
}

/// A frame of the server, as a client decodes it. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ReceivedFrame {
    /// The first frame of a socket. The server pings every `heartbeat_ms`, in milliseconds.
    #[serde(rename = "hello")]
    Hello {
        connection_id: uuid::Uuid,
        user_id: UserId,
        heartbeat_ms: u64,
        token_expires_at: Time,
        epoch: String,
    },
    /// A subscription begins; `id` is that of the `subscribe`. The changes since the given position follow,
    /// up to `synced`.
    #[serde(rename = "subscribed")]
    Subscribed {
        #[serde(default)]
        id: Option<CommandName>,
        chat_id: ChatId,
        head_ev: i64,
        head_seq: i64,
        epoch: String,
        read_seq: i64,
        /// Null in a group.
        peer_read_seq: Option<i64>,
        /// The read markers of all members that are not 0; empty in a chat without receipts.
        #[serde(default)]
        receipts: Vec<Receipt>,
        /// The members who are online, with the user; empty in a chat without receipts.
        online: Vec<UserId>,
        /// How many members are online, up to 10 s ago in a chat without receipts; `None`: unknown, or above
        /// [`MAX_MEMBERS_OF_ONLINE_COUNT`](crate::bounds::MAX_MEMBERS_OF_ONLINE_COUNT).
        #[serde(default)]
        online_count: Option<i32>,
    },
    /// A message was sent; in a resume, one that is new to the client.
    #[serde(rename = "message.created")]
    MessageCreated { chat_id: ChatId, ev: i64, message: Message },
    /// A message changed: its text, reactions, attachments, or whether it is pinned. It comes whole, and the
    /// client may not have received it before. `changed` says what this revision changed; `None` in a resume,
    /// where it may be anything.
    #[serde(rename = "message.updated")]
    MessageUpdated {
        chat_id: ChatId,
        ev: i64,
        #[serde(default)]
        changed: Option<Vec<ChangedPart>>,
        message: Message,
    },
    /// A message became a tombstone. The client may not have received it before.
    #[serde(rename = "message.deleted")]
    MessageDeleted {
        chat_id: ChatId,
        ev: i64,
        message_id: MessageId,
        seq: i64,
        deleted_at: Option<Time>,
    },
    /// A member's read marker moved. Without an `ev` in a chat without receipts: then it is the reader's own,
    /// told to their sockets only.
    #[serde(rename = "chat.read")]
    ChatRead { chat_id: ChatId, ev: Option<i64>, user_id: UserId, read_seq: i64 },
    /// Users became members. `by` is null where the host application added them.
    #[serde(rename = "member.joined")]
    MemberJoined { chat_id: ChatId, ev: i64, members: Vec<Member>, by: Option<UserId> },
    /// A member's role changed, or until when they may not post.
    #[serde(rename = "member.updated")]
    MemberUpdated { chat_id: ChatId, ev: i64, member: Box<Member>, by: Option<UserId> },
    /// A membership ended.
    #[serde(rename = "member.left")]
    MemberLeft { chat_id: ChatId, ev: i64, user_id: UserId, by: Option<UserId>, reason: LeftReason },
    /// What a group shows changed, or whether it has receipts.
    #[serde(rename = "chat.changed")]
    ChatChanged(Box<GroupChange>),
    /// The changes up to `ev` are not for this client.
    #[serde(rename = "skipped")]
    Skipped { chat_id: ChatId, ev: i64 },
    /// All changes up to `ev` were sent. From here on, every `ev` is sent, without gaps.
    #[serde(rename = "synced")]
    Synced { chat_id: ChatId, ev: i64 },
    /// The server missed publications. The changes after `after_ev` follow, as in a resume, up to
    /// `synced`.
    #[serde(rename = "catchup")]
    Catchup { chat_id: ChatId, after_ev: i64 },
    /// The position can't be resumed: read the history again. Changes after `head_ev` follow.
    #[serde(rename = "reset")]
    Reset { chat_id: ChatId, head_ev: i64, epoch: String, reason: ResetReason },
    /// On the inbox: a chat was opened.
    #[serde(rename = "chat.created")]
    ChatCreated { chat: Box<Chat>, total_unread: i64, epoch: String },
    /// On the inbox: a chat changed.
    #[serde(rename = "chat.updated")]
    ChatUpdated { chat: Box<Chat>, total_unread: i64, epoch: String },
    /// A chat is no longer the user's.
    #[serde(rename = "chat.deleted")]
    ChatDeleted {
        chat_id: ChatId,
        /// On the inbox only.
        #[serde(default)]
        total_unread: Option<i64>,
        #[serde(default)]
        reason: GoneReason,
        epoch: String,
    },
    /// A member types, or stopped. Best effort; never replayed.
    #[serde(rename = "typing")]
    Typing { chat_id: ChatId, user_id: UserId, typing: bool },
    /// A member came online or went offline. Best effort; never replayed.
    #[serde(rename = "presence")]
    Presence { user_id: UserId, online: bool, last_seen_at: Option<Time> },
    /// A command succeeded. The command determines which fields are present.
    #[serde(rename = "ack")]
    Ack {
        #[serde(default)]
        id: Option<CommandName>,
        #[serde(default)]
        message: Option<Box<Message>>,
        #[serde(default)]
        chat_id: Option<ChatId>,
        #[serde(default)]
        read_seq: Option<i64>,
        #[serde(default)]
        unread_count: Option<i64>,
        #[serde(default)]
        total_unread: Option<i64>,
        #[serde(default)]
        token_expires_at: Option<Time>,
    },
    /// A command failed. [`ErrorCode::parse`](crate::ErrorCode::parse) reads `code`.
    #[serde(rename = "error")]
    Error {
        #[serde(default)]
        id: Option<CommandName>,
        code: String,
        detail: String,
        #[serde(default)]
        retry_after_ms: Option<u64>,
    },
    /// The token expires in `expires_in` seconds: send `auth` with another one.
    #[serde(rename = "token.expiring")]
    TokenExpiring { expires_in: i64 },
    /// The server is about to close the socket: reconnect after `reconnect_in_ms` milliseconds.
    #[serde(rename = "bye")]
    Bye { code: u16, reason: String, reconnect_in_ms: u64 },
    /// The answer to `ping`.
    #[serde(rename = "pong")]
    Pong {},
    /// A frame of a later version, to be ignored.
    #[serde(other)]
    Unknown,
}

/// The echoed `id` of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CommandName {
    Text(String),
    Number(i64),
}

impl ReceivedFrame {
    /// Decodes a text frame.
    ///
    /// ```
    /// use beseda_protocol::ReceivedFrame;
    ///
    /// let frame = ReceivedFrame::decode(r#"{"type":"of.the.future","x":1}"#)?;
    /// assert_eq!(frame, ReceivedFrame::Unknown);
    /// assert!(ReceivedFrame::decode("[]").is_err());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// The text is no JSON object with a `type`, or a known frame lacks a field.
    pub fn decode(json: &str) -> Result<Self, serde_json::Error> {
        tagged::from_str(json)
    }

    /// The epoch that the frame names, where it does.
    pub fn epoch(&self) -> Option<&str> {
        match self {
            Self::Hello { epoch, .. }
            | Self::Subscribed { epoch, .. }
            | Self::Reset { epoch, .. }
            | Self::ChatCreated { epoch, .. }
            | Self::ChatUpdated { epoch, .. }
            | Self::ChatDeleted { epoch, .. } => Some(epoch),
            _ => None,
        }
    }

    /// Returns the chat and the `ev` of a change; `None` for other frames.
    pub fn change(&self) -> Option<(ChatId, i64)> {
        match self {
            Self::MessageCreated { chat_id, ev, .. }
            | Self::MessageUpdated { chat_id, ev, .. }
            | Self::MessageDeleted { chat_id, ev, .. }
            | Self::ChatRead { chat_id, ev: Some(ev), .. }
            | Self::MemberJoined { chat_id, ev, .. }
            | Self::MemberUpdated { chat_id, ev, .. }
            | Self::MemberLeft { chat_id, ev, .. }
            | Self::Skipped { chat_id, ev } => Some((*chat_id, *ev)),
            Self::ChatChanged(change) => Some((change.chat_id, change.ev)),
            _ => None,
        }
    }
}

/// A frame from a client to the server. The answer echoes `id`. On a socket of one chat, `chat_id` is
/// optional.
///
/// ```
/// use beseda_protocol::ClientFrame;
///
/// let frame = ClientFrame::Typing { chat_id: None, typing: true };
/// assert_eq!(frame.encode(), r#"{"type":"typing","typing":true}"#);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame<'a> {
    /// Subscribes to a chat; with `after_ev`, resumes from that position of `epoch`.
    Subscribe {
        id: &'a str,
        chat_id: ChatId,
        #[serde(skip_serializing_if = "Option::is_none")]
        after_ev: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<&'a str>,
    },
    /// Ends a subscription.
    Unsubscribe { id: &'a str, chat_id: ChatId },
    /// Sends a message. A `client_msg_id` makes it safe to repeat.
    Send {
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        chat_id: Option<ChatId>,
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        mentions: Option<&'a Mentions>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        attachments: &'a [AttachmentId],
        #[serde(skip_serializing_if = "Option::is_none")]
        client_msg_id: Option<&'a str>,
    },
    /// Moves the read marker up to `up_to_seq`, or to the head.
    MarkRead {
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        chat_id: Option<ChatId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        up_to_seq: Option<i64>,
    },
    /// Tells the other members that the user types, or stopped.
    Typing {
        #[serde(skip_serializing_if = "Option::is_none")]
        chat_id: Option<ChatId>,
        typing: bool,
    },
    /// Replaces the token by another one of the same user.
    Auth { id: &'a str, token: &'a str },
    /// Asks for a `pong`.
    Ping,
}

impl ClientFrame<'_> {
    /// Encodes the frame as JSON text.
    pub fn encode(&self) -> String {
        // Plain structs with string keys can't fail to serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}
