//! The server's half of the protocol: publications through Redis, which carry the frames of
//! [`beseda_protocol`], and frames made of stored changes.

mod publication;

use std::io::Write as _;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use self::publication::{AddressedFrame, Publication};
pub use beseda_protocol::{
    Close, ResetReason, SUBPROTOCOL, ServerFrame,
    bounds::{MAX_FRAME_BYTES, MAX_REPLAY},
    frame::{AckResult, CommandId, Frame, GoneReason, Receipt, message_frame},
};

use self::publication::{write_address, write_event_head};
use crate::{
    error::Error,
    model::{Audience, Change, ChatId, Head, Message, UserId},
};

/// Maps a failure that ends a socket to its close code.
impl From<&Error> for Close {
    fn from(error: &Error) -> Self {
        match error {
            Error::TokenExpired => Self::TokenExpired,
            Error::TokenInvalid(_) | Error::Unauthenticated => Self::TokenInvalid,
            Error::ChatNotFound => Self::ChatGone,
            Error::RateLimited { .. } => Self::RateLimited,
            Error::Forbidden(_) => Self::Forbidden,
            _ => Self::Internal,
        }
    }
}

/// A new message, encoded once for all recipients.
#[derive(Debug, Clone)]
pub struct Created {
    /// [`Publication::Event`] with the frame [`ServerFrame::MessageCreated`], encoded.
    pub publication: Bytes,
    /// The message as JSON for the response: a slice of the same bytes.
    pub json: Bytes,
}

impl Created {
    /// Encodes a message. `trace` is its W3C trace parent, if it is traced.
    pub fn encode(message: &Message, epoch: &str, trace: Option<&str>) -> Self {
        let Message { chat_id, seq, ev, created_at, .. } = message;
        // Ids, names and times take some 400 bytes besides the text.
        let mut bytes = Vec::with_capacity(512 + message.text.len());
        write_event_head(&mut bytes, *ev, created_at.0.as_microsecond(), trace);
        // Neither writing to a Vec nor a plain struct can fail.
        let _ = writeln!(bytes, "{epoch}");
        write_address(&mut bytes, Audience::SeeingSeq(*seq), false, &[]);
        let _ = write!(bytes, "{{\"type\":\"message.created\",");
        let _ = write!(bytes, "\"chat_id\":\"{chat_id}\",\"ev\":{ev},\"message\":");
        let start = bytes.len();
        let _ = serde_json::to_writer(&mut bytes, message);
        let end = bytes.len();
        bytes.push(b'}');
        let publication = Bytes::from(bytes);
        Self { json: publication.slice(start..end), publication }
    }
}

/// Encodes a change as the frame that reports it.
pub fn change_frame(chat_id: ChatId, change: &Change) -> Frame {
    match change {
        Change::Message(message) => message_frame(message, None),
        Change::Read { user_id, read_seq, ev } => {
            ServerFrame::ChatRead { chat_id, ev: Some(*ev), user_id, read_seq: *read_seq }.encode()
        }
        Change::Joined { members, by, ev } => {
            ServerFrame::MemberJoined { chat_id, ev: *ev, members, by: by.as_ref() }.encode()
        }
        Change::Updated { member, by, ev } => {
            ServerFrame::MemberUpdated { chat_id, ev: *ev, member, by: by.as_ref() }.encode()
        }
        Change::Left { user_id, by, reason, ev } => {
            let (by, reason) = (by.as_ref(), *reason);
            ServerFrame::MemberLeft { chat_id, ev: *ev, user_id, by, reason }.encode()
        }
        Change::Group(change) => ServerFrame::ChatChanged(change).encode(),
    }
}

/// Encodes the frame that begins a subscription.
pub fn subscribed_frame(
    id: Option<&RawValue>,
    chat_id: ChatId,
    head: &Head,
    receipts: &[Receipt],
    online: Vec<UserId>,
    online_count: Option<i32>,
) -> Frame {
    ServerFrame::Subscribed {
        id,
        chat_id,
        head_ev: head.ev,
        head_seq: head.seq,
        epoch: &head.epoch,
        read_seq: head.reader.read_seq,
        peer_read_seq: head.peer_read_seq,
        receipts,
        online,
        online_count,
    }
    .encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, LeftReason, Mentions, MessageKind, Time};

    #[test]
    fn a_created_message_is_encoded_as_its_parts_would_be() {
        let time = Time(jiff::Timestamp::from_microsecond(1_800_000_000_123_456).expect("valid"));
        let message = Message {
            message_id: uuid::Uuid::from_u128(7),
            chat_id: uuid::Uuid::from_u128(8),
            seq: 3,
            ev: 4,
            kind: MessageKind::Text,
            sender_id: UserId::parse("a \"b\""),
            text: "line\n\"quoted\" \u{2028} ё".to_owned(),
            metadata: None,
            mentions: Mentions::All,
            system: None,
            reply_to: None,
            attachments: Vec::new(),
            reactions: Vec::new(),
            pinned_at: None,
            client_msg_id: Some("k".to_owned()),
            created_at: time,
            edited_at: None,
            deleted_at: None,
            my_reactions: None,
        };
        let epoch = Epoch::from("one-00000001");
        let created = Created::encode(&message, &epoch, None);
        let micros = time.0.as_microsecond();
        let change = Change::Message(Box::new(message.clone()));
        let frame = AddressedFrame::of(message.chat_id, &change, true);
        let event = Publication::Event { epoch, ev: message.ev, micros, trace: None, frame };
        assert_eq!(created.publication, event.encode());
        assert_eq!(created.json, serde_json::to_vec(&message).expect("serializes"));
    }

    #[test]
    fn who_left_a_chat_without_receipts_is_told_to_its_admins_and_to_them() {
        let user_id = UserId::parse("alice").expect("valid");
        let reason = LeftReason::Removed;
        let left = Change::Left { user_id: user_id.clone(), by: None, reason, ev: 9 };
        let told = AddressedFrame::of(ChatId::nil(), &left, false);
        assert_eq!((told.audience, told.affected), (Audience::Admins, vec![user_id]));
        assert_eq!(AddressedFrame::of(ChatId::nil(), &left, true).audience, Audience::All);
        let text = std::str::from_utf8(&told.frame).expect("text");
        assert!(
            text.contains(r#""type":"member.left""#) && text.contains(r#""by":null"#),
            "{text}"
        );
    }
}
