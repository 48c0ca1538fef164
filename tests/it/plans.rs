//! What is done often looks into indexes, however large the tables are.

use beseda::config::Switch;
use serde_json::json;

use crate::harness::{Cluster, eventually, fill, keys::es256};

/// Enough strangers' chats that reading any table whole is never the cheaper way.
const STRANGERS: i64 = 20_000;

const FILL: &str = "
INSERT INTO users (user_id) SELECT 'filler-' || i FROM generate_series(1, 20000) i;
INSERT INTO reports (report_id, chat_id, message_id, seq, sender_id, reporter_id, text)
SELECT gen_random_uuid(), chat_id, gen_random_uuid(), 1, 'filler', 'filler', 'x'
  FROM chats WHERE created_by = 'filler';
INSERT INTO webhooks (kind, chat_id, recipient_id, seq, due_at)
SELECT 'message.created', chat_id, 'filler', 1, now() + interval '1 day'
  FROM chats, generate_series(1, 2) WHERE created_by = 'filler';
INSERT INTO webhook_lanes (chat_id, due_at)
SELECT chat_id, now() + interval '1 day' FROM chats WHERE created_by = 'filler';
INSERT INTO devices (user_id, device_id, platform, token, token_key, preview)
SELECT user_id, 'phone', 'apns', user_id, sha256(user_id::bytea), false FROM users;
INSERT INTO push_lanes (user_id, device_id, due_at)
SELECT user_id, device_id, now() + interval '1 day' FROM devices;
INSERT INTO push_marks (user_id, device_id, chat_id, want_seq)
SELECT m.user_id, 'phone', m.chat_id, 1 FROM members m JOIN devices d ON d.user_id = m.user_id;
INSERT INTO push_chats (chat_id, due_at)
SELECT chat_id, now() + interval '1 day' FROM chats WHERE created_by = 'filler';
ANALYZE";

const EMPTY: &str = "
DELETE FROM reports;
DELETE FROM webhooks;
DELETE FROM webhook_lanes;
DELETE FROM push_marks;
DELETE FROM push_lanes;
DELETE FROM devices;
DELETE FROM push_chats";

/// Rows that were met by reading a table from its beginning, and looks into the indexes of messages.
const COUNTS: &str = "
SELECT string_agg(relname || ' ' || seq_tup_read, ', ' ORDER BY relname)
       FILTER (WHERE relname IN ('users', 'chats', 'members', 'messages', 'reports',
                                       'webhooks', 'webhook_lanes', 'devices', 'push_lanes',
                                       'push_marks', 'push_chats')),
       sum(idx_scan) FILTER (WHERE relname = 'messages') FROM pg_stat_user_tables";

/// What connections have counted is added up when they end; the replicas open new ones.
const END_CONNECTIONS: &str = "
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()";

async fn counts(cluster: &Cluster) -> (String, i64) {
    let rows = cluster.psql(COUNTS).await;
    let [whole, looks] = <[_; 2]>::try_from(rows[0].clone()).expect("two columns");
    (whole.unwrap_or_default(), looks.and_then(|n| n.parse().ok()).unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hot_statement_reads_a_table_whole() {
    let cluster = Cluster::with(1, |config| {
        // No receiver listens there, so that events are stored, tried, and tried again.
        config.webhooks.webhook_url = "http://127.0.0.1:1/".parse().ok();
        config.webhooks.webhook_secret = Some("A".repeat(32).into());
        config.webhooks.webhook_allow_private = Switch::On;
        config.webhooks.webhook_delay = std::time::Duration::ZERO;
        // Nor a provider of push.
        let push = &mut config.push;
        push.apns_key = Some(es256().pem.into());
        let setting = || Some("0123456789".to_owned());
        (push.apns_key_id, push.apns_team_id, push.apns_topic) = (setting(), setting(), setting());
        push.apns_url = "https://127.0.0.1:1/".parse().expect("a URL");
        push.push_delay = std::time::Duration::ZERO;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    cluster.psql(&fill::direct_chats("filler", STRANGERS, "'filler'", "'filler-' || n", 3)).await;
    cluster.psql(FILL).await;
    let (a, b, host) = (alice.on(0), bob.on(0), cluster.host().on(0));
    let chat = a.open_chat(&bob).await;
    cluster.psql(END_CONNECTIONS).await;
    // Filling has read chats whole, which its connection adds to the counts within a second.
    let before = eventually(async || {
        let counts = counts(&cluster).await;
        if counts.0.starts_with("chats 0,") { Err(counts.0) } else { Ok(counts) }
    })
    .await;
    // More often than Postgres plans a statement for the values at hand: then for any.
    for round in 0..10 {
        let body = json!({ "text": "one", "client_msg_id": format!("key {round}") });
        let sent = eventually(async || {
            let answer = a.post(&chat.path("messages/"), body.clone()).await;
            if answer.status < 300 { Ok(answer.json) } else { Err(answer.text) }
        })
        .await;
        let id = sent["message_id"].as_str().expect("an id");
        let message = chat.path(&format!("messages/{id}/"));
        a.post(&chat.path("messages/"), body).await.expect(200);
        a.get(&message).await.expect(200);
        a.patch(&message, json!({ "text": "two" })).await.expect(200);
        b.connect(&chat).await.close().await;
        let device = json!({ "platform": "apns", "token": format!("{round}") });
        b.put("/devices/phone/", device).await.expect(200);
        b.get("/devices/").await.expect(200);
        for query in ["", "?before=3", "?after=1", "?around=2"] {
            b.history(&chat, query).await;
        }
        for path in ["/chats/", "/chats/unread/"] {
            b.get(path).await.expect(200);
        }
        b.chat(&chat).await;
        a.open_chat(&bob).await;
        a.open_chat(&cluster.user(&format!("new {round}"))).await;
        b.get(&chat.path("search/?query=two")).await.expect(200);
        b.mark_read(&chat).await;
        b.post(&format!("{message}report/"), json!({})).await.expect(201);
        let page = host.get("/reports/?limit=2").await.expect(200);
        let next = page["next"].as_str().expect("a cursor");
        host.get(&format!("/reports/?cursor={next}")).await.expect(200);
        assert_eq!(host.get("/users/bob/export/").await.status, 200);
        a.delete(&message).await.expect(204);
        // Counted in Postgres anew.
        cluster.redis_flush().await;
    }
    eventually(async || {
        // By the chat: this look must not read the table whole either.
        let tried = format!(
            "SELECT count(*) FROM webhooks
              WHERE chat_id = '{chat}' AND dead_at IS NULL AND attempts > 0"
        );
        if cluster.psql_value::<i64>(&tried).await > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    // Nobody reads it, so that it is pushed.
    a.send(&chat, "unread").await;
    eventually(async || {
        let tried = "SELECT count(*) FROM push_lanes WHERE user_id = 'bob' AND attempts > 0";
        if cluster.psql_value::<i64>(tried).await > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    cluster.psql(END_CONNECTIONS).await;
    eventually(async || {
        let after = counts(&cluster).await;
        if after.1 < before.1 + 100 {
            return Err(format!("not all is counted yet: {after:?}"));
        }
        if after.0 == before.0 { Ok(()) } else { Err(format!("from {before:?} to {after:?}")) }
    })
    .await;
    cluster.psql(EMPTY).await;
    cluster.psql(&fill::without_chats_of("filler")).await;
}
