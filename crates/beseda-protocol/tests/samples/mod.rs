//! Objects that the tests encode and decode.

use beseda_protocol::model::{
    Attachment, AttachmentStatus, Chat, ChatKind, GroupChange, GroupSettings, Member, Mentions,
    Message, MessageKind, Notify, PostRule, Quote, Reaction, Role, SystemEvent, SystemEventKind,
    Time, User, UserId,
};
use serde_json::value::RawValue;

/// Metadata that only an exact copy preserves: a number beyond a float's precision, spaces, key order.
const METADATA: &str = r#"{"n": 100000000000000000000001, "b":[1.0,{}],"a":"\u0444"}"#;

pub(crate) fn time() -> Time {
    Time("2026-11-23T19:30:00.123456Z".parse().expect("a time"))
}

pub(crate) fn user_id() -> UserId {
    UserId::parse("a \"b\"\u{2028}ё").expect("an id")
}

pub(crate) fn user() -> User {
    User { user_id: user_id(), name: None, avatar_url: None, online: true, last_seen_at: None }
}

pub(crate) fn metadata() -> Option<Box<RawValue>> {
    Some(RawValue::from_string(METADATA.to_owned()).expect("JSON"))
}

pub(crate) fn message() -> Message {
    Message {
        message_id: uuid::Uuid::from_u128(7),
        chat_id: uuid::Uuid::from_u128(8),
        seq: 3,
        ev: 4,
        kind: MessageKind::Text,
        sender_id: Some(user_id()),
        text: "line\n\"quoted\" \u{2028} 😀".to_owned(),
        metadata: metadata(),
        mentions: Mentions::Users(vec![user_id()]),
        system: None,
        reply_to: Some(Box::new(Quote {
            message_id: uuid::Uuid::from_u128(6),
            seq: 2,
            sender_id: Some(user_id()),
            text: "before".to_owned(),
            deleted: false,
        })),
        attachments: vec![Attachment {
            attachment_id: uuid::Uuid::from_u128(9),
            name: "cat.png".to_owned(),
            content_type: "image/png".to_owned(),
            size: 12_345,
            width: Some(640),
            height: Some(480),
            duration_ms: None,
            blurhash: Some("LEHV6nWB2yk8pyo0adR*.7kCMdnj".to_owned()),
            thumbnail: true,
            status: AttachmentStatus::Ready,
        }],
        reactions: vec![Reaction {
            emoji: "👍".to_owned(), count: 21, user_ids: vec![user_id()]
        }],
        pinned_at: Some(time()),
        client_msg_id: Some("k".to_owned()),
        created_at: time(),
        edited_at: None,
        deleted_at: None,
        my_reactions: None,
    }
}

pub(crate) fn system_message() -> Message {
    Message {
        kind: MessageKind::System,
        sender_id: None,
        text: String::new(),
        metadata: None,
        mentions: Mentions::default(),
        system: Some(SystemEvent {
            event: SystemEventKind::ChatChanged,
            user_ids: Vec::new(),
            by: Some(user_id()),
            title: Some("Friends".to_owned()),
        }),
        reply_to: None,
        attachments: Vec::new(),
        reactions: Vec::new(),
        pinned_at: None,
        client_msg_id: None,
        ..message()
    }
}

pub(crate) fn chat() -> Chat {
    Chat {
        chat_id: uuid::Uuid::from_u128(8),
        room_name: "40Puh71q7C4LQ5AzjV3xbA".to_owned(),
        kind: ChatKind::Direct,
        title: None,
        avatar_url: None,
        metadata: None,
        member_count: 2,
        created_at: time(),
        created_by: user_id(),
        other_user: Some(user()),
        role: Role::Member,
        settings: None,
        receipts: true,
        last_message: Some(message()),
        last_seq: 3,
        last_ev: 4,
        first_seq: 1,
        read_seq: 1,
        peer_read_seq: Some(2),
        unread_count: 2,
        unread_mentions: 1,
        notify: Notify::All,
        pinned: false,
        archived: false,
    }
}

pub(crate) fn group() -> Chat {
    Chat {
        kind: ChatKind::Group,
        title: Some("Friends".to_owned()),
        avatar_url: Some("https://example.com/friends.png".to_owned()),
        metadata: metadata(),
        member_count: 33,
        other_user: None,
        role: Role::Owner,
        settings: Some(GroupSettings::default()),
        receipts: false,
        last_message: Some(system_message()),
        first_seq: 2,
        peer_read_seq: None,
        notify: Notify::Mentions,
        pinned: true,
        ..chat()
    }
}

pub(crate) fn member() -> Member {
    Member {
        user: user(),
        role: Role::Admin,
        joined_at: time(),
        read_seq: Some(3),
        silenced_until: Some(time()),
    }
}

pub(crate) fn group_change() -> GroupChange {
    GroupChange {
        chat_id: uuid::Uuid::from_u128(8),
        ev: 7,
        title: "Friends".to_owned(),
        avatar_url: None,
        metadata: metadata(),
        settings: GroupSettings {
            post: PostRule::Admins,
            slow_mode_s: 30,
            ..GroupSettings::default()
        },
        member_count: 33,
        receipts: false,
    }
}
