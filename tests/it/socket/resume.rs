//! Coming back: everything that changed since, once, as it is now, in order.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ev, follow, kind, kinds};
use crate::harness::{Chat, Client, Cluster, Socket, fill};

/// Opens from a position, and gives all frames up to `synced`, without `hello` and `subscribed`.
async fn resumed(at: &Client, chat: &Chat, query: &str) -> (Socket, Vec<Value>) {
    let url = at.chat_url(chat).await;
    let mut socket = Socket::open(&format!("{url}{query}")).await;
    socket.expect("hello").await;
    socket.expect("subscribed").await;
    let frames = socket.frames_until("synced").await;
    (socket, frames)
}

/// A chat with a history of all kinds of changes.
async fn eventful(cluster: &Cluster) -> Chat {
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut ids = Vec::new();
    for number in 1..=6 {
        let by = if number % 2 == 0 { &bob } else { &alice };
        let sent = by.on(number % 2).send(&chat, &format!("text {number}")).await;
        ids.push(sent["message_id"].as_str().expect("an id").to_owned());
    }
    let path = |number: usize| chat.path(&format!("messages/{}/", ids[number - 1]));
    for (number, text) in [(1, "one"), (3, "three"), (1, "one again")] {
        alice.on(0).patch(&path(number), json!({ "text": text })).await.expect(200);
    }
    bob.on(1).post(&chat.path("mark_read/"), json!({ "up_to_seq": 2 })).await.expect(200);
    alice.on(1).delete(&path(5)).await.expect(204);
    alice.on(0).delete(&path(3)).await.expect(204);
    alice.on(0).mark_read(&chat).await;
    bob.on(0).mark_read(&chat).await;
    chat
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_comes_once_as_it_is_now() {
    let cluster = Cluster::start(2).await;
    let chat = eventful(&cluster).await;
    let bob = cluster.user("bob");
    let page = bob.on(0).history(&chat, "").await;
    let head_ev = page["head_ev"].as_i64().expect("a number");
    assert_eq!(head_ev, 14);
    // What a resume must give, from the state alone.
    let mut state: BTreeMap<i64, Value> = BTreeMap::new();
    for message in page["results"].as_array().expect("a page") {
        let (id, seq, at) = (&message["message_id"], &message["seq"], &message["deleted_at"]);
        let ev = message["ev"].as_i64().expect("a number");
        let frame = if !at.is_null() {
            json!({ "type": "message.deleted", "chat_id": chat.id, "ev": ev, "message_id": id, "seq": seq, "deleted_at": at })
        } else {
            let edited = !message["edited_at"].is_null();
            let kind = if edited { "message.updated" } else { "message.created" };
            json!({ "type": kind, "chat_id": chat.id, "ev": ev, "message": message })
        };
        state.insert(ev, frame);
    }
    for (user, ev, seq) in [("alice", 13, 6), ("bob", 14, 6)] {
        state.insert(
            ev,
            json!({ "type": "chat.read", "chat_id": chat.id, "ev": ev, "user_id": user, "read_seq": seq }),
        );
    }
    for after_ev in 0..=head_ev {
        let replica = usize::from(after_ev % 2 == 0);
        let query = format!("&after_ev={after_ev}");
        let (_, mut frames) = resumed(&bob.on(replica), &chat, &query).await;
        let synced = frames.pop().expect("it ends with synced");
        assert_eq!(synced, json!({ "type": "synced", "chat_id": chat.id, "ev": head_ev }));
        let expected: Vec<Value> = state.range(after_ev + 1..).map(|(_, f)| f.clone()).collect();
        frames.retain(|frame| kind(frame) != "presence");
        assert_eq!(frames, expected, "after {after_ev}");
    }
    // Without a position: in step at once.
    let (mut socket, frames) = resumed(&bob.on(1), &chat, "").await;
    assert_eq!(kinds(&frames), ["synced"]);
    let live = cluster.user("alice").on(0).send(&chat, "live").await;
    assert_eq!(socket.expect_message().await, live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_cannot_be_is_reset() {
    let cluster = Cluster::start(2).await;
    let chat = eventful(&cluster).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let page = bob.on(0).history(&chat, "").await;
    let (head_ev, epoch) = (page["head_ev"].as_i64().expect("a number"), &page["epoch"]);
    let mut head = head_ev;
    for query in [
        format!("&after_ev={}", head_ev + 5),
        "&after_ev=3&epoch=another".to_owned(),
        format!("&after_ev={head_ev}&epoch="),
        "&after_ev=-1".to_owned(),
        "&after_ev=many".to_owned(),
        format!("&after_ev={}", i64::MAX),
    ] {
        let (mut socket, frames) = resumed(&bob.on(1), &chat, &query).await;
        let reset = json!({
            "type": "reset",
            "chat_id": chat.id,
            "head_ev": head,
            "epoch": epoch,
            "reason": "unknown_position",
        });
        let synced = json!({ "type": "synced", "chat_id": chat.id, "ev": head });
        let frames: Vec<_> = frames.into_iter().filter(|f| kind(f) != "presence").collect();
        assert_eq!(frames, [reset, synced], "{query}");
        let live = alice.on(0).send(&chat, "after the reset").await;
        assert_eq!(socket.expect_message().await, live);
        head += 1;
    }
    let right = format!("&after_ev={head}&epoch={}", epoch.as_str().expect("an epoch"));
    let (_, frames) = resumed(&bob.on(1), &chat, &right).await;
    assert_eq!(kinds(&frames), ["synced"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_often_is_one_change_however_many_numbers_it_took() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for text in ["one", "two"] {
        alice.on(0).send(&chat, text).await;
    }
    // As if it had been edited 20,000 times.
    let edited = format!(
        "UPDATE messages SET ev = ev + 20000 WHERE chat_id = '{chat}' AND seq = 2;
         UPDATE chats SET last_ev = last_ev + 20000 WHERE chat_id = '{chat}'"
    );
    cluster.psql(&edited).await;
    cluster.redis_flush().await;
    let (_, frames) = resumed(&bob.on(1), &chat, "&after_ev=0").await;
    let evs: Vec<i64> = frames.iter().filter(|f| kind(f) == "message.created").map(ev).collect();
    assert_eq!(evs, [1, 20_002], "{frames:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_changes_are_replayed_and_one_more_is_too_far() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    cluster.psql(&fill::messages(&chat.id, "alice", 10_000, "'text ' || n")).await;
    let last = alice.on(0).send(&chat, "the last").await;
    assert_eq!(last["ev"], 10_001);

    let (_, frames) = resumed(&bob.on(0), &chat, "&after_ev=0").await;
    assert_eq!(kinds(&frames), ["reset", "synced"]);
    assert_eq!((&frames[0]["reason"], &frames[0]["head_ev"]), (&json!("too_far"), &json!(10_001)));
    assert_eq!(frames[1]["ev"], 10_001);

    let (mut socket, mut frames) = resumed(&bob.on(0), &chat, "&after_ev=1").await;
    assert_eq!(frames.pop().map(|synced| ev(&synced)), Some(10_001));
    let evs: Vec<i64> = frames.iter().filter(|f| kind(f) != "presence").map(ev).collect();
    assert_eq!(evs, (2..=10_001).collect::<Vec<_>>());
    let live = alice.on(0).send(&chat, "live").await;
    assert_eq!(socket.expect_message().await, live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_and_goes_all_the_time_misses_nothing() {
    const MESSAGES: i64 = 300;
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sending = async {
        for number in 0..MESSAGES {
            alice.on(usize::from(number % 2 == 0)).send(&chat, "x").await;
        }
    };
    let listening = async {
        let (mut at, mut rounds) = (0, 0);
        while at < MESSAGES {
            rounds += 1;
            let query = format!("&after_ev={at}");
            let (mut socket, mut frames) = resumed(&bob.on(rounds % 2), &chat, &query).await;
            let head_ev = ev(&frames.pop().expect("synced"));
            frames.retain(|frame| kind(frame) != "presence");
            let replayed: Vec<i64> = frames.iter().map(ev).collect();
            assert_eq!(replayed, (at + 1..=head_ev).collect::<Vec<_>>(), "round {rounds}");
            // A few live ones, then away without a word.
            let until = (head_ev + 7).min(MESSAGES);
            follow(&mut socket, head_ev, until).await;
            at = until;
        }
        rounds
    };
    let ((), rounds) = tokio::join!(sending, listening);
    assert!(rounds > 5, "only {rounds} rounds: nothing was raced");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_epoch_of_another_history_resets_sockets_that_are_open() {
    let cluster = Cluster::with(1, |config| {
        config.head_check_interval = std::time::Duration::from_millis(200);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(0).connect(&chat).await;
    let before = bob.on(0).history(&chat, "").await["epoch"].clone();
    alice.on(0).send(&chat, "before").await;
    socket.expect_message().await;
    // What an operator does after a restore.
    cluster.psql("UPDATE instance SET incarnation = 'restored'").await;
    let reset = socket.expect("reset").await;
    assert_ne!(reset["epoch"], before);
    assert_eq!((&reset["reason"], &reset["head_ev"]), (&json!("unknown_position"), &json!(1)));
    assert_eq!(socket.expect("synced").await["ev"], 1);
    let live = alice.on(0).send(&chat, "after").await;
    assert_eq!(socket.expect_message().await, live);
}
