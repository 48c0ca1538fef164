//! Messages that answer others.

use serde_json::{Value, json};

use super::path_of;
use crate::{
    groups::{add, create_with},
    harness::{Cluster, told},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_quotes_its_message_as_that_is_now() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let long = "ё".repeat(300);
    let first = alice.on(0).send(&chat, &long).await;
    let mut socket = alice.on(1).connect(&chat).await;
    let body = json!({ "text": "yes", "reply_to": first["message_id"], "client_msg_id": "k" });
    let path = chat.path("messages/");
    let reply = told(bob.on(0).post(&path, body.clone()).await.expect(201));
    let quote = json!({
        "message_id": first["message_id"], "seq": 1, "sender_id": "alice",
        "text": "ё".repeat(200), "deleted": false,
    });
    assert_eq!(reply["reply_to"], quote);
    assert_eq!(socket.expect_message().await, reply);
    assert_eq!(told(bob.on(1).post(&path, body.clone()).await.expect(200)), reply, "a retry");
    let mut other = body.clone();
    other["reply_to"] = Value::Null;
    bob.on(0).post(&path, other).await.expect_problem(422, "idempotency_mismatch");

    alice.on(0).patch(&path_of(&chat, &first), json!({ "text": "edited" })).await.expect(200);
    let now = bob.on(1).get(&path_of(&chat, &reply)).await.expect(200);
    assert_eq!((&now["reply_to"]["text"], &now["ev"]), (&json!("edited"), &reply["ev"]));
    alice.on(0).delete(&path_of(&chat, &first)).await.expect(204);
    let page = bob.on(0).history(&chat, "").await;
    let quoted = &page["results"][1]["reply_to"];
    assert_eq!((&quoted["text"], &quoted["deleted"]), (&json!(""), &json!(true)));
    // A reply that is deleted answers nothing.
    bob.on(0).delete(&path_of(&chat, &reply)).await.expect(204);
    assert_eq!(bob.on(1).get(&path_of(&chat, &reply)).await.expect(200)["reply_to"], Value::Null);
    let epoch = page["epoch"].as_str().expect("an epoch").to_owned();
    alice.on(1).resume(&chat, 0, &epoch).await.frames_until("synced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_its_sender_may_see_in_the_same_chat_is_answered() {
    let cluster = Cluster::start(1).await;
    let (owner, late) = (cluster.user("owner").on(0), cluster.user("late").on(0));
    let chat = create_with(&owner, "Late", &["early"], json!({ "history": "joined" })).await;
    let before = owner.send(&chat, "before").await;
    let elsewhere = owner.open_chat(&cluster.user("late")).await;
    let said = owner.send(&elsewhere, "hello").await;
    add(&owner, &chat, &["late"]).await;
    for id in [&before["message_id"], &said["message_id"], &json!("nonsense"), &json!(7)] {
        let body = json!({ "text": "yes", "reply_to": id });
        late.post(&chat.path("messages/"), body).await.expect_faults(&["reply_to"]);
    }
    let body = json!({ "text": "yes", "reply_to": before["message_id"] });
    let reply = owner.post(&chat.path("messages/"), body.clone()).await.expect(201);
    // A quote is shown to all who see the reply.
    let page = late.history(&chat, "").await;
    assert_eq!(page["results"].as_array().and_then(|all| all.last()), Some(&told(reply)));
    let stranger = cluster.user("eve").on(0);
    stranger.post(&chat.path("messages/"), body).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_go_through_a_socket_and_in_crowds() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice").on(0), cluster.user("bob").on(0));
    let chat = alice.open_chat(&cluster.user("bob")).await;
    let first = alice.send(&chat, "hello").await;
    let mut socket = bob.connect(&chat).await;
    for n in 0..20 {
        let send = json!({
            "type": "send", "id": n, "text": format!("reply {n}"), "reply_to": first["message_id"],
        });
        socket.send(send).await;
    }
    for _ in 0..20 {
        let ack = socket.wait_for("ack").await;
        assert_eq!(ack["message"]["reply_to"]["seq"], 1, "{ack}");
    }
    let faulty = json!({ "type": "send", "id": "x", "text": "x", "reply_to": "x" });
    assert_eq!(socket.ask(faulty).await["code"], "validation_failed");
    let page = alice.history(&chat, "").await;
    let results = page["results"].as_array().expect("messages");
    assert!(results[1..].iter().all(|one| one["reply_to"]["text"] == "hello"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_its_answer_even_if_what_it_answers_is_not_to_be_seen_any_more() {
    let cluster = Cluster::start(1).await;
    let (owner, plain) = (cluster.user("owner").on(0), cluster.user("plain").on(0));
    let chat = create_with(&owner, "Come and go", &["plain"], json!({ "history": "joined" })).await;
    let first = owner.send(&chat, "hello").await;
    let body = json!({ "text": "yes", "reply_to": first["message_id"], "client_msg_id": "k" });
    let path = chat.path("messages/");
    let reply = plain.post(&path, body.clone()).await.expect(201);
    plain.delete(&chat.path("members/plain/")).await.expect(204);
    add(&owner, &chat, &["plain"]).await;
    plain.get(&path_of(&chat, &first)).await.expect_problem(404, "message_not_found");
    assert_eq!(plain.post(&path, body.clone()).await.expect(200), reply);
    let mut other = body;
    other["client_msg_id"] = json!("another");
    plain.post(&path, other).await.expect_faults(&["reply_to"]);
}
