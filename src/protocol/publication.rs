//! What travels through Redis: lines of text, then a frame as sockets send it, encoded once and never
//! parsed on its way.

use std::io::Write as _;

use bytes::Bytes;

use super::{Frame, change_frame};
use crate::model::{Audience, Change, ChatId, Epoch, UserId};

/// A frame of a change, and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressedFrame {
    pub audience: Audience,
    /// Users whose own part in the chat the change concerns: they may have no right to hear of it, or of
    /// anything after it.
    pub affected: Vec<UserId>,
    /// Nobody waits for it, so it may reach the sockets of a large chat one after the other.
    pub deferrable: bool,
    pub frame: Frame,
}

impl AddressedFrame {
    /// Addresses a frame to every member.
    pub fn to_all(frame: Frame) -> Self {
        Self { audience: Audience::All, affected: Vec::new(), deferrable: false, frame }
    }

    /// Encodes and addresses a change of a chat with receipts, or without.
    pub fn of(chat_id: ChatId, change: &Change, receipts: bool) -> Self {
        Self {
            audience: change.audience(receipts),
            affected: change.affected(),
            deferrable: false,
            frame: change_frame(chat_id, change),
        }
    }
}

/// A publication through Redis: a head line; for facts of the database a line with their epoch; for a
/// change a line with whom it is for; then a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// A change of a chat, committed at `micros` (since 1970, Postgres's clock).
    Event {
        epoch: Epoch,
        ev: i64,
        micros: i64,
        /// Its W3C trace parent, if it is traced.
        trace: Option<String>,
        frame: AddressedFrame,
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
    /// A member types, or stopped, at `micros` by the sending replica's clock: receivers drop it if Redis
    /// delivered it too late.
    Typing {
        user_id: UserId,
        micros: i64,
        typing: bool,
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
    /// On a user's channel: they moved their read marker in a chat without receipts, of which nobody else
    /// is told.
    OwnRead {
        epoch: Epoch,
        chat_id: ChatId,
        frame: Frame,
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

/// Writes the first line of an event's publication.
pub(super) fn write_event_head(bytes: &mut Vec<u8>, ev: i64, micros: i64, trace: Option<&str>) {
    // Writing to a Vec cannot fail.
    let _ = match trace {
        Some(trace) => writeln!(bytes, "e {ev} {micros} {trace}"),
        None => writeln!(bytes, "e {ev} {micros}"),
    };
}

/// Marks the audience of a frame that can be deferred.
const DEFERRABLE: u8 = b'~';

/// Writes the line before an event's frame: its audience, a `~` if it can be deferred, and whom it affects. A user id
/// contains no control character, so a tab ends it.
pub(super) fn write_address(
    bytes: &mut Vec<u8>,
    audience: Audience,
    deferrable: bool,
    affected: &[UserId],
) {
    // Writing to a Vec cannot fail.
    let _ = match audience {
        Audience::All => write!(bytes, "a"),
        Audience::Admins => write!(bytes, "m"),
        Audience::SeeingSeq(seq) => write!(bytes, "s{seq}"),
    };
    if deferrable {
        bytes.push(DEFERRABLE);
    }
    for user_id in affected {
        let _ = write!(bytes, "\t{user_id}");
    }
    bytes.push(b'\n');
}

fn parse_audience(raw: &str) -> Option<Audience> {
    Some(match raw {
        "a" => Audience::All,
        "m" => Audience::Admins,
        _ => Audience::SeeingSeq(raw.strip_prefix('s')?.parse().ok()?),
    })
}

/// Reads an event's frame, after its line.
fn parse_addressed(rest: &Bytes) -> Option<AddressedFrame> {
    let (line, frame) = cut_line(rest)?;
    let mut words = std::str::from_utf8(&line).ok()?.split('\t');
    let word = words.next()?;
    let unmarked = word.strip_suffix(char::from(DEFERRABLE));
    let audience = parse_audience(unmarked.unwrap_or(word))?;
    let affected = words.map(UserId::parse).collect::<Option<_>>()?;
    Some(AddressedFrame { audience, affected, deferrable: unmarked.is_some(), frame })
}

impl Publication {
    /// The epoch of the publication; `None` for facts that the database does not store.
    pub fn epoch(&self) -> Option<&Epoch> {
        match self {
            Self::Event { epoch, .. }
            | Self::Head { epoch, .. }
            | Self::Deleted { epoch }
            | Self::ChatMoved { epoch, .. }
            | Self::OwnRead { epoch, .. }
            | Self::Erased { epoch, .. }
            | Self::Revoked { epoch, .. } => Some(epoch),
            Self::Typing { .. } | Self::Presence { .. } => None,
        }
    }

    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail. A user id contains no control character, so it cannot end a line
        // early.
        let _ = match self {
            Self::Event { ev, micros, trace, .. } => {
                write_event_head(&mut bytes, *ev, *micros, trace.as_deref());
                Ok(())
            }
            Self::Head { ev, .. } => writeln!(bytes, "h {ev}"),
            Self::Deleted { .. } => writeln!(bytes, "d"),
            Self::Typing { user_id, micros, typing, .. } => {
                writeln!(bytes, "t {micros} {} {user_id}", u8::from(*typing))
            }
            Self::Presence { user_id, .. } => writeln!(bytes, "p {user_id}"),
            Self::ChatMoved { chat_id, ev, .. } => writeln!(bytes, "r {chat_id} {ev}"),
            Self::OwnRead { chat_id, .. } => writeln!(bytes, "o {chat_id}"),
            Self::Erased { user_id, .. } => writeln!(bytes, "x {user_id}"),
            Self::Revoked { user_id, micros, .. } => writeln!(bytes, "v {micros} {user_id}"),
        };
        if let Some(epoch) = self.epoch() {
            bytes.extend_from_slice(epoch.as_bytes());
            bytes.push(b'\n');
        }
        match self {
            Self::Event { frame, .. } => {
                let AddressedFrame { audience, affected, deferrable, frame } = frame;
                write_address(&mut bytes, *audience, *deferrable, affected);
                bytes.extend_from_slice(frame);
            }
            Self::Typing { frame, .. }
            | Self::Presence { frame, .. }
            | Self::OwnRead { frame, .. } => bytes.extend_from_slice(frame),
            _ => {}
        }
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
                let trace = words.next().map(str::to_owned);
                Self::Event { epoch, ev, micros, trace, frame: parse_addressed(&frame)? }
            }
            "h" => Self::Head { epoch: epoch()?, ev: rest.parse().ok()? },
            "d" => Self::Deleted { epoch: epoch()? },
            "t" => {
                let (micros, rest) = rest.split_once(' ')?;
                let (typing, user_id) = rest.split_once(' ')?;
                let (micros, typing) = (micros.parse().ok()?, typing == "1");
                Self::Typing { user_id: UserId::parse(user_id)?, micros, typing, frame }
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
            "o" => {
                let epoch = epoch()?;
                Self::OwnRead { epoch, chat_id: rest.parse().ok()?, frame }
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

    #[test]
    fn publications_survive_the_way_through_redis() {
        let user_id = UserId::parse("a b\u{2028}ё").expect("a valid id");
        // Metadata is kept as sent, with its line breaks.
        let frame =
            Bytes::from_static(b"{\"type\":\"x\",\"text\":\"line\\nline\",\n\"metadata\":{\n}}");
        let epoch = || Epoch::from("after a restore-00000002");
        let event = |audience, deferrable, affected: &[&str]| Publication::Event {
            epoch: epoch(),
            ev: 7,
            micros: 1_700_000_000_000_000,
            trace: None,
            frame: AddressedFrame {
                audience,
                affected: affected.iter().filter_map(|id| UserId::parse(id)).collect(),
                deferrable,
                frame: frame.clone(),
            },
        };
        for publication in [
            event(Audience::All, false, &["carol"]),
            event(Audience::SeeingSeq(12), true, &[]),
            event(Audience::Admins, true, &["a b\u{2028}ё", "bob"]),
            Publication::Event {
                epoch: epoch(),
                ev: 8,
                micros: 1,
                trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
                frame: AddressedFrame::to_all(frame.clone()),
            },
            Publication::Head { epoch: epoch(), ev: 9 },
            Publication::Deleted { epoch: epoch() },
            Publication::Typing {
                user_id: user_id.clone(),
                micros: 5,
                typing: true,
                frame: frame.clone(),
            },
            Publication::Presence { user_id: user_id.clone(), frame: frame.clone() },
            Publication::ChatMoved { epoch: epoch(), chat_id: uuid::Uuid::nil(), ev: 3 },
            Publication::OwnRead { epoch: epoch(), chat_id: uuid::Uuid::nil(), frame },
            Publication::Erased { epoch: epoch(), user_id: user_id.clone() },
            Publication::Revoked { epoch: epoch(), user_id, micros: 1_700_000_000_000_000 },
        ] {
            assert_eq!(Publication::decode(&publication.encode()), Some(publication));
        }
        assert_eq!(Publication::decode(&Bytes::from_static(b"future 1\n")), None);
        assert_eq!(Publication::decode(&Bytes::new()), None);
        assert_eq!(Publication::decode(&Bytes::from_static(b"e 1 2\none\nz\n{}")), None, "whom?");
    }
}
