//! The inbox of the many-chats socket: a list of chats and its badges stay right without asking.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use beseda::context::INBOX_READS;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::{assert_members, kind, kinds};
use crate::harness::{Cluster, Program, Socket, eventually, fill};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_chat_is_told_to_both_on_every_socket() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let mut hers = [alice.on(0).connect_many().await, alice.on(1).connect_many().await];
    let mut his = bob.on(1).connect_many().await;
    let chat = alice.on(0).open_chat(&bob).await;
    for (socket, user) in hers.iter_mut().map(|s| (s, &alice)).chain([(&mut his, &bob)]) {
        let told = socket.expect("chat.created").await;
        assert_members(&told, &["type", "chat", "total_unread", "epoch"]);
        assert_eq!(told["epoch"], user.on(0).history(&chat, "").await["epoch"]);
        let mut expected = user.on(0).chat(&chat).await;
        // Best effort, and not the inbox's matter.
        for seen in [&mut expected, &mut told["chat"].clone()] {
            seen["other_user"]["online"] = Value::Null;
        }
        let mut shown = told["chat"].clone();
        shown["other_user"]["online"] = Value::Null;
        assert_eq!(shown, expected);
        assert_eq!(told["total_unread"], 0);
    }
    // Found again, it is not new.
    bob.on(1).open_chat(&alice).await;
    let sent = alice.on(1).send(&chat, "hello").await;
    let told = his.expect("chat.updated").await;
    assert_eq!(told["chat"]["last_message"], sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_chat_updates_its_badges() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = alice.on(0).open_chat(&bob).await;
    let other = carol.on(0).open_chat(&bob).await;
    carol.on(0).send(&other, "one elsewhere").await;
    let mut socket = bob.on(1).connect_many().await;
    // Shows that another user's socket received nothing.
    let mut carols = carol.on(1).connect_many().await;
    let mut expect = async |unread: i64, total: i64, text: &str| {
        let told = socket.expect("chat.updated").await;
        assert_members(&told, &["type", "chat", "total_unread", "epoch"]);
        assert_eq!(told["chat"]["chat_id"], *chat.id, "{told}");
        assert_eq!(told["chat"]["unread_count"], unread, "{told}");
        assert_eq!(told["total_unread"], total, "{told}");
        assert_eq!(told["chat"]["last_message"]["text"], text, "{told}");
    };
    alice.on(0).send(&chat, "one").await;
    expect(1, 2, "one").await;
    let two = alice.on(0).send(&chat, "two").await;
    expect(2, 3, "two").await;
    let path = chat.path(&format!("messages/{}/", two["message_id"].as_str().expect("an id")));
    alice.on(0).patch(&path, json!({ "text": "two!" })).await.expect(200);
    expect(2, 3, "two!").await;
    alice.on(0).delete(&path).await.expect(204);
    expect(1, 2, "").await;
    bob.on(0).mark_read(&chat).await;
    expect(0, 1, "").await;
    bob.on(0).send(&chat, "an answer").await;
    expect(0, 1, "an answer").await;
    alice.on(0).mark_read(&chat).await;
    expect(0, 1, "an answer").await;
    // Sending has not moved his marker.
    bob.on(0).mark_read(&chat).await;
    expect(0, 1, "an answer").await;
    // What changes nothing is not told.
    bob.on(0).mark_read(&chat).await;
    alice.on(0).send(&chat, "the end").await;
    expect(1, 2, "the end").await;
    assert_eq!(kinds(&carols.frames_so_far().await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_chat_is_told_once_whether_followed_or_not() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let carol = cluster.user("carol");
    let other = carol.on(0).open_chat(&bob).await;
    carol.on(0).send(&other, "elsewhere").await;
    alice.on(0).send(&chat, "unread to the end").await;
    let epoch = bob.on(0).history(&chat, "").await["epoch"].clone();
    let mut plain = bob.on(1).connect_many().await;
    let mut following = bob.on(1).connect_many().await;
    following.ask(json!({ "type": "subscribe", "id": 1, "chat_id": chat.id })).await;
    following.expect("synced").await;
    alice.on(0).delete(&chat.path("")).await.expect(204);
    for socket in [&mut plain, &mut following] {
        let told = socket.expect("chat.deleted").await;
        let (kind, id) = ("chat.deleted", &chat.id);
        let expected = json!({
            "type": kind, "chat_id": id, "total_unread": 1, "reason": "deleted", "epoch": epoch,
        });
        assert_eq!(told, expected);
    }
    // The same two begin anew, with another chat.
    let again = bob.on(0).open_chat(&alice).await;
    assert_ne!(again.id, chat.id);
    for socket in [&mut plain, &mut following] {
        let told = socket.expect("chat.created").await;
        assert_eq!(told["chat"]["chat_id"], *again.id);
    }
    let asked = json!({ "type": "subscribe", "id": 2, "chat_id": chat.id });
    assert_eq!(plain.ask(asked).await["code"], "chat_not_found");
}

/// The last word on each chat among frames.
fn last_words(frames: &[Value]) -> HashMap<String, Value> {
    let told = frames.iter().filter(|frame| kind(frame) == "chat.updated");
    let id = |frame: &Value| frame["chat"]["chat_id"].as_str().expect("an id").to_owned();
    told.map(|frame| (id(frame), frame["chat"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_over_many_chats_ends_with_all_of_them_right() {
    const CHATS: usize = 40;
    let cluster = Cluster::start(2).await;
    let bob = cluster.user("bob");
    let mut chats = Vec::new();
    for number in 0..CHATS {
        let other = cluster.user(&format!("other-{number}"));
        let chat = other.on(0).open_chat(&bob).await;
        chats.push((other, chat));
    }
    let mut socket = bob.on(1).connect_many().await;
    let moved = &chats[..CHATS - 5];
    let sends = moved.iter().map(|(other, chat)| async move {
        for _ in 0..3 {
            other.on(0).send(chat, "x").await;
        }
    });
    futures_util::future::join_all(sends).await;
    let mut frames: Vec<Value> = Vec::new();
    while last_words(&frames).values().filter(|chat| chat["last_seq"] == 3).count() < moved.len() {
        frames.push(socket.next_frame().await);
    }
    let words = last_words(&frames);
    assert_eq!(words.len(), moved.len(), "chats that did not change are not told");
    assert!(words.values().all(|chat| chat["unread_count"] == 3));
    let total = bob.on(0).get("/chats/unread/").await.expect(200)["total"].clone();
    assert_eq!(frames.last().map(|frame| &frame["total_unread"]), Some(&total));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_read_after_hello_and_what_is_told_meet_without_a_gap() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sending = async {
        for _ in 0..60 {
            alice.on(0).send(&chat, "x").await;
        }
    };
    let watching = async {
        for round in 0..6 {
            let mut socket: Socket = bob.on(round % 2).connect_many().await;
            let list = bob.on((round + 1) % 2).get("/chats/").await.expect(200);
            let mut ev = list["results"][0]["last_ev"].as_i64().expect("a number");
            // Whatever the list did not have yet is told.
            let asked = json!({ "type": "mark_read", "id": 1, "chat_id": chat.id });
            socket.send(asked).await;
            let head = bob.on(0).chat(&chat).await["last_ev"].as_i64().expect("a number");
            while ev < head {
                let told = socket.wait_for("chat.updated").await;
                ev = ev.max(told["chat"]["last_ev"].as_i64().expect("a number"));
            }
        }
    };
    tokio::join!(sending, watching);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_in_another_history_is_told_again() {
    let check = Duration::from_millis(200);
    let cluster = Cluster::with(1, |config| config.head_check_interval = check).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(0).connect_many().await;
    alice.on(0).send(&chat, "lost").await;
    let before = socket.expect("chat.updated").await;
    // In the one that is restored another message has the same numbers.
    let restored =
        "UPDATE messages SET text = 'instead'; UPDATE instance SET incarnation = 'restored'";
    cluster.psql(restored).await;
    let after = socket.expect("chat.updated").await;
    assert_eq!(after["chat"]["last_ev"], before["chat"]["last_ev"]);
    assert_eq!(after["chat"]["last_message"]["text"], "instead");
    // Once.
    alice.on(0).send(&chat, "live").await;
    assert_eq!(socket.expect("chat.updated").await["chat"]["last_message"]["text"], "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_inboxes_take_turns_and_each_is_told_all() {
    const INBOXES: usize = 5 * INBOX_READS;
    let check = Duration::from_millis(200);
    let cluster = Cluster::with(1, |config| {
        config.head_check_interval = check;
        // Enough for all of them at once.
        config.database.database_connections = 3 * INBOXES;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sockets = Vec::new();
    for number in 0..INBOXES {
        let user = if number % 2 == 0 { &alice } else { &bob };
        sockets.push(user.on(0).connect_many().await);
    }
    // The lock holds up only the reads of chats.
    let (holder, connection) =
        tokio_postgres::connect(&cluster.database_url(), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    holder.batch_execute("BEGIN; LOCK TABLE members").await.expect("a lock");
    cluster.psql("UPDATE instance SET incarnation = 'restored'").await;
    let reading = async || {
        let reading = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                        AND wait_event_type = 'Lock' AND query LIKE '-- store.list_heads%'";
        cluster.psql_value::<usize>(reading).await
    };
    eventually(async || match reading().await {
        reading if reading >= INBOX_READS => Ok(()),
        reading => Err(format!("{reading} inboxes read their chats")),
    })
    .await;
    // Time for more of them, if there were any.
    tokio::time::sleep(check).await;
    assert_eq!(reading().await, INBOX_READS);
    for socket in &mut sockets {
        socket.send(json!({ "type": "ping" })).await;
    }
    // Together, so that who can answer has long for it, and the readers' statements do not time out.
    let answers = sockets
        .iter_mut()
        .map(|socket| tokio::time::timeout(Duration::from_secs(2), socket.next_frame()));
    let answers = futures_util::future::join_all(answers).await;
    let pongs =
        answers.into_iter().filter(|frame| matches!(frame, Ok(frame) if frame["type"] == "pong"));
    let served = pongs.count();
    assert_eq!(served, INBOXES - INBOX_READS, "who waits in line is served");
    holder.batch_execute("ROLLBACK").await.expect("an end");
    for socket in &mut sockets {
        assert_eq!(socket.wait_for("chat.updated").await["chat"]["chat_id"], *chat.id);
    }
}

/// Lets every tenth chat end with a text of 16 KB.
const LONG_TEXTS: &str =
    "UPDATE messages SET text = repeat('💬', 4000) WHERE right(sender_id, 1) = '0'";

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_of_many_chats_is_told_all_of_another_history_in_little_memory() {
    const CHATS: usize = 20_000;
    /// Kilobytes; the texts alone have 32,000, the frames of all chats 45,000.
    const MORE: u64 = 16_000;
    let mut cluster = Cluster::start(0).await;
    cluster.add_replica().await;
    let (program, at) = Program::join(&mut cluster, &[("BESEDA_RATE_LIMITS", "off")]).await;
    let chats = fill::direct_chats("alice", CHATS as i64, "'other-' || n", "'alice'", 1);
    cluster.psql(&chats).await;
    cluster.psql(LONG_TEXTS).await;
    let mut socket = cluster.user("alice").on(at).connect_many().await;
    let before = peak_kilobytes(program.id());
    cluster.psql("UPDATE instance SET incarnation = 'restored'").await;
    let mut told = HashSet::new();
    while told.len() < CHATS {
        let frame = socket.expect("chat.updated").await;
        assert!(frame["epoch"].as_str().is_some_and(|epoch| epoch.starts_with("restored")));
        assert_eq!(frame["total_unread"], CHATS);
        let new = told.insert(frame["chat"]["chat_id"].as_str().expect("an id").to_owned());
        assert!(new, "told twice: {frame}");
    }
    let more = peak_kilobytes(program.id()) - before;
    assert!(more < MORE, "{more} KB more");
}

/// Most memory that a process has had.
fn peak_kilobytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_whose_client_takes_nothing_keeps_no_turn() {
    /// At 16 KB each, told twice they are more than the buffers of both sides hold.
    const CHATS: usize = 250;
    let check = Duration::from_millis(200);
    let cluster = Cluster::with(1, |config| config.head_check_interval = check).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let large = "\u{1f4ac}".repeat(4_000);
    let opening = (0..CHATS).map(|number| {
        let (other, bob) = (cluster.user(&format!("other-{number}")), &bob);
        let large = &large;
        async move { other.on(0).send(&other.on(0).open_chat(bob).await, large).await }
    });
    futures_util::future::join_all(opening).await;
    let mut stuck = Vec::new();
    for _ in 0..INBOX_READS {
        let ticket = bob.on(0).post("/connect/", json!({})).await.expect(200);
        let url = ticket["ws_url"].as_str().expect("a URL");
        stuck.push(Socket::open_narrow(url).await);
        stuck.last_mut().expect("a socket").expect("hello").await;
    }
    let mut socket = alice.on(0).connect_many().await;
    // Hers may come before his, so that only the times after those that fill the buffers tell.
    for incarnation in ["one", "two", "three", "four"] {
        let restored = format!("UPDATE instance SET incarnation = '{incarnation}'");
        cluster.psql(&restored).await;
        assert_eq!(socket.expect("chat.updated").await["chat"]["chat_id"], *chat.id);
        // His read, and write.
        tokio::time::sleep(check * 2).await;
    }
}
