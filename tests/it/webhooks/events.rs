//! What is told: news for those who are away, when its moment has come, and every report.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{all_is_decided, receiver::Receiver};
use crate::harness::{Chat, Cluster, assert_members, assert_time, eventually, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_somebody_who_is_away_is_told_and_signed() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "Привет!", "metadata": { "a": 1 }, "client_msg_id": "k" });
    let sent = told(alice.on(0).post(&chat.path("messages/"), body.clone()).await.expect(201));
    alice.on(1).post(&chat.path("messages/"), body).await.expect(200);
    let event = receiver.expect(1).await.remove(0).json;
    assert_members(&event, &["type", "timestamp", "data"]);
    assert_eq!(event["type"], "message.created");
    assert_time(&event["timestamp"]);
    let expected = json!({
        "recipient_id": "bob", "room_name": chat.room_name, "message": sent,
        "unread_count": 1, "total_unread": 1,
    });
    assert_eq!(event["data"], expected);
    all_is_decided(&cluster).await;
    assert_eq!(receiver.deliveries().len(), 1, "a retry is no event");

    // A recipient with a socket on any replica is not notified; one who is away still is.
    let socket = bob.on(1).connect(&chat).await;
    alice.on(0).send(&chat, "you are here").await;
    bob.on(0).send(&chat, "and you are not").await;
    let second = receiver.expect(2).await.remove(1);
    assert_eq!(second.json["data"]["recipient_id"], "alice");
    assert_eq!(second.message()["text"], "and you are not");
    all_is_decided(&cluster).await;
    assert_eq!(receiver.deliveries().len(), 2);
    socket.close().await;
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    for line in ["beseda_webhook_rows 0", "beseda_webhook_dead_rows 0"] {
        assert!(metrics.lines().any(|it| it == line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_deleted_blocked_or_muted_meanwhile_is_not_told() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let (alice, host) = (cluster.user("alice"), cluster.host());
    receiver.open(false);
    let mut chats = Vec::new();
    for name in ["reader", "author", "blocker", "leaver", "erased", "muted"] {
        let other = cluster.user(name);
        let chat = alice.on(0).open_chat(&other).await;
        alice.on(0).send(&chat, "first").await;
        chats.push((chat, other));
    }
    // The first ones are on their way; the second ones have to wait for them.
    receiver.expect(chats.len()).await;
    let muted = json!({ "notify": "mentions" });
    for (number, (chat, other)) in chats.iter().enumerate() {
        let second = alice.on(1).send(chat, "second").await;
        let path = format!("messages/{}/", second["message_id"].as_str().expect("an id"));
        match number {
            0 => drop(other.on(0).mark_read(chat).await),
            1 => drop(alice.on(0).delete(&chat.path(&path)).await.expect(204)),
            2 => drop(other.on(0).put("/users/alice/block/", json!({})).await.expect(204)),
            3 => drop(alice.on(0).delete(&chat.path("")).await.expect(204)),
            4 => drop(host.on(0).delete("/users/erased/").await.expect(204)),
            _ => drop(other.on(0).patch(&chat.path("me/"), muted.clone()).await.expect(200)),
        }
    }
    // A chat or a person that is gone leaves no events behind.
    let (leaver, erased) = (&chats[3].0.id, &chats[4].0.id);
    let left = format!("SELECT count(*) FROM webhooks WHERE chat_id IN ('{leaver}', '{erased}')");
    assert_eq!(cluster.psql_value::<i64>(&left).await, 0);
    receiver.open(true);
    all_is_decided(&cluster).await;
    let told = receiver.deliveries();
    assert!(told.iter().all(|one| one.message()["text"] == "first"), "{told:?}");
    assert_eq!(told.len(), chats.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_told_as_it_is_listed() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // No event is sent to an online user for the message, but the host application gets the report.
    let socket = bob.on(0).connect(&chat).await;
    let sent = alice.on(0).send(&chat, "You fool!").await;
    let path =
        chat.path(&format!("messages/{}/report/", sent["message_id"].as_str().expect("an id")));
    let report = bob.on(1).post(&path, json!({ "reason": "An insult" })).await.expect(201);
    bob.on(0).post(&path, json!({})).await.expect(200);
    let event = receiver.expect(1).await.remove(0).json;
    assert_eq!((&event["type"], &event["data"]), (&json!("report.created"), &report));
    // A chat that is gone takes none of it with it.
    receiver.open(false);
    let path = {
        let sent = alice.on(0).send(&chat, "You coward!").await;
        chat.path(&format!("messages/{}/report/", sent["message_id"].as_str().expect("an id")))
    };
    let report = bob.on(1).post(&path, json!({})).await.expect(201);
    alice.on(0).delete(&chat.path("")).await.expect(204);
    receiver.open(true);
    let event = receiver.expect(2).await.remove(1).json;
    assert_eq!(event["data"], report);
    all_is_decided(&cluster).await;
    assert_eq!(receiver.deliveries().len(), 2);
    socket.close().await;
}

/// How many events were noted for a chat.
async fn noted(cluster: &Cluster, chat: &Chat) -> i64 {
    let id = &chat.id;
    cluster.psql_value(&format!("SELECT count(*) FROM webhooks WHERE chat_id = '{id}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_noted_where_nobody_asked_and_an_event_waits_for_its_moment() {
    let mut cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "off").await;
    assert_eq!(noted(&cluster, &chat).await, 0);

    let receiver = Receiver::start().await;
    let settings = receiver.settings();
    let patient = cluster
        .add_replica_with(|config| {
            settings(config);
            config.webhooks.webhook_delay = Duration::from_secs(3_600);
        })
        .await;
    alice.on(patient).send(&chat, "later").await;
    alice.on(patient).send(&chat, "later still").await;
    assert_eq!(noted(&cluster, &chat).await, 2);
    // The chat's lane is not taken before its first event is due.
    let turns = "SELECT sum(turn) FROM webhook_lanes";
    assert_eq!(cluster.psql_value::<i64>(turns).await, 0);
    cluster.psql("UPDATE webhooks SET due_at = clock_timestamp() WHERE seq = 2").await;
    cluster.psql("UPDATE webhook_lanes SET due_at = clock_timestamp()").await;
    let told = receiver.expect(1).await.remove(0);
    assert_eq!(told.message()["text"], "later");
    eventually(async || match noted(&cluster, &chat).await {
        1 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    let due = "SELECT due_at > clock_timestamp() + interval '50 minutes' FROM webhook_lanes";
    assert_eq!(cluster.psql_value::<String>(due).await, "t");
    assert_eq!(receiver.deliveries().len(), 1);
}
