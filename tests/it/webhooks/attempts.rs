//! An event is sent until it is taken, in its turn, by one replica at a time; or it is given up, and can
//! be replayed.

use std::{collections::HashMap, time::Duration};

use reqwest::Method;
use serde_json::json;

use super::{
    admin, all_is_decided, printed,
    receiver::{Delivery, Receiver},
};
use crate::harness::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_chat_come_in_order_one_at_a_time_and_once_whoever_sends_them() {
    const CHATS: usize = 4;
    const MESSAGES: i64 = 12;
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    // Some fail at first, and have to be tried again before anything that comes after them.
    receiver.answer(|delivery, earlier| {
        let seq = delivery.message()["seq"].as_i64().unwrap_or(0);
        if seq % 5 == 2 && earlier == 0 { 503 } else { 200 }
    });
    let alice = cluster.user("alice");
    let mut chats = Vec::new();
    for number in 0..CHATS {
        chats.push(alice.on(0).open_chat(&cluster.user(&format!("bob {number}"))).await);
    }
    for number in 0..MESSAGES {
        for (at, chat) in chats.iter().enumerate() {
            alice.on(at % 2).send(chat, &number.to_string()).await;
        }
    }
    all_is_decided(&cluster).await;
    let deliveries = receiver.deliveries();
    let mut by_chat: HashMap<&str, Vec<&Delivery>> = HashMap::new();
    for delivery in &deliveries {
        let chat = delivery.message()["chat_id"].as_str().expect("an id");
        by_chat.entry(chat).or_default().push(delivery);
    }
    assert_eq!(by_chat.len(), CHATS);
    for deliveries in by_chat.values() {
        let mut expected = Vec::new();
        for seq in 1..=MESSAGES {
            let attempts: &[u16] = if seq % 5 == 2 { &[503, 200] } else { &[200] };
            expected.extend(attempts.iter().map(|status| (seq, Some(*status))));
        }
        let got: Vec<_> = deliveries
            .iter()
            .map(|one| (one.message()["seq"].as_i64().expect("a number"), one.answered))
            .collect();
        assert_eq!(got, expected);
        for pair in deliveries.windows(2) {
            let same = pair[0].message()["seq"] == pair[1].message()["seq"];
            assert_eq!(same, pair[0].id == pair[1].id, "an event keeps its id, and has its own");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_answer_is_tried_again() {
    let receiver = Receiver::start().await;
    let settings = receiver.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        config.webhooks.webhook_timeout = Duration::from_millis(300);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    receiver.open(false);
    alice.on(0).send(&chat, "hello?").await;
    eventually(async || {
        let why = "SELECT last_error FROM webhooks WHERE attempts > 0";
        let rows = cluster.psql(why).await;
        match rows.first().and_then(|row| row[0].clone()) {
            Some(why) if why == "no answer in time" => Ok(()),
            why => Err(format!("{why:?}")),
        }
    })
    .await;
    receiver.open(true);
    all_is_decided(&cluster).await;
    let deliveries = receiver.deliveries();
    assert!(deliveries.len() > 1 && deliveries.iter().all(|one| one.id == deliveries[0].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_holds_nobody_up_and_can_be_replayed() {
    let receiver = Receiver::start().await;
    let settings = receiver.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        config.webhooks.webhook_max_age = Duration::ZERO;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // Redirects are not followed, so that only the configured URL receives events.
    receiver.answer(|delivery, _| if delivery.message()["seq"] == 1 { 307 } else { 200 });
    alice.on(0).send(&chat, "refused").await;
    alice.on(0).send(&chat, "taken").await;
    let deliveries = receiver.expect(2).await;
    all_is_decided(&cluster).await;
    let (dead, taken) = (&deliveries[0], &deliveries[1]);
    assert_eq!((&dead.message()["seq"], &taken.message()["seq"]), (&json!(1), &json!(2)));

    let list = admin(&cluster, &[]).await;
    let text = printed(&list);
    for part in [&dead.id, "message.created", &chat.id, "after 1 attempts: answered 307"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.ends_with("\n1 given up"), "{text}");
    let none = admin(&cluster, &["--replay", &taken.id]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no such event"), "{none:?}");
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    for line in ["beseda_webhook_dead_rows 1", "beseda_webhooks_total{outcome=\"dead\"} 1"] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }

    // Again in vain, then with all others; always the same event.
    let replayed = admin(&cluster, &["--replay", &dead.id]).await;
    assert_eq!(printed(&replayed), "1 to be sent again", "{replayed:?}");
    receiver.expect(3).await;
    all_is_decided(&cluster).await;
    receiver.answer(|_, _| 200);
    assert_eq!(printed(&admin(&cluster, &["--replay-all"]).await), "1 to be sent again");
    let deliveries = receiver.expect(4).await;
    assert!(deliveries[2..].iter().all(|one| one.id == dead.id), "{deliveries:?}");
    all_is_decided(&cluster).await;
    assert_eq!(printed(&admin(&cluster, &[]).await), "0 given up");

    // More than are replayed at a time, of chats that are gone: nothing to be told of.
    let many = "INSERT INTO webhooks (kind, chat_id, recipient_id, seq, due_at, dead_at)
                SELECT 'message.created', gen_random_uuid(), 'bob', 1, now(), now()
                  FROM generate_series(1, 2500)";
    cluster.psql(many).await;
    assert_eq!(printed(&admin(&cluster, &["--replay-all"]).await), "2500 to be sent again");
    assert_eq!(printed(&admin(&cluster, &[]).await), "0 given up");
    // No deletion leaves any, which the harness checks.
    cluster.psql("DELETE FROM webhooks").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_what_is_on_its_way_and_a_dead_replicas_events_are_taken_over() {
    let receiver = Receiver::start().await;
    let mut cluster = Cluster::with(1, receiver.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    receiver.open(false);
    alice.on(0).send(&chat, "on its way").await;
    receiver.expect(1).await;
    let next = cluster.add_replica().await;
    let draining = tokio::spawn(cluster.drain(0));
    // It takes nothing more: what comes now is the other one's.
    alice.on(next).send(&chat, "after it").await;
    receiver.open(true);
    draining.await.expect("it ends");
    receiver.expect(2).await;
    all_is_decided(&cluster).await;
    let texts: Vec<_> =
        receiver.deliveries().iter().map(|one| one.message()["text"].clone()).collect();
    assert_eq!(texts, ["on its way", "after it"]);

    // A crash between the sending and its note: once more, as soon as the lane may be taken again.
    receiver.open(false);
    alice.on(next).send(&chat, "cut off").await;
    let cut = receiver.expect(3).await.remove(2);
    cluster.abort(next);
    receiver.open(true);
    let last = cluster.add_replica().await;
    let lapsed = "UPDATE webhook_lanes SET due_at = clock_timestamp()";
    cluster.psql(lapsed).await;
    let again = receiver.expect(4).await.remove(3);
    assert_eq!((&again.id, &again.message()["text"]), (&cut.id, &json!("cut off")));
    all_is_decided(&cluster).await;
    alice.on(last).get("/chats/").await.expect(200);
}
