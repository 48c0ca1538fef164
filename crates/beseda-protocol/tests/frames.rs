//! What a server encodes is what a client decodes.

mod samples;

use beseda_protocol::{
    ClientFrame, ReceivedFrame, ResetReason, ServerFrame,
    frame::{AckResult, CommandName, GoneReason, Receipt, message_frame},
    model::{
        ChangedPart, Chat, ExportEnd, ExportLine, ExportedMessage, LeftReason, Mentions, Message,
        MessageKind, SystemEventKind, UserId,
    },
};
use proptest::prelude::*;
use serde_json::{Value, value::RawValue};

use samples::{chat, group, group_change, member, message, system_message, time, user_id};

fn received(frame: &ServerFrame<'_>) -> ReceivedFrame {
    let text = frame.encode();
    let text = std::str::from_utf8(&text).expect("JSON is UTF-8");
    ReceivedFrame::decode(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[test]
fn every_frame_of_a_server_is_understood_by_a_client() {
    let (user, message, chat, at) = (user_id(), message(), chat(), time());
    let (member, change) = (member(), group_change());
    let receipts = [Receipt { user_id: user.clone(), read_seq: 3 }];
    let (chat_id, message_id) = (message.chat_id, message.message_id);
    let name = RawValue::from_string("\"x\"".to_owned()).expect("JSON");
    let number = RawValue::from_string("-7".to_owned()).expect("JSON");
    let text = || Some(CommandName::Text("x".to_owned()));
    let epoch = "e1";
    let owned = || "e1".to_owned();
    let ack = |result| received(&ServerFrame::Ack { id: Some(&number), result });
    let acked = |message, chat_id, read_seq, total_unread, token_expires_at| ReceivedFrame::Ack {
        id: Some(CommandName::Number(-7)),
        message,
        chat_id,
        read_seq,
        unread_count: read_seq,
        total_unread,
        token_expires_at,
    };
    for (found, expected) in [
        (
            received(&ServerFrame::Hello {
                connection_id: message_id,
                user_id: &user,
                heartbeat_ms: 25_000,
                token_expires_at: at,
                epoch,
            }),
            ReceivedFrame::Hello {
                connection_id: message_id,
                user_id: user.clone(),
                heartbeat_ms: 25_000,
                token_expires_at: at,
                epoch: owned(),
            },
        ),
        (
            received(&ServerFrame::Subscribed {
                id: Some(&name),
                chat_id,
                head_ev: 1,
                head_seq: 2,
                epoch,
                read_seq: 3,
                peer_read_seq: Some(4),
                receipts: &receipts,
                online: vec![user.clone()],
                online_count: Some(1),
            }),
            ReceivedFrame::Subscribed {
                id: text(),
                chat_id,
                head_ev: 1,
                head_seq: 2,
                epoch: owned(),
                read_seq: 3,
                peer_read_seq: Some(4),
                receipts: receipts.to_vec(),
                online: vec![user.clone()],
                online_count: Some(1),
            },
        ),
        (
            received(&ServerFrame::MessageCreated { chat_id, ev: 4, message: &message }),
            ReceivedFrame::MessageCreated { chat_id, ev: 4, message: message.clone() },
        ),
        (
            received(&ServerFrame::MessageUpdated {
                chat_id,
                ev: 4,
                changed: Some(&[ChangedPart::Reactions]),
                message: &message,
            }),
            ReceivedFrame::MessageUpdated {
                chat_id,
                ev: 4,
                changed: Some(vec![ChangedPart::Reactions]),
                message: message.clone(),
            },
        ),
        (
            received(&ServerFrame::MessageDeleted {
                chat_id,
                ev: 5,
                message_id,
                seq: 3,
                deleted_at: Some(at),
            }),
            ReceivedFrame::MessageDeleted {
                chat_id,
                ev: 5,
                message_id,
                seq: 3,
                deleted_at: Some(at),
            },
        ),
        (
            received(&ServerFrame::ChatRead { chat_id, ev: Some(6), user_id: &user, read_seq: 3 }),
            ReceivedFrame::ChatRead { chat_id, ev: Some(6), user_id: user.clone(), read_seq: 3 },
        ),
        (
            received(&ServerFrame::ChatRead { chat_id, ev: None, user_id: &user, read_seq: 3 }),
            ReceivedFrame::ChatRead { chat_id, ev: None, user_id: user.clone(), read_seq: 3 },
        ),
        (
            received(&ServerFrame::MemberJoined {
                chat_id,
                ev: 7,
                members: std::slice::from_ref(&member),
                by: Some(&user),
            }),
            ReceivedFrame::MemberJoined {
                chat_id,
                ev: 7,
                members: vec![member.clone()],
                by: Some(user.clone()),
            },
        ),
        (
            received(&ServerFrame::MemberUpdated { chat_id, ev: 7, member: &member, by: None }),
            ReceivedFrame::MemberUpdated {
                chat_id,
                ev: 7,
                member: Box::new(member.clone()),
                by: None,
            },
        ),
        (
            received(&ServerFrame::MemberLeft {
                chat_id,
                ev: 7,
                user_id: &user,
                by: None,
                reason: LeftReason::Erased,
            }),
            ReceivedFrame::MemberLeft {
                chat_id,
                ev: 7,
                user_id: user.clone(),
                by: None,
                reason: LeftReason::Erased,
            },
        ),
        (
            received(&ServerFrame::ChatChanged(&change)),
            ReceivedFrame::ChatChanged(Box::new(change.clone())),
        ),
        (
            received(&ServerFrame::Skipped { chat_id, ev: 7 }),
            ReceivedFrame::Skipped { chat_id, ev: 7 },
        ),
        (
            received(&ServerFrame::Synced { chat_id, ev: 6 }),
            ReceivedFrame::Synced { chat_id, ev: 6 },
        ),
        (
            received(&ServerFrame::Catchup { chat_id, after_ev: 6 }),
            ReceivedFrame::Catchup { chat_id, after_ev: 6 },
        ),
        (
            received(&ServerFrame::Reset {
                chat_id,
                head_ev: 9,
                epoch,
                reason: ResetReason::TooFar,
            }),
            ReceivedFrame::Reset {
                chat_id,
                head_ev: 9,
                epoch: owned(),
                reason: ResetReason::TooFar,
            },
        ),
        (
            received(&ServerFrame::ChatCreated { chat: &chat, total_unread: 2, epoch: "e1" }),
            ReceivedFrame::ChatCreated {
                chat: Box::new(chat.clone()),
                total_unread: 2,
                epoch: "e1".to_owned(),
            },
        ),
        (
            received(&ServerFrame::ChatUpdated { chat: &chat, total_unread: 2, epoch: "e1" }),
            ReceivedFrame::ChatUpdated {
                chat: Box::new(chat.clone()),
                total_unread: 2,
                epoch: "e1".to_owned(),
            },
        ),
        (
            received(&ServerFrame::ChatDeleted {
                chat_id,
                total_unread: Some(1),
                reason: GoneReason::Banned,
                epoch: "e1",
            }),
            ReceivedFrame::ChatDeleted {
                chat_id,
                total_unread: Some(1),
                reason: GoneReason::Banned,
                epoch: "e1".to_owned(),
            },
        ),
        (
            received(&ServerFrame::Typing { chat_id, user_id: &user, typing: true }),
            ReceivedFrame::Typing { chat_id, user_id: user.clone(), typing: true },
        ),
        (
            received(&ServerFrame::Presence {
                user_id: &user,
                online: false,
                last_seen_at: Some(at),
            }),
            ReceivedFrame::Presence {
                user_id: user.clone(),
                online: false,
                last_seen_at: Some(at),
            },
        ),
        (
            ack(AckResult::Sent { message: &message }),
            acked(Some(Box::new(message.clone())), None, None, None, None),
        ),
        (
            ack(AckResult::Read { chat_id, read_seq: 3, unread_count: 3, total_unread: 1 }),
            acked(None, Some(chat_id), Some(3), Some(1), None),
        ),
        (
            ack(AckResult::Authenticated { token_expires_at: at }),
            acked(None, None, None, None, Some(at)),
        ),
        (ack(AckResult::Unsubscribed { chat_id }), acked(None, Some(chat_id), None, None, None)),
        (
            received(&ServerFrame::Error {
                id: None,
                code: "rate_limited",
                detail: "slow down",
                retry_after_ms: Some(5),
            }),
            ReceivedFrame::Error {
                id: None,
                code: "rate_limited".to_owned(),
                detail: "slow down".to_owned(),
                retry_after_ms: Some(5),
            },
        ),
        (
            received(&ServerFrame::TokenExpiring { expires_in: 60 }),
            ReceivedFrame::TokenExpiring { expires_in: 60 },
        ),
        (
            received(&ServerFrame::Bye { code: 4200, reason: "so", reconnect_in_ms: 5 }),
            ReceivedFrame::Bye { code: 4200, reason: "so".to_owned(), reconnect_in_ms: 5 },
        ),
        (received(&ServerFrame::Pong {}), ReceivedFrame::Pong {}),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_message_is_told_as_what_it_is_now() {
    let told = |message: &Message, changed| {
        let frame = message_frame(message, changed);
        let frame: Value = serde_json::from_slice(&frame).expect("JSON");
        frame["type"].as_str().expect("a type").to_owned()
    };
    let kind = |message: &Message| told(message, None);
    let mut message = message();
    assert_eq!(kind(&message), "message.updated", "it has reactions, and is pinned");
    message.pinned_at = None;
    assert_eq!(kind(&message), "message.updated", "it has reactions");
    message.reactions.clear();
    assert_eq!(kind(&message), "message.created");
    assert_eq!(told(&message, Some(&[ChangedPart::Reactions])), "message.updated");
    message.edited_at = Some(time());
    assert_eq!(kind(&message), "message.updated");
    message.deleted_at = Some(time());
    assert_eq!(kind(&message), "message.deleted");
}

#[test]
fn unknown_fields_frames_and_reasons_are_no_errors() {
    let decode = |text: &str| ReceivedFrame::decode(text);
    let more =
        r#"{"later":[{}],"type":"bye","code":1,"reason":"r","reconnect_in_ms":2,"x":{"type":1}}"#;
    assert!(matches!(decode(more), Ok(ReceivedFrame::Bye { code: 1, .. })));
    assert!(matches!(decode(r#"{"type":"poll.opened","ev":1}"#), Ok(ReceivedFrame::Unknown)));
    let reason = r#"{"type":"reset","chat_id":"01a20a32-f544-7269-a867-60a8e5b5a762","head_ev":1,
        "epoch":"e","reason":"moved"}"#;
    assert!(matches!(
        decode(reason),
        Ok(ReceivedFrame::Reset { reason: ResetReason::UnknownPosition, .. })
    ));
    let gone = r#"{"type":"chat.deleted","chat_id":"01a20a32-f544-7269-a867-60a8e5b5a762",
        "reason":"expired","epoch":"e"}"#;
    assert!(matches!(
        decode(gone),
        Ok(ReceivedFrame::ChatDeleted { reason: GoneReason::Deleted, total_unread: None, .. })
    ));
    for wrong in ["", "[]", "7", r#"{"type":1}"#, r#"{"ev":1}"#, r#"{"type":"synced"}"#] {
        assert!(decode(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_group_and_its_system_messages_are_read_as_they_were_written() {
    let group = group();
    let text = serde_json::to_string(&group).expect("serializes");
    let read: Chat = serde_json::from_str(&text).expect("a chat");
    assert_eq!(serde_json::to_string(&read).expect("serializes"), text);
    let text = serde_json::to_string(&system_message()).expect("serializes");
    let read: Message = serde_json::from_str(&text).expect("a message");
    assert_eq!(read, system_message());
    assert_eq!((read.kind, read.sender_id), (MessageKind::System, None));
    let later = text.replace("chat.changed", "call.ended");
    let read: Message = serde_json::from_str(&later).expect("a message of a later version");
    assert_eq!(read.system.expect("an event").event, SystemEventKind::ChatChanged);
}

#[test]
fn mentions_are_a_list_or_the_word_all() {
    let read = |json: &str| serde_json::from_str::<Mentions>(json).ok();
    assert_eq!(read(r#""all""#), Some(Mentions::All));
    let bob = UserId::parse("bob").expect("an id");
    assert_eq!(read(r#"["bob"]"#), Some(Mentions::Users(vec![bob])));
    assert_eq!(read("[]"), Some(Mentions::default()));
    for wrong in [r#""everybody""#, "null", "[1]", r#"[""]"#] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
    assert_eq!(serde_json::to_string(&Mentions::All).expect("serializes"), r#""all""#);
}

#[test]
fn a_mark_without_a_number_is_no_change_of_the_chat_and_one_that_was_skipped_is() {
    let (chat_id, user_id) = (message().chat_id, user_id());
    let read = |ev| ReceivedFrame::ChatRead { chat_id, ev, user_id: user_id.clone(), read_seq: 3 };
    assert_eq!(read(None).change(), None);
    assert_eq!(read(Some(4)).change(), Some((chat_id, 4)));
    assert_eq!(ReceivedFrame::Skipped { chat_id, ev: 9 }.change(), Some((chat_id, 9)));
    assert_eq!(ReceivedFrame::ChatChanged(Box::new(group_change())).change(), Some((chat_id, 7)));
}

#[test]
fn commands_have_their_names_and_leave_out_what_is_not_said() {
    let chat_id = uuid::Uuid::nil();
    for (frame, expected) in [
        (
            ClientFrame::Subscribe { id: "1", chat_id, after_ev: Some(7), epoch: Some("e") },
            r#"{"type":"subscribe","id":"1","chat_id":"00000000-0000-0000-0000-000000000000","after_ev":7,"epoch":"e"}"#,
        ),
        (
            ClientFrame::MarkRead { id: "2", chat_id: None, up_to_seq: None },
            r#"{"type":"mark_read","id":"2"}"#,
        ),
        (ClientFrame::Auth { id: "3", token: "t" }, r#"{"type":"auth","id":"3","token":"t"}"#),
        (ClientFrame::Ping, r#"{"type":"ping"}"#),
    ] {
        assert_eq!(frame.encode(), expected);
    }
}

#[test]
fn lines_of_an_export_are_read_with_metadata_as_they_were_sent() {
    for line in [
        ExportLine::Message(ExportedMessage { message: Box::new(message()) }),
        ExportLine::End(ExportEnd { messages: 1, ..ExportEnd::default() }),
    ] {
        let text = serde_json::to_string(&line).expect("serializes");
        let read = ExportLine::decode(&text).expect("a line");
        assert_eq!(serde_json::to_string(&read).expect("serializes"), text);
    }
    assert!(ExportLine::decode(r#"{"type":"later"}"#).is_err());
}

proptest! {
    #[test]
    fn a_text_arrives_whatever_is_in_it(text in any::<String>(), ev in 1_i64..) {
        let message = Message { text, ev, ..message() };
        let (chat_id, ev) = (message.chat_id, message.ev);
        let frame = ServerFrame::MessageCreated { chat_id, ev, message: &message };
        prop_assert_eq!(
            received(&frame),
            ReceivedFrame::MessageCreated { chat_id, ev, message: message.clone() }
        );
    }
}
