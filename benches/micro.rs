//! Micro-benchmarks of the steps that every message takes: `cargo bench`.

use beseda::{
    bench_entry::Fanout,
    protocol::Frame,
    search::{Query, Scratch},
};
use beseda_protocol::{
    ServerFrame,
    frame::message_frame,
    model::{Mentions, Message, MessageKind, Time, UserId},
};
use divan::{Bencher, black_box, counter::ItemsCount};

fn main() {
    divan::main();
}

/// Sockets that follow one chat in the benchmarks of the hub: two members with a few devices each, and
/// a crowd.
const FOLLOWERS: [usize; 2] = [4, 1_000];

fn user_id() -> UserId {
    UserId::parse("alice").expect("valid")
}

fn message() -> Message {
    let id = |number| beseda_protocol::model::ChatId::from_u128(number);
    Message {
        message_id: id(7),
        chat_id: id(8),
        seq: 1_234,
        ev: 2_345,
        kind: MessageKind::Text,
        sender_id: Some(user_id()),
        text: "Встретимся завтра в семь у входа? Bring the \"red\" umbrella.".to_owned(),
        metadata: None,
        mentions: Mentions::default(),
        system: None,
        reply_to: None,
        attachments: Vec::new(),
        reactions: Vec::new(),
        pinned_at: None,
        client_msg_id: Some("0192f2b6-5c58-7cc0-a2d6-2f7f2c1f4b0e".to_owned()),
        created_at: Time("2026-11-23T19:30:00.123456Z".parse().expect("a time")),
        edited_at: None,
        deleted_at: None,
        my_reactions: None,
    }
}

fn frame() -> Frame {
    message_frame(&message(), None)
}

#[divan::bench]
fn encode_message_created(bencher: Bencher<'_, '_>) {
    let message = message();
    let (chat_id, ev) = (message.chat_id, message.ev);
    bencher.bench_local(|| {
        ServerFrame::MessageCreated { chat_id, ev, message: black_box(&message) }.encode()
    });
}

/// Folds a text and looks for a word that is not in it: what a search does for most messages.
#[divan::bench(args = ["Встретимся завтра в семь у входа?", "ＦＵＬＬ width, ligatures ﬁ, accents é"])]
fn search_fold(bencher: Bencher<'_, '_>, text: &str) {
    let query = Query::parse("absent");
    let mut scratch = Scratch::default();
    bencher.bench_local(|| query.find(black_box(text), &mut scratch));
}

/// One publication, queued for every follower.
#[divan::bench(args = FOLLOWERS)]
fn hub_delivery(bencher: Bencher<'_, '_>, followers: usize) {
    bencher
        .with_inputs(|| Fanout::new(followers, &user_id(), frame()))
        .input_counter(move |_| ItemsCount::new(followers))
        .bench_local_refs(Fanout::publish);
}

/// One queued publication, decided on by every follower's session.
#[divan::bench(args = FOLLOWERS)]
fn session_decision(bencher: Bencher<'_, '_>, followers: usize) {
    bencher
        .with_inputs(|| {
            let mut fanout = Fanout::new(followers, &user_id(), frame());
            fanout.publish();
            fanout
        })
        .input_counter(move |_| ItemsCount::new(followers))
        .bench_local_refs(Fanout::decide);
}
