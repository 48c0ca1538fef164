//! Sequences of frames that a client may and may not be given.

use serde_json::{Value, json};

use super::*;

fn party(kind: ChatKind) -> Party {
    let members = ["alice", "bob", "carol"].map(str::to_owned);
    let count = if kind == ChatKind::Direct { 2 } else { 3 };
    Party { kind, own: "alice".to_owned(), members: members[..count].into() }
}

fn created(ev: i64, seq: i64) -> Value {
    json!({"type": "message.created", "chat_id": ChatId::nil(), "ev": ev, "message": {
        "message_id": uuid(seq), "chat_id": ChatId::nil(), "seq": seq, "ev": ev,
        "type": "text", "sender_id": "alice", "text": "hi", "metadata": null, "mentions": [],
        "system": null, "client_msg_id": null,
        "created_at": "2026-01-01T00:00:00.000000Z", "edited_at": null, "deleted_at": null}})
}

fn uuid(seq: i64) -> String {
    format!("00000000-0000-8000-8000-{seq:012}")
}

fn broken(frames: &[Value]) -> Vec<Kind> {
    apply(&mut Model::new(ChatId::nil(), party(ChatKind::Direct)), frames)
}

fn apply(model: &mut Model, frames: &[Value]) -> Vec<Kind> {
    let mut broken = Vec::new();
    for frame in frames {
        let frame: Frame = serde_json::from_value(frame.clone()).unwrap();
        model.apply(&frame, &mut broken);
    }
    broken.into_iter().map(|(kind, _)| kind).collect()
}

fn synced(ev: i64) -> Value {
    json!({"type": "synced", "ev": ev})
}

#[test]
fn a_resume_may_skip_what_was_superseded_and_live_may_not() {
    let read = json!({"type": "chat.read", "ev": 4, "user_id": "bob", "read_seq": 1});
    let good = [created(1, 1), created(3, 2), synced(3), read.clone(), created(5, 3)];
    assert_eq!(broken(&good), []);
    assert_eq!(broken(&[created(1, 1), synced(1), created(3, 2)]), [Kind::Gap]);
    assert_eq!(broken(&[created(1, 1), created(2, 3), synced(2)]), [Kind::Gap]);
}

#[test]
fn what_comes_twice_or_goes_back_is_noted() {
    let twice = broken(&[created(1, 1), synced(1), created(1, 1)]);
    assert_eq!(twice, [Kind::Doubled, Kind::Doubled]);
    let read = |ev, seq| json!({"type": "chat.read", "ev": ev, "user_id": "bob", "read_seq": seq});
    assert_eq!(broken(&[synced(0), read(1, 5), read(2, 4)]), [Kind::Order]);
    assert_eq!(broken(&[synced(2), synced(3)]), [Kind::Order]);
}

#[test]
fn a_catchup_begins_where_the_client_stands() {
    let catchup = |after| json!({"type": "catchup", "after_ev": after});
    assert_eq!(broken(&[synced(0), catchup(0), created(2, 1), synced(2)]), []);
    assert_eq!(broken(&[synced(0), catchup(1), synced(1)]), [Kind::Order]);
}

#[test]
fn strangers_and_tombstones() {
    let read = json!({"type": "chat.read", "ev": 1, "user_id": "eve", "read_seq": 1});
    assert_eq!(broken(&[synced(0), read]), [Kind::Leak]);
    let deleted =
        |ev, seq| json!({"type": "message.deleted", "ev": ev, "message_id": uuid(seq), "seq": seq});
    assert_eq!(broken(&[deleted(2, 1), synced(2)]), [], "a tombstone never seen before");
    assert_eq!(broken(&[synced(0), deleted(1, 1)]), [Kind::Lost]);
}

fn member(user: &str, role: &str, read_seq: Option<i64>) -> Value {
    let user = json!({"user_id": user, "name": null, "avatar_url": null, "online": false,
                      "last_seen_at": null});
    json!({"user": user, "role": role, "joined_at": "2026-01-01T00:00:00.000000Z",
           "read_seq": read_seq, "silenced_until": null})
}

fn joined(ev: i64, members: &[Value]) -> Value {
    json!({"type": "member.joined", "chat_id": ChatId::nil(), "ev": ev, "members": members})
}

fn updated(ev: i64, member: Value) -> Value {
    json!({"type": "member.updated", "chat_id": ChatId::nil(), "ev": ev, "member": member})
}

fn changed(ev: i64, receipts: bool) -> Value {
    json!({"type": "chat.changed", "ev": ev, "title": "t", "receipts": receipts})
}

fn left(ev: i64, user: &str) -> Value {
    json!({"type": "member.left", "ev": ev, "user_id": user, "reason": "left"})
}

fn group() -> Model {
    Model::new(ChatId::nil(), party(ChatKind::Group))
}

#[test]
fn a_group_is_known_from_its_changes_as_long_as_it_has_receipts() {
    let mut model = group();
    let all = [member("alice", "owner", Some(0)), member("bob", "member", Some(0))];
    let frames = [
        joined(1, &all),
        changed(2, true),
        synced(2),
        joined(3, &[member("carol", "member", Some(0))]),
    ];
    assert_eq!(apply(&mut model, &frames), []);
    assert_eq!(apply(&mut model, &[left(4, "bob"), created(5, 1)]), []);
    let known = model.group.clone().unwrap();
    assert!(known.whole && !known.is_wanted);
    assert_eq!(known.members.keys().collect::<Vec<_>>(), ["alice", "carol"]);
    let none = [updated(6, member("alice", "member", Some(1))), changed(7, false)];
    assert_eq!(apply(&mut model, &none), []);
    assert!(!model.group.clone().unwrap().whole);
    // Who becomes an admin hears of members from then on, and reads who there are.
    assert_eq!(apply(&mut model, &[updated(8, member("alice", "admin", None))]), []);
    assert!(model.wants_members());
}

#[test]
fn skipped_numbers_are_no_gap_and_others_are() {
    let begin = [joined(1, &[member("alice", "member", None)]), changed(2, false), synced(2)];
    let skipped = |ev| json!({"type": "skipped", "ev": ev});
    let then = |frames: &[Value]| {
        let mut model = group();
        assert_eq!(apply(&mut model, &begin), []);
        apply(&mut model, frames)
    };
    assert_eq!(then(&[skipped(7), created(8, 4)]), []);
    assert_eq!(then(&[created(8, 4)]), [Kind::Gap]);
    assert_eq!(then(&[skipped(2)]), [Kind::Doubled]);
    let mark = |ev: Option<i64>, user| json!({"type": "chat.read", "ev": ev, "user_id": user, "read_seq": 1});
    assert_eq!(then(&[mark(None, "alice"), created(3, 1)]), []);
    assert_eq!(then(&[mark(None, "bob")]), [Kind::Leak]);
    assert_eq!(then(&[mark(Some(3), "bob")]), [Kind::State]);
}

#[test]
fn who_comes_back_begins_anew_and_who_is_out_is_told_nothing() {
    let mut model = group();
    let begin = [
        joined(1, &[member("alice", "member", Some(0))]),
        changed(2, true),
        synced(2),
        created(3, 1),
    ];
    assert_eq!(apply(&mut model, &begin), []);
    let again = [
        json!({"type": "catchup", "after_ev": 3}),
        created(9, 6),
        joined(10, &[member("alice", "member", Some(6))]),
        synced(10),
    ];
    assert_eq!(apply(&mut model, &again), []);
    assert!(model.must_begin_anew() && !model.anew().must_begin_anew());
    assert_eq!(apply(&mut model, &[left(11, "alice")]), [Kind::Leak]);
    assert_eq!(broken(&[synced(0), left(1, "bob")]), [Kind::Answer]);
}

#[test]
fn only_who_is_far_behind_is_told_to_read_anew_and_goes_on_from_there() {
    let reset =
        |reason: &str, head_ev: i64| json!({"type": "reset", "head_ev": head_ev, "reason": reason});
    assert_eq!(broken(&[reset("too_far", 10_000)]), [Kind::State]);
    assert_eq!(broken(&[reset("unknown_position", 10_001)]), [Kind::State]);
    let deleted = |ev: i64, seq: i64| json!({"type": "message.deleted", "ev": ev, "seq": seq, "message_id": uuid(seq)});
    let begin =
        [reset("too_far", 10_001), synced(10_001), deleted(10_002, 7), created(10_003, 900)];
    let then = |frames: &[Value]| broken(&[&begin[..], frames].concat());
    assert_eq!(then(&[created(10_004, 901), deleted(10_005, 8)]), []);
    assert_eq!(then(&[created(10_004, 902)]), [Kind::Gap]);
    assert_eq!(then(&[deleted(10_004, 901)]), [Kind::Lost]);
}
