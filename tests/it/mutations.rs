//! Edits, deletions and read markers go in batches, and no one of them is another's concern.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::harness::{Chat, Cluster, User, eventually};

/// Holds a chat's row in a transaction of its own, until dropped.
async fn hold(cluster: &Cluster, chat: &Chat) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.database_url(), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let lock = format!("BEGIN; SELECT FROM chats WHERE chat_id = '{chat}' FOR UPDATE");
    client.batch_execute(&lock).await.expect("a lock");
    client
}

/// The servers of the connections that lanes write on. One that is stopped takes its batch, and does
/// nothing with it.
async fn lanes(cluster: &Cluster) -> Vec<Pid> {
    let lanes = "SELECT pid::text FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()
                    AND (query LIKE '%store.mutate\\_chats%' OR query LIKE '%store.send\\_%')";
    let rows = cluster.psql(lanes).await;
    rows.iter().filter_map(|row| Some(Pid::from_raw(row[0].as_ref()?.parse().ok()?))).collect()
}

fn signal(lanes: &[Pid], signal: Signal) {
    assert!(!lanes.is_empty(), "no process to send {signal} to");
    for lane in lanes {
        kill(*lane, signal).expect("it runs");
    }
}

/// So many wait for the lanes of the first replica.
async fn until_queued(cluster: &Cluster, count: usize) {
    eventually(async || {
        let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
        let depth =
            metrics.lines().find_map(|line| line.strip_prefix("beseda_writer_queue_depth "));
        match depth.and_then(|depth| depth.parse::<usize>().ok()) {
            Some(depth) if depth >= count => Ok(()),
            other => Err(format!("{other:?} wait")),
        }
    })
    .await;
}

/// Chats of `user` with others, with one message of the other's in each.
async fn chats(cluster: &Cluster, user: &User, count: usize) -> Vec<(User, Chat)> {
    let mut chats = Vec::new();
    for number in 0..count {
        let peer = cluster.user(&format!("peer {number}"));
        let chat = user.on(0).open_chat(&peer).await;
        peer.on(1).send(&chat, "hi").await;
        chats.push((peer, chat));
    }
    chats
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_meanwhile_is_written_at_once() {
    const CHATS: usize = 40;
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let chats = chats(&cluster, &alice, CHATS).await;
    let noted = async || {
        let last = "SELECT last_value FROM outbox_outbox_id_seq";
        cluster.psql_value::<i64>(last).await
    };
    // Lanes take the connection that has rested longest, so any of these may be the next one.
    for (peer, chat) in &chats[..2] {
        peer.on(0).mark_read(chat).await;
        peer.on(0).send(chat, "hi").await;
    }
    let lanes = lanes(&cluster).await;
    let before = noted().await;
    signal(&lanes, Signal::SIGSTOP);
    let mut marks = JoinSet::new();
    for (_, chat) in &chats {
        let (at, chat) = (alice.on(0), chat.clone());
        marks.spawn(async move { at.mark_read(&chat).await });
    }
    // The first batch has some of them; it is under way.
    until_queued(&cluster, CHATS / 2).await;
    signal(&lanes, Signal::SIGCONT);
    let mut totals: Vec<i64> = Vec::new();
    for marked in marks.join_all().await {
        assert_eq!(marked["unread_count"], 0, "{marked}");
        totals.push(marked["total_unread"].as_i64().expect("a number"));
    }
    let batches = noted().await - before;
    assert!(batches < 10, "{batches} transactions that changed something");
    // What is told is what is left after all of the batch.
    totals.sort_unstable();
    assert_eq!(totals[..CHATS / 2], [0; CHATS / 2], "{totals:?}");
    assert_eq!(alice.on(1).get("/chats/unread/").await.expect(200)["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_is_held_holds_up_no_other() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let chats = chats(&cluster, &alice, 2).await;
    let [(_, held), (peer, free)] = &chats[..] else { unreachable!("two chats") };
    let mine = alice.on(0).send(free, "mine").await;
    let message =
        |chat: &Chat, id: &Value| chat.path(&format!("messages/{}/", id.as_str().expect("an id")));
    let lock = hold(&cluster, held).await;
    let mut stuck = JoinSet::new();
    for _ in 0..3 {
        let (at, path) = (alice.on(0), held.path("mark_read/"));
        stuck.spawn(async move { at.post(&path, json!({})).await });
    }
    cluster.until_one_waits().await;
    // A batch with the chat that is held comes apart; the others of it are written.
    let path = message(free, &mine["message_id"]);
    let edit = json!({ "text": "edited" });
    let edited = alice.on(0).patch(&path, edit).await.expect(200);
    assert_eq!(edited["text"], "edited");
    peer.on(0).mark_read(free).await;
    alice.on(0).delete(&path).await.expect(204);
    for refused in stuck.join_all().await {
        refused.expect_problem(503, "unavailable");
    }
    drop(lock);
    eventually(async || {
        let answer = alice.on(0).post(&held.path("mark_read/"), json!({})).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(alice.on(1).get("/chats/unread/").await.expect(200)["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_is_held_for_long_costs_others_one_wait() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let chats = chats(&cluster, &alice, 2).await;
    let [(_, held), (_, free)] = &chats[..] else { unreachable!("two chats") };
    let lock = hold(&cluster, held).await;
    let body = json!({ "text": "meanwhile" });
    let refused = async || alice.on(0).post(&held.path("messages/"), body.clone()).await;
    refused().await.expect_problem(503, "unavailable");
    let began = Instant::now();
    for _ in 0..10 {
        // Both wait for the same lane.
        let here = alice.on(0);
        let (refused, _) = tokio::join!(refused(), here.send(free, "meanwhile"));
        refused.expect_problem(503, "unavailable");
    }
    // Ten waits for a lock are 5 s.
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    drop(lock);
    eventually(async || match refused().await {
        answer if answer.status == 201 => Ok(()),
        answer => Err(answer.text),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_takes_too_long_fails_no_other() {
    // The statement's time is over before the lock's.
    let cluster = Cluster::with(2, |config| {
        config.database.database_timeout = Duration::from_millis(300);
    })
    .await;
    let alice = cluster.user("alice");
    let chats = chats(&cluster, &alice, 12).await;
    let [(_, held), free @ ..] = &chats[..] else { unreachable!("many chats") };
    let lock = hold(&cluster, held).await;
    let mark = |chat: &Chat| {
        let (at, path) = (alice.on(0), chat.path("mark_read/"));
        async move { at.post(&path, json!({})).await }
    };
    // The first is a batch of its own; the next ones are among the others.
    let stuck: Vec<_> = (0..3).map(|_| tokio::spawn(mark(held))).collect();
    cluster.until_one_waits().await;
    let marks: Vec<_> = free.iter().map(|(_, chat)| tokio::spawn(mark(chat))).collect();
    for marked in marks {
        assert_eq!(marked.await.expect("an answer").expect(200)["unread_count"], 0);
    }
    for refused in stuck {
        refused.await.expect("an answer").expect_problem(503, "unavailable");
    }
    drop(lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_chat_past_some_hundreds_are_refused_and_those_of_others_made() {
    /// More than may wait of one chat.
    const MANY: usize = 320;
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let chats = chats(&cluster, &alice, 2).await;
    let [(_, busy), (peer, other)] = &chats[..] else { unreachable!("two chats") };
    // Lanes take the connection that has rested longest, so any of these may be the next one.
    for _ in 0..2 {
        peer.on(0).mark_read(other).await;
        peer.on(0).send(other, "hi").await;
    }
    let lanes = lanes(&cluster).await;
    signal(&lanes, Signal::SIGSTOP);
    let mark = |chat: &Chat| {
        let (at, path) = (alice.on(0), chat.path("mark_read/"));
        tokio::spawn(async move { at.post(&path, json!({})).await })
    };
    let marks: Vec<_> = (0..MANY).map(|_| mark(busy)).collect();
    // All but the first, and what came with it.
    until_queued(&cluster, MANY - 20).await;
    let others = mark(other);
    signal(&lanes, Signal::SIGCONT);
    others.await.expect("an answer").expect(200);
    let (mut made, mut refused) = (0, 0);
    for answer in marks {
        let answer = answer.await.expect("an answer");
        if answer.status == 200 {
            made += 1;
        } else {
            answer.expect_problem(503, "unavailable");
            refused += 1;
        }
    }
    assert!(made >= 256 && refused > 0, "{made} made, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_chat_at_once_are_all_made_and_numbered() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut ids = Vec::new();
    for number in 0..12 {
        let sent = alice.on(0).send(&chat, &format!("{number}")).await;
        ids.push(sent["message_id"].as_str().expect("an id").to_owned());
    }
    let mut socket = bob.on(1).connect(&chat).await;
    bob.on(0).post(&chat.path("mark_read/"), json!({ "up_to_seq": 0 })).await.expect(200);
    let lanes = lanes(&cluster).await;
    signal(&lanes, Signal::SIGSTOP);
    let mut changes = JoinSet::new();
    for (number, id) in ids.iter().enumerate() {
        let (at, path) = (alice.on(number % 2), chat.path(&format!("messages/{id}/")));
        changes.spawn(async move {
            if number % 3 == 0 {
                at.delete(&path).await.expect(204);
            } else {
                at.patch(&path, json!({ "text": "new" })).await.expect(200);
            }
        });
        let (at, path) = (bob.on(0), chat.path("mark_read/"));
        let body = json!({ "up_to_seq": number + 1 });
        changes.spawn(async move { drop(at.post(&path, body).await.expect(200)) });
    }
    // Six edits and deletions go there, so that two marks at least are among these: they could be
    // written at once.
    until_queued(&cluster, 8).await;
    signal(&lanes, Signal::SIGCONT);
    changes.join_all().await;
    let history = bob.on(1).history(&chat, "").await;
    assert_eq!(history["read_seq"], 12, "the furthest mark");
    let head = history["head_ev"].as_i64().expect("a number");
    // Every change, once, in order, whichever replica made it.
    let mut last = 12;
    while last < head {
        let frame = socket.next_frame().await;
        // A slow machine can have the socket catch up: what says so names a revision, too.
        let change = !["catchup", "synced"].map(Value::from).contains(&frame["type"]);
        if let (true, Some(ev)) = (change, frame["ev"].as_i64()) {
            assert_eq!(ev, last + 1, "{frame}");
            last = ev;
        }
    }
    assert_eq!(bob.on(0).unread_in(&chat).await, 0);
}
