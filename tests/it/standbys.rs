//! Standbys of Postgres serve reads, and nobody can tell: answers are as exact as the primary's.

use std::time::Duration;

use beseda::dev::Postgres;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Chat, Client, Cluster, Psql, eventually, eventually_within};

/// A standby that failed is left alone for ten seconds.
const TRIED_AGAIN: Duration = Duration::from_secs(40);

/// A replica that may read from a standby.
async fn with_standby() -> (Cluster, Postgres) {
    let mut cluster = Cluster::with_own_stack(0, |_| {}).await;
    let standby = cluster.stack().postgres.standby().await.expect("a copy that follows");
    let url = standby.url(cluster.database());
    cluster
        .add_replica_with(move |config| {
            config.database.database_replica_urls = Some(url.into());
        })
        .await;
    (cluster, standby)
}

/// How many reads had this outcome.
async fn reads(cluster: &Cluster, replica: usize, outcome: &str) -> u64 {
    let metrics = cluster.operator(replica).request(Method::GET, "/metrics").await.text;
    let name = format!("beseda_standby_reads_total{{outcome=\"{outcome}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
    count.expect("a metric").parse().expect("a number")
}

/// The texts of a chat's newest messages.
async fn texts(at: &Client, chat: &Chat) -> Vec<String> {
    let page = at.history(chat, "").await;
    let results = page["results"].as_array().expect("messages");
    results.iter().map(|message| message["text"].as_str().expect("a text").to_owned()).collect()
}

/// Waits until the standby is read from.
async fn until_read(cluster: &Cluster, at: &Client, chat: &Chat) {
    let before = reads(cluster, 0, "read").await;
    eventually_within(TRIED_AGAIN, async || {
        at.history(chat, "").await;
        if reads(cluster, 0, "read").await > before {
            Ok(())
        } else {
            Err("read from the primary".to_owned())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_reads_it_from_a_standby_at_once() {
    let (mut cluster, standby) = with_standby().await;
    let host = cluster.host();
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    until_read(&cluster, &alice.on(0), &chat).await;
    let before = reads(&cluster, 0, "read").await;
    let mut said = Vec::new();
    for number in 0..50 {
        said.push(format!("word {number}"));
        let message = alice.on(0).send(&chat, &said[number]).await;
        assert_eq!(texts(&bob.on(0), &chat).await, said);
        let page = bob.on(0).history(&chat, "?limit=1").await;
        assert_eq!(page["results"][0], message);
        assert_eq!(page["head_ev"], message["ev"]);
    }
    // A busy machine may be slow to replay, and then the primary is read.
    assert!(reads(&cluster, 0, "read").await > before, "no read of a hundred was the standby's");
    until_read(&cluster, &alice.on(0), &chat).await;
    let before = cluster.statements(0, "store.list_texts").await;
    let found = bob.on(0).get("/search/?query=word&limit=50").await.expect(200);
    assert_eq!(found["results"].as_array().expect("messages").len(), 50);
    assert!(cluster.statements(0, "store.list_texts").await > before);
    let export = host.on(0).get("/users/alice/export/").await.text;
    assert_eq!(export.lines().filter(|line| line.contains("\"word ")).count(), 50);
    cluster.drain(0).await;
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_behind_or_away_is_passed_over() {
    let (mut cluster, standby) = with_standby().await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let group = alice
        .on(0)
        .post("/chats/", json!({ "kind": "group", "title": "G", "user_ids": ["bob"] }))
        .await;
    let group = Chat::from_json(&group.expect(201));
    alice.on(0).send(&group, "for members").await;
    until_read(&cluster, &bob.on(0), &group).await;

    let copy = Psql::connect(&standby.url(cluster.database())).await;
    copy.run("SELECT pg_wal_replay_pause()").await;
    let was_behind = reads(&cluster, 0, "behind").await;
    let kept = alice.on(0).send(&chat, "secret").await;
    let path = chat.path(&format!("messages/{}/", kept["message_id"].as_str().expect("an id")));
    assert_eq!(texts(&bob.on(0), &chat).await, ["secret"]);
    alice.on(0).patch(&path, json!({ "text": "edited" })).await.expect(200);
    assert_eq!(texts(&bob.on(0), &chat).await, ["edited"]);
    alice.on(0).delete(&path).await.expect(204);
    assert_eq!(texts(&bob.on(0), &chat).await, [""]);
    // Who was removed does not read on.
    alice.on(0).delete(&group.path("members/bob/")).await.expect(204);
    bob.on(0).get(&group.path("messages/")).await.expect_problem(404, "chat_not_found");
    bob.on(0).get(&group.path("search/?query=members")).await.expect_problem(404, "chat_not_found");
    let found = bob.on(0).get("/search/?query=members").await.expect(200);
    assert_eq!(found["results"], Value::Array(Vec::new()));
    assert!(reads(&cluster, 0, "behind").await > was_behind, "the standby was not looked at");

    copy.run("SELECT pg_wal_replay_resume()").await;
    until_read(&cluster, &alice.on(0), &chat).await;
    standby.stop().await;
    for number in 0..5 {
        let text = format!("without it {number}");
        alice.on(0).send(&chat, &text).await;
        assert_eq!(texts(&bob.on(0), &chat).await.last(), Some(&text));
    }
    assert!(reads(&cluster, 0, "failed").await > 0, "the standby was not tried");
    standby.restart().await.expect("it serves reading");
    until_read(&cluster, &alice.on(0), &chat).await;
    cluster.drain(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_of_the_former_primary_is_not_read_from() {
    let (mut cluster, standby) = with_standby().await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let heir = cluster.stack().postgres.standby().await.expect("another copy that follows");
    alice.on(0).send(&chat, "kept").await;
    // Notes the present timeline.
    until_read(&cluster, &bob.on(0), &chat).await;
    let (former, name) = (cluster.database_url(), cluster.database().to_owned());
    let copy = Psql::connect(&heir.url(&name)).await;
    eventually(async || match copy.run("SELECT FROM messages").await.len() {
        1 => Ok(()),
        count => Err(format!("{count} messages")),
    })
    .await;
    heir.promote().await.expect("it is the primary now");
    // The former one goes on for a while, with a standby that follows it, and comes far ahead.
    let former = Psql::connect(&former).await;
    former.run("UPDATE messages SET text = 'astray'").await;
    former.run("CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 100000)").await;
    let copy = Psql::connect(&standby.url(&name)).await;
    eventually(async || match copy.run("SELECT FROM messages WHERE text = 'astray'").await.len() {
        1 => Ok(()),
        _ => Err("not replayed".to_owned()),
    })
    .await;
    let (new, old) = (heir.url(&name), standby.url(&name));
    let replica = cluster
        .add_replica_with(move |config| {
            config.database.database_url = new.into();
            config.database.database_replica_urls = Some(old.into());
        })
        .await;
    eventually_within(TRIED_AGAIN, async || {
        assert_eq!(texts(&bob.on(replica), &chat).await, ["kept"]);
        match reads(&cluster, replica, "behind").await {
            0 => Err("the standby was not looked at".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(reads(&cluster, replica, "read").await, 0);
    cluster.drain(replica).await;
    cluster.abort(0);
    cluster.move_to(heir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_promoted_is_not_read_from() {
    let (mut cluster, standby) = with_standby().await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "kept").await;
    // On each of its connections, so that none has to be opened later.
    for _ in 0..4 {
        until_read(&cluster, &bob.on(0), &chat).await;
    }
    standby.promote().await.expect("it is a primary of its own now");
    let astray = Psql::connect(&standby.url(cluster.database())).await;
    astray.run("UPDATE messages SET text = 'astray'").await;
    // The primary writes nothing more, so the standby has had all, and its connections are open still.
    let before = reads(&cluster, 0, "read").await;
    for _ in 0..5 {
        assert_eq!(texts(&bob.on(0), &chat).await, ["kept"]);
    }
    assert_eq!(reads(&cluster, 0, "read").await, before);
    let passed_over = reads(&cluster, 0, "behind").await + reads(&cluster, 0, "failed").await;
    assert!(passed_over > 0, "the standby was not looked at");
    cluster.drain(0).await;
}
