//! What happens between two steps of a push: its note keeps nothing that is true no more, and loses nothing.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{all_is_decided, provider::Provider, register};
use crate::harness::{CEILING, Cluster, Psql, claims, eventually, now};

/// All that was published is noted for push, too.
async fn all_is_noted(cluster: &Cluster) {
    eventually(async || match cluster.psql_value::<i64>("SELECT count(*) FROM outbox").await {
        0 => Ok(()),
        rows => Err(format!("{rows} rows of the outbox")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_while_its_push_is_on_its_way_is_taken_back() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(2, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    let chat = alice.on(0).open_chat(&bob).await;
    provider.open(false);
    alice.on(0).send(&chat, "on its way").await;
    provider.expect(1).await;
    bob.on(1).mark_read(&chat).await;
    all_is_noted(&cluster).await;
    provider.open(true);
    let last = provider.expect(2).await.remove(1);
    assert_eq!((&last.json["type"], &last.json["badge"]), (&json!("read"), &json!(0)));
    all_is_decided(&cluster).await;
    assert_eq!(provider.pushes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_registered_while_it_is_dropped_is_told_all_the_same() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, 0, "b", provider.subscription("old")).await;
    // As a replica does whose push was answered that the device is gone.
    let other = Psql::connect(&cluster.database_url()).await;
    other.run("BEGIN; SELECT FROM push_lanes WHERE user_id = 'bob' FOR NO KEY UPDATE").await;
    let (client, new) = (bob.on(0), provider.subscription("new"));
    let registering = tokio::spawn(async move { client.put("/devices/b/", new).await });
    cluster.until_one_waits().await;
    other.run("SELECT drop_device('bob', 'b'); COMMIT").await;
    registering.await.expect("no panic").expect(200);
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "there?").await;
    let told = provider.expect(1).await.remove(0);
    assert_eq!((&*told.path, &told.json["text"]), ("/push/new", &json!("there?")));
    all_is_decided(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_began_before_all_tokens_were_revoked_leaves_no_device() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let mut claims = claims("alice");
    claims["iat"] = (now() - 60).into();
    let (alice, host) = (cluster.user_claiming(&claims), cluster.host());
    alice.on(0).get("/devices/").await.expect(200);
    let body = json!({ "platform": "fcm", "token": "t", "preview": true }).to_string();
    let mut stream = TcpStream::connect(alice.on(0).host()).await.expect("the replica listens");
    let head = format!(
        "PUT /api/v1/devices/x/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        alice.token,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("taken");
    // The call is admitted: its body is asked for.
    let mut asked = [0; 12];
    let reading = timeout(CEILING, stream.read_exact(&mut asked)).await;
    reading.expect("an answer in time").expect("an answer");
    assert_eq!(&asked, b"HTTP/1.1 100");
    host.on(0).post("/users/alice/revoke_tokens/", json!({})).await.expect(204);
    stream.write_all(body.as_bytes()).await.expect("taken");
    let mut answer = String::new();
    let reading = timeout(CEILING, stream.read_to_string(&mut answer)).await;
    reading.expect("an end in time").expect("all of it");
    assert!(answer.contains("HTTP/1.1 401") && answer.contains("token_invalid"), "{answer}");
    assert_eq!(cluster.psql_value::<i64>("SELECT count(*) FROM devices").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_that_is_noted_late_takes_nothing_back_that_was_told_since() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    let chat = alice.on(0).open_chat(&bob).await;
    for text in ["one", "two"] {
        alice.on(0).send(&chat, text).await;
        all_is_decided(&cluster).await;
    }
    // As a replica does that stood still for longer than its lease, after it had withdrawn the first one.
    let late = format!(
        "SELECT settle_push('{{bob}}', '{{b}}', '{{0}}', '{{withdrawn}}', '{{{}}}', '{{1}}', '{{0}}',
                            '{{NULL}}', '{{NULL}}', '{{NULL}}', '{{true}}', '1 s')",
        chat.id
    );
    cluster.psql(&late).await;
    // The second one is still shown, so it is taken back.
    bob.on(0).mark_read(&chat).await;
    all_is_decided(&cluster).await;
    let kinds: Vec<_> = provider.pushes().iter().map(|push| push.json["type"].clone()).collect();
    assert_eq!(kinds, ["message", "message", "read"]);
}
