//! What must not get out, and what the service must not be able to do.

use beseda::config::{Secret, Switch};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Cluster, Program, Reply, SECRET, Socket, eventually};

const WEBHOOK_SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The documented roles.
const SECURITY: &str = include_str!("../../docs/run/security.md");

/// A block of code in the documentation, by its language.
fn documented(language: &str) -> &'static str {
    let (_, rest) = SECURITY.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("the block's end").0
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_metrics_hold_no_token_ticket_text_or_query() {
    let mut cluster = Cluster::with_own_stack(1, |_| {}).await;
    let url = cluster.database_url().replace("beseda@", "beseda:pa55word@");
    let settings = [
        ("BESEDA_LOG", "trace"),
        ("DATABASE_URL", url.as_str()),
        ("BESEDA_WEBHOOK_URL", "https://localhost:1/events"),
        ("BESEDA_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("BESEDA_WEBHOOK_DELAY", "0s"),
    ];
    let (program, replica) = Program::join(&mut cluster, &settings).await;

    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(replica).open_chat(&bob).await;
    let body = json!({ "text": "hush-text", "metadata": { "m": "hush-metadata" }, "client_msg_id": "hush-key" });
    let sent = alice.on(replica).post(&chat.path("messages/"), body).await.expect(201);
    let path = chat.path(&format!("messages/{}/", sent["message_id"].as_str().expect("an id")));
    alice.on(replica).patch(&path, json!({ "text": "hush-edited" })).await.expect(200);
    alice.on(replica).get(&chat.path("search/?query=hush-query")).await.expect(200);
    let ticket = alice.on(replica).chat_url(&chat).await;
    let mut socket = Socket::open(&ticket).await;
    socket.greet().await;
    socket.ask(json!({ "type": "send", "id": 1, "text": "hush-frame" })).await;
    socket.ask(json!({ "type": "auth", "id": 2, "token": "hush-bad-token" })).await;
    // Failures say more than successes.
    bob.with_token("hush-worse-token")
        .on(replica)
        .get("/chats/")
        .await
        .expect_problem(401, "token_invalid");
    let refused =
        alice.on(replica).post(&chat.path("messages/"), json!({ "text": ["hush-list"] })).await;
    refused.expect_faults(&["text"]);
    Socket::open(&ticket).await.expect_close(4102).await;
    cluster.stack().postgres.kill();
    let failed =
        alice.on(replica).post(&chat.path("messages/"), json!({ "text": "hush-lost" })).await;
    assert_eq!(failed.status, 503, "{}", failed.text);
    cluster.stack().postgres.restart().await.expect("Postgres comes back");
    eventually(async || match alice.on(replica).get("/chats/").await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text),
    })
    .await;

    let metrics = cluster.operator(replica).request(Method::GET, "/metrics").await.text;
    let log = program.log();
    assert!(log.contains("request refused") && log.contains("request failed"), "{log}");
    let ticket = ticket.rsplit('=').next().expect("a ticket");
    for told in [&log, &metrics] {
        let settings = [SECRET, "pa55word", WEBHOOK_SECRET];
        for secret in ["hush", &alice.token, &bob.token, ticket].into_iter().chain(settings) {
            let line = told.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret} in {line:?}");
        }
    }
    drop((program, socket));
}

/// Why an event was not taken, once it was tried.
async fn why_not_taken(cluster: &Cluster) -> String {
    eventually(async || {
        let tried = "SELECT last_error FROM webhooks WHERE attempts > 0 LIMIT 1";
        let rows = cluster.psql(tried).await;
        rows.first().and_then(|row| row[0].clone()).ok_or_else(|| "none was tried".to_owned())
    })
    .await
}

#[test]
fn secrets_do_not_show_in_debug() {
    let secret = Secret::from("hush".to_owned());
    assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("hush"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_runs_under_the_documented_roles_and_can_do_no_more() {
    let mut cluster =
        Cluster::with_own_stack(1, |config| config.redis_prefix = "beseda:".to_owned()).await;
    // The first replica has migrated, as the owner.
    cluster.psql(documented("sql")).await;
    let mut redis = cluster.redis().await;
    for line in documented("acl").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        redis.command(&words).await;
    }
    let owner = cluster.database_url();
    let service = owner.replace("beseda@", "beseda_service@");
    let redis_url = format!("redis://beseda:change-me@127.0.0.1:{}", cluster.stack().redis.port());
    let replica = cluster
        .add_replica_with(|config| {
            config.migrate_on_start = Switch::Off;
            config.database.database_url = Secret::from(service.clone());
            config.redis_url = Secret::from(redis_url);
            // No receiver listens there, so that each event is stored, tried, and stored for later.
            config.webhooks.webhook_url = "http://127.0.0.1:1/".parse().ok();
            config.webhooks.webhook_secret = Some(Secret::from(WEBHOOK_SECRET.to_owned()));
            config.webhooks.webhook_allow_private = Switch::On;
            config.webhooks.webhook_delay = std::time::Duration::ZERO;
        })
        .await;

    // All that there is to do, on that replica and between the two.
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(replica).open_chat(&bob).await;
    let (mut socket, mut inbox) =
        (bob.on(replica).connect(&chat).await, bob.on(replica).connect_many().await);
    let sent = alice.on(0).send(&chat, "hello").await;
    assert_eq!(socket.expect_message().await, sent);
    inbox.wait_for("chat.updated").await;
    alice.on(replica).send(&chat, "привет").await;
    assert_eq!(bob.on(replica).unread_in(&chat).await, 2);
    bob.on(replica).mark_read(&chat).await;
    let path = chat.path(&format!("messages/{}/", sent["message_id"].as_str().expect("an id")));
    alice.on(replica).patch(&path, json!({ "text": "edited" })).await.expect(200);
    alice.on(replica).get(&chat.path("search/?query=edited")).await.expect(200);
    socket.send(json!({ "type": "typing", "typing": true })).await;
    bob.on(replica).post(&format!("{path}report/"), json!({})).await.expect(201);
    host.on(replica).get("/reports/").await.expect(200);
    assert_eq!(host.on(replica).get("/users/bob/export/").await.status, 200);
    alice.on(replica).delete(&path).await.expect(204);
    bob.on(replica).put("/users/alice/block/", json!({})).await.expect(204);
    bob.on(replica).delete("/users/alice/block/").await.expect(204);
    host.on(replica).put("/users/carol/", json!({ "name": "Carol" })).await.expect(201);
    host.on(replica).post("/users/carol/revoke_tokens/", json!({})).await.expect(204);
    host.on(replica).delete("/users/carol/").await.expect(204);
    let away = alice.on(replica).open_chat(&cluster.user("somebody away")).await;
    alice.on(replica).send(&away, "are you there?").await;
    let (other, dave) = (cluster.user("erin"), cluster.user("dave"));
    let doomed = other.on(replica).open_chat(&dave).await;
    other.on(replica).send(&doomed, "soon gone").await;
    other.on(replica).delete(&doomed.path("")).await.expect(204);
    socket.close().await;
    inbox.close().await;
    assert_eq!(why_not_taken(&cluster).await, "no connection");
    let refused = redis.command(&["ACL", "LOG"]).await;
    assert_eq!(refused, Reply::List(Vec::new()), "Redis refused something");

    let (client, connection) = tokio_postgres::connect(&service, tokio_postgres::NoTls)
        .await
        .expect("the role may log in");
    tokio::spawn(connection);
    for forbidden in [
        "CREATE TABLE mine (x int)",
        "DROP TABLE messages",
        "ALTER TABLE messages ADD COLUMN x int",
        "TRUNCATE messages",
        "UPDATE instance SET incarnation = 'x'",
        "DELETE FROM refinery_schema_history",
        "CREATE ROLE other",
        "CREATE OR REPLACE FUNCTION epoch() RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
        "SELECT * FROM pg_authid",
        "COPY messages TO PROGRAM 'true'",
        "SET ROLE beseda",
    ] {
        assert!(client.batch_execute(forbidden).await.is_err(), "{forbidden}");
    }
}
