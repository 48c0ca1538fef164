//! Blocks, erasures, deletions and read markers amid sends: once they are acknowledged nothing more is
//! written, what was written in between is not forgotten, and what was read is not counted.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Answer, Chat, Cluster, Psql};

/// Has both users send on both replicas, until `stop`.
async fn chatter(cluster: &Cluster, chat: &Chat, stop: impl Future<Output = ()>) -> Vec<Answer> {
    let stopped = &AtomicBool::new(false);
    let senders = [("alice", 0), ("alice", 1), ("bob", 0), ("bob", 1)].map(|(id, replica)| {
        let (client, path) = (cluster.user(id).on(replica), chat.path("messages/"));
        async move {
            let mut refused = Vec::new();
            // One attempt more after the stop.
            let mut last = false;
            while !last {
                last = stopped.load(Ordering::SeqCst);
                let answer = client.post(&path, json!({ "text": "chatter" })).await;
                if answer.status != 201 {
                    refused.push(answer);
                }
            }
            refused
        }
    });
    let stopping = async {
        stop.await;
        stopped.store(true, Ordering::SeqCst);
    };
    let (refused, ()) = tokio::join!(join_all(senders), stopping);
    refused.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_written_once_a_block_is_acknowledged() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for _ in 0..3 {
        let at_block = Mutex::new(0);
        let refused = chatter(&cluster, &chat, async {
            while alice.on(0).chat(&chat).await["last_seq"].as_i64() < Some(10) {}
            alice.on(1).put("/users/bob/block/", json!({})).await.expect(204);
            let head = cluster.psql_value::<i64>("SELECT last_seq FROM chats").await;
            *at_block.lock().expect("no panic") = head;
        })
        .await;
        assert!(refused.len() >= 4);
        refused.into_iter().for_each(|answer| drop(answer.expect_problem(403, "blocked")));
        let head = cluster.psql_value::<i64>("SELECT last_seq FROM chats").await;
        assert_eq!(head, *at_block.lock().expect("no panic"));
        alice.on(0).delete("/users/bob/block/").await.expect(204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_erased_person_survives_what_they_sent_meanwhile() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let refused = chatter(&cluster, &chat, async {
        while alice.on(0).chat(&chat).await["last_seq"].as_i64() < Some(20) {}
        host.on(1).delete("/users/bob/").await.expect(204);
        let left = "SELECT count(*) FROM messages WHERE sender_id = 'bob' AND deleted_at IS NULL";
        assert_eq!(cluster.psql_value::<i64>(left).await, 0);
    })
    .await;
    for answer in refused {
        let (status, code) =
            if answer.status == 401 { (401, "token_invalid") } else { (403, "forbidden") };
        answer.expect_problem(status, code);
    }
    let left = "SELECT count(*) FROM messages WHERE sender_id = 'bob' AND deleted_at IS NULL";
    assert_eq!(cluster.psql_value::<i64>(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_deleted_amid_sends_leaves_nothing_behind() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let refused = chatter(&cluster, &chat, async {
        while alice.on(0).chat(&chat).await["last_seq"].as_i64() < Some(20) {}
        alice.on(1).delete(&chat.path("")).await.expect(204);
    })
    .await;
    assert!(refused.len() >= 4);
    refused.into_iter().for_each(|answer| drop(answer.expect_problem(404, "chat_not_found")));
    assert_eq!(cluster.psql_value::<i64>("SELECT count(*) FROM messages").await, 0);
    let unread = bob.on(0).get("/chats/unread/").await.expect(200);
    assert_eq!(unread, json!({ "total": 0, "total_mentions": 0, "badge": 0, "chats": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_waited_for_its_chat_counts_what_was_read_meanwhile() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for text in ["one", "two"] {
        alice.on(0).send(&chat, text).await;
    }
    assert_eq!(bob.on(0).unread_in(&chat).await, 2);
    let reader = Psql::connect(&cluster.database_url()).await;
    let mark = format!(
        "BEGIN; SELECT FROM mutate_chats(ARRAY['mark'], ARRAY['{chat}'::uuid], ARRAY['bob'], \
         ARRAY[NULL::uuid], ARRAY[NULL], ARRAY[NULL], ARRAY[false], ARRAY[NULL::bigint])"
    );
    reader.run(&mark).await;
    let (at, marked) = (alice.on(0), async {
        cluster.until_one_waits().await;
        reader.run("COMMIT").await;
    });
    let (sent, ()) = tokio::join!(at.send(&chat, "three"), marked);
    // After the message's own revision comes none: the mark has the one before.
    assert_eq!((&sent["seq"], &sent["ev"]), (&json!(3), &json!(4)));
    assert_eq!(bob.on(0).unread_in(&chat).await, 1);
}

/// Of the two statements that write messages the plain one takes only what is usual.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_usual_message_does_not_count_is_counted_all_the_same() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let usual = async || cluster.statements(0, "store.send_usual").await;
    let other = async || cluster.statements(0, "store.send_messages").await;
    let first = alice.on(0).send(&chat, "one").await;
    alice.on(0).send(&chat, "two").await;
    assert_eq!((usual().await, other().await), (2, 0));
    let message = chat.path(&format!("messages/{}/", first["message_id"].as_str().unwrap_or("")));
    alice.on(0).delete(&message).await.expect(204);
    // A tombstone that bob has not read is no unread message, and still takes a number.
    assert_eq!(alice.on(0).send(&chat, "three").await["seq"], 3);
    assert_eq!(bob.on(0).unread_in(&chat).await, 2);
    let mention = json!({ "text": "four", "mentions": ["bob"] });
    alice.on(0).post(&chat.path("messages/"), mention).await.expect(201);
    alice.on(0).send(&chat, "five").await;
    let unread = bob.on(0).get("/chats/unread/").await.expect(200);
    assert_eq!((&unread["total"], &unread["total_mentions"]), (&json!(4), &json!(1)));
    assert_eq!((usual().await, other().await), (4, 1));
}
