use super::*;
use crate::{
    hub::queue,
    model::{Notify, Role, Time},
    store::InboxChat,
};

fn chat(id: u128, unread_count: i64, member_count: i32) -> Chat {
    let kind = ChatKind::Direct;
    Chat {
        chat_id: ChatId::from_u128(id),
        room_name: String::new(),
        kind,
        title: None,
        avatar_url: None,
        metadata: None,
        member_count,
        created_at: Time::from_micros(0).expect("a time"),
        created_by: UserId::parse("alice").expect("valid"),
        other_user: None,
        role: Role::Member,
        settings: None,
        receipts: true,
        last_message: None,
        last_seq: 0,
        last_ev: 0,
        first_seq: 1,
        read_seq: 0,
        peer_read_seq: None,
        unread_count,
        unread_mentions: 0,
        notify: Notify::All,
        pinned: false,
        archived: false,
    }
}

fn page(epoch: &str, chats: Vec<(Result<Chat, GoneReason>, u128, i64)>) -> InboxPage<Chat> {
    let one = |(chat, id, version)| InboxChat { chat_id: ChatId::from_u128(id), version, chat };
    InboxPage { chats: chats.into_iter().map(one).collect(), epoch: epoch.to_owned() }
}

/// Sends a chat as it is read at `now`; returns the frame.
fn send(inbox: &mut InboxChats, chat: Chat, version: i64, now: Instant) -> Option<String> {
    let mut out = Vec::new();
    let id = chat.chat_id.as_u128();
    inbox.on_page(page("one", vec![(Ok(chat), id, version)]), now, &mut out);
    out.pop().map(|frame| String::from_utf8(frame.to_vec()).expect("text"))
}

fn inbox() -> InboxChats {
    let mut inbox = InboxChats::new(&queue().0);
    inbox.epoch = "one".to_owned();
    inbox
}

fn id(id: u128) -> ChatId {
    ChatId::from_u128(id)
}

#[test]
fn the_total_follows_what_the_client_was_told() {
    let (mut inbox, now) = (inbox(), Instant::now());
    inbox.tell(id(1), Told { version: 4, unread: 2 });
    inbox.tell(id(2), Told { version: 9, unread: 5 });
    assert_eq!(send(&mut inbox, chat(1, 2, 2), 4, now), None, "nothing has changed");
    let updated = send(&mut inbox, chat(1, 3, 2), 5, now).expect("a frame");
    assert!(updated.contains("chat.updated") && updated.contains(r#""total_unread":8"#));
    let created = send(&mut inbox, chat(3, 1, 2), 1, now).expect("a frame");
    assert!(created.contains("chat.created") && created.contains(r#""total_unread":9"#));
    let mut out = Vec::new();
    for _ in 0..2 {
        let gone = page("one", vec![(Err(GoneReason::Removed), 2, 0)]);
        inbox.on_page(gone, now, &mut out);
    }
    assert_eq!(out.len(), 1, "told once");
    let gone = std::str::from_utf8(&out[0]).expect("text");
    assert!(gone.contains(r#""reason":"removed""#) && gone.contains(r#""total_unread":4"#));
}

#[test]
fn a_chat_that_was_just_sent_waits_and_the_others_do_not() {
    let (mut inbox, now) = (inbox(), Instant::now());
    inbox.mark(id(1));
    assert_eq!(inbox.ready(now), [id(1)], "the first change at once");
    assert!(send(&mut inbox, chat(1, 1, 2), 1, now).is_some());
    assert!(send(&mut inbox, chat(2, 1, 1_001), 1, now).is_some());
    assert_eq!(inbox.due(), None, "nothing has changed since");
    for chat in [1, 2, 3] {
        inbox.mark(id(chat));
    }
    assert_eq!(inbox.ready(now), [id(3)]);
    assert!(send(&mut inbox, chat(3, 1, 2), 1, now).is_some());
    assert_eq!(inbox.due(), Some(now + PAUSE));
    assert!(!inbox.needs_permit());
    assert_eq!(inbox.ready(now + PAUSE), [id(1)]);
    assert_eq!(inbox.ready(now + LONG_PAUSE), [id(1), id(2)]);
}

#[test]
fn many_changes_or_unknown_ones_are_compared_first() {
    let (mut inbox, now) = (inbox(), Instant::now());
    for chat in 0..=MAX_SINGLE_READS as u128 {
        inbox.mark(id(chat));
    }
    assert!(inbox.needs_permit());
    // One of them waits for its pause to end.
    inbox.pausing.insert(id(0), now + LONG_PAUSE);
    assert!(!inbox.needs_permit());
    inbox.tell(id(1), Told { version: 4, unread: 2 });
    inbox.tell(id(2), Told { version: 4, unread: 0 });
    inbox.tell(id(3), Told { version: 4, unread: 0 });
    let head =
        |chat, version| InboxHead { chat_id: id(chat), kind: ChatKind::Direct, version, unread: 0 };
    inbox.on_heads(vec![head(1, 4), head(2, 5), head(4, 1)]);
    assert_eq!(inbox.moved, BTreeSet::from([id(2), id(3), id(4)]));
    assert!(inbox.marked.is_empty() && inbox.needs_permit());
}

#[test]
fn in_another_epoch_everything_is_sent_again() {
    let (mut inbox, now) = (inbox(), Instant::now());
    inbox.tell(id(1), Told { version: 4, unread: 2 });
    let mut out = Vec::new();
    inbox.on_page(page("two", vec![(Ok(chat(1, 0, 2)), 1, 4)]), now, &mut out);
    assert_eq!((out.len(), inbox.total_unread, inbox.epoch()), (1, 0, "two"));
    assert!(inbox.needs_permit(), "the others are compared");
}
