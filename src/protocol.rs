//! The server's half of the protocol: publications on their way through Redis, which carry the frames of
//! [`beseda_protocol`], and the frames of what the store tells of.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use beseda_protocol::{
    Close, ResetReason, SUBPROTOCOL, ServerFrame,
    bounds::{MAX_FRAME_BYTES, MAX_REPLAY},
    frame::{AckResult, CommandId, Frame, message_frame},
};

use crate::{
    error::Error,
    model::{ChatId, Head, Message, UserId},
    store::Change,
};

/// For a failure that a socket can't go on after.
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

/// A message just created, encoded once for all who get it.
#[derive(Debug, Clone)]
pub struct Created {
    /// [`Publication::Event`] with the frame [`ServerFrame::MessageCreated`], encoded.
    pub publication: Bytes,
    /// The message itself, for the answer: a part of the same bytes.
    pub json: Bytes,
}

impl Created {
    /// `trace`: its place in a trace, where somebody traces.
    pub fn encode(message: &Message, trace: Option<&str>) -> Self {
        let Message { chat_id, ev, created_at, .. } = message;
        // Ids, names and times beside the text take some 400 bytes.
        let mut bytes = Vec::with_capacity(512 + message.text.len());
        let micros = created_at.0.as_microsecond();
        // Neither writing to a Vec nor a plain struct can fail.
        let _ = write!(bytes, "{}{{\"type\":\"message.created\",", event_head(*ev, micros, trace));
        let _ = write!(bytes, "\"chat_id\":\"{chat_id}\",\"ev\":{ev},\"message\":");
        let start = bytes.len();
        let _ = serde_json::to_writer(&mut bytes, message);
        let end = bytes.len();
        bytes.push(b'}');
        let publication = Bytes::from(bytes);
        Self { json: publication.slice(start..end), publication }
    }
}

/// The first line of an event's publication.
fn event_head(ev: i64, micros: i64, trace: Option<&str>) -> String {
    match trace {
        Some(trace) => format!("e {ev} {micros} {trace}\n"),
        None => format!("e {ev} {micros}\n"),
    }
}

/// The frame that tells of a change as it is now.
pub fn change_frame(chat_id: ChatId, change: &Change) -> Frame {
    match change {
        Change::Message(message) => message_frame(message),
        Change::Read { user_id, read_seq, ev } => {
            ServerFrame::ChatRead { chat_id, ev: *ev, user_id, read_seq: *read_seq }.encode()
        }
    }
}

pub fn subscribed_frame(
    id: Option<&RawValue>,
    chat_id: ChatId,
    head: &Head,
    online: Vec<UserId>,
) -> Frame {
    ServerFrame::Subscribed {
        id,
        chat_id,
        head_ev: head.ev,
        head_seq: head.seq,
        epoch: &head.epoch,
        read_seq: head.read_seq,
        peer_read_seq: head.peer_read_seq,
        online,
    }
    .encode()
}

/// What travels through Redis. A head line, then the frame as it goes to the sockets: the frame is
/// encoded once, and never parsed on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// A change of a chat, committed at `micros` (since 1970, Postgres's clock).
    Event {
        ev: i64,
        micros: i64,
        /// Its place in a trace, where somebody traces.
        trace: Option<String>,
        frame: Frame,
    },
    /// The chat has come to `ev`: who is behind reads Postgres.
    Head {
        ev: i64,
    },
    /// The chat is gone.
    Deleted,
    /// Of one person to the others of a chat.
    /// Said at `micros` by the sender's clock: what Redis held back until it was no longer true is
    /// dropped.
    Typing {
        user_id: UserId,
        micros: i64,
        frame: Frame,
    },
    Presence {
        user_id: UserId,
        frame: Frame,
    },
    /// On a user's channel: a room of theirs moved to `ev`.
    Room {
        chat_id: ChatId,
        ev: i64,
    },
    /// To all replicas: this person's tokens are void, and their sockets to be closed.
    Erased {
        user_id: UserId,
    },
    /// To all replicas: this person's tokens issued before `micros` (since 1970) are void, and their
    /// sockets to be closed.
    Revoked {
        user_id: UserId,
        micros: i64,
    },
}

impl Publication {
    pub fn encode(&self) -> Bytes {
        let (head, frame) = match self {
            Self::Event { ev, micros, trace, frame } => {
                (event_head(*ev, *micros, trace.as_deref()), Some(frame))
            }
            Self::Head { ev } => (format!("h {ev}\n"), None),
            Self::Deleted => ("d\n".to_owned(), None),
            // A user id holds no control character, so the line ends where it should.
            Self::Typing { user_id, micros, frame } => {
                (format!("t {micros} {user_id}\n"), Some(frame))
            }
            Self::Presence { user_id, frame } => (format!("p {user_id}\n"), Some(frame)),
            Self::Room { chat_id, ev } => (format!("r {chat_id} {ev}\n"), None),
            Self::Erased { user_id } => (format!("x {user_id}\n"), None),
            Self::Revoked { user_id, micros } => (format!("v {micros} {user_id}\n"), None),
        };
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(frame.map_or(&[], |frame| frame));
        bytes.into()
    }

    /// `None` for what another version may have sent.
    pub fn decode(payload: &Bytes) -> Option<Self> {
        let end = payload.iter().position(|byte| *byte == b'\n')?;
        let head = std::str::from_utf8(&payload[..end]).ok()?;
        let frame = payload.slice(end + 1..);
        let (kind, rest) = head.split_once(' ').unwrap_or((head, ""));
        Some(match kind {
            "e" => {
                let mut words = rest.split(' ');
                let (ev, micros) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                Self::Event { ev, micros, trace: words.next().map(str::to_owned), frame }
            }
            "h" => Self::Head { ev: rest.parse().ok()? },
            "d" => Self::Deleted,
            "t" => {
                let (micros, user_id) = rest.split_once(' ')?;
                let micros = micros.parse().ok()?;
                Self::Typing { user_id: UserId::parse(user_id)?, micros, frame }
            }
            "p" => Self::Presence { user_id: UserId::parse(rest)?, frame },
            "r" => {
                let (chat_id, ev) = rest.split_once(' ')?;
                Self::Room { chat_id: chat_id.parse().ok()?, ev: ev.parse().ok()? }
            }
            "x" => Self::Erased { user_id: UserId::parse(rest)? },
            "v" => {
                let (micros, user_id) = rest.split_once(' ')?;
                Self::Revoked { micros: micros.parse().ok()?, user_id: UserId::parse(user_id)? }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Time;

    #[test]
    fn a_created_message_is_encoded_as_its_parts_would_be() {
        let time = Time(jiff::Timestamp::from_microsecond(1_800_000_000_123_456).expect("valid"));
        let message = Message {
            message_id: uuid::Uuid::from_u128(7),
            chat_id: uuid::Uuid::from_u128(8),
            seq: 3,
            ev: 4,
            sender_id: UserId::parse("a \"b\"").expect("a valid id"),
            text: "line\n\"quoted\" \u{2028} ё".to_owned(),
            metadata: None,
            client_msg_id: Some("k".to_owned()),
            created_at: time,
            edited_at: None,
            deleted_at: None,
        };
        let created = Created::encode(&message, None);
        let micros = time.0.as_microsecond();
        let frame = message_frame(&message);
        let event = Publication::Event { ev: message.ev, micros, trace: None, frame };
        assert_eq!(created.publication, event.encode());
        assert_eq!(created.json, serde_json::to_vec(&message).expect("serializes"));
    }

    #[test]
    fn publications_survive_the_way_through_redis() {
        let user_id = UserId::parse("a b\u{2028}ё").expect("a valid id");
        let frame = Bytes::from_static(b"{\"type\":\"x\",\"text\":\"line\\nline\"}");
        for publication in [
            Publication::Event {
                ev: 7,
                micros: 1_700_000_000_000_000,
                trace: None,
                frame: frame.clone(),
            },
            Publication::Event {
                ev: 8,
                micros: 1,
                trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
                frame: frame.clone(),
            },
            Publication::Head { ev: 9 },
            Publication::Deleted,
            Publication::Typing { user_id: user_id.clone(), micros: 5, frame: frame.clone() },
            Publication::Presence { user_id: user_id.clone(), frame },
            Publication::Room { chat_id: uuid::Uuid::nil(), ev: 3 },
            Publication::Erased { user_id: user_id.clone() },
            Publication::Revoked { user_id, micros: 1_700_000_000_000_000 },
        ] {
            assert_eq!(Publication::decode(&publication.encode()), Some(publication));
        }
        assert_eq!(Publication::decode(&Bytes::from_static(b"future 1\n")), None);
        assert_eq!(Publication::decode(&Bytes::new()), None);
    }
}
