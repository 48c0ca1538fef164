//! Validates and prepares writes as far as that goes without the database.

use std::collections::HashSet;

use beseda_protocol::{
    bounds::{
        MAX_ATTACHMENTS, MAX_MENTIONS, MAX_METADATA_BYTES, check_caption, check_client_msg_id,
        check_text,
    },
    rest::{Edit, NewMessage},
};
use bytes::Bytes;

use crate::{
    auth::mac,
    error::Error,
    input::Fields,
    json::canonical,
    model::{AttachmentId, ChatId, Mentions, MessageId, UserId, parse_id},
    store::Draft,
};

/// Parses a message. `idempotency_key` is the header of that name, an alternative to
/// `client_msg_id`.
pub(crate) fn parse_message(
    mut fields: Fields,
    idempotency_key: Option<&str>,
) -> Result<NewMessage, Error> {
    let attachments = attachments(&mut fields);
    let text = if attachments.is_empty() {
        fields.required_string("text", check_text)
    } else {
        fields.optional_string("text", check_caption)
    };
    let metadata = fields.object("metadata", MAX_METADATA_BYTES);
    let mentions = mentions(&mut fields);
    let reply_to = message_id(&mut fields, "reply_to");
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
    Ok(NewMessage {
        text: text.unwrap_or_default(),
        metadata,
        mentions,
        reply_to,
        attachments,
        client_msg_id,
    })
}

pub(crate) fn parse_edit(mut fields: Fields) -> Result<Edit, Error> {
    // Whether it may be empty only the message tells.
    let text = fields.required_string("text", check_caption);
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

/// Takes the id of a message, if present.
fn message_id(fields: &mut Fields, name: &str) -> Option<MessageId> {
    let is_id = |raw: &str| parse_id(raw).map(drop).ok_or("must be a message_id");
    fields.optional_string(name, is_id).as_deref().and_then(parse_id)
}

/// Takes the ids of attachments; an empty list is none.
fn attachments(fields: &mut Fields) -> Vec<AttachmentId> {
    let Some(raw) = fields.take("attachments") else { return Vec::new() };
    let ids: Option<Vec<AttachmentId>> = serde_json::from_str::<Vec<&str>>(raw.get())
        .ok()
        .and_then(|ids| ids.into_iter().map(parse_id).collect());
    let mut named = HashSet::new();
    match ids {
        Some(ids) if ids.len() > MAX_ATTACHMENTS => {
            fields.refuse("attachments", format!("must have {MAX_ATTACHMENTS} items at most"));
        }
        Some(ids) if !ids.iter().all(|id| named.insert(*id)) => {
            fields.refuse("attachments", "must not have an item twice");
        }
        Some(ids) => return ids,
        None => fields.refuse("attachments", "must be a list of attachment ids"),
    }
    Vec::new()
}

/// Stands for `all` among the digested mentions: no user id has a control character.
const EVERYBODY: &[u8] = &[1];
/// Begin what follows the mentions among the digested parts; the same holds for them.
const REPLY_TO: &[u8] = &[2];
const ATTACHMENTS: &[u8] = &[3];

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
        let (message_id, digest) = match &new.client_msg_id {
            Some(key) => (self.message_id(chat_id, sender, key), Some(self.digest(&new))),
            None => (MessageId::now_v7(), None),
        };
        let NewMessage { text, metadata, mentions, reply_to, attachments, client_msg_id } = new;
        Draft {
            chat_id,
            sender_id: sender.clone(),
            message_id,
            client_msg_id,
            digest,
            text,
            metadata,
            mentions,
            reply_to,
            attachments,
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
    fn digest(&self, new: &NewMessage) -> Bytes {
        let NewMessage { text, metadata, mentions, reply_to, attachments, client_msg_id: _ } = new;
        // Infallible: it was parsed as JSON before.
        let canonical = metadata.as_deref().and_then(|raw| canonical(raw).ok()).unwrap_or_default();
        let mut parts = vec![text.as_bytes(), canonical.as_bytes()];
        // What is not there is no part: digests of such messages are older than what it is.
        match mentions {
            None => {}
            Some(Mentions::All) => parts.push(EVERYBODY),
            Some(Mentions::Users(users)) => {
                let from = parts.len();
                parts.extend(users.iter().map(|user| user.as_str().as_bytes()));
                parts[from..].sort_unstable();
            }
        }
        if let Some(message_id) = reply_to {
            parts.extend([REPLY_TO, message_id.as_bytes()]);
        }
        if !attachments.is_empty() {
            parts.push(ATTACHMENTS);
            parts.extend(attachments.iter().map(|id| id.as_bytes().as_slice()));
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
            let new = parse(&body).expect("valid");
            keys.draft(&user, ChatId::nil(), new).digest.expect("a key")
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
    fn what_a_message_carries_is_content_in_its_order() {
        let keys = Keys { ids: [1; 32], digests: [2; 32] };
        let user = UserId::parse("alice").expect("valid");
        let (one, two) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        let digest = |more: &str| {
            let new =
                parse(&format!(r#"{{"text":"a","client_msg_id":"k"{more}}}"#)).expect("valid");
            keys.draft(&user, ChatId::nil(), new).digest.expect("a key")
        };
        let none = digest("");
        assert_eq!(digest(r#","attachments":[],"reply_to":null"#), none);
        let reply = digest(&format!(r#","reply_to":"{one}""#));
        let file = digest(&format!(r#","attachments":["{one}"]"#));
        let files = digest(&format!(r#","attachments":["{one}","{two}"]"#));
        let turned = digest(&format!(r#","attachments":["{two}","{one}"]"#));
        let all = [none, reply, file, files, turned];
        assert!((0..5).all(|at| !all[..at].contains(&all[at])));
    }

    #[test]
    fn only_beside_attachments_a_text_may_be_empty() {
        let id = uuid::Uuid::nil();
        let ids = vec![format!("\"{id}\""); 2].join(",");
        assert!(parse(&format!(r#"{{"attachments":["{id}"]}}"#)).is_ok());
        assert!(parse(&format!(r#"{{"text":"","attachments":["{id}"]}}"#)).is_ok());
        assert_eq!(fields_at_fault(r#"{"attachments":[]}"#), ["text"]);
        assert_eq!(
            fields_at_fault(&format!(r#"{{"attachments":[{ids}]}}"#)),
            ["attachments", "text"]
        );
        assert_eq!(
            fields_at_fault(r#"{"text":"a","attachments":["x"],"reply_to":"x"}"#),
            ["attachments", "reply_to"]
        );
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
