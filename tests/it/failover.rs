//! A replica is frozen while a standby is promoted, and then continues as if nothing had happened.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::harness::{Client, Cluster, Program, Psql, eventually, eventually_within, told};

/// How long a promotion and its consequences may take on a busy machine.
const FAILOVER: Duration = Duration::from_secs(40);

/// Before a replica reports a success that is older than a second, it asks whether its history is still
/// the current one.
const LATE: Duration = Duration::from_millis(1_500);

/// Counts the sends that wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
 WHERE query LIKE '-- store.send\\_%' AND state = 'active'";

/// Sends until the message is stored: a replica refuses until it has found the new primary.
async fn stored(at: &Client, path: &str, body: &Value) -> Value {
    eventually_within(FAILOVER, async || match at.post(path, body.clone()).await {
        answer if matches!(answer.status, 200 | 201) => Ok(told(answer.json)),
        answer => Err(answer.text),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_thawed_replica_says_of_a_lost_commit_is_believed_by_nobody() {
    let mut cluster = Cluster::with_own_stack(0, |_| {}).await;
    let primary = cluster.stack().postgres.port().to_string();
    let standby = cluster.stack().postgres.standby().await.expect("a copy that follows");
    let both = format!("{},127.0.0.1:{primary}", standby.port());
    let url = cluster.database_url().replace(&primary, &both);
    let of_both = url.clone();
    let sound = cluster
        .add_replica_with(move |config| {
            config.database.database_url = of_both.into();
            // By default several of these pass until the new primary is noticed.
            config.head_check_interval = Duration::from_millis(500);
        })
        .await;
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("BESEDA_RATE_LIMITS", "off"),
        // Longer than the freeze, so that the replica does not give up before it reads the answer.
        ("BESEDA_DATABASE_TIMEOUT", "2m"),
        ("BESEDA_REQUEST_TIMEOUT", "3m"),
    ];
    let (program, frozen) = Program::join(&mut cluster, &settings).await;
    let process = Pid::from_raw(program.id().cast_signed());
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(sound).open_chat(&bob).await;
    let mut socket = bob.on(sound).connect(&chat).await;
    let kept = alice.on(sound).send(&chat, "kept").await;
    assert_eq!(socket.expect_message().await, kept);
    let copy = Psql::connect(&standby.url(cluster.database())).await;
    eventually(async || match copy.run("SELECT FROM messages").await.len() {
        1 => Ok(()),
        rows => Err(format!("{rows} messages")),
    })
    .await;
    standby.stop().await;

    // The replica is frozen after Postgres has committed and before it has read so.
    let body = json!({ "text": "lost", "client_msg_id": "lost" });
    let lock = Psql::connect(&cluster.database_url()).await;
    let (sending, committed) = loop {
        lock.run("BEGIN; SELECT FROM chats FOR NO KEY UPDATE").await;
        let (at, path, body) = (alice.on(frozen), chat.path("messages/"), body.clone());
        let sending = tokio::spawn(at.post(&path, body).within(FAILOVER * 2).into_future());
        let waiting = async || cluster.psql_value::<i64>(WAITING).await;
        let waits = eventually(async || match waiting().await {
            1 => Ok(true),
            _ if sending.is_finished() => Ok(false),
            count => Err(format!("{count} sends wait")),
        })
        .await;
        if !waits {
            // The send was refused: the machine is slow, or the last round has marked the chat as held.
            lock.run("ROLLBACK").await;
            assert_eq!(sending.await.expect("no panic").status, 503);
            continue;
        }
        kill(process, Signal::SIGSTOP).expect("it runs");
        lock.run("ROLLBACK").await;
        eventually(async || match waiting().await {
            0 => Ok(()),
            count => Err(format!("{count} sends wait")),
        })
        .await;
        if cluster.psql("SELECT FROM messages").await.len() == 2 {
            break (sending, Instant::now());
        }
        // The lock was released too late.
        kill(process, Signal::SIGCONT).expect("it is there");
        assert_eq!(sending.await.expect("no panic").status, 503);
    };
    tokio::task::block_in_place(|| cluster.stack().postgres.kill());
    standby.restart().await.expect("it serves reading");
    standby.promote().await.expect("it is the primary now");

    // How long this takes depends on the machine.
    let path = chat.path("messages/");
    eventually_within(FAILOVER, async || match alice.on(sound).get(&path).await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text),
    })
    .await;
    // Frames before it, if any, are of the old history.
    let reset = socket.wait_for("reset").await;
    assert_eq!(reset["head_ev"], kept["ev"]);
    socket.expect("synced").await;
    let unread = async || {
        let answer = bob.on(sound).get("/chats/unread/").await;
        if answer.status == 200 { Ok(answer.json["total"].clone()) } else { Err(answer.text) }
    };
    assert_eq!(eventually_within(FAILOVER, unread).await, 1);
    // No real failover is faster, and a replica does not doubt a younger answer.
    tokio::time::sleep(LATE.saturating_sub(committed.elapsed())).await;
    kill(process, Signal::SIGCONT).expect("it is there");
    // A replica publishes before it answers. The answer must not claim that the message is stored.
    let answer = sending.await.expect("no panic");
    assert_eq!((answer.status, &answer.json["code"]), (503, &json!("unavailable")), "{answer:?}");
    assert_eq!(unread().await, Ok(json!(1)));
    // The next message takes the number of the lost one.
    let message =
        stored(&alice.on(sound), &path, &json!({ "text": "true", "client_msg_id": "true" })).await;
    assert_eq!(message["ev"], kept["ev"].as_i64().expect("a number") + 1);
    assert_eq!(socket.expect_message().await, message);
    assert_eq!(unread().await, Ok(json!(2)));
    // A retry through the same replica stores the lost message.
    let retried = stored(&alice.on(frozen), &path, &body).await;
    assert_eq!(retried["seq"], 3);
    assert_eq!(socket.expect_message().await, retried);
    assert_eq!(unread().await, Ok(json!(3)));
    socket.close().await;
    drop(program);
    cluster.move_to(standby).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_outbox_is_not_deleted_for_one_of_another_history() {
    let cluster = Cluster::start(1).await;
    let store = cluster.store();
    cluster.psql("INSERT INTO outbox (chats, due_at) VALUES ('{}', 'infinity')").await;
    let id: i64 = cluster.psql_value("SELECT outbox_id FROM outbox").await;
    let rows = async || cluster.psql("SELECT FROM outbox").await.len();
    store.delete_outbox(&"before-00000001".into(), &[id]).await.expect("an answer");
    assert_eq!(rows().await, 1);
    let epoch = store.get_epoch().await.expect("an answer");
    store.delete_outbox(&epoch, &[id]).await.expect("an answer");
    assert_eq!(rows().await, 0);
}
