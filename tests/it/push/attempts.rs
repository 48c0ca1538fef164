//! A push is sent until its provider takes it, one at a time to a device; or it is given up, and can be replayed.

use std::{process::Output, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    all_is_decided,
    provider::{Provider, Reply},
    register,
};
use crate::harness::{Chat, Cluster, User, eventually};

/// A chat of alice with bob, who has a browser.
async fn with_browser(cluster: &Cluster, provider: &Provider) -> (User, User, Chat) {
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    let chat = alice.on(0).open_chat(&bob).await;
    (alice, bob, chat)
}

fn texts(provider: &Provider) -> Vec<Value> {
    provider.pushes().iter().map(|push| push.json["text"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_gone_is_dropped_unless_it_came_back_meanwhile() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(2, provider.settings()).await;
    let (alice, bob, chat) = with_browser(&cluster, &provider).await;
    register(&bob, 0, "phone", json!({ "platform": "apns", "token": "dead" })).await;
    register(&bob, 0, "tablet", json!({ "platform": "fcm", "token": "dead" })).await;
    provider.reply(|push, _| match &*push.path {
        "/push/b" => 410.into(),
        path if path.starts_with("/3/") => {
            Reply { status: 410, body: json!({ "reason": "Unregistered" }), retry_after: None }
        }
        _ => {
            let error = json!({ "error": { "details": [{ "errorCode": "UNREGISTERED" }] } });
            Reply { status: 404, body: error, retry_after: None }
        }
    });
    alice.on(0).send(&chat, "anybody?").await;
    provider.expect(3).await;
    eventually(async || {
        let left = bob.on(0).get("/devices/").await.expect(200);
        if left["results"] == json!([]) { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    all_is_decided(&cluster).await;
    assert_eq!(provider.pushes().len(), 3);

    // Registered anew while the old subscription is being refused: the new one stays, and is told.
    register(&bob, 0, "b", provider.subscription("b")).await;
    provider.open(false);
    alice.on(0).send(&chat, "still there?").await;
    provider.expect(4).await;
    register(&bob, 1, "b", provider.subscription("new")).await;
    provider.open(true);
    provider.reply(|push, _| if push.path == "/push/b" { 410 } else { 201 });
    let told = provider.expect(5).await.remove(4);
    assert_eq!((&*told.path, &told.json["text"]), ("/push/new", &json!("still there?")));
    all_is_decided(&cluster).await;
    assert_eq!(provider.pushes().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_busy_is_asked_again_later_and_in_order() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(2, provider.settings()).await;
    let (alice, _, chat) = with_browser(&cluster, &provider).await;
    provider.reply(|_, earlier| match earlier {
        0 => Reply { status: 429, body: json!({}), retry_after: Some(2) },
        1 => 503.into(),
        _ => 201.into(),
    });
    let begun = tokio::time::Instant::now();
    alice.on(0).send(&chat, "one").await;
    provider.expect(1).await;
    alice.on(0).send(&chat, "two").await;
    provider.expect(2).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "before its provider wants to be asked");
    provider.expect(3).await;
    all_is_decided(&cluster).await;
    assert_eq!(texts(&provider), ["one", "two", "two"], "the newest stands for both");
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    let other = cluster.operator(1).request(Method::GET, "/metrics").await.text;
    let count = |outcome: &str| -> u64 {
        let name = format!("beseda_pushes_total{{platform=\"webpush\",outcome=\"{outcome}\"}} ");
        let values = [&metrics, &other];
        let values = values.iter().flat_map(|text| text.lines());
        values.filter_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).sum()
    };
    assert_eq!((count("failed"), count("accepted")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_is_left_and_a_wrong_key_is_told_to_operators() {
    let provider = Provider::start().await;
    let settings = provider.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        config.push.push_timeout = Duration::from_millis(300);
    })
    .await;
    let (alice, _, chat) = with_browser(&cluster, &provider).await;
    provider.open(false);
    alice.on(0).send(&chat, "hello?").await;
    let failed = async |why: &str| {
        eventually(async || {
            let rows = cluster.psql("SELECT last_error FROM push_lanes WHERE attempts > 0").await;
            match rows.first().and_then(|row| row[0].clone()) {
                Some(found) if found == why => Ok(()),
                found => Err(format!("{found:?}")),
            }
        })
        .await;
    };
    failed("no answer in time").await;
    provider.reply(|_, _| 403);
    provider.open(true);
    failed("answered 403").await;
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    let counted = "beseda_pushes_total{platform=\"webpush\",outcome=\"unauthorized\"} ";
    let counted = metrics.lines().find_map(|line| line.strip_prefix(counted));
    assert!(counted.is_some_and(|count| count != "0"), "{metrics}");
    provider.reply(|_, _| 201);
    all_is_decided(&cluster).await;
    let rows = "SELECT count(*) FROM push_lanes WHERE attempts > 0 OR failing_since IS NOT NULL";
    assert_eq!(cluster.psql_value::<i64>(rows).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_to_be_asked_at_once_is_not() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, _, chat) = with_browser(&cluster, &provider).await;
    provider.reply(|_, earlier| match earlier {
        0 | 1 => Reply { status: 429, body: json!({}), retry_after: Some(0) },
        _ => 201.into(),
    });
    let begun = tokio::time::Instant::now();
    alice.on(0).send(&chat, "hello").await;
    provider.expect(3).await;
    // A second and two, a fifth less at most.
    assert!(begun.elapsed() >= Duration::from_millis(2_400), "{:?}", begun.elapsed());
    all_is_decided(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_of_failures_a_new_message_is_tried_as_long_as_any() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, _, chat) = with_browser(&cluster, &provider).await;
    let failing = "UPDATE push_lanes SET failing_since = clock_timestamp() - interval '25 hours'";
    cluster.psql(failing).await;
    provider.reply(|_, earlier| if earlier == 0 { 503 } else { 201 });
    alice.on(0).send(&chat, "new").await;
    provider.expect(2).await;
    all_is_decided(&cluster).await;
    assert_eq!(
        cluster
            .psql_value::<i64>("SELECT count(*) FROM push_marks WHERE dead_at IS NOT NULL")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_google_gives_no_access_the_others_are_told() {
    let provider = Provider::start().await;
    let settings = provider.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        config.push.push_timeout = Duration::from_secs(1);
        config.push.push_concurrency = 10;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for number in 0..19 {
        let body = json!({ "platform": "fcm", "token": format!("token-{number}") });
        register(&bob, 0, &format!("phone-{number}"), body).await;
    }
    register(&bob, 0, "z", provider.subscription("z")).await;
    provider.grant(false);
    alice.on(0).send(&chat, "hello").await;
    let told = provider.expect(1).await.remove(0);
    assert_eq!(told.path, "/push/z");
    provider.grant(true);
    cluster.psql("UPDATE push_lanes SET due_at = clock_timestamp() WHERE due_at IS NOT NULL").await;
    provider.expect(20).await;
    all_is_decided(&cluster).await;
}

/// The real program, as an operator runs it.
async fn admin(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
    command.args(["admin", "push"]).args(words);
    command.env_clear().env("DATABASE_URL", cluster.database_url());
    command.output().await.expect("the program runs")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_holds_nobody_up_and_can_be_replayed_or_discarded() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob, chat) = with_browser(&cluster, &provider).await;
    let carol = cluster.user("carol");
    let other = carol.on(0).open_chat(&bob).await;
    provider.reply(|push, _| if push.json["text"] == "refused" { 413 } else { 201 });
    alice.on(0).send(&chat, "refused").await;
    provider.expect(1).await;
    all_is_decided(&cluster).await;
    carol.on(0).send(&other, "taken").await;
    provider.expect(2).await;
    all_is_decided(&cluster).await;

    let list = printed(&admin(&cluster, &[]).await);
    for part in ["webpush", "bob: b", &*chat.id, "answered 413", "\n1 given up"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!list.contains("refused") && !list.contains("/push/"), "{list}");
    let id = list.split_whitespace().next().expect("an id").to_owned();
    let none = admin(&cluster, &["--replay", "99999"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no such push"), "{none:?}");
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    assert!(metrics.lines().any(|line| line == "beseda_push_dead_rows 1"), "{metrics}");

    provider.reply(|_, _| 201);
    assert_eq!(printed(&admin(&cluster, &["--replay", &id]).await), "1 to be sent again");
    let again = provider.expect(3).await.remove(2);
    assert_eq!((&again.json["text"], &again.json["badge"]), (&json!("refused"), &json!(2)));
    all_is_decided(&cluster).await;

    provider.reply(|_, _| 413);
    alice.on(0).send(&chat, "refused again").await;
    provider.expect(4).await;
    all_is_decided(&cluster).await;
    assert_eq!(printed(&admin(&cluster, &["--discard-all"]).await), "1 discarded");
    assert_eq!(printed(&admin(&cluster, &[]).await), "0 given up");
    // What is shown is still taken back.
    provider.reply(|_, _| 201);
    bob.on(0).mark_read(&chat).await;
    let last = provider.expect(5).await.remove(4);
    assert_eq!((&last.json["type"], &last.json["badge"]), (&json!("read"), &json!(1)));
    all_is_decided(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_yesterday_is_not_pushed() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, _, chat) = with_browser(&cluster, &provider).await;
    provider.reply(|_, _| 503);
    alice.on(0).send(&chat, "yesterday's").await;
    provider.expect(1).await;
    let age = "UPDATE messages SET created_at = created_at - interval '25 hours';
               UPDATE push_lanes SET due_at = clock_timestamp()";
    cluster.psql(age).await;
    provider.reply(|_, _| 201);
    all_is_decided(&cluster).await;
    let count = provider.pushes().len();
    let listed = printed(&admin(&cluster, &[]).await);
    assert!(listed.contains("too old"), "it was tried, so operators are told: {listed}");
    // An operator may still have it sent.
    assert_eq!(printed(&admin(&cluster, &["--replay-all"]).await), "1 to be sent again");
    provider.expect(count + 1).await;
    all_is_decided(&cluster).await;
    cluster.psql("UPDATE messages SET created_at = created_at + interval '25 hours'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_what_is_on_its_way_and_a_dead_replicas_pushes_are_taken_over() {
    let provider = Provider::start().await;
    let mut cluster = Cluster::with(1, provider.settings()).await;
    let (alice, _, chat) = with_browser(&cluster, &provider).await;
    provider.open(false);
    alice.on(0).send(&chat, "on its way").await;
    provider.expect(1).await;
    let next = cluster.add_replica().await;
    let draining = tokio::spawn(cluster.drain(0));
    alice.on(next).send(&chat, "after it").await;
    provider.open(true);
    draining.await.expect("it ends");
    provider.expect(2).await;
    all_is_decided(&cluster).await;
    assert_eq!(texts(&provider), ["on its way", "after it"], "each once, in order");

    // A crash between the sending and its note: once more, as soon as the lane may be taken again.
    provider.open(false);
    alice.on(next).send(&chat, "cut off").await;
    provider.expect(3).await;
    cluster.abort(next);
    provider.open(true);
    let last = cluster.add_replica().await;
    cluster.psql("UPDATE push_lanes SET due_at = clock_timestamp()").await;
    provider.expect(4).await;
    all_is_decided(&cluster).await;
    assert_eq!(texts(&provider)[2..], ["cut off", "cut off"]);
    alice.on(last).get("/chats/").await.expect(200);
}
