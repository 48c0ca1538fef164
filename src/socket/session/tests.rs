use bytes::Bytes;

use super::*;
use crate::model::Membership;

const CHAT: ChatId = ChatId::nil();

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("valid")
}

fn head(kind: ChatKind, role: Role, first_seq: i64) -> Head {
    Head {
        kind,
        ev: 5,
        seq: 5,
        epoch: "e1".to_owned(),
        receipts: kind == ChatKind::Direct,
        member_count: 2,
        reader: Membership { role, first_seq, read_seq: 0 },
        peer_read_seq: None,
    }
}

/// Alice's socket of one direct chat, at 5.
fn session() -> Session {
    let mut session = Session::new(user("alice"), None, Some(CHAT));
    session.set_position(CHAT, &head(ChatKind::Direct, Role::Member, 1));
    session
}

/// Alice's many-chats socket, at 5 of a group without receipts.
fn in_group(role: Role, first_seq: i64) -> Session {
    let mut session = Session::new(user("alice"), None, None);
    session.set_position(CHAT, &head(ChatKind::Group, role, first_seq));
    session
}

fn event(ev: i64) -> Delivery {
    event_of("e1", ev)
}

fn event_of(epoch: &str, ev: i64) -> Delivery {
    let frame = to(Audience::All, &[], &format!("ev {ev}"));
    Delivery::Event { chat_id: CHAT, epoch: epoch.into(), ev, micros: 0, frame }
}

fn event_to(ev: i64, audience: Audience, affected: &[&str]) -> Delivery {
    let frame = to(audience, affected, &format!("ev {ev}"));
    Delivery::Event { chat_id: CHAT, epoch: "e1".into(), ev, micros: 0, frame }
}

fn to(audience: Audience, affected: &[&str], frame: &str) -> AddressedFrame {
    let affected = affected.iter().map(|id| user(id)).collect();
    AddressedFrame { audience, affected, deferrable: false, frame: Bytes::from(frame.to_owned()) }
}

/// A fill of these frames to everybody.
fn fill(epoch: &str, after_ev: i64, evs: &[i64], head_ev: i64) -> Fill {
    let frames = evs.iter().map(|ev| (*ev, to(Audience::All, &[], &format!("ev {ev}")))).collect();
    Fill { epoch: epoch.into(), after_ev, frames, head_ev, whole: true }
}

fn catchup(fill: Fill) -> Delivery {
    Delivery::Catchup { chat_id: CHAT, fill: Arc::new(fill) }
}

fn skipped(ev: i64) -> String {
    format!(r#"{{"type":"skipped","chat_id":"{CHAT}","ev":{ev}}}"#)
}

fn texts(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| std::str::from_utf8(frame).expect("text")).collect()
}

#[test]
fn events_are_given_once_in_order_and_a_gap_asks_for_reading() {
    let (mut session, mut out) = (session(), Vec::new());
    for ev in [4, 5, 6, 6, 7] {
        assert_eq!(session.on_delivery(&event(ev), &mut out), Effect::Nothing);
    }
    assert_eq!(texts(&out), ["ev 6", "ev 7"]);
    assert_eq!(session.on_delivery(&event(9), &mut out), Effect::CatchUp(CHAT));
    assert_eq!(out.len(), 2);
}

#[test]
fn a_fill_gives_only_what_is_new_between_catchup_and_synced() {
    let (mut session, mut out) = (session(), Vec::new());
    let fill = catchup(fill("e1", 4, &[4, 6, 8], 8));
    session.on_delivery(&fill, &mut out);
    let sent = texts(&out);
    assert!(sent[0].contains(r#""type":"catchup""#) && sent[0].contains(r#""after_ev":5"#));
    assert_eq!(sent[1..3], ["ev 6", "ev 8"]);
    assert!(sent[3].contains(r#""type":"synced""#) && sent[3].contains(r#""ev":8"#));
    session.on_delivery(&fill, &mut out);
    assert_eq!(out.len(), 4, "a second fill of the same brings nothing");
}

#[test]
fn a_fill_that_begins_later_is_not_taken() {
    let (mut session, mut out) = (session(), Vec::new());
    let effect = session.on_delivery(&catchup(fill("e1", 6, &[], 8)), &mut out);
    assert_eq!(effect, Effect::CatchUp(CHAT));
    assert!(out.is_empty());
}

#[test]
fn a_reset_moves_back_and_does_not_touch_who_came_after_it() {
    let (mut session, mut out) = (session(), Vec::new());
    let reset = Delivery::Reset {
        chat_id: CHAT,
        head_ev: 3,
        epoch: "e2".into(),
        reason: ResetReason::UnknownPosition,
    };
    session.on_delivery(&reset, &mut out);
    assert_eq!(out.len(), 2);
    assert_eq!(session.on_delivery(&event_of("e2", 4), &mut out), Effect::Nothing);
    assert_eq!(out.len(), 3);
    session.on_delivery(&reset, &mut out);
    assert_eq!(out.len(), 5, "back again: the head is behind what was given");
}

#[test]
fn what_another_history_says_is_not_given_and_asks_for_reading() {
    let (mut session, mut out) = (session(), Vec::new());
    for foreign in [
        event_of("e2", 6),
        catchup(fill("e2", 5, &[], 8)),
        Delivery::Deleted { chat_id: CHAT, epoch: "e2".into() },
    ] {
        assert_eq!(session.on_delivery(&foreign, &mut out), Effect::CatchUp(CHAT));
    }
    assert!(out.is_empty() && session.is_subscribed(CHAT));
    assert_eq!(session.on_delivery(&event(6), &mut out), Effect::Nothing);
    assert_eq!(texts(&out), ["ev 6"]);
}

#[test]
fn ones_own_typing_is_not_told_and_a_strangers_chat_neither() {
    let (mut session, mut out) = (session(), Vec::new());
    let typing = |chat_id, user: &str| Delivery::Typing {
        chat_id,
        user_id: UserId::parse(user).expect("valid"),
        frame: Bytes::from_static(b"t"),
    };
    session.on_delivery(&typing(CHAT, "alice"), &mut out);
    session.on_delivery(&typing(ChatId::max(), "bob"), &mut out);
    assert!(out.is_empty());
    session.on_delivery(&typing(CHAT, "bob"), &mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn what_is_not_for_the_user_is_skipped_with_the_next_that_is() {
    let (mut session, mut out) = (in_group(Role::Member, 3), Vec::new());
    // A member came, another one left, and a message of before the user's time was edited.
    for unheard in [
        event_to(6, Audience::Admins, &["bob"]),
        event_to(7, Audience::Admins, &["carol"]),
        event_to(8, Audience::SeeingSeq(2), &[]),
    ] {
        assert_eq!(session.on_delivery(&unheard, &mut out), Effect::Nothing);
    }
    assert!(out.is_empty());
    assert_eq!(
        session.on_delivery(&event_to(9, Audience::SeeingSeq(3), &[]), &mut out),
        Effect::Nothing
    );
    session.on_delivery(&event(10), &mut out);
    assert_eq!(texts(&out), [&*skipped(8), "ev 9", "ev 10"]);
    assert_eq!(session.on_delivery(&event(12), &mut out), Effect::CatchUp(CHAT), "a real gap");
    // Skipped before any other frame with a position, too.
    session.on_delivery(&event_to(11, Audience::Admins, &[]), &mut out);
    session.tell_skipped(CHAT, &mut out);
    session.tell_skipped(CHAT, &mut out);
    assert_eq!(texts(&out)[3..], [skipped(11)]);
}

#[test]
fn admins_are_told_of_members_and_all_of_what_the_group_shows() {
    let skipped = skipped(6);
    for (role, told) in [(Role::Member, [&*skipped, "ev 7"]), (Role::Admin, ["ev 6", "ev 7"])] {
        let (mut session, mut out) = (in_group(role, 1), Vec::new());
        // The group outgrew its receipts with these members.
        for one in [event_to(6, Audience::Admins, &["bob"]), event_to(7, Audience::All, &[])] {
            assert_eq!(session.on_delivery(&one, &mut out), Effect::Nothing);
        }
        assert_eq!(texts(&out), told);
        assert_eq!(session.position(CHAT), Some((7, "e1".into())));
    }
}

#[test]
fn whoever_is_removed_hears_nothing_from_that_change_on() {
    let removal = event_to(6, Audience::All, &["bob", "alice"]);
    let (mut session, mut out) = (in_group(Role::Admin, 1), Vec::new());
    assert_eq!(session.on_delivery(&removal, &mut out), Effect::CatchUp(CHAT));
    // Postgres could not be read: later changes wait, they do not go out.
    assert_eq!(session.on_delivery(&event(7), &mut out), Effect::CatchUp(CHAT));
    assert_eq!(
        session.on_delivery(&catchup(fill("e1", 6, &[7], 7)), &mut out),
        Effect::CatchUp(CHAT)
    );
    assert!(out.is_empty());
    assert_eq!(session.position(CHAT), Some((5, "e1".into())));
}

#[test]
fn a_lost_removal_is_found_in_the_fill_which_gives_nothing_then() {
    let (mut session, mut out) = (in_group(Role::Member, 1), Vec::new());
    let mut filled = fill("e1", 5, &[6, 8], 9);
    filled.frames.push((9, to(Audience::Admins, &["alice"], "ev 9")));
    assert_eq!(session.on_delivery(&catchup(filled), &mut out), Effect::CatchUp(CHAT));
    assert!(out.is_empty());
    // A change that the socket has already read is no reason.
    session.set_position(CHAT, &Head { ev: 9, ..head(ChatKind::Group, Role::Member, 1) });
    let mut filled = fill("e1", 8, &[10], 10);
    filled.frames.insert(0, (9, to(Audience::Admins, &["alice"], "ev 9")));
    assert_eq!(session.on_delivery(&catchup(filled), &mut out), Effect::Nothing);
    assert_eq!(texts(&out)[1], "ev 10");
}

#[test]
fn a_part_of_a_gap_may_hide_who_was_away_and_is_read_as_the_user() {
    let (mut session, mut out) = (in_group(Role::Member, 1), Vec::new());
    let part = Fill { whole: false, ..fill("e1", 5, &[6, 7], 7) };
    assert_eq!(session.on_delivery(&catchup(part), &mut out), Effect::CatchUp(CHAT));
    assert!(out.is_empty());
    // Of two nobody leaves.
    let (mut session, mut out) = (self::session(), Vec::new());
    let part = Fill { whole: false, ..fill("e1", 5, &[6, 7], 7) };
    assert_eq!(session.on_delivery(&catchup(part), &mut out), Effect::Nothing);
    assert_eq!(out.len(), 4);
}

#[test]
fn a_change_of_role_is_read_and_then_counts() {
    let (mut session, mut out) = (in_group(Role::Member, 1), Vec::new());
    let promoted = event_to(6, Audience::Admins, &["alice"]);
    assert_eq!(session.on_delivery(&promoted, &mut out), Effect::CatchUp(CHAT));
    session.set_position(CHAT, &Head { ev: 6, ..head(ChatKind::Group, Role::Admin, 1) });
    assert_eq!(
        session.on_delivery(&event_to(7, Audience::Admins, &["bob"]), &mut out),
        Effect::Nothing
    );
    assert_eq!(texts(&out), ["ev 7"]);
    assert_eq!(session.on_delivery(&promoted, &mut out), Effect::Nothing, "known already");
}

#[test]
fn after_a_reset_a_group_is_asked_for_the_membership() {
    for (epoch, reason, head_ev) in
        [("e1", ResetReason::TooFar, 20_000), ("e2", ResetReason::UnknownPosition, 3)]
    {
        let (mut session, mut out) = (in_group(Role::Member, 1), Vec::new());
        let reset = Delivery::Reset { chat_id: CHAT, head_ev, epoch: epoch.into(), reason };
        assert_eq!(session.on_delivery(&reset, &mut out), Effect::Recheck(CHAT));
        assert!(out.is_empty());
        let later = event_of(epoch, head_ev + 1);
        assert_eq!(session.on_delivery(&later, &mut out), Effect::CatchUp(CHAT));
        assert!(out.is_empty());
    }
}

#[test]
fn ones_own_silent_mark_is_told_where_one_subscribes() {
    let (mut session, mut out) = (in_group(Role::Member, 1), Vec::new());
    let read = |chat_id, epoch: &str| Delivery::OwnRead {
        chat_id,
        epoch: epoch.into(),
        frame: Bytes::from_static(b"read"),
    };
    for unheard in [read(ChatId::max(), "e1"), read(CHAT, "e2")] {
        assert_eq!(session.on_delivery(&unheard, &mut out), Effect::Nothing);
    }
    assert!(out.is_empty());
    session.on_delivery(&read(CHAT, "e1"), &mut out);
    assert_eq!(texts(&out), ["read"]);
}

#[test]
fn a_deleted_chat_ends_its_socket_with_the_reason() {
    let (mut session, mut out) = (session(), Vec::new());
    let deleted = Delivery::Deleted { chat_id: CHAT, epoch: "e1".into() };
    assert_eq!(session.on_delivery(&deleted, &mut out), Effect::Close(Close::ChatGone));
    assert!(texts(&out)[0].contains(r#""reason":"deleted""#));
}
