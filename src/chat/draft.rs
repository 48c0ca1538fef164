//! Validates and prepares writes as far as that goes without the database.

use std::collections::HashSet;

use beseda_protocol::{
    bounds::{MAX_MENTIONS, MAX_METADATA_BYTES, check_client_msg_id, check_text},
    rest::{Edit, NewMessage},
};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    auth::mac,
    error::Error,
    input::Fields,
    json::canonical,
    model::{ChatId, Mentions, MessageId, UserId},
    store::Draft,
};

/// Parses a message. `idempotency_key` is the header of that name, an alternative to
/// `client_msg_id`.
pub(crate) fn parse_message(
    mut fields: Fields,
    idempotency_key: Option<&str>,
) -> Result<NewMessage, Error> {
    let text = fields.required_string("text", check_text);
    let metadata = fields.object("metadata", MAX_METADATA_BYTES);
    let mentions = mentions(&mut fields);
    let mut client_msg_id = fields.optional_string("client_msg_id", check_client_msg_id);
    if let (None, Some(key)) = (&client_msg_id, idempotency_key) {
        match check_client_msg_id(key) {
            Ok(()) => client_msg_id = Some(key.to_owned()),
            Err(reason) => fields.refuse("Idempotency-Key", reason),
        }
    }
    fields.finish()?;
    // An empty list is none: a retry may leave it out.
    let mentions = mentions.filter(|mentions| *mentions != Mentions::default());
    Ok(NewMessage { text: text.unwrap_or_default(), metadata, mentions, client_msg_id })
}

pub(crate) fn parse_edit(mut fields: Fields) -> Result<Edit, Error> {
    let text = fields.required_string("text", check_text);
    let mentions = mentions(&mut fields);
    fields.finish()?;
    Ok(Edit { text: text.unwrap_or_default(), mentions })
}

/// Takes the mentions, if present: each user once.
fn mentions(fields: &mut Fields) -> Option<Mentions> {
    let raw = fields.take("mentions")?;
    match serde_json::from_str(raw.get()) {
        Ok(Mentions::All) => Some(Mentions::All),
        Ok(Mentions::Users(users)) if users.len() <= MAX_MENTIONS => {
            let mut named = HashSet::new();
            let users = users.into_iter().filter(|user| named.insert(user.clone())).collect();
            Some(Mentions::Users(users))
        }
        Ok(Mentions::Users(_)) => {
            fields.refuse("mentions", format!("must have {MAX_MENTIONS} items at most"));
            None
        }
        Err(_) => {
            fields.refuse("mentions", "must be a list of user ids, or `all`");
            None
        }
    }
}

/// Stands for `all` among the digested mentions: no user id has a control character.
const EVERYBODY: &[u8] = &[1];

/// The installation's keys for the values derived from a message.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) ids: [u8; 32],
    pub(super) digests: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    pub(super) fn draft(&self, sender: &UserId, chat_id: ChatId, new: NewMessage) -> Draft {
        let NewMessage { text, metadata, mentions, client_msg_id } = new;
        let (message_id, digest) = match &client_msg_id {
            Some(key) => (
                self.message_id(chat_id, sender, key),
                Some(self.digest(&text, metadata.as_deref(), mentions.as_ref())),
            ),
            None => (MessageId::now_v7(), None),
        };
        Draft {
            chat_id,
            sender_id: sender.clone(),
            message_id,
            client_msg_id,
            digest,
            text,
            metadata,
            mentions,
        }
    }

    /// Derives the id from chat, sender and key, so that the unique index on ids finds a retry and
    /// no other index is needed.
    fn message_id(&self, chat_id: ChatId, sender: &UserId, key: &str) -> MessageId {
        let mac = mac(&self.ids, &[chat_id.as_bytes(), sender.as_str().as_bytes(), key.as_bytes()]);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&mac[..16]);
        MessageId::new_v8(bytes)
    }

    /// Digests the content, to tell a retry from other content under the same key. Metadata is
    /// compared in its [`canonical`] form, mentions as a set.
    fn digest(
        &self,
        text: &str,
        metadata: Option<&RawValue>,
        mentions: Option<&Mentions>,
    ) -> Bytes {
        // Infallible: it was parsed as JSON before.
        let canonical = metadata.and_then(|raw| canonical(raw).ok()).unwrap_or_default();
        let mut parts = vec![text.as_bytes(), canonical.as_bytes()];
        // Without mentions there is no further part: digests of such messages are older than mentions.
        match mentions {
            None => {}
            Some(Mentions::All) => parts.push(EVERYBODY),
            Some(Mentions::Users(users)) => {
                let from = parts.len();
                parts.extend(users.iter().map(|user| user.as_str().as_bytes()));
                parts[from..].sort_unstable();
            }
        }
        Bytes::copy_from_slice(&mac(&self.digests, &parts)[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<NewMessage, Error> {
        parse_message(Fields::parse(body.as_bytes())?, None)
    }

    fn fields_at_fault(body: &str) -> Vec<String> {
        match parse(body) {
            Err(Error::Validation(fields)) => fields.into_iter().map(|f| f.field).collect(),
            other => panic!("expected field errors, got {other:?}"),
        }
    }

    #[test]
    fn text_is_bounded_in_scalar_values() {
        assert!(parse(&format!(r#"{{"text":"{}"}}"#, "😀".repeat(4_000))).is_ok());
        assert_eq!(fields_at_fault(&format!(r#"{{"text":"{}"}}"#, "a".repeat(4_001))), ["text"]);
        assert_eq!(fields_at_fault(r#"{"text":" \n\t\u2003"}"#), ["text"]);
        assert_eq!(fields_at_fault(r#"{"text":"a\u0000b"}"#), ["text"]);
        assert_eq!(fields_at_fault(r#"{"text":"\ud800"}"#), ["text"]);
        assert_eq!(parse(r#"{"text":" a "}"#).expect("valid").text, " a ");
    }

    #[test]
    fn every_field_at_fault_is_named() {
        assert_eq!(
            fields_at_fault(r#"{"text":1,"metadata":[],"client_msg_id":""}"#),
            ["text", "metadata", "client_msg_id"]
        );
        assert_eq!(fields_at_fault("[]"), ["body"]);
        assert_eq!(parse("{").map_err(|e| e.code()).err(), Some("invalid_json"));
    }

    #[test]
    fn a_key_gives_the_same_id_and_metadata_counts_by_meaning() {
        let keys = Keys { ids: [1; 32], digests: [2; 32] };
        let user = UserId::parse("alice").expect("valid");
        let draft = |body: &str| keys.draft(&user, ChatId::nil(), parse(body).expect("valid"));
        let first = draft(r#"{"text":"a","metadata":{"x":1,"y":2},"client_msg_id":"k"}"#);
        let again = draft(r#"{"text":"a","metadata":{"y":2, "x":1},"client_msg_id":"k"}"#);
        let other = draft(r#"{"text":"a","metadata":{"x":1},"client_msg_id":"k"}"#);
        assert_eq!(first.message_id, again.message_id);
        assert_eq!(first.digest, again.digest);
        assert_ne!(first.digest, other.digest);
        let exact = |n: &str| {
            draft(&format!(r#"{{"text":"a","metadata":{{"n":{n}}},"client_msg_id":"k"}}"#)).digest
        };
        assert_ne!(exact("100000000000000000000001"), exact("100000000000000000000002"));
        assert_eq!(exact("1.0"), exact("1"));
        assert_eq!(first.message_id.get_version_num(), 8);
    }

    #[test]
    fn mentions_are_content_where_there_are_any_and_their_order_is_not() {
        let keys = Keys { ids: [1; 32], digests: [2; 32] };
        let user = UserId::parse("alice").expect("valid");
        let digest = |mentions: &str| {
            let body = format!(r#"{{"text":"a","client_msg_id":"k"{mentions}}}"#);
            keys.draft(&user, ChatId::nil(), parse(&body).expect("valid")).digest.expect("a key")
        };
        let none = digest("");
        // As before there were mentions.
        assert_eq!(none, &mac(&[2; 32], &[b"a", b""])[..16]);
        assert_eq!(digest(r#","mentions":[]"#), none);
        assert_eq!(digest(r#","mentions":null"#), none);
        let two = digest(r#","mentions":["bob","eve"]"#);
        assert_eq!(digest(r#","mentions":["eve","bob","eve"]"#), two);
        let all = digest(r#","mentions":"all""#);
        assert_ne!(digest(r#","mentions":["all"]"#), all);
        assert!(two != none && all != none && all != two);
    }

    #[test]
    fn mentions_are_user_ids_or_all() {
        let many = vec!["\"x\""; 51].join(",");
        for faulty in ["7", "{}", "\"some\"", "[7]", "[\"\"]", &format!("[{many}]")] {
            let body = format!(r#"{{"text":"a","mentions":{faulty}}}"#);
            assert_eq!(fields_at_fault(&body), ["mentions"], "{faulty}");
        }
        let edit = |body: &str| {
            parse_edit(Fields::parse(body.as_bytes()).expect("an object")).expect("valid").mentions
        };
        // What is not given stays; an empty list takes all mentions away.
        assert_eq!(edit(r#"{"text":"a"}"#), None);
        assert_eq!(edit(r#"{"text":"a","mentions":[]}"#), Some(Mentions::default()));
        assert_eq!(edit(r#"{"text":"a","mentions":"all"}"#), Some(Mentions::All));
    }
}
