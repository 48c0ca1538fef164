//! The server's half of the protocol: publications through Redis, which carry the frames of
//! [`beseda_protocol`], and frames made of stored changes.

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
    model::{Change, ChatId, Epoch, Head, Message, UserId},
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
        let Message { chat_id, ev, created_at, .. } = message;
        // Ids, names and times take some 400 bytes besides the text.
        let mut bytes = Vec::with_capacity(512 + message.text.len());
        let micros = created_at.0.as_microsecond();
        // Neither writing to a Vec nor a plain struct can fail.
        let head = event_head(*ev, micros, trace);
        let _ = write!(bytes, "{head}{epoch}\n{{\"type\":\"message.created\",");
        let _ = write!(bytes, "\"chat_id\":\"{chat_id}\",\"ev\":{ev},\"message\":");
        let start = bytes.len();
        let _ = serde_json::to_writer(&mut bytes, message);
        let end = bytes.len();
        bytes.push(b'}');
        let publication = Bytes::from(bytes);
        Self { json: publication.slice(start..end), publication }
    }
}

/// Returns the first line of an event's publication.
fn event_head(ev: i64, micros: i64, trace: Option<&str>) -> String {
    match trace {
        Some(trace) => format!("e {ev} {micros} {trace}\n"),
        None => format!("e {ev} {micros}\n"),
    }
}

/// Encodes a change as the frame that reports it.
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

/// A publication through Redis: a head line; for facts of the database a line with their epoch;
/// then the frame as sockets send it, which is encoded once and never parsed on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// A change of a chat, committed at `micros` (since 1970, Postgres's clock).
    Event {
        epoch: Epoch,
        ev: i64,
        micros: i64,
        /// Its W3C trace parent, if it is traced.
        trace: Option<String>,
        frame: Frame,
    },
    /// The chat has reached `ev`: a subscriber that is behind reads Postgres.
    Head {
        epoch: Epoch,
        ev: i64,
    },
    /// The chat was deleted.
    Deleted {
        epoch: Epoch,
    },
    /// A member types, at `micros` by the sending replica's clock: receivers drop it if Redis
    /// delivered it too late.
    Typing {
        user_id: UserId,
        micros: i64,
        frame: Frame,
    },
    Presence {
        user_id: UserId,
        frame: Frame,
    },
    /// On a user's channel: one of their chats has reached `ev`.
    ChatMoved {
        epoch: Epoch,
        chat_id: ChatId,
        ev: i64,
    },
    /// To all replicas: this user's tokens are void, and their sockets must be closed.
    Erased {
        epoch: Epoch,
        user_id: UserId,
    },
    /// To all replicas: this user's tokens issued before `micros` (since 1970) are void, and
    /// sockets opened with them must be closed.
    Revoked {
        epoch: Epoch,
        user_id: UserId,
        micros: i64,
    },
}

impl Publication {
    /// The epoch of the publication; `None` for facts that the database does not store.
    pub fn epoch(&self) -> Option<&Epoch> {
        match self {
            Self::Event { epoch, .. }
            | Self::Head { epoch, .. }
            | Self::Deleted { epoch }
            | Self::ChatMoved { epoch, .. }
            | Self::Erased { epoch, .. }
            | Self::Revoked { epoch, .. } => Some(epoch),
            Self::Typing { .. } | Self::Presence { .. } => None,
        }
    }

    pub fn encode(&self) -> Bytes {
        let (head, frame) = match self {
            Self::Event { ev, micros, trace, frame, .. } => {
                (event_head(*ev, *micros, trace.as_deref()), Some(frame))
            }
            Self::Head { ev, .. } => (format!("h {ev}\n"), None),
            Self::Deleted { .. } => ("d\n".to_owned(), None),
            // A user id contains no control character, so it cannot end the line early.
            Self::Typing { user_id, micros, frame } => {
                (format!("t {micros} {user_id}\n"), Some(frame))
            }
            Self::Presence { user_id, frame } => (format!("p {user_id}\n"), Some(frame)),
            Self::ChatMoved { chat_id, ev, .. } => (format!("r {chat_id} {ev}\n"), None),
            Self::Erased { user_id, .. } => (format!("x {user_id}\n"), None),
            Self::Revoked { user_id, micros, .. } => (format!("v {micros} {user_id}\n"), None),
        };
        let mut bytes = head.into_bytes();
        if let Some(epoch) = self.epoch() {
            bytes.extend_from_slice(epoch.as_bytes());
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(frame.map_or(&[], |frame| frame));
        bytes.into()
    }

    /// Decodes a publication; `None` for one of another version.
    pub fn decode(payload: &Bytes) -> Option<Self> {
        let (head, mut frame) = cut_line(payload)?;
        let head = std::str::from_utf8(&head).ok()?;
        let (kind, rest) = head.split_once(' ').unwrap_or((head, ""));
        let mut epoch = || {
            let line;
            (line, frame) = cut_line(&frame)?;
            Some(Epoch::from(std::str::from_utf8(&line).ok()?))
        };
        Some(match kind {
            "e" => {
                let epoch = epoch()?;
                let mut words = rest.split(' ');
                let (ev, micros) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                Self::Event { epoch, ev, micros, trace: words.next().map(str::to_owned), frame }
            }
            "h" => Self::Head { epoch: epoch()?, ev: rest.parse().ok()? },
            "d" => Self::Deleted { epoch: epoch()? },
            "t" => {
                let (micros, user_id) = rest.split_once(' ')?;
                let micros = micros.parse().ok()?;
                Self::Typing { user_id: UserId::parse(user_id)?, micros, frame }
            }
            "p" => Self::Presence { user_id: UserId::parse(rest)?, frame },
            "r" => {
                let (chat_id, ev) = rest.split_once(' ')?;
                Self::ChatMoved {
                    epoch: epoch()?,
                    chat_id: chat_id.parse().ok()?,
                    ev: ev.parse().ok()?,
                }
            }
            "x" => Self::Erased { epoch: epoch()?, user_id: UserId::parse(rest)? },
            "v" => {
                let (micros, user_id) = rest.split_once(' ')?;
                Self::Revoked {
                    epoch: epoch()?,
                    micros: micros.parse().ok()?,
                    user_id: UserId::parse(user_id)?,
                }
            }
            _ => return None,
        })
    }
}

/// Splits off the first line.
fn cut_line(payload: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = memchr::memchr(b'\n', payload)?;
    Some((payload.slice(..end), payload.slice(end + 1..)))
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
        let epoch = Epoch::from("one-00000001");
        let created = Created::encode(&message, &epoch, None);
        let micros = time.0.as_microsecond();
        let frame = message_frame(&message);
        let event = Publication::Event { epoch, ev: message.ev, micros, trace: None, frame };
        assert_eq!(created.publication, event.encode());
        assert_eq!(created.json, serde_json::to_vec(&message).expect("serializes"));
    }

    #[test]
    fn publications_survive_the_way_through_redis() {
        let user_id = UserId::parse("a b\u{2028}ё").expect("a valid id");
        let frame = Bytes::from_static(b"{\"type\":\"x\",\"text\":\"line\\nline\"}");
        let epoch = || Epoch::from("after a restore-00000002");
        for publication in [
            Publication::Event {
                epoch: epoch(),
                ev: 7,
                micros: 1_700_000_000_000_000,
                trace: None,
                frame: frame.clone(),
            },
            Publication::Event {
                epoch: epoch(),
                ev: 8,
                micros: 1,
                trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
                frame: frame.clone(),
            },
            Publication::Head { epoch: epoch(), ev: 9 },
            Publication::Deleted { epoch: epoch() },
            Publication::Typing { user_id: user_id.clone(), micros: 5, frame: frame.clone() },
            Publication::Presence { user_id: user_id.clone(), frame },
            Publication::ChatMoved { epoch: epoch(), chat_id: uuid::Uuid::nil(), ev: 3 },
            Publication::Erased { epoch: epoch(), user_id: user_id.clone() },
            Publication::Revoked { epoch: epoch(), user_id, micros: 1_700_000_000_000_000 },
        ] {
            assert_eq!(Publication::decode(&publication.encode()), Some(publication));
        }
        assert_eq!(Publication::decode(&Bytes::from_static(b"future 1\n")), None);
        assert_eq!(Publication::decode(&Bytes::new()), None);
    }
}
