//! Edits and deletions of messages.

use serde_json::{Value, json};

use super::path_of;
use crate::harness::{Cluster, User, assert_time, told};

#[tokio::test(flavor = "multi_thread")]
async fn its_author_edits_a_message_in_place() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "helo", "metadata": { "kept": true } });
    let sent = told(alice.on(0).post(&chat.path("messages/"), body).await.expect(201));
    alice.on(0).send(&chat, "another").await;
    let edit = |user: &User, text: &str| {
        user.on(1).patch(&path_of(&chat, &sent), json!({ "text": text })).into_future()
    };
    edit(&bob, "mine").await.expect_problem(403, "not_author");
    let edited = told(edit(&alice, "hello").await.expect(200));
    assert_time(&edited["edited_at"]);
    let mut expected = sent.clone();
    (expected["text"], expected["ev"]) = (json!("hello"), json!(3));
    expected["edited_at"] = edited["edited_at"].clone();
    assert_eq!(edited, expected);
    assert_eq!(bob.on(0).history(&chat, "").await["results"][0], edited);
    // Nothing changes, and so there is no change.
    assert_eq!(told(edit(&alice, "hello").await.expect(200)), edited);
    let page = bob.on(0).history(&chat, "").await;
    assert_eq!((&page["head_ev"], &page["head_seq"]), (&json!(3), &json!(2)));
    // An edited message is as unread as before.
    assert_eq!(bob.on(1).unread_in(&chat).await, 2);

    let nowhere = ["0190f5fe-7c00-7a00-8000-000000000000", "nonsense", "%F0%9F%A6%8A"];
    for id in nowhere {
        let path = chat.path(&format!("messages/{id}/"));
        let answer = alice.on(0).patch(&path, json!({ "text": "x" })).await;
        answer.expect_problem(404, "message_not_found");
        alice.on(0).get(&path).await.expect_problem(404, "message_not_found");
        alice.on(0).delete(&path).await.expect_problem(404, "message_not_found");
    }
    alice.on(0).delete(&path_of(&chat, &sent)).await.expect(204);
    edit(&alice, "back again").await.expect_problem(404, "message_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_leaves_a_tombstone_and_nothing_of_its_content_anywhere() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({
        "text": "unforgettable words", "metadata": { "file": "unforgettable.png" },
        "client_msg_id": "k1",
    });
    let sent = told(alice.on(0).post(&chat.path("messages/"), body).await.expect(201));
    let path = path_of(&chat, &sent);
    alice.on(0).patch(&path, json!({ "text": "unforgettable indeed" })).await.expect(200);
    let last = alice.on(0).send(&chat, "last").await;
    bob.on(1).delete(&path).await.expect_problem(403, "not_author");
    alice.on(1).delete(&path).await.expect(204);
    let page = bob.on(0).history(&chat, "").await;
    assert_eq!(page["head_ev"], 4);
    let tombstone = &page["results"][0];
    let mut expected = sent.clone();
    (expected["text"], expected["metadata"], expected["ev"]) = (json!(""), Value::Null, json!(4));
    for kept in ["edited_at", "deleted_at"] {
        expected[kept] = tombstone[kept].clone();
    }
    assert_eq!(*tombstone, expected);
    assert_time(&tombstone["deleted_at"]);
    for client in [alice.on(0), bob.on(1)] {
        assert_eq!(told(client.get(&path).await.expect(200)), *tombstone);
        client.delete(&path_of(&chat, &last)).await;
    }
    alice.on(0).delete(&path).await.expect(204);
    let head_ev = bob.on(1).history(&chat, "").await["head_ev"].clone();
    alice.on(1).delete(&path).await.expect(204);
    assert_eq!(bob.on(0).history(&chat, "").await["head_ev"], head_ev, "no change, no number");
    let found = bob.on(0).get(&chat.path("search/?query=unforgettable")).await.expect(200);
    assert_eq!(found["results"], json!([]));

    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    let tables = cluster.psql(tables).await;
    assert!(tables.len() >= 6, "{tables:?}");
    for table in tables.into_iter().flatten().flatten() {
        let count = format!("SELECT count(*) FROM {table} t WHERE t::text ILIKE '%unforgettable%'");
        assert_eq!(cluster.psql_value::<i64>(&count).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_application_deletes_messages_and_reads_none() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "against the rules").await;
    let path = path_of(&chat, &sent);
    host.on(1).get(&path).await.expect_problem(404, "chat_not_found");
    host.on(1).get(&chat.path("messages/")).await.expect_problem(404, "chat_not_found");
    let edit = host.on(1).patch(&path, json!({ "text": "x" })).await;
    edit.expect_problem(404, "chat_not_found");
    host.on(1).delete(&path).await.expect(204);
    assert_eq!(bob.on(0).get(&path).await.expect(200)["text"], "");
    assert_eq!(bob.on(1).unread_in(&chat).await, 0);
}
