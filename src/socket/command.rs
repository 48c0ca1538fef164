//! Parses the frames that clients send.

use beseda_protocol::{bounds::MAX_COMMAND_ID_BYTES, rest::NewMessage};
use serde_json::value::RawValue;

use crate::{
    chat::parse_message,
    error::Error,
    input::Fields,
    model::{ChatId, Position, parse_id},
    protocol::CommandId,
};

/// A command, parsed without the state of the socket.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe { chat_id: Option<ChatId>, after: Option<Position> },
    Unsubscribe { chat_id: Option<ChatId> },
    Send { chat_id: Option<ChatId>, message: NewMessage },
    MarkRead { chat_id: Option<ChatId>, up_to_seq: Option<i64> },
    Typing { chat_id: Option<ChatId>, typing: bool },
    Auth { token: String },
    Ping,
}

/// A frame's command or its error, with the id for the reply.
pub(crate) struct Request {
    pub id: Option<CommandId>,
    pub command: Result<Command, Error>,
}

impl Request {
    /// Parses a frame. The error means that it is not JSON, and closes the socket.
    pub(crate) fn parse(frame: &str) -> Result<Self, Error> {
        let mut fields = match Fields::parse(frame.as_bytes()) {
            Ok(fields) => fields,
            // An array or a number is JSON: the client gets an error, and the socket stays open.
            Err(error @ Error::Validation(_)) => {
                return Ok(Self { id: None, command: Err(error) });
            }
            Err(error) => return Err(error),
        };
        let id = fields.take("id");
        if id.as_deref().is_some_and(|id| !is_command_id(id)) {
            return Ok(Self {
                id: None,
                command: Err(Error::field(
                    "id",
                    "must be a string of at most 256 bytes, or an integer of 64 bits",
                )),
            });
        }
        Ok(Self { id, command: command(fields) })
    }
}

fn is_command_id(id: &RawValue) -> bool {
    let raw = id.get();
    raw.len() <= MAX_COMMAND_ID_BYTES
        && (raw.starts_with('"') && serde_json::from_str::<String>(raw).is_ok()
            || serde_json::from_str::<i64>(raw).is_ok()
            || serde_json::from_str::<u64>(raw).is_ok())
}

fn command(mut fields: Fields) -> Result<Command, Error> {
    let kind = fields.required_string("type", |_| Ok(()));
    let Some(kind) = kind else {
        fields.finish()?;
        return Err(Error::field("type", "is required"));
    };
    let chat_id = fields
        .optional_string("chat_id", |raw| parse_id(raw).map(|_| ()).ok_or("must be a chat_id"))
        .and_then(|raw| parse_id(&raw));
    match kind.as_str() {
        "subscribe" => {
            let after_ev = fields.optional_integer("after_ev", 0);
            let epoch = fields.optional_string("epoch", |_| Ok(()));
            fields.finish()?;
            let after = after_ev.map(|ev| Position { ev, epoch });
            Ok(Command::Subscribe { chat_id, after })
        }
        "unsubscribe" => {
            fields.finish()?;
            Ok(Command::Unsubscribe { chat_id })
        }
        "send" => Ok(Command::Send { chat_id, message: parse_message(fields, None)? }),
        "mark_read" => {
            let up_to_seq = fields.optional_integer("up_to_seq", 0);
            fields.finish()?;
            Ok(Command::MarkRead { chat_id, up_to_seq })
        }
        "typing" => {
            let typing = fields.required_bool("typing");
            fields.finish()?;
            Ok(Command::Typing { chat_id, typing: typing.unwrap_or_default() })
        }
        "auth" => {
            let token = fields.required_string("token", |_| Ok(()));
            fields.finish()?;
            Ok(Command::Auth { token: token.unwrap_or_default() })
        }
        "ping" => Ok(Command::Ping),
        _ => Err(Error::field("type", "is no command of chat.v1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(frame: &str) -> (Option<String>, &'static str) {
        match Request::parse(frame) {
            Err(error) => (None, error.code()),
            Ok(Request { id, command }) => (
                id.map(|id| id.get().to_owned()),
                command.map_or_else(|error| error.code(), |_| "ok"),
            ),
        }
    }

    #[test]
    fn only_what_is_no_json_ends_a_socket() {
        assert!(Request::parse("{").is_err());
        assert!(Request::parse("hello").is_err());
        assert_eq!(outcome("[1]"), (None, "validation_failed"));
        assert_eq!(outcome(r#"{"type":"dance","id":1}"#), (Some("1".into()), "validation_failed"));
        assert_eq!(outcome(r#"{"id":"x"}"#), (Some("\"x\"".into()), "validation_failed"));
    }

    #[test]
    fn ids_are_strings_or_integers_echoed_as_sent() {
        assert_eq!(outcome(r#"{"type":"ping","id":"ä\n"}"#), (Some(r#""ä\n""#.into()), "ok"));
        assert_eq!(outcome(r#"{"type":"ping","id":-7}"#), (Some("-7".into()), "ok"));
        assert_eq!(outcome(r#"{"type":"ping","id":1.5}"#), (None, "validation_failed"));
        assert_eq!(outcome(r#"{"type":"ping","id":{}}"#), (None, "validation_failed"));
        assert_eq!(outcome(r#"{"type":"ping"}"#), (None, "ok"));
    }
}
