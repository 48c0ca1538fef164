//! Rate limits: per person, kind of request and replica.

use beseda::config::{Config, Switch};
use serde_json::json;

use crate::harness::{Answer, Cluster};

/// One request a second of each kind, and so ten at once.
fn strict(config: &mut Config) {
    config.limits.rate_limits = Switch::On;
    config.limits.rate_sends = 1;
    config.limits.rate_reads = 1;
    config.limits.rate_rooms = 1;
    config.limits.rate_searches = 1;
    config.limits.rate_connects = 1;
}

const BURST: u64 = 10;

fn number(answer: &Answer, header: &str) -> u64 {
    let value = answer.header(header).unwrap_or_else(|| panic!("no {header}: {answer:?}"));
    value.parse().unwrap_or_else(|_| panic!("{header}: {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn past_a_burst_one_person_waits_for_that_kind_of_request_only() {
    let cluster = Cluster::with(2, strict).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let send = |replica: usize| {
        alice.on(replica).post(&chat.path("messages/"), json!({ "text": "x" })).into_future()
    };
    let mut refused = None;
    // As many as the bucket holds, and what drips into it meanwhile.
    for sent in 0..BURST * 3 {
        let answer = send(0).await;
        assert_eq!(number(&answer, "ratelimit-limit"), BURST);
        if answer.status == 429 {
            assert!(sent >= BURST, "refused after {sent}");
            refused = Some(answer);
            break;
        }
        assert!(number(&answer, "ratelimit-remaining") < BURST);
        assert!(number(&answer, "ratelimit-reset") <= BURST);
        answer.expect(201);
    }
    let refused = refused.expect("a limit");
    assert_eq!(number(&refused, "ratelimit-remaining"), 0);
    let wait = number(&refused, "retry-after");
    let problem = refused.expect_problem(429, "rate_limited");
    let exact = problem["retry_after_ms"].as_u64().expect("checked");
    assert!(wait == 1 && exact <= 1_000, "{wait} s, {exact} ms");

    // Other kinds of requests, other people, other replicas.
    alice.on(0).get("/chats/").await.expect(200);
    alice.on(0).get(&chat.path("search/?query=x")).await.expect(200);
    alice.on(0).get(&chat.path("connect/")).await.expect(200);
    bob.on(0).send(&chat, "from bob").await;
    send(1).await.expect(201);

    // Who waits as told, comes through.
    let sent = crate::harness::eventually(async || match send(0).await {
        answer if answer.status == 201 => Ok(answer.json),
        answer => Err(answer.text),
    })
    .await;
    assert_eq!(sent["text"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_request_has_its_limit_and_the_host_application_none() {
    let cluster = Cluster::with(1, strict).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let here = alice.on(0);
    let kinds: [(&str, &dyn Fn() -> crate::harness::Request); 5] = [
        ("sends", &|| here.post(&chat.path("mark_read/"), json!({}))),
        ("reads", &|| here.get("/chats/unread/")),
        ("rooms", &|| here.post("/chats/", json!({ "user_id": "bob" }))),
        ("searches", &|| here.get(&chat.path("search/?query=x"))),
        ("connects", &|| here.post("/connect/", json!({}))),
    ];
    for (kind, request) in kinds {
        let mut refused = false;
        for _ in 0..BURST * 3 {
            refused |= request().await.status == 429;
        }
        assert!(refused, "{kind}");
    }
    for _ in 0..BURST * 2 {
        let answer = host.on(0).get("/users/alice/").await;
        assert_eq!(answer.header("ratelimit-limit"), None);
        answer.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_retry_is_safe_to_retry() {
    let cluster = Cluster::with(1, strict).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "once", "client_msg_id": "k" });
    for _ in 0..BURST * 2 {
        let answer = alice.on(0).post(&chat.path("messages/"), body.clone()).await;
        assert!(matches!(answer.status, 200 | 201 | 429), "{}", answer.text);
    }
    assert_eq!(bob.on(0).history(&chat, "").await["head_seq"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn off_means_off() {
    let cluster = Cluster::with(1, |config| {
        strict(config);
        config.limits.rate_limits = Switch::Off;
    })
    .await;
    let alice = cluster.user("alice");
    for _ in 0..BURST * 5 {
        let answer = alice.on(0).get("/chats/").await;
        assert_eq!(answer.header("ratelimit-limit"), None);
        answer.expect(200);
    }
}
