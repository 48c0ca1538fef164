//! Rate limits: per person, kind of request and replica.

use std::time::Duration;

use beseda::config::{Config, Switch};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::harness::{Answer, Cluster, Socket};

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
    // One a second: until all may come again, not only the next.
    assert_eq!(number(&refused, "ratelimit-reset"), BURST);
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

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_held_back_before_anybody_looks_at_its_tokens() {
    let mut cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.rate_addresses = 1;
    })
    .await;
    let garbage = cluster.user("alice").with_token("no token");
    let mut refused = None;
    for asked in 0..BURST * 3 {
        let answer = garbage.on(0).get("/chats/").await;
        if answer.status == 429 {
            assert!(asked >= BURST, "refused after {asked}");
            refused = Some(answer);
            break;
        }
        answer.expect_problem(401, "token_invalid");
    }
    let refused = refused.expect("a limit");
    assert_eq!(number(&refused, "ratelimit-limit"), BURST);
    assert_eq!(number(&refused, "ratelimit-remaining"), 0);
    assert!(number(&refused, "retry-after") <= 1);
    refused.expect_problem(429, "rate_limited");
    // A claim of another address changes nothing, unless a proxy of ours makes it.
    let claim = |replica: usize, claim: &str| {
        garbage.on(replica).get("/chats/").header("x-forwarded-for", claim).into_future()
    };
    let mut refusals = 0;
    for number in 0..BURST {
        refusals += u32::from(claim(0, &format!("198.51.100.{number}")).await.status == 429);
    }
    assert!(refusals > 0);
    let proxied = cluster
        .add_replica_with(|config| {
            config.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a range")];
        })
        .await;
    for number in 0..BURST * 2 {
        let answer = claim(proxied, &format!("198.51.100.{number}")).await;
        answer.expect_problem(401, "token_invalid");
    }
    let mut refusals = 0;
    for number in 0..BURST * 2 {
        // One network, and what the client says itself before it.
        let hops = format!("203.0.113.{number}, 2001:db8::{number}");
        refusals += u32::from(claim(proxied, &hops).await.status == 429);
    }
    assert!(refusals > 0);
    // Sockets are counted with requests.
    let url = format!("ws://{}/ws/", cluster.anyone(0).host());
    let mut last = 0;
    for _ in 0..BURST * 3 {
        let mut socket = Socket::open(&url).await;
        let quick = tokio::time::timeout(Duration::from_millis(200), socket.next_frame_or_close());
        if let Ok(Ok(bye)) = quick.await {
            assert_eq!((&bye["type"], &bye["code"]), (&json!("bye"), &json!(4204)));
            last = 4204;
            break;
        }
    }
    assert_eq!(last, 4204);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_have_so_many_places_for_an_address_and_in_all() {
    for in_all in [false, true] {
        let cluster = Cluster::with(1, |config| {
            config.limits.rate_limits = Switch::On;
            config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
            if in_all {
                config.limits.sockets = 2;
            } else {
                config.limits.sockets_per_address = 2;
            }
        })
        .await;
        let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
        let open = async |user: &crate::harness::User, from: &str| {
            let bearer = format!("Bearer {}", user.token);
            let headers = [("authorization", &*bearer), ("x-forwarded-for", from)];
            let url = format!("ws://{}/ws/", user.on(0).host());
            let mut socket = Socket::open_with(&url, &headers).await.expect("an upgrade");
            let first = socket.next_frame_or_close().await.expect("a frame");
            (first["type"].as_str().expect("a type").to_owned(), first["code"].clone(), socket)
        };
        let (first, _, mut kept) = open(&alice, "198.51.100.1").await;
        let (second, _, leaving) = open(&bob, "198.51.100.1").await;
        assert_eq!((&*first, &*second), ("hello", "hello"));
        let (third, code, mut refused) = open(&alice, "198.51.100.1").await;
        assert_eq!((&*third, &code), ("bye", &json!(4204)));
        refused.expect_close(4204).await;
        let (elsewhere, ..) = open(&alice, "198.51.100.2").await;
        assert_eq!(elsewhere, if in_all { "bye" } else { "hello" });
        kept.frames_so_far().await;
        // A socket that closes returns its permit.
        leaving.close().await;
        crate::harness::eventually(async || match open(&alice, "198.51.100.1").await {
            (kind, ..) if kind == "hello" => Ok(()),
            (kind, ..) => Err(kind),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_follows_and_says_so_much_and_no_more() {
    let cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.subscriptions_per_socket = 2;
        config.limits.rate_commands = 2;
    })
    .await;
    let alice = cluster.user("alice");
    let mut chats = Vec::new();
    for friend in ["bob", "carol", "dave"] {
        chats.push(alice.on(0).open_chat(&cluster.user(friend)).await);
    }
    let mut socket = alice.on(0).connect_many().await;
    let subscribe = |chat: &crate::harness::Chat| json!({ "type": "subscribe", "id": chat.id, "chat_id": chat.id });
    for chat in &chats[..2] {
        assert_eq!(socket.ask(subscribe(chat)).await["type"], "subscribed");
    }
    let refused = socket.ask(subscribe(&chats[2])).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("forbidden")));
    // Repeating a subscription does not count again, and an unsubscription frees one.
    assert_eq!(socket.ask(subscribe(&chats[0])).await["type"], "subscribed");
    let leave = json!({ "type": "unsubscribe", "id": 1, "chat_id": chats[0].id });
    assert_eq!(socket.ask(leave).await["type"], "ack");
    assert_eq!(socket.ask(subscribe(&chats[2])).await["type"], "subscribed");

    let (mut answered, mut refused) = (0, 0);
    for _ in 0..40 {
        socket.send(json!({ "type": "ping", "id": 7 })).await;
    }
    while answered + refused < 40 {
        let frame = socket.next_frame().await;
        match frame["type"].as_str() {
            Some("error") => {
                assert_eq!(frame["code"], "rate_limited");
                assert!(frame["retry_after_ms"].as_u64().is_some_and(|ms| ms <= 500), "{frame}");
                refused += 1;
            }
            Some("pong") => answered += 1,
            _ => {}
        }
    }
    // Twenty at once, six of which had been used, and what drips in.
    assert!((10..40).contains(&refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_goes_on_through_its_refusals_is_closed() {
    let cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.rate_commands = 1;
    })
    .await;
    let alice = cluster.user("alice");
    let ping = || Message::text(json!({ "type": "ping" }).to_string());
    let control = || Message::Ping(Vec::new().into());
    // Ten at once are taken, a hundred refused, and few drip in.
    let mut socket = alice.on(0).connect_many().await;
    for _ in 0..100 {
        socket.send_raw(ping()).await;
    }
    let (mut taken, mut refused) = (0, 0);
    while taken + refused < 100 {
        match socket.next_frame().await["type"].as_str() {
            Some("error") => refused += 1,
            Some("pong") => taken += 1,
            _ => {}
        }
    }
    assert!(taken >= BURST && refused > 0, "{taken} taken, {refused} refused");
    socket.close().await;
    for message in [ping, control] {
        let mut socket = alice.on(0).connect_many().await;
        // More than can drip in while they are sent.
        for _ in 0..400 {
            if socket.try_send_raw(message()).await.is_err() {
                break;
            }
        }
        let frames = socket.expect_close(4204).await;
        let refused = frames.iter().filter(|frame| frame["code"] == "rate_limited").count();
        assert!(refused <= 150, "{refused} refusals");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_whose_commands_are_wrong_again_and_again_is_closed() {
    let cluster = Cluster::with(1, |config| config.limits.rate_limits = Switch::On).await;
    let nowhere = json!({ "type": "subscribe", "id": 1, "chat_id": Uuid::nil() });
    let nonsense = json!({ "type": "nonsense", "id": 1 });
    for (command, code) in [(nowhere, "chat_not_found"), (nonsense, "validation_failed")] {
        let user = cluster.user(code);
        let mut socket = user.on(0).connect_many().await;
        // Within the rate of commands, and more than can drip in while they are sent.
        for _ in 0..400 {
            if socket.try_send_raw(Message::text(command.to_string())).await.is_err() {
                break;
            }
        }
        let frames = socket.expect_close(4204).await;
        let refused = frames.iter().filter(|frame| frame["code"] == code).count();
        assert!((100..200).contains(&refused), "{refused} times {code}");
        // The next one does not begin anew.
        let mut socket = user.on(0).connect_many().await;
        for _ in 0..50 {
            if socket.try_send_raw(Message::text(command.to_string())).await.is_err() {
                break;
            }
        }
        let frames = socket.expect_close(4204).await;
        let refused = frames.iter().filter(|frame| frame["code"] == code).count();
        assert!(refused < 50, "{refused} times {code}");
    }
}
