//! A connection plans a statement once. Whatever the tables were then, it looks by whole keys for as long as
//! the connection lives: judged by the rows that are read, which no machine's speed changes.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Chat, Client, Cluster, User, eventually, fill};

/// Nothing but the test tells the planner anything, and no new statistics have a plan made anew.
const NO_AUTOVACUUM: &str = "
ALTER TABLE users SET (autovacuum_enabled = off);
ALTER TABLE chats SET (autovacuum_enabled = off);
ALTER TABLE members SET (autovacuum_enabled = off);
ALTER TABLE messages SET (autovacuum_enabled = off);
ALTER TABLE reports SET (autovacuum_enabled = off);
ALTER TABLE outbox SET (autovacuum_enabled = off)";

/// Of the tables that grow: rows that each index gave, and that reading a table whole did.
const READS: &str = "
SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes
 WHERE relname IN ('users', 'chats', 'members', 'messages', 'reports', 'outbox')
UNION ALL
SELECT relname || ', whole', seq_tup_read FROM pg_stat_user_tables
 WHERE relname IN ('users', 'chats', 'members', 'messages', 'reports', 'outbox')";

/// What a connection has counted is added up when it ends, at the latest. Goes on: one whose last statement
/// is like `but`.
async fn end_connections(cluster: &Cluster, but: &str) {
    let others = format!(
        "SELECT pid FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid() AND query NOT LIKE '{but}'"
    );
    let pids = cluster.psql(&others).await;
    let pids: Vec<_> = pids.iter().filter_map(|row| row[0].clone()).collect();
    let pids = format!("'{{{}}}'::integer[]", pids.join(","));
    cluster.psql(&format!("SELECT pg_terminate_backend(pid) FROM unnest({pids}) pid")).await;
    eventually(async || {
        let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ({pids})");
        match cluster.psql_value::<i64>(&left).await {
            0 => Ok(()),
            left => Err(format!("{left} are still there")),
        }
    })
    .await;
}

async fn reads(cluster: &Cluster) -> BTreeMap<String, i64> {
    let rows = cluster.psql(READS).await;
    let read = |row: &Vec<Option<String>>| {
        Some((row[0].clone()?, row[1].as_ref().and_then(|count| count.parse().ok())?))
    };
    rows.iter().filter_map(read).collect()
}

/// What was read since `before`, with the connections that read it ended; where it is anything.
async fn read_since(cluster: &Cluster, before: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    end_connections(cluster, "").await;
    let mut after = reads(cluster).await;
    for (name, count) in &mut after {
        *count -= before.get(name).unwrap_or(&0);
    }
    after.retain(|_, count| *count > 0);
    after
}

/// Messages of the chat that all is done in, and chats of its first member: what a plan that reads by a part
/// of a key would read.
const MESSAGES: i64 = 10_000;
const CHATS: i64 = 2_000;

/// How often all is done.
const ROUNDS: i64 = 5;

/// Rows that doing all of it once may read: all of the statements together, with a page of history, a
/// search's first page and 50 hits.
const ROWS_A_ROUND: i64 = 2_000;

/// [`MESSAGES`] more of alice's, as the program would have written them.
async fn write_many(cluster: &Cluster, chat: &Chat) {
    let text = "CASE WHEN n % 3 = 0 THEN 'a needle' ELSE 'hay' END";
    cluster.psql(&fill::messages(&chat.id, "alice", MESSAGES, text)).await;
    cluster.redis_flush().await;
}

/// Everything that is done often, once; `name` is of this round only.
async fn round(a: &Client, b: &Client, host: &Client, chat: &Chat, name: &str) {
    let body = json!({ "text": "a needle", "client_msg_id": name });
    // Connections that were ended are opened anew.
    let sent = eventually(async || {
        let answer = a.post(&chat.path("messages/"), body.clone()).await;
        if answer.status < 300 { Ok(answer.json) } else { Err(answer.text) }
    })
    .await;
    let id = sent["message_id"].as_str().expect("an id");
    let (seq, ev) = (sent["seq"].as_i64().expect("a seq"), sent["ev"].as_i64().expect("an ev"));
    let message = chat.path(&format!("messages/{id}/"));
    a.post(&chat.path("messages/"), body).await.expect(200);
    a.get(&message).await.expect(200);
    a.patch(&message, json!({ "text": "another needle" })).await.expect(200);
    let page = b.history(chat, "?limit=10").await;
    let epoch = page["epoch"].as_str().expect("an epoch");
    let mut socket = b.resume(chat, ev - 1, epoch).await;
    socket.wait_for("synced").await;
    socket.close().await;
    for query in [format!("?before={seq}"), "?after=1".to_owned(), "?around=2".to_owned()] {
        b.history(chat, &format!("{query}&limit=10")).await;
    }
    for path in ["/chats/", "/chats/unread/", "/users/alice/"] {
        b.get(path).await.expect(200);
    }
    let synced = b.get("/sync/").await.expect(200);
    let next = synced["next"].as_str().expect("a cursor");
    b.get(&format!("/sync/?cursor={next}")).await.expect(200);
    b.get(&chat.path(&format!("changes/?after_ev={}&limit=10", ev - 1))).await.expect(200);
    b.chat(chat).await;
    b.get(&chat.path("search/?query=needle&limit=50")).await.expect(200);
    b.post(&chat.path("mark_read/"), json!({ "up_to_seq": seq - 1 })).await.expect(200);
    b.mark_read(chat).await;
    b.post(&format!("{message}report/"), json!({})).await.expect(201);
    let people = json!({ "users": [{ "user_id": "alice", "name": name }] });
    host.post("/users/", people).await.expect(200);
    a.delete(&message).await.expect(204);
}

/// Has all statements planned on tables as these statements make them, and then run on large ones.
async fn planned_on(tables: &[&str]) {
    let cluster = Cluster::start(1).await;
    cluster.psql(NO_AUTOVACUUM).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let (a, b, host) = (alice.on(0), bob.on(0), cluster.host().on(0));
    let chat = a.open_chat(&bob).await;
    // One by one: VACUUM wants to be alone.
    for statement in tables {
        cluster.psql(statement).await;
    }
    end_connections(&cluster, "").await;
    // More often than there are connections: each has planned all of it.
    for n in 0..6 {
        round(&a, &b, &host, &chat, &format!("planned {n}")).await;
    }
    write_many(&cluster, &chat).await;
    let users = format!(
        "INSERT INTO users (user_id) SELECT 'zed ' || n FROM generate_series(1, {CHATS}) n"
    );
    cluster.psql(&users).await;
    cluster.psql(&fill::direct_chats("grown", CHATS, "'alice'", "'zed ' || n", 0)).await;
    let before = reads(&cluster).await;
    for n in 0..ROUNDS {
        round(&a, &b, &host, &chat, &format!("run {n}")).await;
    }
    let read = read_since(&cluster, &before).await;
    let all: i64 = read.values().sum();
    assert!(all <= ROUNDS * ROWS_A_ROUND, "{} rows a round: {read:#?}", all / ROUNDS);
    for made_by in ["grown", "few", "many"] {
        cluster.psql(&fill::without_chats_of(made_by)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_on_new_tables_reads_by_key() {
    planned_on(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_on_tables_that_a_vacuum_saw_empty_reads_by_key() {
    planned_on(&["VACUUM (ANALYZE)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_on_small_tables_reads_by_key() {
    let few = fill::direct_chats("few", 8, "'few ' || n", "'few ' || n + 1", 1);
    planned_on(&[&few, "VACUUM (ANALYZE)"]).await;
}

/// As many chats as there are messages: by its chat alone one would be found.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_on_one_sided_tables_reads_by_key() {
    let many = fill::direct_chats("many", 20_000, "'host'", "'many ' || n", 1);
    planned_on(&[&many, "VACUUM (ANALYZE)"]).await;
}

/// Everybody's first load test: planned while the first chat was opened, and no statistics yet.
#[tokio::test(flavor = "multi_thread")]
async fn sends_on_a_new_database_read_by_key_however_it_was_filled() {
    const PAIRS: usize = 100;
    const SENDS: usize = 640;
    let cluster = Cluster::start(1).await;
    cluster.psql(NO_AUTOVACUUM).await;
    let alice = cluster.user("alice");
    let mut chat = None;
    for n in 0..200 {
        chat = Some(alice.on(0).open_chat(&cluster.user(&format!("friend {n}"))).await);
    }
    let chat = chat.expect("a chat");
    alice.on(0).send(&chat, "the first").await;
    write_many(&cluster, &chat).await;
    let pair = |n: usize| (cluster.user(&format!("left {n}")), cluster.user(&format!("right {n}")));
    let pairs: Vec<(User, User)> = (0..PAIRS).map(pair).collect();
    let mut chats = Vec::new();
    for (left, right) in &pairs {
        chats.push(left.on(0).open_chat(right).await);
    }
    // What opening and filling has counted is not to be counted again. The writer keeps its plans.
    end_connections(&cluster, "%store.send%").await;
    let before = reads(&cluster).await;
    let mut sent = 0;
    while sent < SENDS {
        // 64 at a time.
        let some = (sent..sent + 64).map(|n| {
            let (left, _) = &pairs[n % PAIRS];
            let body = json!({ "text": "hello", "client_msg_id": n.to_string() });
            left.on(0).post(&chats[n % PAIRS].path("messages/"), body).into_future()
        });
        for answer in join_all(some).await {
            answer.expect(201);
        }
        sent += 64;
    }
    let read = read_since(&cluster, &before).await;
    let of_members: i64 =
        read.iter().filter(|(name, _)| name.contains("members")).map(|(_, n)| n).sum();
    // By key: two of each send, and what opening the chats had left to be counted.
    assert!(of_members < 10 * SENDS as i64, "{of_members} rows of members: {read:#?}");
}

/// What is left in the outbox, by an outage say, goes out in as many reads as there are rows.
async fn left_in_the_outbox(rows: i64) {
    let cluster = Cluster::start(1).await;
    cluster.psql(NO_AUTOVACUUM).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let empty = async || {
        eventually(async || match cluster.psql_value::<i64>("SELECT count(*) FROM outbox").await {
            0 => Ok(()),
            left => Err(format!("{left} rows are left")),
        })
        .await;
    };
    empty().await;
    cluster.psql("VACUUM (ANALYZE) outbox").await;
    end_connections(&cluster, "").await;
    let due = |rows: i64| {
        format!(
            "INSERT INTO outbox (due_at, chats)
             SELECT clock_timestamp(), '{{{chat}}}' FROM generate_series(1, {rows})"
        )
    };
    // Each connection that sweeps plans on the empty table.
    for _ in 0..6 {
        cluster.psql(&due(1)).await;
        empty().await;
    }
    let before = reads(&cluster).await;
    cluster.psql(&due(rows)).await;
    empty().await;
    let read = read_since(&cluster, &before).await;
    let of_outbox = read.get("outbox_pkey").copied().unwrap_or(0);
    assert!(of_outbox < 20 * rows, "{} reads a row: {read:#?}", of_outbox / rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_rows_of_the_outbox_are_swept_in_as_many_reads() {
    left_in_the_outbox(5_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_thousand_rows_of_the_outbox_are_swept_in_as_many_reads() {
    left_in_the_outbox(30_000).await;
}
