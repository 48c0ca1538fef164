//! Sends are numbered in the order of time, whoever sends, whatever the clock does, and no chat waits for
//! another.

use futures_util::future::join_all;
use serde_json::json;

use super::path_of;
use crate::harness::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn racing_senders_on_two_replicas_are_numbered_densely_in_the_order_of_time() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = join_all((0..200).map(|i| {
        let sender = if i % 2 == 0 { &alice } else { &bob };
        let client = sender.on(i / 2 % 2);
        let chat = chat.clone();
        async move { client.send(&chat, &format!("message {i}")).await }
    }))
    .await;
    let mut numbers: Vec<i64> = sent.iter().filter_map(|m| m["seq"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    let mut told = Vec::new();
    for page in ["?after=0&limit=100", "?after=100&limit=100"] {
        told.extend(
            alice.on(1).history(&chat, page).await["results"].as_array().expect("a list").clone(),
        );
    }
    assert_eq!(told.len(), 200);
    for pair in told.windows(2) {
        assert!(pair[0]["created_at"].as_str() <= pair[1]["created_at"].as_str(), "{pair:?}");
        assert_eq!(pair[0]["seq"].as_i64().map(|seq| seq + 1), pair[1]["seq"].as_i64());
    }
    for message in &sent {
        assert!(told.contains(message), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_takes_no_message_with_it() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "before").await;
    // As if the clock had been an hour ahead when the last message came.
    let ahead = "UPDATE messages SET created_at = created_at + interval '1 hour';
                 UPDATE chats SET last_message_at = last_message_at + interval '1 hour'";
    cluster.psql(ahead).await;
    cluster.redis_flush().await;
    let last = alice.on(0).history(&chat, "").await["results"][0].take();
    let sent = bob.on(1).send(&chat, "after").await;
    assert!(sent["created_at"].as_str() >= last["created_at"].as_str(), "{sent}");
    let edited = bob.on(0).patch(&path_of(&chat, &sent), json!({ "text": "x" })).await.expect(200);
    assert!(edited["edited_at"].as_str() >= sent["created_at"].as_str(), "{edited}");
    bob.on(1).delete(&path_of(&chat, &sent)).await.expect(204);
    let gone = bob.on(0).get(&path_of(&chat, &sent)).await.expect(200);
    assert!(gone["deleted_at"].as_str() >= sent["created_at"].as_str(), "{gone}");
    let another = bob.on(1).send(&chat, "and on").await;
    assert!(another["created_at"].as_str() >= sent["created_at"].as_str(), "{another}");
}

/// Sends to many chats at once, while another transaction has locked a row of one of them.
async fn send_while_one_is_held(cluster: &Cluster, table: &str) {
    let alice = cluster.user("alice");
    let mut chats = Vec::new();
    for number in 0..160 {
        chats.push(alice.on(0).open_chat(&cluster.user(&format!("other {number}"))).await);
    }
    alice.on(0).send(&chats[80], "its rows are there").await;
    // In the middle: the first to come is a batch by itself.
    let held = 80;
    let id = &chats[held].id;
    cluster.psql(&format!("BEGIN; SELECT FROM {table} WHERE chat_id = '{id}' FOR UPDATE")).await;
    let begin = std::time::Instant::now();
    // One batch, or few: nearly all of them meet the one that can't be written.
    let sends = chats.iter().enumerate().map(async |(number, chat)| {
        let body = json!({ "text": "x", "client_msg_id": "k" });
        let answer = alice.on(0).post(&chat.path("messages/"), body).await;
        if number == held {
            answer.expect_problem(503, "unavailable");
            return std::time::Duration::ZERO;
        }
        answer.expect(201);
        begin.elapsed()
    });
    let took = join_all(sends).await;
    // Half a second for the lock in the batch that they share, once more where it is waited for first; the
    // rest is for a machine that is busy. A statement that waits for the chat ends after five seconds.
    let slowest = took.iter().max().expect("rooms");
    assert!(*slowest < std::time::Duration::from_secs(4), "{slowest:?}");
    cluster.psql("COMMIT").await;
    let body = json!({ "text": "x", "client_msg_id": "k" });
    let sent = alice.on(0).post(&chats[held].path("messages/"), body).await.expect(201);
    assert_eq!(sent["seq"], 2, "what was refused burned no number");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_somebody_holds_keeps_no_other_waiting() {
    send_while_one_is_held(&Cluster::start(1).await, "chats").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_whose_events_somebody_holds_keeps_no_other_waiting() {
    let cluster = Cluster::with(1, |config| {
        let webhooks = &mut config.webhooks;
        webhooks.webhook_url = Some("https://localhost:1/events".parse().expect("a URL"));
        webhooks.webhook_secret = Some("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into());
        // None is due in this test.
        webhooks.webhook_delay = std::time::Duration::from_secs(600);
    })
    .await;
    send_while_one_is_held(&cluster, "webhook_lanes").await;
}
