//! A message's way from one replica to a socket on another.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_on_one_replica_reaches_a_socket_on_another() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    let sent = alice.on(0).send(&chat, "hello").await;
    assert_eq!(socket.expect_message().await, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_resumes_on_another_replica_without_a_gap() {
    let mut cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    let page = bob.on(0).history(&chat, "").await;
    let (head_ev, epoch) = (page["head_ev"].as_i64(), page["epoch"].as_str());
    assert_eq!(head_ev, Some(0));
    cluster.abort(1);
    socket.expect_close(1006).await;
    let missed = alice.on(0).send(&chat, "while away").await;
    let mut socket = bob.on(0).resume(&chat, 0, epoch.expect("an epoch")).await;
    socket.expect("hello").await;
    socket.expect("subscribed").await;
    assert_eq!(socket.expect_message().await, missed);
    assert_eq!(socket.expect("synced").await["ev"], missed["ev"]);
    let replica = cluster.add_replica().await;
    let live = alice.on(replica).send(&chat, "live again").await;
    assert_eq!(socket.expect_message().await, live);
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_many_chats_socket_hears_of_a_new_chat_and_carries_it() {
    let mut cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let mut socket = bob.on(1).connect_many().await;
    let chat = alice.on(0).open_chat(&bob).await;
    let created = socket.wait_for("chat.created").await;
    assert_eq!(created["chat"]["chat_id"], *chat.id);
    let subscribed = socket.ask(json!({ "type": "subscribe", "id": 1, "chat_id": chat.id })).await;
    assert_eq!(subscribed["type"], "subscribed");
    socket.expect("synced").await;
    assert_eq!(cluster.followed(1), (1, 1));
    let answer =
        socket.ask(json!({ "type": "send", "id": "a", "chat_id": chat.id, "text": "hi" })).await;
    assert_eq!(answer["type"], "ack");
    assert_eq!(answer["message"]["seq"], 1);
    cluster.drain(0).await;
    assert!(socket.frames_so_far().await.iter().all(|frame| frame["type"] != "bye"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_redis_is_waited_for_once_and_not_for_every_message_before() {
    let cluster = Cluster::with_own_stack(1, |_| {}).await;
    let alice = cluster.user("alice");
    let mut chats = Vec::new();
    for number in 0..48 {
        chats.push(alice.on(0).open_chat(&cluster.user(&format!("peer {number}"))).await);
    }
    // Whatever it is asked waits for up to 60 ms, which is well within the time of a command.
    let mut redis = cluster.redis().await;
    let slow = tokio::spawn(async move {
        loop {
            redis.command(&["CLIENT", "PAUSE", "60", "ALL"]).await;
        }
    });
    // So that nearly every message is a commit of its own.
    let mut due = tokio::time::interval(Duration::from_millis(5));
    let mut sends = JoinSet::new();
    for number in 0..1_000 {
        due.tick().await;
        let (at, chat) = (alice.on(0), chats[number % chats.len()].clone());
        sends.spawn(async move {
            let began = Instant::now();
            at.send(&chat, "is it slow?").await;
            began.elapsed()
        });
    }
    let slowest = sends.join_all().await.into_iter().max().expect("a send");
    slow.abort();
    // Behind the 64 commits that a lane holds, one for each pause of Redis, it is 3.8 s at least. A busy
    // machine takes 0.7 s.
    assert!(slowest < Duration::from_millis(2_500), "{slowest:?}");
}
