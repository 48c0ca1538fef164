//! Blocks, erasures and deletions amid sends: once they are acknowledged nothing more is written, and what
//! was written in between is not forgotten.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Answer, Chat, Cluster};

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
