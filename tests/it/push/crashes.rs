//! A replica ends between a provider's acknowledgement and its note: nothing is lost, and what was noted is not
//! sent again.

use super::{all_is_decided, provider::Provider, register};
use crate::harness::{Cluster, Program, eventually};

/// Holds what would note an acknowledgement.
const HOLD: &str = "BEGIN; SELECT FROM push_lanes FOR UPDATE";

/// What waits for that is broken off: Postgres would do it even for a client that is gone.
const BREAK_OFF: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted; COMMIT";

/// Whoever may take a lane takes it: leases are over.
const LEASES_END: &str = "UPDATE push_lanes SET due_at = clock_timestamp()";

/// So many have come, and the last one was acknowledged.
async fn acknowledged(provider: &Provider, count: usize) {
    provider.open(true);
    eventually(async || match &provider.pushes()[..] {
        pushes if pushes.len() == count && pushes[count - 1].answered.is_some() => Ok(()),
        pushes => Err(format!("{pushes:#?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_notes_what_was_acknowledged() {
    let provider = Provider::start().await;
    let mut cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    let chat = alice.on(0).open_chat(&bob).await;
    provider.open(false);
    alice.on(0).send(&chat, "once").await;
    provider.expect(1).await;
    cluster.psql(HOLD).await;
    acknowledged(&provider, 1).await;
    cluster.until_one_waits().await;
    let draining = tokio::spawn(cluster.drain(0));
    // The note fails, and is tried again a second later.
    cluster.psql(BREAK_OFF).await;
    draining.await.expect("it ends");
    let next = cluster.add_replica().await;
    cluster.psql(LEASES_END).await;
    all_is_decided(&cluster).await;
    assert_eq!(provider.pushes().len(), 1, "{:#?}", provider.pushes());
    alice.on(next).get("/chats/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_replica_had_not_noted_is_sent_once_more_and_what_it_had_noted_is_not() {
    let provider = Provider::start().await;
    let mut cluster = Cluster::with(1, provider.settings()).await;
    let mut settings = provider.variables().to_vec();
    let more = [("BESEDA_PUSH_DELAY", "50ms"), ("BESEDA_PUSH_ALLOW_PRIVATE", "on")];
    settings.extend(more.map(|(name, value)| (name, value.to_owned())));
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (program, doomed) = Program::join(&mut cluster, &settings).await;
    cluster.drain(0).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, doomed, "b", provider.subscription("b")).await;
    let chat = alice.on(doomed).open_chat(&bob).await;
    alice.on(doomed).send(&chat, "noted").await;
    provider.expect(1).await;
    all_is_decided(&cluster).await;
    provider.open(false);
    alice.on(doomed).send(&chat, "cut off").await;
    provider.expect(2).await;
    cluster.psql(HOLD).await;
    acknowledged(&provider, 2).await;
    cluster.until_one_waits().await;
    drop(program);
    cluster.psql(BREAK_OFF).await;
    let next = cluster.add_replica().await;
    cluster.psql(LEASES_END).await;
    provider.expect(3).await;
    all_is_decided(&cluster).await;
    cluster.psql(LEASES_END).await;
    all_is_decided(&cluster).await;
    let texts: Vec<_> = provider.pushes().iter().map(|push| push.json["text"].clone()).collect();
    assert_eq!(texts, ["noted", "cut off", "cut off"]);
    bob.on(next).mark_read(&chat).await;
    all_is_decided(&cluster).await;
    assert_eq!(provider.pushes().len(), 4);
}
