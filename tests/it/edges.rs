//! Input as other programs write it: hosts, origins, versions, and odd values at every route.

use std::process::Command;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use beseda::config::Config;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Chat, Cluster, Reply, SECRET, Socket, User, claims, eventually, sign},
    problems::raw,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_one_host_that_can_be_one() {
    let cluster = Cluster::start(1).await;
    let status = async |head: &str| {
        let answer = raw(&cluster.anyone(0), &format!("{head}\r\n\r\n")).await;
        let status = answer["HTTP/1.1 ".len()..].split(' ').next().expect("a status").to_owned();
        if status == "400" {
            assert!(answer.contains("application/problem+json"), "{answer}");
            assert!(answer.contains("\"invalid_request\""), "{answer}");
        }
        status
    };
    for host in ["x", "Chat.Example:443", "x:", "127.0.0.1", "[::1]:80", "my_service.1"] {
        let head = format!("GET /healthz HTTP/1.1\r\nHost: {host}");
        assert_eq!(status(&head).await, "200", "{host}");
    }
    assert_eq!(status("GET /healthz HTTP/1.0").await, "200");
    // The target's host takes precedence over the header's.
    assert_eq!(status("GET http://y/healthz HTTP/1.1\r\nHost: x").await, "200");
    for head in [
        "GET /healthz HTTP/1.1",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: x",
        "GET /healthz HTTP/1.0\r\nHost: x\r\nHost: x",
        "GET /nothing HTTP/1.1",
        "GET http://y/healthz HTTP/1.1",
    ] {
        assert_eq!(status(head).await, "400", "{head}");
    }
    for host in ["", "a b", "a/b", "me@x", "a:b", "a:80:80", "[::1", "http://x", "a, b", "чат.рф"]
    {
        let head = format!("GET /healthz HTTP/1.1\r\nHost: {host}");
        assert_eq!(status(&head).await, "400", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_decides_who_asks_and_what_for_is_there_once() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let send = |headers: &str| {
        let (path, token) = (chat.path("messages/"), &alice.token);
        let request = format!(
            "POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{{\"text\":\"x\"}}"
        );
        let here = alice.on(0);
        async move { raw(&here, &request).await }
    };
    assert!(send("Idempotency-Key: a\r\n").await.starts_with("HTTP/1.1 201 "));
    for doubled in [
        "Idempotency-Key: a\r\nIdempotency-Key: b\r\n".to_owned(),
        format!("Authorization: Bearer {}\r\n", bob.token),
    ] {
        let answer = send(&doubled).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\"invalid_request\""), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_another_version_is_told_which_one_is_known() {
    let cluster = Cluster::start(1).await;
    for version in ["Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 14\r\n", ""] {
        let answer = raw(
            &cluster.anyone(0),
            &format!(
                "GET /ws/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 {version}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nsec-websocket-version: 13\r\n"), "{answer}");
        assert!(answer.contains("\"invalid_request\""), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_before_they_send_too_much_is_told_so_at_once() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let ask = async |length: usize| {
        let path = chat.path("messages/");
        let token = &alice.token;
        raw(
            &alice.on(0),
            &format!(
                "POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\
                 Expect: 100-continue\r\n\r\n"
            ),
        )
        .await
    };
    assert!(ask(64 * 1024).await.starts_with("HTTP/1.1 100 "));
    let refused = ask(64 * 1024 + 1).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert!(refused.contains("\"payload_too_large\""), "{refused}");
}

/// Tells whether a socket opens on a replica with these headers, of which `origin` names a page.
async fn opens(user: &User, replica: usize, headers: &[(&'static str, &str)]) -> bool {
    let url = format!("ws://{}/ws/", user.on(replica).host());
    let bearer = format!("Bearer {}", user.token);
    let mut all = vec![("authorization", &*bearer)];
    all.extend(headers);
    match Socket::open_with(&url, &all).await {
        Ok(mut socket) => {
            socket.expect("hello").await;
            true
        }
        Err(answer) => {
            assert_eq!(answer.status(), 403, "{headers:?}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_origin_is_allowed_however_it_is_written_for_sockets_and_for_the_api() {
    let cluster = Cluster::with(1, |config| {
        let written = [
            "https://a.example/",
            " HTTPS://B.Example:443",
            "https://чат.рф",
            "http://c.example:80/",
        ];
        config.allowed_origins = written.map(|it| it.parse().expect("an origin")).into();
    })
    .await;
    let alice = cluster.user("alice");
    let allowed = [
        "https://a.example",
        "https://b.example",
        "https://xn--80a0bn.xn--p1ai",
        "http://c.example",
    ];
    let foreign = [
        "http://a.example",
        "https://a.example:8443",
        "https://a.example.evil.example",
        "https://evil.example",
        "https://c.example",
        "null",
    ];
    for (origin, may) in
        allowed.map(|origin| (origin, true)).into_iter().chain(foreign.map(|it| (it, false)))
    {
        assert_eq!(opens(&alice, 0, &[("origin", origin)]).await, may, "{origin}");
        let answer = alice.on(0).get("/chats/").header("origin", origin).await;
        let told = answer.header("access-control-allow-origin");
        assert_eq!(told, may.then_some(origin));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn origins_that_cannot_be_meant_keep_a_replica_from_starting_and_say_why() {
    let started = |setting: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
        // Neither server is contacted: settings are checked first.
        let needed = [
            ("BESEDA_DATABASE_WAIT", "0s"),
            ("DATABASE_URL", "postgresql://127.0.0.1:1/x"),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("BESEDA_JWT_HS256_SECRET", SECRET),
        ];
        command.arg("serve").env_clear().envs(needed).env(setting, value);
        let output = command.output().expect("the program runs");
        assert!(!output.status.success(), "{value}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (value, reason) in [
        ("*", "`*` is no origin"),
        ("https://a.example,*", "`*` is no origin"),
        ("https://*.example", "`*`"),
        ("null", "`null`"),
        ("a.example", "a scheme"),
        ("https://a.example/chat", "no path"),
        ("wss://a.example", "no page"),
    ] {
        let told = started("BESEDA_ALLOWED_ORIGINS", value);
        assert!(told.contains(reason) && !told.contains("panicked"), "{value}: {told}");
    }
    for (value, reason) in [
        ("https://chat.example/path", "no path"),
        ("chat.example", "a scheme"),
        ("ftp://chat.example", "must be http:// or https://"),
    ] {
        let told = started("BESEDA_PUBLIC_URL", value);
        assert!(told.contains(reason), "{value}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_at_home_whatever_the_case_and_the_port_of_its_host() {
    let mut cluster = Cluster::start(1).await;
    let ours = "::ffff:127.0.0.1".parse().expect("an address");
    let proxied = cluster.add_replica_with(|config| config.trusted_proxies = vec![ours]).await;
    let alice = cluster.user("alice");
    for (origin, host, may) in [
        ("https://chat.example", "chat.example", true),
        ("https://chat.example", "chat.example:443", true),
        ("http://chat.example", "chat.example:80", true),
        ("https://chat.example", "Chat.Example", true),
        ("http://chat.example:8080", "CHAT.example:8080", true),
        ("https://chat.example:8443", "chat.example", false),
        ("https://chat.example", "chat.example:8443", false),
        ("https://evil.example", "chat.example", false),
    ] {
        let told = [("origin", origin), ("x-forwarded-host", host)];
        assert_eq!(opens(&alice, proxied, &told).await, may, "{origin} {host}");
        let said = opens(&alice, 0, &[("origin", origin), ("host", host)]).await;
        assert_eq!(said, may, "{origin} {host}");
    }
    let url = async |scheme: &str| {
        let request = alice.on(proxied).request(Method::POST, "/api/v1/connect/");
        let request = request.header("x-forwarded-host", "Chat.Example:443");
        let told = request.header("x-forwarded-proto", scheme).await.expect(200);
        let url = told["ws_url"].as_str().expect("a URL").to_owned();
        url.split("/ws/").next().expect("a first part").to_owned()
    };
    for scheme in ["https", "HTTPS", "Https, http", "wss"] {
        assert_eq!(url(scheme).await, "wss://chat.example", "{scheme}");
    }
    assert_eq!(url("http").await, "ws://chat.example:443");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_costs_postgres_a_few_statements_a_second_however_many_ask() {
    let cluster = Cluster::start(1).await;
    let before = cluster.statements(0, "store.applied_migrations").await;
    let began = std::time::Instant::now();
    let asking = (0..300).map(async |_| {
        cluster.anyone(0).request(Method::GET, "/readyz").await.expect(200);
    });
    futures_util::future::join_all(asking).await;
    // The same for requests one after another.
    for _ in 0..30 {
        cluster.anyone(0).request(Method::GET, "/readyz").await.expect(200);
    }
    let asked = cluster.statements(0, "store.applied_migrations").await - before;
    let most = 8 * (2 + began.elapsed().as_secs());
    assert!((1..=most).contains(&asked), "{asked} of at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn installations_on_two_databases_of_one_redis_do_not_hear_each_other() {
    // The harness compares what is in Redis under its own prefix, in database 0.
    let prefix = format!("shared-{:016x}:", std::process::id());
    let on = |number: u8| {
        let prefix = prefix.clone();
        move |config: &mut Config| {
            config.redis_prefix = prefix;
            config.redis_url = format!("{}/{number}", config.redis_url.expose()).into();
        }
    };
    let (one, other) = (Cluster::with(2, on(1)).await, Cluster::with(2, on(2)).await);
    let (alice, bob) = (other.user("alice"), other.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    // The channel that all replicas of an installation listen to is there twice, with two of them each.
    let mut redis = one.redis().await;
    eventually(async || {
        let pattern = format!("{prefix}*");
        let names = redis.command(&["PUBSUB", "CHANNELS", &pattern]).await.list();
        let names: Vec<String> = names.into_iter().map(Reply::text).collect();
        let words = ["PUBSUB", "NUMSUB"].into_iter().chain(names.iter().map(String::as_str));
        let heard = redis.command(&words.collect::<Vec<_>>()).await.list();
        match heard.iter().filter(|reply| **reply == Reply::Int(2)).count() {
            2 => Ok(()),
            _ => Err(format!("{heard:?}")),
        }
    })
    .await;
    // Another installation erases a user of the same id, then another replica of this one does.
    one.host().on(0).put("/users/bob/", json!({})).await.expect(201);
    one.host().on(0).delete("/users/bob/").await.expect(204);
    let sent = alice.on(0).send(&chat, "still here").await;
    assert_eq!(socket.expect_message().await, sent);
    assert_eq!(socket.frames_so_far().await, [0_i64; 0]);
    other.host().on(0).delete("/users/bob/").await.expect(204);
    socket.expect_close(4006).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_only_decorate_lock_nobody_out() {
    use aws_lc_rs::hmac;
    let cluster = Cluster::start(1).await;
    let end = claims("x")["exp"].as_u64().expect("a number");
    // Signed by hand, as no library here would write such JSON.
    let signed = |claims: &str| {
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let unsigned = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        format!("{unsigned}.{}", encode(hmac::sign(&key, unsigned.as_bytes()).as_ref()))
    };
    for (index, decoration) in [
        r#""name":"Anna \ud83d""#,
        r#""name":"\udc00 Anna","picture":"https://x/\ud800""#,
        r#""name":7,"picture":[1,{"a":null}]"#,
        r#""name":"a","name":"b""#,
        r#""name":"a\u0000b""#,
        r#""scope":"\ud83d","iat":"yesterday""#,
        r#""iat":-300000000000"#,
        r#""iat":1e300"#,
        r#""anything":"\ud83d","n":1e999"#,
    ]
    .iter()
    .enumerate()
    {
        let id = format!("user-{index}");
        let token = signed(&format!(r#"{{"sub":"{id}","exp":{end},{decoration}}}"#));
        let user = cluster.user(&id).with_token(token);
        user.on(0).get("/chats/").await.expect(200);
        let known = user.on(0).get(&format!("/users/{id}/")).await.expect(200);
        let name = if decoration.contains(r#""b""#) { json!("b") } else { json!(null) };
        assert_eq!(known["name"], name, "{decoration}");
    }
    // Faults in the other claims still count.
    for claims in [format!(r#"{{"sub":"a\ud83d","exp":{end}}}"#), r#"{"sub":"a"}"#.to_owned()] {
        let nobody = cluster.user("a").with_token(signed(&claims));
        nobody.on(0).get("/chats/").await.expect_problem(401, "token_invalid");
    }
}

/// Values that have broken other programs. `..` is missing because this client would resolve it.
const ODD: &[&str] = &[
    "0",
    "-1",
    "1.5",
    "1e3",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "9007199254740993",
    "NaN",
    "null",
    "%00",
    "%FF",
    "%2F",
    "%5C",
    "'",
    "%F0%9F%98%80",
    "%EF%BF%BF",
    "$1",
    "{}",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "AAAAAAAAAAAAAAAAAAAAAA",
    "%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6",
];

/// Cursors outside the years that Postgres knows, and at the ends of the integer's range.
fn odd_cursors() -> Vec<String> {
    let moments = [i64::MIN, -377_705_023_201_000_000, -210_866_803_200_000_001, -1, 0, i64::MAX];
    let year_9999 = 253_402_207_200_999_999;
    let cursor = |micros: i64| {
        let mut bytes = micros.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0xff; 16]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    };
    moments.into_iter().chain([year_9999]).map(cursor).collect()
}

fn odd_bodies() -> Vec<String> {
    let mut bodies = vec![
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "{".to_owned(),
        format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)),
        format!(r#"{{"text":"x","metadata":{}1{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200)),
        r#"{"users":[{"user_id":"a"},{"user_id":"a","name":"b"},{"user_id":"."}]}"#.to_owned(),
        r#"{"user_ids":["a","a"]}"#.to_owned(),
    ];
    let values = [
        "null",
        "0",
        "-0",
        "1e400",
        "-1",
        "1.5",
        "9223372036854775807",
        "9223372036854775808",
        "100000000000000000000000000000000000000001",
        "true",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud83d\"",
        "\"\\uffff\\ufffe\"",
        "\"\\u001f\"",
        "\"..\"",
        "\"%\"",
        "\"9223372036854775808\"",
        "[]",
        "[null]",
        "{}",
        "{\"\":\"\\u0000\"}",
        "{\"a\":1e308,\"a\":1e-999}",
        "[\"a\",\"\\u0000\"]",
        "[{\"user_id\":\"\\u0000\",\"name\":\"\\u0000\"}]",
    ];
    for value in values {
        bodies.push(format!(r#"{{"text":"x","metadata":{value},"client_msg_id":{value}}}"#));
        bodies.push(format!(
            r#"{{"text":{value},"user_id":{value},"user_ids":{value},"users":{value},"name":{value},
                "avatar_url":{value},"room_name":{value},"up_to_seq":{value},"reason":{value}}}"#
        ));
        bodies.push(format!(r#"{{"up_to_seq":{value}}}"#));
        bodies.push(format!(r#"{{"room_name":{value}}}"#));
        bodies.push(format!(r#"{{"user_id":{value}}}"#));
        bodies.push(format!(r#"{{"reason":{value}}}"#));
        bodies.push(format!(r#"{{"text":"x","client_msg_id":{value}}}"#));
        bodies.push(format!(r#"{{"text":"x","metadata":{{"n":{value}}}}}"#));
    }
    bodies
}

/// Fills in a route's parameters: with `real` where that gives a value, else with `odd`.
fn fill(route: &str, odd: &str, real: &dyn Fn(&str) -> Option<String>) -> String {
    let parts = route.split('/').map(|part| {
        let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        name.map_or_else(|| part.to_owned(), |name| real(name).unwrap_or_else(|| odd.to_owned()))
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Lists every route that takes a token, from the document that the code generates.
fn routes() -> Vec<(Method, String)> {
    let document: Value = serde_json::from_str(&beseda::api::openapi_json()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("an object").keys();
        methods
            .filter_map(move |method| Some((method.to_uppercase().parse().ok()?, path.to_owned())))
    });
    let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    operations.filter(|(method, _)| known.contains(method)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_odd_value_at_any_route_is_an_error_of_ours() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let message = alice.on(0).send(&chat, "here").await;
    let message_id = message["message_id"].as_str().expect("an id").to_owned();
    let real = |name: &str| match name {
        "chat" => Some(chat.id.clone()),
        "message_id" => Some(message_id.clone()),
        "user_id" => Some("bob".to_owned()),
        _ => None,
    };
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    let mut asked = Vec::new();
    for (method, route) in &routes {
        for odd in ODD {
            asked.push((method.clone(), fill(route, odd, &|_| None), None));
            let first = |name: &str| (name == "chat").then(|| chat.id.clone());
            // The chat is not deleted, as the rest of the table needs it.
            if route.contains("}/") && (method != Method::DELETE || route.matches('{').count() > 1)
            {
                asked.push((method.clone(), fill(route, odd, &first), None));
            }
        }
        if method == Method::DELETE {
            continue;
        }
        let here = fill(route, "odd", &real);
        for name in ["limit", "before", "after", "around", "query", "cursor"] {
            let cursors = odd_cursors();
            let values = ODD.iter().copied().chain(cursors.iter().map(String::as_str));
            for odd in values.filter(|_| method == Method::GET) {
                asked.push((method.clone(), format!("{here}?{name}={odd}"), None));
            }
        }
        if method != Method::GET {
            asked.extend(
                odd_bodies().into_iter().map(|body| (method.clone(), here.clone(), Some(body))),
            );
        }
    }
    for (method, path, body) in asked {
        for user in [&alice, &host] {
            let request = user.on(0).request(method.clone(), &path);
            let request = match &body {
                Some(body) => request.body("application/json", body.clone()),
                None => request,
            };
            let answer = request.await;
            assert!(answer.status < 500, "{method} {path} {body:?}: {}", answer.text);
        }
    }
    for (name, value) in [
        ("idempotency-key", &b"\xff"[..]),
        ("idempotency-key", b"\xc2\x80"),
        ("x-request-id", b"\xff"),
        ("traceparent", b"00-0-0-0"),
        ("x-forwarded-for", b"\xff, ,"),
        ("content-type", b"application/json; charset=\xff"),
        ("origin", b"\xff"),
    ] {
        let request = alice.on(0).post(&chat.path("messages/"), json!({ "text": "x" }));
        let answer = request.header(name, value).await;
        assert!(answer.status < 500, "{name}: {}", answer.text);
    }
    for claims in [
        json!({ "sub": "a", "exp": 1e300 }),
        json!({ "sub": "a", "exp": i64::MAX }),
        json!({ "sub": "a", "exp": u64::MAX, "iat": -3e11 }),
        json!({ "sub": "a", "exp": 1e15, "iat": i64::MIN, "nbf": -1e300 }),
        json!({ "sub": "\u{ffff}", "exp": 1e11, "name": "\u{0}", "picture": "\u{0}" }),
    ] {
        let user = cluster.user("a").with_token(sign(&claims));
        for path in ["/chats/", "/connect/"] {
            let method = if path == "/chats/" { Method::GET } else { Method::POST };
            let answer = user.on(0).request(method, &format!("/api/v1{path}")).await;
            assert!(answer.status < 500, "{claims}: {}", answer.text);
        }
    }
    no_odd_frame_ends_a_socket_with_an_error_of_ours(&alice, &chat).await;
}

async fn no_odd_frame_ends_a_socket_with_an_error_of_ours(alice: &User, chat: &Chat) {
    let mut socket = alice.on(0).connect_many().await;
    for kind in ["subscribe", "unsubscribe", "mark_read", "typing", "send", "auth"] {
        for value in ["null", "0", "-1", "9223372036854775807", "1e400", "\"\\u0000\"", "[]", "{}"]
        {
            let frame = format!(
                r#"{{"type":"{kind}","id":"x","chat_id":"{}","after_ev":{value},"epoch":{value},
                    "up_to_seq":{value},"typing":{value},"text":{value},"metadata":{value},
                    "client_msg_id":{value},"token":{value}}}"#,
                chat.id
            );
            socket.send_raw(tokio_tungstenite::tungstenite::Message::text(frame)).await;
            for frame in socket.frames_so_far().await {
                assert_ne!(frame["code"], "internal", "{kind} {value}: {frame}");
            }
            if kind == "auth" {
                // Refused tokens are counted, and too many end a socket.
                break;
            }
        }
    }
}
