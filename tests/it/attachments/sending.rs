//! An attachment is sent once, by whoever made it, where it was made.

use serde_json::json;

use super::{File, pair, read, send, upload};
use crate::harness::{Cluster, assert_members};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_carries_its_attachments_in_order() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let mut socket = bob.on(1).connect(&chat).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(upload(&cluster, &alice, &chat, &File::text()).await.id);
    }
    ids.reverse();
    let body = json!({ "text": "", "attachments": ids, "client_msg_id": "m1" });
    let path = chat.path("messages/");
    let message = alice.on(0).post(&path, body.clone()).await.expect(201);
    let given = message["attachments"].as_array().expect("a list");
    let order: Vec<_> = given.iter().map(|one| one["attachment_id"].clone()).collect();
    assert_eq!(order, ids);
    assert_members(
        &given[0],
        &[
            "attachment_id",
            "name",
            "content_type",
            "size",
            "width",
            "height",
            "duration_ms",
            "blurhash",
            "thumbnail",
            "status",
        ],
    );
    assert_eq!(given[0]["size"], 11);
    let told = socket.expect("message.created").await;
    assert_eq!(told["message"]["attachments"], message["attachments"]);
    // A repeat of the send finds its message.
    let again = alice.on(1).post(&path, body.clone()).await.expect(200);
    assert_eq!(again["attachments"], message["attachments"]);
    let other = json!({ "text": "", "attachments": [ids[0]], "client_msg_id": "m1" });
    alice.on(0).post(&path, other).await.expect_problem(422, "idempotency_mismatch");
    // Even once it is deleted, and its attachments are gone.
    let id = message["message_id"].as_str().expect("an id");
    alice.on(0).delete(&chat.path(&format!("messages/{id}/"))).await.expect(204);
    let buried = alice.on(1).post(&path, body).await.expect(200);
    assert_eq!((&buried["attachments"], &buried["text"]), (&json!([]), &json!("")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_what_is_not_theirs_or_twice_or_elsewhere() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let eve = cluster.user("eve");
    let elsewhere = alice.on(0).open_chat(&eve).await;
    let own = upload(&cluster, &alice, &chat, &File::text()).await;
    let body = json!({ "text": "x", "attachments": [own.id] });
    let path = chat.path("messages/");
    bob.on(0).post(&path, body.clone()).await.expect_problem(404, "attachment_not_found");
    let elsewhere = elsewhere.path("messages/");
    alice.on(0).post(&elsewhere, body.clone()).await.expect_problem(404, "attachment_not_found");
    eve.on(0).post(&path, body.clone()).await.expect_problem(404, "chat_not_found");
    alice.on(0).post(&path, body.clone()).await.expect(201);
    alice.on(0).post(&path, body).await.expect_problem(404, "attachment_not_found");
    let unknown = json!({ "text": "x", "attachments": [uuid::Uuid::now_v7()] });
    alice.on(0).post(&path, unknown).await.expect_problem(404, "attachment_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_sends_at_once_one_has_the_attachment() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let own = upload(&cluster, &alice, &chat, &File::text()).await;
    let body = json!({ "text": "x", "attachments": [own.id] });
    let path = chat.path("messages/");
    let asked = (0..8).map(|n| alice.on(n % 2).post(&path, body.clone()).into_future());
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1, "{answers:?}");
    assert_eq!(read(&bob.on(0), &chat, &own).await.text, "Some notes.");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_stays_after_its_sender_has_left() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, _) = pair(&cluster).await;
    let body = json!({ "kind": "group", "title": "Team", "user_ids": ["bob"] });
    let group = alice.on(0).post("/chats/", body).await.expect(201);
    let group = crate::harness::Chat::from_json(&group);
    let (sent, _) = send(&cluster, &alice, &group, &File::text()).await;
    alice.on(0).delete(&group.path("members/alice/")).await.expect(204);
    assert_eq!(read(&bob.on(0), &group, &sent).await.text, "Some notes.");
    read(&alice.on(0), &group, &sent).await.expect_problem(404, "chat_not_found");
}
