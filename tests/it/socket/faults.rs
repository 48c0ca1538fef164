//! Whatever happens to Redis: latency, and never a message.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{follow, kind, seqs};
use crate::harness::{Chat, Client, Cluster, DelayProxy, eventually};

/// A command of Redis.
type Words = &'static [&'static str];

async fn send_all(at: &Client, chat: &Chat, texts: std::ops::Range<i64>) -> Vec<Value> {
    let sending = texts.map(|number| {
        let text = format!("number {number}");
        async move { at.send(chat, &text).await }
    });
    stream::iter(sending).buffered(4).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_subscriptions_lose_nothing() {
    const MESSAGES: i64 = 300;
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    let mut many = bob.on(1).connect_many().await;
    let at = alice.on(0);
    let cutting = async {
        let mut redis = cluster.redis().await;
        for _ in 0..10 {
            redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    };
    let reading = follow(&mut socket, 0, MESSAGES);
    let (_, (), frames) = tokio::join!(send_all(&at, &chat, 0..MESSAGES), cutting, reading);
    assert_eq!(seqs(&frames), (1..=MESSAGES).collect::<Vec<_>>());
    // The inbox ends where the chat does.
    loop {
        let told = many.wait_for("chat.updated").await;
        if told["chat"]["last_seq"] == MESSAGES {
            assert_eq!(told["total_unread"], MESSAGES);
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_publication_that_was_lost_is_found() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    for round in 1..=5 {
        // The connection is dead before the only message is sent, and nothing follows it.
        cluster.redis().await.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        let sent = alice.on(0).send(&chat, "the last").await;
        let frames = follow(&mut socket, round - 1, round).await;
        assert_eq!(frames[0]["message"], sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_delays_and_loses_nothing() {
    const MESSAGES: i64 = 60;
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    let mut many = bob.on(1).connect_many().await;
    let redis = &cluster.stack().redis;
    redis.pause().expect("it runs");
    let at = alice.on(0);
    let (_, frames) =
        tokio::join!(send_all(&at, &chat, 0..MESSAGES), follow(&mut socket, 0, MESSAGES));
    assert_eq!(seqs(&frames), (1..=MESSAGES).collect::<Vec<_>>());
    redis.resume().expect("it runs");
    // What comes late is not given twice.
    send_all(&at, &chat, MESSAGES..2 * MESSAGES).await;
    let frames = follow(&mut socket, MESSAGES, 2 * MESSAGES).await;
    assert_eq!(seqs(&frames), (MESSAGES + 1..=2 * MESSAGES).collect::<Vec<_>>());
    loop {
        let told = many.wait_for("chat.updated").await;
        if told["chat"]["last_seq"] == 2 * MESSAGES {
            break;
        }
    }
}

/// Sends one by one and gives, of each, how long the acknowledgement took, and the delivery.
async fn timed(
    at: &Client,
    chat: &Chat,
    socket: &mut crate::harness::Socket,
    evs: std::ops::RangeInclusive<i64>,
) -> Vec<(Duration, Duration)> {
    let mut times = Vec::new();
    for ev in evs {
        let began = Instant::now();
        let sent = at.send(chat, "x").await;
        let acknowledged = began.elapsed();
        assert_eq!(sent["ev"], ev);
        let frames = follow(socket, ev - 1, ev).await;
        assert_eq!(frames[0]["message"], sent);
        times.push((acknowledged, began.elapsed()));
    }
    times
}

/// Lets the replicas come to believe that Redis is there to stay: the first comparisons, by which
/// they might find a message, are over, and the next one is seconds away.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

/// Each is acknowledged within 500 ms and delivered within 2 s, the first one too, and half of them are
/// acknowledged within 250 ms.
#[track_caller]
fn assert_quick(times: &[(Duration, Duration)]) {
    for (number, (acknowledged, delivered)) in times.iter().enumerate() {
        // The promise, and what a busy machine adds to it.
        assert!(*acknowledged <= Duration::from_millis(500), "{number} of {times:?}");
        assert!(*delivered <= Duration::from_millis(2_000), "{number} of {times:?}");
    }
    let mut acknowledged: Vec<Duration> = times.iter().map(|(it, _)| *it).collect();
    acknowledged.sort_unstable();
    assert!(acknowledged[times.len() / 2] <= Duration::from_millis(250), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_sends_are_acknowledged_and_delivered_all_the_same() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    let mut many = bob.on(1).connect_many().await;
    let redis = &cluster.stack().redis;
    settle().await;
    redis.kill();
    let at = alice.on(0);
    assert_quick(&timed(&at, &chat, &mut socket, 1..=6).await);
    // A socket that is opened meanwhile is as good, and so is the inbox.
    let mut late = bob.on(0).connect(&chat).await;
    assert_quick(&timed(&at, &chat, &mut late, 7..=9).await);
    let began = Instant::now();
    while many.wait_for("chat.updated").await["chat"]["last_seq"] != 9 {}
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let error = late.ask(json!({ "type": "mark_read", "id": 1 })).await;
    assert_eq!((&error["type"], &error["total_unread"]), (&json!("ack"), &json!(0)));

    redis.restart().await.expect("it starts again");
    for replica in 0..2 {
        eventually(async || {
            let answer = cluster.operator(replica).request(reqwest::Method::GET, "/readyz").await;
            if answer.json["status"] == "ready" { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }
    follow(&mut socket, 6, 10).await;
    assert_quick(&timed(&at, &chat, &mut socket, 11..=13).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_delays_a_first_send_no_more_than_one_that_is_gone() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    settle().await;
    cluster.stack().redis.pause().expect("it runs");
    let times = timed(&alice.on(0), &chat, &mut socket, 1..=5).await;
    cluster.stack().redis.resume().expect("it runs");
    assert_quick(&times);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_no_writes_or_throws_keys_away_miscounts_nothing() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    let faults: [(&str, Words, Words); 3] = [
        ("full", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        ("read-only", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
        ("evicting", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
    ];
    let mut sent = 0;
    for (fault, breaking, healing) in faults {
        if fault == "evicting" {
            let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-random"];
            cluster.redis().await.command(&policy).await;
        }
        for (words, healed) in [(breaking, false), (healing, true)] {
            cluster.redis().await.command(words).await;
            for _ in 0..3 {
                let message = alice.on(0).send(&chat, fault).await;
                assert_eq!(follow(&mut socket, sent, sent + 1).await[0]["message"], message);
                sent += 1;
                for replica in 0..2 {
                    eventually(async || match bob.on(replica).unread_in(&chat).await {
                        unread if unread == sent => Ok(()),
                        unread => Err(format!("{fault}, healed {healed}: {unread} of {sent}")),
                    })
                    .await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_before_a_late_subscription_is_found_at_once() {
    // Every ping is answered in time; but a subscription that has to wait for one takes up to two of
    // these, while a socket waits 250 ms for it.
    const LATE: Duration = Duration::from_millis(170);
    const CHATS: usize = 12;
    let mut cluster =
        Cluster::with(1, |config| config.head_check_interval = Duration::from_secs(60)).await;
    let delay_proxy = DelayProxy::start(cluster.stack().redis.port(), LATE).await;
    let url = format!("redis://127.0.0.1:{}", delay_proxy.port());
    let far = cluster.add_replica_with(move |config| config.redis_url = url.into()).await;
    let alice = cluster.user("alice");
    for number in 0..CHATS {
        let bob = cluster.user(&format!("bob {number}"));
        let chat = alice.on(0).open_chat(&bob).await;
        let mut socket = bob.on(far).connect(&chat).await;
        let sent = alice.on(0).send(&chat, "x").await;
        assert_eq!(follow(&mut socket, 0, 1).await[0]["message"], sent);
        let mut many = bob.on(far).connect_many().await;
        let sent = alice.on(0).send(&chat, "y").await;
        while many.wait_for("chat.updated").await["chat"]["last_message"] != sent {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_split_off_is_found_by_comparing() {
    let check = Duration::from_millis(500);
    let mut cluster = Cluster::with_own_stack(1, |config| config.head_check_interval = check).await;
    let other = beseda::dev::Redis::temporary().await.expect("Redis is installed");
    let url = other.url();
    // Both believe that all is well, and neither hears the other.
    let apart = cluster.add_replica_with(move |config| config.redis_url = url.into()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(apart).connect(&chat).await;
    for ev in 1..=3 {
        let sent = alice.on(0).send(&chat, "x").await;
        assert_eq!(follow(&mut socket, ev - 1, ev).await[0]["message"], sent);
    }
    alice.on(0).delete(&chat.path("")).await.expect(204);
    let frames = socket.expect_close(4004).await;
    assert!(frames.iter().any(|frame| kind(frame) == "chat.deleted"), "{frames:?}");
    // What its Redis has is not this one's: nothing to compare at the end.
    drop(cluster);
    drop(other);
}
