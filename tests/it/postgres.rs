//! Postgres crashes, is full, fails over: clear refusals, safe retries, sockets that catch up.

use std::time::{Duration, Instant};

use beseda::config::{Secret, Switch};
use futures_util::future::join_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Chat, Client, Cluster, PgBouncer, Psql, Socket, eventually, eventually_within, told,
};

/// How long a promotion and all that follows may take on a crowded machine.
const FAILOVER: Duration = Duration::from_secs(40);

/// An answer must come within a statement's time and a connection's (5 s each), some 2 s more on a
/// busy machine.
const BOUNDED: Duration = Duration::from_secs(12);

/// Sends once, with a key; an answer that is not the message must be 503, as documented.
async fn try_to_send(at: &Client, chat: &Chat, key: &str) -> Option<Value> {
    let began = Instant::now();
    let body = json!({ "text": key, "client_msg_id": key });
    let answer = at.post(&chat.path("messages/"), body).await;
    assert!(began.elapsed() < BOUNDED, "{:?} for {answer:?}", began.elapsed());
    if matches!(answer.status, 200 | 201) {
        return Some(answer.json);
    }
    assert_eq!((answer.status, &answer.json["code"]), (503, &json!("unavailable")), "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(answer.json["retry_after_ms"].is_number(), "{answer:?}");
    None
}

async fn send(at: &Client, chat: &Chat, key: &str) -> Value {
    told(
        eventually(async || try_to_send(at, chat, key).await.ok_or_else(|| "503".to_owned())).await,
    )
}

/// Reads on until this message has come, once, by whichever way.
async fn receive(socket: &mut Socket, message: &Value) {
    loop {
        let frame = socket.wait_for("message.created").await;
        if frame["message"] == *message {
            return;
        }
    }
}

/// What the first replica's metrics say of Postgres.
async fn postgres_up(cluster: &Cluster) -> i64 {
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    let value = metrics.lines().find_map(|line| line.strip_prefix("beseda_postgres_up "));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("none in {metrics}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgres_is_503_and_sockets_stay_and_catch_up() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    for round in 0..3 {
        let key = format!("round {round}");
        // Immediate: what was under way has no outcome that anybody knows.
        let postgres = &cluster.stack().postgres;
        let at = alice.on(0);
        let (first, ()) = tokio::join!(try_to_send(&at, &chat, &key), async {
            tokio::task::block_in_place(|| postgres.kill());
        });
        if first.is_none() {
            assert_eq!(try_to_send(&alice.on(1), &chat, &key).await, None, "it is still away");
        }
        eventually(async || {
            let ready = cluster.operator(0).request(Method::GET, "/readyz").await;
            if ready.status == 503 { Ok(()) } else { Err(ready.text) }
        })
        .await;
        assert_eq!(postgres_up(&cluster).await, 0);
        postgres.restart().await.expect("it recovers");
        let message = send(&alice.on(1), &chat, &key).await;
        assert_eq!(message["seq"], round + 1, "once, whatever became of the first attempt");
        eventually(async || match postgres_up(&cluster).await {
            1 => Ok(()),
            other => Err(format!("beseda_postgres_up {other}")),
        })
        .await;
        receive(&mut socket, &message).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_left_it_is_503_and_heals() {
    let cluster = Cluster::with_own_stack(1, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(0).connect(&chat).await;
    let url = cluster.stack().postgres.url("postgres");
    // Others take all there are, then those of the replica, which it does not get back.
    let mut others = Vec::new();
    let mut kicked = 0;
    loop {
        match Psql::try_connect(&url).await {
            Ok(other) => others.push(other),
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{error:?}");
                if kicked == 3 {
                    break;
                }
                let kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                             WHERE datname LIKE 'test\\_%' AND pid <> pg_backend_pid()";
                others[0].run(kick).await;
                kicked += 1;
            }
        }
    }
    assert_eq!(try_to_send(&alice.on(0), &chat, "full").await, None);
    drop(others);
    let message = send(&alice.on(0), &chat, "full").await;
    assert_eq!(message["seq"], 1);
    receive(&mut socket, &message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_missed_commits_is_promoted_and_every_position_is_void() {
    let mut cluster = Cluster::with_own_stack(0, |_| {}).await;
    let primary = cluster.stack().postgres.port();
    let standby = cluster.stack().postgres.standby().await.expect("a copy that follows");
    let one = primary.to_string();
    // The one to be avoided comes first.
    let both = format!("{},127.0.0.1:{one}", standby.port());
    for _ in 0..2 {
        let (one, both) = (one.clone(), both.clone());
        cluster
            .add_replica_with(move |config| {
                let url = config.database.database_url.expose().replace(&one, &both);
                config.database.database_url = url.into();
            })
            .await;
    }
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    // Follows no chat.
    let mut inbox = bob.on(1).connect_many().await;
    let kept = alice.on(0).send(&chat, "kept").await;
    receive(&mut socket, &kept).await;
    let epoch = alice.on(0).history(&chat, "").await["epoch"].clone();
    let name = cluster.database().to_owned();
    let copy = Psql::connect(&standby.url(&name)).await;
    // Not the table: that one is there only once its making has been replayed.
    let committed: String = cluster.psql_value("SELECT pg_current_wal_lsn()").await;
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{committed}'");
    eventually(async || {
        let rows = copy.run(&replayed).await;
        if rows[0][0].as_deref() == Some("t") { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    standby.stop().await;
    for text in ["lost 1", "lost 2"] {
        let lost = alice.on(0).send(&chat, text).await;
        receive(&mut socket, &lost).await;
        while inbox.wait_for("chat.updated").await["chat"]["last_message"] != lost {}
    }
    tokio::task::block_in_place(|| cluster.stack().postgres.kill());
    standby.restart().await.expect("it serves reading");
    standby.promote().await.expect("it is the primary now");

    let reset = socket.wait_for("reset").await;
    assert_eq!((&reset["head_ev"], &reset["reason"]), (&kept["ev"], &json!("unknown_position")));
    assert_ne!(reset["epoch"], epoch);
    while inbox.wait_for("chat.updated").await["chat"]["last_message"] != kept {}
    let page = eventually_within(FAILOVER, async || {
        let answer = bob.on(0).get(&chat.path("messages/")).await;
        if answer.status == 200 { Ok(answer.json) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(told(page["results"][0].clone()), kept);
    assert_eq!(page["epoch"], reset["epoch"]);
    // Numbers are given anew, and what Redis knew of the lost ones is believed no more.
    let again = send(&alice.on(1), &chat, "again").await;
    assert_eq!(again["ev"], reset["head_ev"].as_i64().expect("a number") + 1);
    receive(&mut socket, &again).await;
    eventually(async || match bob.on(0).unread_in(&chat).await {
        2 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    // A copy of another epoch is not trusted, and the next read replaces it.
    assert_eq!(alice.on(1).unread_in(&chat).await, 0);
    socket.close().await;
    cluster.move_to(standby).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_between_a_failover_and_its_notice_misses_nothing() {
    let cluster = Cluster::with_own_stack(1, |config| {
        // No periodic comparison runs during the test.
        config.head_check_interval = Duration::from_secs(3_600);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut before = bob.on(0).connect(&chat).await;
    for text in ["kept", "kept too", "lost"] {
        let message = alice.on(0).send(&chat, text).await;
        receive(&mut before, &message).await;
    }
    // As a standby has it that lagged by a message.
    let behind = format!(
        "DELETE FROM messages WHERE chat_id = '{chat}' AND seq = 3;
         UPDATE chats SET last_seq = 2, last_ev = 2, last_counted = 2 WHERE chat_id = '{chat}';
         UPDATE members SET floor_seq = least(floor_seq, 2), floor_counted = least(floor_counted, 2)
          WHERE chat_id = '{chat}';
         UPDATE instance SET incarnation = 'promoted'"
    );
    cluster.psql(&behind).await;
    // The counters are not what this is about.
    cluster.redis_flush().await;
    let mut between = Socket::open(&bob.on(0).chat_url(&chat).await).await;
    let synced = between.wait_for("synced").await;
    assert_eq!(synced["ev"], 2, "{synced}");
    // Has the number of the one that was lost, so that it looks as if it had been told.
    let message = alice.on(0).send(&chat, "after").await;
    assert_eq!(message["ev"], 3);
    // Publications may be lost: a reason to look.
    cluster.redis().await.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let told = between.frames_until("message.created").await;
    assert_eq!(told.last().map(|frame| &frame["message"]), Some(&message), "{told:?}");
    assert!(told.iter().all(|frame| frame["type"] != "reset"), "{told:?}");
    // The new name of the history may be noticed before the message is sent, or by it.
    let reset = before.wait_for("reset").await;
    if reset["head_ev"] == 2 {
        assert_eq!(before.wait_for("message.created").await["message"], message, "{reset}");
    } else {
        assert_eq!(reset["head_ev"], 3, "{reset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_comes_back_as_a_standby_behind_a_pooler_is_not_believed() {
    let mut cluster = Cluster::with_own_stack(1, |_| {}).await;
    let port = cluster.stack().postgres.port();
    let bouncer = PgBouncer::start(port).await;
    let pooled = bouncer.port().to_string();
    let behind = cluster
        .add_replica_with(move |config| {
            let url = config.database.database_url.expose();
            let url = url.replace(&port.to_string(), &pooled);
            config.database.database_url = Secret::from(url);
            config.database.database_prepared = Switch::Off;
            config.migrate_on_start = Switch::Off;
        })
        .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(behind).open_chat(&bob).await;
    let mut socket = bob.on(behind).connect(&chat).await;
    let first = alice.on(behind).send(&chat, "before").await;
    receive(&mut socket, &first).await;

    let postgres = &cluster.stack().postgres;
    let signal = postgres.cluster().join("standby.signal");
    std::fs::write(&signal, "").expect("a file");
    postgres.restart().await.expect("it serves reads");
    let history = chat.path("messages/");
    for _ in 0..20 {
        alice.on(behind).get(&history).await.expect_problem(503, "unavailable");
    }
    std::fs::remove_file(&signal).expect("it is there");
    postgres.restart().await.expect("it is the primary again");
    eventually_within(Duration::from_secs(30), async || {
        match alice.on(behind).get(&history).await {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text),
        }
    })
    .await;
    // What compares with Postgres has outlived it: a message that Redis does not bring comes all the same.
    cluster.stack().redis.kill();
    let last = alice.on(behind).send(&chat, "after").await;
    receive(&mut socket, &last).await;
    cluster.stack().redis.restart().await.expect("Redis comes back");
    cluster.drain(behind).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_pgbouncer_in_transaction_mode_all_goes_on_as_without() {
    let bouncer;
    let mut cluster = Cluster::start(0).await;
    // Migrating needs a session of its own, and so Postgres itself.
    let direct = cluster.add_replica().await;
    let postgres = cluster.stack().postgres.port();
    bouncer = PgBouncer::start(postgres).await;
    let port = bouncer.port().to_string();
    for _ in 0..2 {
        let port = port.clone();
        cluster
            .add_replica_with(move |config| {
                let url = config.database.database_url.expose();
                config.database.database_url =
                    Secret::from(url.replace(&postgres.to_string(), &port));
                config.database.database_prepared = Switch::Off;
                config.migrate_on_start = Switch::Off;
            })
            .await;
    }
    cluster.drain(direct).await;

    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(1).open_chat(&bob).await;
    let mut socket = bob.on(2).connect(&chat).await;
    let epoch = alice.on(1).history(&chat, "").await["epoch"].clone();
    // Retries race on both: one message each, and no number is lost.
    for number in 0..20 {
        let key = format!("word {number}");
        let (here, there) = (alice.on(1), alice.on(2));
        let tries = (0..6).map(|i| send(if i % 2 == 0 { &here } else { &there }, &chat, &key));
        let messages = join_all(tries).await;
        assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
        assert_eq!(messages[0]["seq"], number + 1);
        receive(&mut socket, &messages[0]).await;
    }
    let found = bob.on(1).get(&chat.path("search/?query=word&limit=50")).await.expect(200);
    assert_eq!(found["results"].as_array().map(Vec::len), Some(20), "{found}");
    let first = bob.on(2).history(&chat, "?limit=1&around=1").await["results"][0].clone();
    let path = chat.path(&format!("messages/{}/", first["message_id"].as_str().expect("an id")));
    alice.on(1).patch(&path, json!({ "text": "changed" })).await.expect(200);
    alice.on(2).delete(&path).await.expect(204);
    assert_eq!(bob.on(1).unread_in(&chat).await, 19);
    assert_eq!(bob.on(2).mark_read(&chat).await["unread_count"], 0);
    let mut resumed = bob.on(1).resume(&chat, 5, epoch.as_str().expect("text")).await;
    let frames = resumed.frames_until("synced").await;
    let created = frames.iter().filter(|frame| frame["type"] == "message.created").count();
    assert_eq!(created, 15, "{frames:?}");
    assert_eq!(frames.last().map(|frame| &frame["ev"]), Some(&json!(23)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_few_connections_does_not_wait_for_more() {
    const LONG: Duration = Duration::from_secs(60);
    let began = Instant::now();
    let cluster = Cluster::with(1, |config| {
        let database = &mut config.database;
        database.database_timeout = LONG;
        // The fewest that are allowed.
        database.database_connections =
            database.database_writers + 2 * database.database_readers + 5;
    })
    .await;
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    cluster.user("alice").on(0).get("/chats/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_short_reads_that_are_stuck_are_given_up() {
    let cluster = Cluster::with(1, |config| {
        config.database.database_readers = 1;
        config.database.database_timeout = Duration::from_millis(500);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "x").await;
    alice.on(0).history(&chat, "").await;
    let reader = "SELECT pid FROM pg_stat_activity
                   WHERE datname = current_database() AND query LIKE '%store.get\\_history%'
                     AND pid <> pg_backend_pid()";
    let reader = Pid::from_raw(cluster.psql_value(reader).await);
    kill(reader, Signal::SIGSTOP).expect("it runs");
    let path = chat.path("messages/");
    let at = alice.on(0);
    let (one, other) = tokio::join!(async { at.get(&path).await }, async { at.get(&path).await });
    for answer in [one, other] {
        assert_eq!((answer.status, &answer.json["code"]), (503, &json!("unavailable")));
    }
    let history = alice.on(0).history(&chat, "").await;
    assert_eq!(history["results"][0], sent, "on another connection");
    kill(reader, Signal::SIGCONT).expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_do_not_wait_for_figures_that_postgres_does_not_give() {
    let cluster = Cluster::start(1).await;
    let lock = Psql::connect(&cluster.database_url()).await;
    lock.run("BEGIN; LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE").await;
    let began = Instant::now();
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await;
    // A scrape's time-out is 5 s where Prometheus asks as often; a statement's is as long.
    assert!(began.elapsed() < Duration::from_millis(4_500), "{:?}", began.elapsed());
    assert!(
        metrics.text.contains("beseda_pool_wait_seconds_bucket{le=\"0.128\"}"),
        "for the alert"
    );
    lock.run("ROLLBACK").await;
}
