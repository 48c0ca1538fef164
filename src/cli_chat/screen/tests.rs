use serde_json::{Value, json};

use super::*;

const CHAT: &str = "01a20a32-f544-7269-a867-60a8e5b5a762";

fn screen() -> Screen {
    let mut screen = Screen::new(UserId::trusted("alice"), &chat(json!({})));
    let shown = screen.begin(&page(1, "e", &[message(1, 1, "bob", "one")]));
    assert_eq!(texts(&shown), ["bob: one"]);
    screen
}

fn chat(change: Value) -> Chat {
    let bob = json!({
        "user_id": "bob", "name": null, "avatar_url": null, "online": false,
        "last_seen_at": null,
    });
    let mut chat = json!({
        "chat_id": CHAT, "room_name": "", "kind": "direct", "title": null, "avatar_url": null,
        "metadata": null, "member_count": 2, "role": "member", "settings": null,
        "first_seq": 1, "receipts": true, "notify": "all", "pinned": false, "archived": false,
        "created_at": "2026-11-23T20:57:21Z", "created_by": "bob", "last_seq": 0, "last_ev": 0,
        "read_seq": 0, "peer_read_seq": 0, "unread_count": 0, "unread_mentions": 0,
        "last_message": null, "other_user": bob, "blocked": false,
    });
    for (name, value) in change.as_object().unwrap() {
        chat[name] = value.clone();
    }
    serde_json::from_str(&chat.to_string()).unwrap()
}

fn group(receipts: bool) -> Screen {
    let chat = json!({
        "kind": "group", "title": "Sailing", "receipts": receipts, "other_user": null,
        "peer_read_seq": null,
    });
    let mut screen = Screen::new(UserId::trusted("alice"), &chat_with_settings(chat));
    screen.begin(&page(0, "e", &[]));
    screen
}

fn chat_with_settings(mut change: Value) -> Chat {
    change["settings"] = json!({
        "post": "members", "invite": "admins", "history": "all", "join": "invite",
        "slow_mode_s": 0,
    });
    chat(change)
}

fn system(seq: i64, ev: i64, event: Value) -> Value {
    let mut frame = created(seq, ev, "", "");
    frame["message"]["type"] = json!("system");
    frame["message"]["sender_id"] = json!(null);
    frame["message"]["system"] = event;
    frame
}

fn member(id: &str, name: &str) -> Value {
    json!({
        "user": { "user_id": id, "name": name, "avatar_url": null, "online": false,
                  "last_seen_at": null },
        "role": "member", "joined_at": "2026-11-23T20:57:21Z", "read_seq": null,
        "silenced_until": null,
    })
}

fn page(head: i64, epoch: &str, results: &[Value]) -> HistoryView {
    let page = json!({
        "results": results, "has_more_before": false, "has_more_after": false, "before": null,
        "after": null, "head_seq": head, "head_ev": head, "epoch": epoch, "read_seq": 0,
        "peer_read_seq": 0,
    });
    serde_json::from_str(&page.to_string()).unwrap()
}

fn message(seq: i64, ev: i64, sender: &str, text: &str) -> Value {
    json!({
        "message_id": format!("01a20a33-0000-7000-8000-{seq:012}"), "chat_id": CHAT,
        "seq": seq, "ev": ev, "type": "text", "sender_id": sender, "text": text,
        "metadata": null, "mentions": [], "system": null, "client_msg_id": null, "created_at": "2026-11-23T20:57:21Z", "edited_at": null,
        "deleted_at": null,
    })
}

fn created(seq: i64, ev: i64, sender: &str, text: &str) -> Value {
    json!({ "type": "message.created", "ev": ev, "message": message(seq, ev, sender, text) })
}

fn deleted(seq: i64, ev: i64) -> Value {
    let id = format!("01a20a33-0000-7000-8000-{seq:012}");
    json!({ "type": "message.deleted", "ev": ev, "seq": seq, "message_id": id, "deleted_at": null })
}

fn read(ev: i64, user: &str, read_seq: i64) -> Value {
    json!({ "type": "chat.read", "ev": ev, "user_id": user, "read_seq": read_seq })
}

fn take(screen: &mut Screen, mut frame: Value) -> Vec<String> {
    frame["chat_id"] = json!(CHAT);
    let frame = ReceivedFrame::decode(&frame.to_string()).unwrap();
    texts(&screen.on_frame(&frame))
}

fn texts(lines: &[Line]) -> Vec<String> {
    let text = |line: &Line| match line {
        Line::Said { who, text, edited, .. } => {
            format!("{who}{}: {text}", if *edited { " (edited)" } else { "" })
        }
        Line::Deleted { who, .. } => format!("{who}: deleted"),
        Line::Told { what, .. } => format!("told: {what}"),
        Line::Note(text) => text.clone(),
    };
    lines.iter().map(text).collect()
}

#[test]
fn a_message_is_shown_once_also_where_the_history_is_read_again() {
    let mut screen = screen();
    assert_eq!(take(&mut screen, created(2, 2, "bob", "two")), ["bob: two"]);
    let again = [message(1, 1, "bob", "one"), message(2, 2, "bob", "two")];
    let newest = page(2, "e", &again);
    assert_eq!(screen.shown_up_to(&newest), Some(2));
    assert!(screen.begin(&newest).is_empty());
    let lost = page(1, "f", &[message(1, 1, "bob", "one")]);
    assert_eq!(screen.shown_up_to(&lost), None, "numbers of another epoch");
    assert_eq!(texts(&screen.begin(&lost)).last().map(String::as_str), Some("bob: one"));
}

#[test]
fn changes_of_what_is_shown_are_told_and_what_was_never_shown_is_not_missed() {
    let mut screen = screen();
    let mut edit = message(1, 2, "bob", "one, better");
    edit["edited_at"] = json!("2026-11-23T20:58:21Z");
    let frame = json!({ "type": "message.updated", "ev": 2, "message": edit });
    assert_eq!(take(&mut screen, frame), ["bob (edited): one, better"]);
    assert_eq!(take(&mut screen, deleted(1, 3)), ["bob: deleted"]);
    assert!(take(&mut screen, deleted(2, 4)).is_empty(), "a tombstone of a message never seen");
    assert_eq!((screen.last_seq, screen.ev), (2, 4));
}

#[test]
fn that_the_other_has_read_is_told_once_all_of_ones_own_is_read() {
    let mut screen = screen();
    take(&mut screen, created(2, 2, "alice", "two"));
    take(&mut screen, created(3, 3, "alice", "three"));
    assert!(take(&mut screen, read(4, "bob", 2)).is_empty());
    assert_eq!(take(&mut screen, read(5, "bob", 3)), ["bob has read it"]);
    let subscribed = json!({
        "type": "subscribed", "head_ev": 5, "head_seq": 3, "epoch": "e", "read_seq": 0,
        "peer_read_seq": 3, "online": ["bob"],
    });
    assert_eq!(take(&mut screen, subscribed), ["bob is online"]);
}

#[test]
fn what_is_shown_of_the_other_is_to_be_marked_and_ones_own_is_not() {
    let mut screen = screen();
    assert_eq!(screen.to_mark(), Some(1));
    screen.marked(1);
    take(&mut screen, created(2, 2, "alice", "mine"));
    assert_eq!(screen.to_mark(), None);
    take(&mut screen, created(3, 3, "bob", "yours"));
    assert_eq!(screen.to_mark(), Some(3));
    // Read on another device.
    take(&mut screen, read(4, "alice", 3));
    assert_eq!(screen.to_mark(), None);
}

#[test]
fn in_a_group_names_stand_before_messages_and_changes_are_lines() {
    let mut screen = group(true);
    let frame = created(1, 1, "bob", "hello");
    let decoded = {
        let mut frame = frame.clone();
        frame["chat_id"] = json!(CHAT);
        ReceivedFrame::decode(&frame.to_string()).unwrap()
    };
    assert_eq!(screen.strangers(Some(&decoded), &[]), [UserId::trusted("bob")]);
    let joined = json!({
        "type": "member.joined", "ev": 1, "members": [member("bob", "Bob")], "by": "alice",
    });
    assert!(take(&mut screen, joined).is_empty(), "the service writes a message of it");
    assert!(screen.strangers(Some(&decoded), &[]).is_empty(), "a frame told the name");
    assert_eq!(take(&mut screen, frame), ["Bob: hello"]);
    let left = json!({ "event": "member.left", "user_ids": ["bob"], "by": "bob" });
    assert_eq!(take(&mut screen, system(2, 2, left)), ["told: Bob left"]);
    assert_eq!(screen.to_mark(), Some(1), "a system message is never unread");
    // Somebody else's marker is not one's own.
    assert!(take(&mut screen, read(3, "bob", 1)).is_empty());
    assert_eq!(screen.to_mark(), Some(1));
}

#[test]
fn where_no_messages_tell_of_changes_the_frames_do() {
    let mut screen = group(false);
    let joined = json!({
        "type": "member.joined", "ev": 1, "members": [member("bob", "Bob")], "by": "bob",
    });
    assert_eq!(take(&mut screen, joined), ["Bob joined"]);
    let left = json!({
        "type": "member.left", "ev": 2, "user_id": "bob", "by": "alice", "reason": "removed",
    });
    assert_eq!(take(&mut screen, left), ["alice removed Bob"]);
}
