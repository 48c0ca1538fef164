//! Order and completeness under load, and for those who do not keep up.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{ev, follow, kind, seqs};
use crate::harness::{Cluster, Psql, Socket, eventually_within};

/// Sends of both people through both replicas at once.
const RACING: i64 = 300;

/// The frames around changes that were read from Postgres are skipped by most tests: here they are counted.
#[tokio::test(flavor = "multi_thread")]
async fn nearly_all_changes_are_heard_and_need_not_be_read() {
    const SENT: usize = 100;
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    for number in 0..SENT {
        alice.on(0).send(&chat, &format!("number {number}")).await;
    }
    let (mut came, mut read, mut catching_up) = (0, 0, false);
    while came < SENT {
        match kind(&socket.next_frame().await) {
            "catchup" => catching_up = true,
            "synced" => catching_up = false,
            "message.created" => {
                came += 1;
                read += usize::from(catching_up);
            }
            _ => {}
        }
    }
    // A comparison every few seconds may find one that is on its way.
    assert!(read <= SENT / 5, "{read} of {SENT} were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_sends_from_two_replicas_arrive_in_order_and_once() {
    let mut cluster = Cluster::start(2).await;
    let witness = cluster.add_replica().await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sockets = vec![
        bob.on(witness).connect(&chat).await,
        alice.on(0).connect(&chat).await,
        alice.on(1).connect(&chat).await,
    ];
    let sent: Vec<Value> = stream::iter(0..RACING)
        .map(|number| {
            let by = if number % 3 == 0 { &bob } else { &alice };
            let (at, chat) = (by.on(usize::from(number % 2 == 0)), &chat);
            async move { at.send(chat, &format!("number {number}")).await }
        })
        .buffer_unordered(40)
        .collect()
        .await;
    let mut acknowledged: Vec<i64> = sent.iter().filter_map(|m| m["seq"].as_i64()).collect();
    acknowledged.sort_unstable();
    let all: Vec<i64> = (1..=RACING).collect();
    assert_eq!(acknowledged, all);
    for socket in &mut sockets {
        let frames = follow(socket, 0, RACING).await;
        assert_eq!(seqs(&frames), all);
        for frame in &frames {
            assert!(sent.contains(&frame["message"]), "{frame} was acknowledged otherwise");
        }
    }
    for socket in &mut sockets {
        let more = socket.frames_so_far().await;
        assert!(more.iter().all(|frame| kind(frame) == "presence"), "{more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_on_sockets_and_by_rest_share_one_order() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut watching = bob.on(1).connect(&chat).await;
    let mut sending = alice.on(1).connect(&chat).await;
    let by_socket = async {
        for id in 0..50 {
            let ack = sending.ask(json!({ "type": "send", "id": id, "text": "socket" })).await;
            assert_eq!(ack["type"], "ack", "{ack}");
        }
    };
    let by_rest = async {
        for _ in 0..50 {
            bob.on(0).send(&chat, "rest").await;
            bob.on(0).mark_read(&chat).await;
        }
    };
    tokio::join!(by_socket, by_rest);
    let head_ev = bob.on(0).chat(&chat).await["last_ev"].as_i64().expect("a number");
    assert!(head_ev > 100);
    let frames = follow(&mut watching, 0, head_ev).await;
    assert_eq!(seqs(&frames), (1..=100).collect::<Vec<_>>());
}

/// As large as a message can be: 16 KB.
fn large() -> String {
    "\u{1F984}".repeat(4_000)
}

async fn send_many(at: &crate::harness::Client, chat: &crate::harness::Chat, count: usize) {
    let text = large();
    let sending = stream::iter(0..count).map(|_| at.send(chat, &text)).buffer_unordered(16);
    assert_eq!(sending.count().await, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_catches_up_without_loss_and_delays_nobody() {
    const COUNT: usize = 800;
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut slow = Socket::open_narrow(&bob.on(0).chat_url(&chat).await).await;
    slow.greet().await;
    let mut quick = bob.on(0).connect(&chat).await;
    let head_ev = i64::try_from(COUNT).expect("a small number");
    let at = alice.on(0);
    let (frames, ()) = tokio::join!(follow(&mut quick, 0, head_ev), send_many(&at, &chat, COUNT));
    assert_eq!(frames.len(), COUNT, "the quick one has all, while the slow one reads nothing");
    // More than its queue and the buffers of both sides hold.
    let metrics = cluster.operator(0).request(reqwest::Method::GET, "/metrics").await.text;
    let behind = metrics.lines().find(|line| line.starts_with("beseda_sockets_behind_total"));
    let frames = follow(&mut slow, 0, head_ev).await;
    assert_eq!(seqs(&frames), (1..=head_ev).collect::<Vec<_>>());
    let metrics = cluster.operator(0).request(reqwest::Method::GET, "/metrics").await.text;
    let after = metrics.lines().find(|line| line.starts_with("beseda_sockets_behind_total"));
    assert_ne!(behind, after, "its queue never ran over: nothing was tested");
    let live = alice.on(0).send(&chat, "live").await;
    assert_eq!(slow.expect_message().await, live);
}

/// Makes every read of a chat's changes read the table `barrier` first.
const BARRIER_FOR_CATCH_UPS: &str = "\
ALTER TABLE instance RENAME TO kept_instance;
CREATE TABLE barrier ();
CREATE FUNCTION passes_barrier() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_query() LIKE '-- store.get_changes%' THEN
        PERFORM FROM barrier;
    END IF;
    RETURN true;
END $$;
CREATE VIEW instance AS SELECT * FROM kept_instance WHERE passes_barrier();";

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_cannot_catch_up_yet_goes_on_listening() {
    const COUNT: usize = 800;
    /// Sent while nothing can be read: fewer than a queue holds.
    const MORE: i64 = 40;
    let statement = Duration::from_secs(1);
    let cluster = Cluster::with(1, |config| config.database.database_timeout = statement).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut slow = Socket::open_narrow(&bob.on(0).chat_url(&chat).await).await;
    slow.greet().await;
    // Sends read the same tables as a catch-up, so only what stands in a catch-up's query waits at the
    // barrier. Before all else: once its queue has run over it must not catch up.
    cluster.psql(BARRIER_FOR_CATCH_UPS).await;
    let locking = Psql::connect(&cluster.database_url()).await;
    locking.run("BEGIN; LOCK TABLE barrier IN ACCESS EXCLUSIVE MODE").await;
    send_many(&alice.on(0), &chat, COUNT).await;
    let mut reached = 0;
    let mut take = async || {
        for frame in slow.frames_so_far().await {
            if kind(&frame) == "message.created" {
                assert_eq!(ev(&frame), reached + 1);
                reached += 1;
            }
        }
        reached
    };
    take().await;
    let head_ev = i64::try_from(COUNT).expect("a small number") + MORE;
    for _ in 0..MORE {
        alice.on(0).send(&chat, "meanwhile").await;
    }
    let began = Instant::now();
    let reached = take().await;
    // A try to read may be under way, and one more begins where that ends.
    assert!(began.elapsed() < 4 * statement, "{:?}", began.elapsed());
    assert!(reached < head_ev - MORE, "its queue never ran over: nothing is tested");
    locking.run("COMMIT").await;
    let frames = follow(&mut slow, reached, head_ev).await;
    assert_eq!(seqs(&frames), (reached + 1..=head_ev).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_takes_nothing_is_let_go_after_half_a_minute() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut stuck = Socket::open_narrow(&bob.on(0).chat_url(&chat).await).await;
    stuck.greet().await;
    assert_eq!(cluster.followed(0).1, 1);
    send_many(&alice.on(0), &chat, 600).await;
    let began = Instant::now();
    eventually_within(Duration::from_secs(50), async || match cluster.followed(0).1 {
        0 => Ok(()),
        sockets => Err(format!("{sockets} sockets")),
    })
    .await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(20), "let go after {took:?}");
    // Counted when the goodbye, which it does not take either, is given up.
    eventually_within(Duration::from_secs(20), async || {
        let metrics = cluster.operator(0).request(reqwest::Method::GET, "/metrics").await.text;
        let closed = metrics.lines().any(|l| l.contains("4201") && l.ends_with(" 1"));
        if closed { Ok(()) } else { Err(metrics) }
    })
    .await;
}
