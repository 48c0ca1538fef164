//! The wire format, pinned: a change of a frame, an error or a close code shows in the diff of a
//! snapshot. `INSTA_UPDATE=always cargo test -p beseda-protocol --test snapshots` accepts the change.

mod samples;

use std::fmt::Write;

use beseda_protocol::{
    ClientFrame, Close, ErrorCode, FieldError, Problem, ResetReason, ServerFrame,
    frame::{AckResult, GoneReason, Receipt},
    model::{ChangedPart, LeftReason, Mentions},
};
use serde_json::value::RawValue;

use samples::{chat, group, group_change, member, message, system_message, time, user_id};

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("JSON")
}

#[test]
fn server_frames() {
    let (user_id, at, message, chat) = (user_id(), time(), message(), chat());
    let (chat_id, message_id, epoch) = (message.chat_id, message.message_id, "e1");
    let (group, system, member, change) = (group(), system_message(), member(), group_change());
    let receipts = [Receipt { user_id: user_id.clone(), read_seq: 2 }];
    let (text, number) = (raw("\"c-1\""), raw("-7"));
    let frames = [
        ServerFrame::Hello {
            connection_id: message_id,
            user_id: &user_id,
            heartbeat_ms: 25_000,
            token_expires_at: at,
            epoch,
        },
        ServerFrame::Subscribed {
            id: Some(&text),
            chat_id,
            head_ev: 4,
            head_seq: 3,
            epoch,
            read_seq: 1,
            peer_read_seq: Some(2),
            receipts: &receipts,
            online: vec![user_id.clone()],
            online_count: Some(1),
        },
        ServerFrame::Subscribed {
            id: None,
            chat_id,
            head_ev: 4,
            head_seq: 3,
            epoch,
            read_seq: 1,
            peer_read_seq: None,
            receipts: &[],
            online: Vec::new(),
            online_count: None,
        },
        ServerFrame::MessageCreated { chat_id, ev: 4, message: &message },
        ServerFrame::MessageUpdated {
            chat_id,
            ev: 4,
            changed: Some(&[ChangedPart::Reactions]),
            message: &message,
        },
        ServerFrame::MessageUpdated { chat_id, ev: 4, changed: None, message: &message },
        ServerFrame::MessageDeleted { chat_id, ev: 5, message_id, seq: 3, deleted_at: Some(at) },
        ServerFrame::MessageCreated { chat_id, ev: 4, message: &system },
        ServerFrame::ChatRead { chat_id, ev: Some(6), user_id: &user_id, read_seq: 3 },
        ServerFrame::ChatRead { chat_id, ev: None, user_id: &user_id, read_seq: 3 },
        ServerFrame::MemberJoined {
            chat_id,
            ev: 7,
            members: std::slice::from_ref(&member),
            by: Some(&user_id),
        },
        ServerFrame::MemberUpdated { chat_id, ev: 7, member: &member, by: None },
        ServerFrame::MemberLeft {
            chat_id,
            ev: 7,
            user_id: &user_id,
            by: Some(&user_id),
            reason: LeftReason::Removed,
        },
        ServerFrame::ChatChanged(&change),
        ServerFrame::Skipped { chat_id, ev: 8 },
        ServerFrame::Synced { chat_id, ev: 6 },
        ServerFrame::Catchup { chat_id, after_ev: 6 },
        ServerFrame::Reset { chat_id, head_ev: 9, epoch, reason: ResetReason::TooFar },
        ServerFrame::Reset { chat_id, head_ev: 9, epoch, reason: ResetReason::UnknownPosition },
        ServerFrame::ChatCreated { chat: &chat, total_unread: 2, epoch },
        ServerFrame::ChatUpdated { chat: &group, total_unread: 2, epoch },
        ServerFrame::ChatDeleted {
            chat_id,
            total_unread: Some(1),
            reason: GoneReason::Deleted,
            epoch,
        },
        ServerFrame::ChatDeleted { chat_id, total_unread: None, reason: GoneReason::Left, epoch },
        ServerFrame::Typing { chat_id, user_id: &user_id, typing: true },
        ServerFrame::Presence { user_id: &user_id, online: true, last_seen_at: None },
        ServerFrame::Presence { user_id: &user_id, online: false, last_seen_at: Some(at) },
        ServerFrame::Ack { id: Some(&number), result: AckResult::Sent { message: &message } },
        ServerFrame::Ack {
            id: Some(&text),
            result: AckResult::Read { chat_id, read_seq: 3, unread_count: 0, total_unread: 1 },
        },
        ServerFrame::Ack { id: None, result: AckResult::Authenticated { token_expires_at: at } },
        ServerFrame::Ack { id: Some(&text), result: AckResult::Unsubscribed { chat_id } },
        ServerFrame::Error {
            id: Some(&text),
            code: ErrorCode::RateLimited.as_str(),
            detail: "Too many requests of this kind; wait and retry.",
            retry_after_ms: Some(250),
        },
        ServerFrame::Error {
            id: None,
            code: ErrorCode::InvalidJson.as_str(),
            detail: "expected value at line 1 column 1",
            retry_after_ms: None,
        },
        ServerFrame::TokenExpiring { expires_in: 60 },
        ServerFrame::Bye { code: 4200, reason: Close::Draining.reason(), reconnect_in_ms: 1_500 },
        ServerFrame::Pong {},
    ];
    let lines = frames.map(|frame| String::from_utf8(frame.encode().to_vec()).expect("UTF-8"));
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn client_frames() {
    let chat_id = message().chat_id;
    let frames = [
        ClientFrame::Subscribe { id: "1", chat_id, after_ev: Some(7), epoch: Some("e1") },
        ClientFrame::Subscribe { id: "2", chat_id, after_ev: None, epoch: None },
        ClientFrame::Unsubscribe { id: "3", chat_id },
        ClientFrame::Send {
            id: "4",
            chat_id: Some(chat_id),
            text: "Привет, \"ты\"!\n",
            mentions: Some(&Mentions::All),
            reply_to: Some(uuid::Uuid::from_u128(6)),
            attachments: &[uuid::Uuid::from_u128(9)],
            client_msg_id: Some("c0ffee-1"),
        },
        ClientFrame::Send {
            id: "5",
            chat_id: None,
            text: "x",
            mentions: None,
            reply_to: None,
            attachments: &[],
            client_msg_id: None,
        },
        ClientFrame::MarkRead { id: "6", chat_id: Some(chat_id), up_to_seq: Some(3) },
        ClientFrame::MarkRead { id: "7", chat_id: None, up_to_seq: None },
        ClientFrame::Typing { chat_id: Some(chat_id), typing: true },
        ClientFrame::Typing { chat_id: None, typing: false },
        ClientFrame::Auth { id: "8", token: "a.b.c" },
        ClientFrame::Ping,
    ];
    insta::assert_snapshot!(frames.map(|frame| frame.encode()).join("\n"));
}

#[test]
fn problems() {
    // As a list: serde knows arrays of up to 32 items.
    let problems = ErrorCode::ALL.into_iter().map(|code| {
        let mut problem = Problem::new(code, "What happened.", "01a20a32-faed-704e");
        problem.retry_after_ms = (code == ErrorCode::RateLimited).then_some(250);
        problem.errors = (code == ErrorCode::ValidationFailed).then(|| {
            let (field, message) = ("text".to_owned(), "must not be empty".to_owned());
            vec![FieldError { field, message }]
        });
        problem
    });
    insta::assert_json_snapshot!(problems.collect::<Vec<_>>());
}

#[test]
fn close_codes() {
    let table = Close::ALL.iter().fold(String::new(), |mut table, close| {
        let (code, reason) = (close.code(), close.reason());
        writeln!(table, "{code} {close:?}: {:?}, \"{reason}\"", Close::action(code))
            .expect("memory");
        table
    });
    insta::assert_snapshot!(table);
}
