//! Objects that the tests encode and decode.

use beseda_protocol::model::{Chat, ChatKind, Message, Time, User, UserId};
use serde_json::value::RawValue;

/// Metadata that only an exact copy preserves: a number beyond a float's precision, spaces, key order.
const METADATA: &str = r#"{"n": 100000000000000000000001, "b":[1.0,{}],"a":"\u0444"}"#;

pub(crate) fn time() -> Time {
    Time("2026-11-23T19:30:00.123456Z".parse().expect("a time"))
}

pub(crate) fn user_id() -> UserId {
    UserId::parse("a \"b\"\u{2028}ё").expect("an id")
}

pub(crate) fn message() -> Message {
    Message {
        message_id: uuid::Uuid::from_u128(7),
        chat_id: uuid::Uuid::from_u128(8),
        seq: 3,
        ev: 4,
        sender_id: user_id(),
        text: "line\n\"quoted\" \u{2028} 😀".to_owned(),
        metadata: Some(RawValue::from_string(METADATA.to_owned()).expect("JSON")),
        client_msg_id: Some("k".to_owned()),
        created_at: time(),
        edited_at: None,
        deleted_at: None,
    }
}

pub(crate) fn chat() -> Chat {
    let other_user =
        User { user_id: user_id(), name: None, avatar_url: None, online: true, last_seen_at: None };
    Chat {
        chat_id: uuid::Uuid::from_u128(8),
        room_name: "40Puh71q7C4LQ5AzjV3xbA".to_owned(),
        kind: ChatKind::Direct,
        created_at: time(),
        created_by: user_id(),
        other_user,
        last_message: Some(message()),
        last_seq: 3,
        last_ev: 4,
        read_seq: 1,
        peer_read_seq: 2,
        unread_count: 2,
    }
}
