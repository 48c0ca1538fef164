//! A send can be retried for ever, on any replica, and makes one message.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Answer, Chat, Client, Cluster};

async fn send(client: &Client, chat: &Chat, body: Value) -> Answer {
    client.post(&chat.path("messages/"), body).await
}

/// The message of an answer that says it is not new.
#[track_caller]
fn replayed(answer: Answer) -> Value {
    assert_eq!(answer.header("idempotent-replayed"), Some("true"), "{}", answer.text);
    answer.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_retries_on_two_replicas_make_one_message_and_burn_no_number() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for round in 1..=10 {
        let body = json!({ "text": "once", "client_msg_id": format!("key {round}") });
        let (here, there, other) = (alice.on(0), alice.on(1), bob.on(1));
        let tries =
            (0..8).map(|i| send(if i % 2 == 0 { &here } else { &there }, &chat, body.clone()));
        // Something else goes on in the chat meanwhile.
        let (answers, other) = tokio::join!(join_all(tries), other.send(&chat, "meanwhile"));
        let created = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(created, 1, "{answers:?}");
        let mut messages = Vec::new();
        for answer in answers {
            assert_eq!(answer.status == 200, answer.header("idempotent-replayed").is_some());
            let status = if answer.status == 201 { 201 } else { 200 };
            messages.push(answer.expect(status));
        }
        assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
        let mut seqs = [&messages[0], &other].map(|message| message["seq"].as_i64());
        seqs.sort_unstable();
        assert_eq!(seqs, [Some(round * 2 - 1), Some(round * 2)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gives_the_first_message_as_it_is_now() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "first", "metadata": { "a": 1, "b": 2 }, "client_msg_id": "k" });
    let answer = send(&alice.on(0), &chat, body.clone()).await;
    assert_eq!(answer.header("idempotent-replayed"), None);
    let sent = answer.expect(201);
    assert_eq!(replayed(send(&alice.on(1), &chat, body.clone()).await), sent);
    // Metadata counts by what it means.
    let reordered =
        json!({ "text": "first", "metadata": { "b": 2, "a": 1 }, "client_msg_id": "k" });
    assert_eq!(replayed(send(&alice.on(1), &chat, reordered).await), sent);

    for (text, metadata) in
        [("other", json!({ "a": 1, "b": 2 })), ("first", json!({ "a": 1 })), ("first", json!(null))]
    {
        let body = json!({ "text": text, "metadata": metadata, "client_msg_id": "k" });
        send(&alice.on(1), &chat, body).await.expect_problem(422, "idempotency_mismatch");
    }

    let path = chat.path(&format!("messages/{}/", sent["message_id"].as_str().expect("an id")));
    let edited = alice.on(0).patch(&path, json!({ "text": "second" })).await.expect(200);
    // The same as first sent, not as it is now.
    assert_eq!(replayed(send(&alice.on(1), &chat, body.clone()).await), edited);
    let now = json!({ "text": "second", "metadata": { "a": 1, "b": 2 }, "client_msg_id": "k" });
    send(&alice.on(0), &chat, now).await.expect_problem(422, "idempotency_mismatch");

    alice.on(0).delete(&path).await.expect(204);
    for text in ["first", "second", "anything at all"] {
        let body = json!({ "text": text, "client_msg_id": "k" });
        let tombstone = replayed(send(&alice.on(1), &chat, body).await);
        assert_eq!((&tombstone["text"], &tombstone["seq"]), (&json!(""), &json!(1)));
        assert!(tombstone["deleted_at"].is_string());
    }
    assert_eq!(alice.on(0).send(&chat, "next").await["seq"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_of_one_sender_in_one_chat() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = alice.on(0).open_chat(&bob).await;
    let other = alice.on(0).open_chat(&carol).await;
    let body = json!({ "text": "x", "client_msg_id": "k" });
    let mut ids = Vec::new();
    for (user, chat) in [(&alice, &chat), (&bob, &chat), (&alice, &other)] {
        let sent = send(&user.on(1), chat, body.clone()).await.expect(201);
        assert_eq!(sent["client_msg_id"], "k");
        ids.push(sent["message_id"].as_str().expect("an id").to_owned());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    // Without a key, every send is a new message.
    let plain = json!({ "text": "x" });
    assert_eq!(send(&alice.on(0), &chat, plain.clone()).await.expect(201)["seq"], 3);
    assert_eq!(send(&alice.on(1), &chat, plain).await.expect(201)["seq"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_idempotency_key_does_what_the_field_does() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let request = |replica: usize, key: &str| {
        let request = alice.on(replica).post(&chat.path("messages/"), json!({ "text": "x" }));
        request.header("idempotency-key", key).into_future()
    };
    let sent = request(0, "the key").await.expect(201);
    assert_eq!(sent["client_msg_id"], "the key");
    assert_eq!(replayed(request(1, "the key").await), sent);
    let body = json!({ "text": "x", "client_msg_id": "the key" });
    assert_eq!(replayed(send(&alice.on(0), &chat, body).await), sent);
    let longest = "k".repeat(64);
    request(0, &longest).await.expect(201);
    request(0, &"k".repeat(65)).await.expect_problem(422, "validation_failed");
    request(0, "").await.expect_problem(422, "validation_failed");
    let ключ = alice.on(0).post(&chat.path("messages/"), json!({ "text": "x" }));
    assert_eq!(ключ.header("idempotency-key", "ключ").await.expect(201)["client_msg_id"], "ключ");
    let garbled = alice.on(0).post(&chat.path("messages/"), json!({ "text": "x" }));
    garbled.header("idempotency-key", b"\xff\xfe").await.expect_problem(400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_though_a_send_would_be_refused_by_now() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "x", "client_msg_id": "k" });
    let sent = send(&alice.on(0), &chat, body.clone()).await.expect(201);
    bob.on(1).put("/users/alice/block/", json!({})).await.expect(204);
    send(&alice.on(1), &chat, json!({ "text": "new" })).await.expect_problem(403, "blocked");
    assert_eq!(replayed(send(&alice.on(1), &chat, body.clone()).await), sent);
    bob.on(1).delete("/users/alice/block/").await.expect(204);
    host.on(1).delete("/users/bob/").await.expect(204);
    send(&alice.on(0), &chat, json!({ "text": "new" })).await.expect_problem(403, "forbidden");
    assert_eq!(replayed(send(&alice.on(0), &chat, body).await), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_a_retry_is_compared_by_exact_values() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let path = format!("/api/v1{}", chat.path("messages/"));
    let send = async |replica: usize, key: usize, metadata: &str| {
        let body = format!(r#"{{"text":"x","metadata":{metadata},"client_msg_id":"{key}"}}"#);
        let request = alice.on(replica).request(reqwest::Method::POST, &path);
        request.body("application/json", body).await
    };
    for (key, (first, same, others)) in [
        // Beyond what a double tells apart.
        (
            r#"{"n":100000000000000000000001}"#,
            r#"{ "n" : 100000000000000000000001 }"#,
            [r#"{"n":100000000000000000000002}"#, r#"{"n":1e23}"#],
        ),
        (
            r#"{"n":9007199254740993.0}"#,
            r#"{"n":9007199254740993}"#,
            [r#"{"n":9007199254740992}"#, "{}"],
        ),
        (r#"{"n":1.0}"#, r#"{"n":10e-1}"#, [r#"{"n":"1"}"#, r#"{"n":1.0000000000000000001}"#]),
        (r#"{"n":-0}"#, r#"{"n":0.0}"#, [r#"{"n":1e-400}"#, r#"{"n":null}"#]),
        (r#"{"n":1e2}"#, r#"{"n":100}"#, [r#"{"n":1e3}"#, r#"{"n":[100]}"#]),
        // A key given twice counts as given last, whatever the order.
        (
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"b":2,"a":3}"#,
            [r#"{"a":1,"b":2}"#, r#"{"a":3,"b":2,"c":0}"#],
        ),
        (r#"{"\u0430":"\u0431"}"#, r#"{"а":"б"}"#, [r#"{"a":"б"}"#, r#"{"а":"\\u0431"}"#]),
    ]
    .into_iter()
    .enumerate()
    {
        let sent = send(0, key, first).await.expect(201);
        for again in [first, same] {
            let answer = send(1, key, again).await;
            assert_eq!(answer.header("idempotent-replayed"), Some("true"), "{again}");
            assert_eq!(answer.expect(200)["message_id"], sent["message_id"]);
        }
        for other in others {
            send(1, key, other).await.expect_problem(422, "idempotency_mismatch");
        }
    }
}
