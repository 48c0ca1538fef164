//! Who gets in, and what the others are told.

use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use beseda::{auth::derive_key, config::Switch, context::OPENINGS};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, http::Response};
use uuid::Uuid;

use crate::harness::{Chat, Client, Cluster, Socket, claims, sign, sign_with};

/// Opens a path at a replica with these headers; nothing has been read.
async fn open(at: &Client, path: &str, headers: &[(&'static str, &str)]) -> Socket {
    let url = format!("ws://{}{path}", at.host());
    let opened = Socket::open_with(&url, headers).await;
    opened.unwrap_or_else(|answer| panic!("{url}: {answer:?}"))
}

/// The same with a token in the header.
async fn open_as(at: &Client, path: &str, token: &str) -> Socket {
    open(at, path, &[("authorization", &format!("Bearer {token}"))]).await
}

fn chat_path(chat: &Chat) -> String {
    format!("/ws/chat/{chat}/")
}

async fn expect_greeting(socket: &mut Socket) {
    for kind in ["hello", "subscribed", "synced"] {
        socket.expect(kind).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_socket_on_whichever_replica() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let url = bob.on(0).chat_url(&chat).await;
    assert!(!url.contains(&bob.token), "the token must not stand in a URL");
    let elsewhere = url.replace(&bob.on(0).host(), &bob.on(1).host());
    let mut socket = Socket::open(&elsewhere).await;
    expect_greeting(&mut socket).await;
    for again in [url, elsewhere] {
        assert_eq!(Socket::open(&again).await.expect_close(4102).await, [0_i64; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_what_it_was_given_for_and_nothing_else() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let one = alice.on(0).open_chat(&bob).await;
    let other = alice.on(0).open_chat(&carol).await;
    let at = alice.on(0);
    let ticket = async || {
        let given = at.get(&one.path("connect/")).await.expect(200);
        given["ticket"].as_str().expect("a ticket").to_owned()
    };
    let for_many = at.post("/connect/", json!({})).await.expect(200);
    let for_many = for_many["ticket"].as_str().expect("a ticket");
    for path in [
        format!("/ws/chat/{other}/?ticket={}", ticket().await),
        format!("/ws/?ticket={}", ticket().await),
        format!("/ws/chat/{one}/?ticket={for_many}"),
        format!("/ws/chat/{one}/?ticket={}", alice.token),
        format!("/ws/chat/{one}/?ticket=x"),
        format!("/ws/chat/{one}/?ticket="),
    ] {
        open(&at, &path, &[]).await.expect_close(4102).await;
    }
    // Nor is it a token.
    let with_ticket = alice.with_token(ticket().await);
    with_ticket.on(0).get("/chats/").await.expect_problem(401, "token_invalid");
}

/// A ticket as the replicas make them, with an end of one's own.
async fn ticket_until(cluster: &Cluster, user: &str, chat: &Chat, end: i64) -> String {
    let secret: String = cluster.psql_value("SELECT encode(secret, 'base64') FROM instance").await;
    let secret = BASE64_STANDARD.decode(secret.replace('\n', "")).expect("base64");
    let key = EncodingKey::from_secret(&derive_key(&secret, "tickets"));
    let (token_end, id) = (end + 3_600, Uuid::now_v7());
    let claims = json!({ "sub": user, "chat": chat.id, "jti": id, "aud": "ws", "exp": end, "tex": token_end });
    sign_with(Algorithm::HS256, &key, &claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_ticket_opens_nothing() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let now = claims("x")["exp"].as_i64().expect("a number") - 3_600;
    let path = async |end| {
        format!("/ws/chat/{chat}/?ticket={}", ticket_until(&cluster, "bob", &chat, end).await)
    };
    // The same with time left opens: it is the age that is refused.
    expect_greeting(&mut open(&bob.on(0), &path(now + 60).await, &[]).await).await;
    open(&bob.on(0), &path(now - 30).await, &[]).await.expect_close(4101).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_say_nothing_or_do_not_go_keep_nobody_waiting() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    let at = alice.on(0);
    let started = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..=OPENINGS {
        silent.push(open(&at, "/ws/", &[]).await);
        // Refused, and this client does not say goodbye before it is read from.
        silent.push(open_as(&at, "/ws/", "x").await);
    }
    open_as(&at, "/ws/", &alice.token).await.expect("hello").await;
    // They had five seconds: none of them had been given up yet.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for mut socket in silent {
        socket.expect_close(4102).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_header_opens_a_socket_and_a_bad_one_is_told_by_its_code() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let (at, path) = (bob.on(0), chat_path(&chat));
    expect_greeting(&mut open_as(&at, &path, &bob.token).await).await;
    open_as(&at, "/ws/", &bob.token).await.expect("hello").await;

    let mut old = claims("bob");
    old["exp"] = 1_000_000_000.into();
    let other_key = EncodingKey::from_secret(b"another secret of at least 32 bytes");
    let forged = sign_with(Algorithm::HS256, &other_key, &claims("bob"));
    for path in [path.as_str(), "/ws/"] {
        open_as(&at, path, &sign(&old)).await.expect_close(4101).await;
        open_as(&at, path, &forged).await.expect_close(4102).await;
        open_as(&at, path, "x").await.expect_close(4102).await;
        open(&at, path, &[("authorization", "Basic Ym9iOng=")]).await.expect_close(4102).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_frame_says_who_it_is() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let auth = |token: &str| json!({ "type": "auth", "id": 1, "token": token });
    for (path, kinds) in [
        (chat_path(&chat), &["hello", "ack", "subscribed", "synced"][..]),
        ("/ws/".into(), &["hello", "ack"]),
    ] {
        let mut socket = open(&bob.on(0), &path, &[]).await;
        socket.send(auth(&bob.token)).await;
        for kind in kinds {
            socket.expect(kind).await;
        }
        // Its position counts all the same.
        assert_eq!(socket.frames_so_far().await, [0_i64; 0]);
    }
    let path = chat_path(&chat);
    let mut expired = claims("bob");
    expired["exp"] = 1_000_000_000.into();
    for (frame, code) in [
        (Message::text(auth("x").to_string()), 4102),
        (Message::text(auth(&sign(&expired)).to_string()), 4101),
        (Message::text(json!({ "type": "auth" }).to_string()), 4102),
        (Message::text(json!({ "type": "ping" }).to_string()), 4102),
        (Message::text(json!({ "type": "send", "text": "x" }).to_string()), 4102),
        (Message::text("auth please"), 4000),
        (Message::binary(auth(&bob.token).to_string()), 4000),
    ] {
        let mut socket = open(&bob.on(0), &path, &[]).await;
        socket.send_raw(frame).await;
        assert_eq!(socket.expect_close(code).await, [0_i64; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_who_it_is_has_five_seconds() {
    let cluster = Cluster::start(1).await;
    let bob = cluster.user("bob");
    let began = Instant::now();
    let mut socket = open(&bob.on(0), "/ws/", &[]).await;
    assert_eq!(socket.expect_close(4102).await, [0_i64; 0]);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(4_900), "closed after {took:?}");
    assert!(took < Duration::from_secs(9), "closed after {took:?}");
}

fn problem(answer: &Response<Option<Vec<u8>>>) -> Value {
    let body = answer.body().as_deref().unwrap_or_default();
    serde_json::from_slice(body).unwrap_or_else(|_| panic!("{answer:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_refused_before_the_upgrade() {
    let mut cluster = Cluster::start(1).await;
    let listing = cluster
        .add_replica_with(|config| {
            config.allowed_origins = vec!["https://app.example".parse().expect("an origin")]
        })
        .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let open = async |replica: usize, path: &str, origin: &str| {
        let url = format!("ws://{}{path}", bob.on(replica).host());
        let bearer = format!("Bearer {}", bob.token);
        Socket::open_with(&url, &[("authorization", &bearer), ("origin", origin)]).await
    };
    let own = format!("http://{}", bob.on(0).host());
    for path in [chat_path(&chat), "/ws/".to_owned()] {
        open(0, &path, &own).await.expect("its own page").expect("hello").await;
        let listed = open(listing, &path, "https://app.example").await;
        listed.expect("a listed page").expect("hello").await;
        for (replica, origin) in [
            (0, "https://evil.example"),
            (0, "null"),
            (0, "http://127.0.0.1:1"),
            (listing, "https://evil.example"),
            (listing, "https://app.example.evil.example"),
            (listing, "null"),
        ] {
            let refused = open(replica, &path, origin).await.expect_err(origin);
            assert_eq!(refused.status(), 403, "{origin}");
            assert_eq!(problem(&refused)["code"], "forbidden", "{origin}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subprotocol_is_echoed_where_offered() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let answered = async |offer: Option<&str>| {
        let url = bob.on(0).chat_url(&chat).await;
        let offer = offer.map(|offer| ("sec-websocket-protocol", offer));
        let mut socket = Socket::open_with(&url, offer.as_slice()).await.expect("an upgrade");
        socket.expect("hello").await;
        let header = socket.upgrade.headers().get("sec-websocket-protocol").cloned();
        header.map(|value| value.to_str().expect("ASCII").to_owned())
    };
    assert_eq!(answered(None).await, None);
    assert_eq!(answered(Some("chat.v1")).await.as_deref(), Some("chat.v1"));
    assert_eq!(answered(Some("chat.v2, chat.v1")).await.as_deref(), Some("chat.v1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_of_others_and_chats_that_never_were_look_alike() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = alice.on(0).open_chat(&bob).await;
    let host = cluster.host();
    for (who, name) in [
        (&carol, chat.id.clone()),
        (&carol, chat.room_name.clone()),
        (&host, chat.id.clone()),
        (&carol, Uuid::now_v7().to_string()),
        (&carol, "A".repeat(22)),
        (&carol, "no-chat".to_owned()),
        (&carol, "%FF".to_owned()),
    ] {
        let path = format!("/ws/chat/{name}/");
        let mut socket = open_as(&who.on(0), &path, &who.token).await;
        assert_eq!(socket.expect_close(4004).await, [0_i64; 0], "{name}");
    }
    carol.on(0).get(&chat.path("connect/")).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_may_name_the_chat_and_miss_its_slash() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for path in
        [format!("/ws/chat/{}/", chat.room_name), format!("/ws/chat/{chat}"), "/ws".to_owned()]
    {
        open_as(&bob.on(0), &path, &bob.token).await.expect("hello").await;
    }
    let plain = bob.on(0).request(Method::GET, "/ws/").await;
    plain.expect_problem(400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_too_many_is_closed_and_the_others_stay() {
    let cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.sockets_per_user = 2;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut first = bob.on(0).connect(&chat).await;
    let second = bob.on(0).connect_many().await;
    open_as(&bob.on(0), "/ws/", &bob.token).await.expect_close(4009).await;
    open_as(&bob.on(0), &chat_path(&chat), &bob.token).await.expect_close(4009).await;
    let sent = alice.on(0).send(&chat, "still here").await;
    assert_eq!(first.expect_message().await, sent);
    // Other users' sockets are counted separately, and a closed socket returns its permit.
    alice.on(0).connect(&chat).await;
    second.close().await;
    crate::harness::eventually(async || {
        let mut socket = open_as(&bob.on(0), "/ws/", &bob.token).await;
        let frame = socket.next_frame_or_close().await;
        frame.map(|_| ()).map_err(|code| code.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_come_too_fast_are_told_to_back_off() {
    let cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.rate_connects = 1;
    })
    .await;
    let bob = cluster.user("bob");
    // Ten seconds' worth may come at once.
    let mut refused = None;
    for _ in 0..20 {
        let mut socket = open_as(&bob.on(0), "/ws/", &bob.token).await;
        match socket.next_frame_or_close().await {
            Ok(frame) if frame["type"] == "hello" => {}
            other => {
                refused = Some((other, socket));
                break;
            }
        }
    }
    let (bye, mut socket) = refused.expect("the eleventh or one soon after");
    let bye = bye.expect("a word before the close");
    assert_eq!((&bye["type"], &bye["code"]), (&json!("bye"), &json!(4204)));
    assert!(bye["reconnect_in_ms"].as_u64().is_some_and(|ms| ms > 0), "{bye}");
    socket.expect_close(4204).await;
}
