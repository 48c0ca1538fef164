//! Whatever goes wrong is told as `application/problem+json`, with a stable code.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Answer, CEILING, Client, Cluster, claims, eventually, sign, told};

/// A `POST` of any bytes below `/api/v1`.
async fn post(client: &Client, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> Answer {
    client.request(Method::POST, &format!("/api/v1{path}")).body(kind, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_wrong_methods_are_problems_too() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    let paths = [
        "/api/v1/nothing/",
        "/api/v1/",
        "/api/v1",
        "/api/",
        "/api",
        "/api/v2/chats/",
        "/nothing",
        "/ws/nothing/",
        "/api/v1/chats/x/y/z/",
        "/api/v1//chats/",
        "/metrics",
        "/.env",
        "/api/v1/users/a/b/",
        "/assets/nothing.js",
        "/assets/..%2Fmain.rs",
    ];
    for path in paths {
        for client in [alice.on(0), cluster.anyone(0)] {
            let answer = client.request(Method::GET, path).await;
            answer.expect_problem(404, "route_not_found");
        }
    }
    let wrong = [
        (Method::PUT, "/api/v1/chats/"),
        (Method::PATCH, "/api/v1/chats/unread/"),
        (Method::GET, "/api/v1/connect/"),
        (Method::PUT, "/api/v1/chats/x/messages/"),
        (Method::POST, "/api/v1/chats/x/messages/y"),
        (Method::GET, "/api/v1/chats/x/mark_read"),
        (Method::POST, "/api/v1/chats/x/search/"),
        (Method::POST, "/api/v1/users/x/block/"),
        (Method::DELETE, "/healthz"),
        (Method::POST, "/openapi.json"),
        (Method::TRACE, "/api/v1/chats/"),
    ];
    for (method, path) in wrong {
        let answer = alice.on(0).request(method.clone(), path).await;
        // RFC 9110 §15.5.6 asks for it.
        assert!(answer.header("allow").is_some_and(|it| !it.is_empty()), "{method} {path}");
        answer.expect_problem(405, "method_not_allowed");
    }
    let answer = alice.on(0).request(Method::HEAD, "/api/v1/chats/").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_is_told_from_json_of_a_wrong_shape() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let (here, path) = (alice.on(0), chat.path("messages/"));
    let no_json: [&[u8]; 9] = [
        b"",
        b" ",
        b"{",
        b"{'text':'x'}",
        b"{\"text\":\"x\"} x",
        b"{\"text\":\"\xff\"}",
        b"\xef\xbb\xbf{\"text\":\"x\"}",
        b"{\"text\":\"line\nbreak\"}",
        b"{\"text\":NaN}",
    ];
    for body in no_json {
        let answer = post(&here, &path, "application/json", body).await;
        answer.expect_problem(400, "invalid_json");
    }
    let cut_short = "[".repeat(50_000);
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for body in [cut_short, deep] {
        let answer = post(&here, &path, "application/json", body).await;
        assert!(matches!(answer.status, 400 | 422), "{}", answer.text);
        let code = answer.json["code"].as_str().expect("a code").to_owned();
        answer.clone().expect_problem(answer.status, &code);
    }
    for body in ["[]", "[{\"text\":\"x\"}]", "\"text\"", "1", "null", "true"] {
        post(&here, &path, "application/json", body).await.expect_faults(&["body"]);
    }
    let doubled = r#"{"text":"first","unknown":{"is":["ignored"]},"text":"last"}"#;
    let sent = post(&here, &path, "application/json", doubled).await.expect(201);
    assert_eq!(sent["text"], "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_be_json_by_its_type_and_no_larger_than_64_kib() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let (here, path) = (alice.on(0), chat.path("messages/"));
    let body = r#"{"text":"x"}"#;
    let kinds =
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", ""];
    for kind in kinds {
        let answer = post(&here, &path, kind, body).await;
        answer.expect_problem(415, "unsupported_media_type");
    }
    let untyped = raw(&here, &format!(
        "POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        alice.token, body.len()
    )).await;
    assert!(untyped.starts_with("HTTP/1.1 415"), "{untyped}");
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.x+json",
    ] {
        post(&here, &path, kind, body).await.expect(201);
    }

    let padded = |size: usize| {
        let head = r#"{"text":"x","padding":""#;
        format!("{head}{}\"}}", "y".repeat(size - head.len() - 2))
    };
    let limit = 64 * 1024;
    post(&here, &path, "application/json", padded(limit)).await.expect(201);
    for size in [limit + 1, 10 * limit] {
        let answer = post(&here, &path, "application/json", padded(size)).await;
        answer.expect_problem(413, "payload_too_large");
    }
    // A chunked body does not announce its size.
    let body = padded(limit + 1);
    let chunked = raw(&here, &format!(
        "POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        alice.token, body.len()
    )).await;
    assert!(
        chunked.starts_with("HTTP/1.1 413") && chunked.contains("payload_too_large"),
        "{chunked}"
    );
    // A client that sends more than the kernel buffers before it reads still receives the refusal.
    let body = padded(7 * 1024 * 1024);
    let huge = raw(
        &here,
        &format!(
            "POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            alice.token,
            body.len()
        ),
    )
    .await;
    assert!(huge.starts_with("HTTP/1.1 413") && huge.contains("payload_too_large"), "{huge}");
    // The longest message there can be, with all of it escaped, still fits.
    let longest = format!(r#"{{"text":"{}"}}"#, "\\ud83d\\ude00".repeat(4_000));
    post(&here, &path, "application/json", longest).await.expect(201);
}

/// Sends bytes as they are, and gives the answer's head and as much of its body as comes with it.
pub(crate) async fn raw(client: &Client, request: &str) -> String {
    let mut stream = TcpStream::connect(client.host()).await.expect("the replica listens");
    stream.write_all(request.as_bytes()).await.expect("the replica reads");
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let read = timeout(CEILING, stream.read(&mut buffer)).await.expect("an answer in time");
        let read = read.expect("an answer");
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.to_lowercase().split_once("content-length: ").map(|(_, rest)| {
                rest.lines().next().and_then(|n| n.trim().parse().ok()).unwrap_or(0)
            });
            length.is_none_or(|length: usize| body.len() >= length)
        });
        if read == 0 || whole {
            return text.into_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_a_path_is_unreadable_or_unknown_and_never_more() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    for path in ["/chats/%ff/", "/chats/%c3%28/messages/", "/users/%ff/", "/chats/x/messages/%fe/"]
    {
        let answer = alice.on(0).get(path).await;
        answer.expect_problem(400, "invalid_request");
    }
    let unknown =
        ["%zz", "%", "%00", "..%2f", "%F0%9F%A6%8A", "'", "%22", "$1", "x".repeat(5_000).leak()];
    for chat in unknown {
        let answer = alice.on(0).get(&format!("/chats/{chat}/messages/")).await;
        answer.expect_problem(404, "chat_not_found");
    }
    // A query string of any bytes is read as far as it goes.
    alice.on(0).get("/chats/?%ff=%ff&limit=5&&=&%").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_nothing_is_told_but_that() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    let routes =
        ["/chats/", "/chats/unread/", "/chats/x/messages/?limit=x", "/users/x/", "/blocks/"];
    for route in routes {
        cluster.anyone(0).get(route).await.expect_problem(401, "unauthenticated");
        let answer = alice.with_token("nonsense").on(0).get(route).await;
        answer.expect_problem(401, "token_invalid");
    }
    for value in ["Basic YTpi", "Bearer", "Token x", "", "bearer"] {
        let answer = cluster.anyone(0).get("/chats/").header("authorization", value).await;
        let code = answer.json["code"].as_str().unwrap_or_default().to_owned();
        assert!(matches!(&*code, "unauthenticated" | "token_invalid"), "{}", answer.text);
        answer.expect_problem(401, &code);
    }
    let answer = cluster.anyone(0).get("/chats/").header("authorization", b"Bearer \xff").await;
    answer.expect_problem(401, "token_invalid");
    let mut expired = claims("alice");
    expired["exp"] = json!(1_000_000_000);
    let answer = alice.with_token(sign(&expired)).on(0).get("/chats/").await;
    answer.expect_problem(401, "token_expired");
    // The scheme's case does not count.
    let lower = format!("bearer {}", alice.token);
    cluster.anyone(0).get("/chats/").header("authorization", lower).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_a_request_id_the_clients_own_where_it_is_well_formed() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let longest = "x".repeat(128);
    for id in ["abc-123_DEF.4", &longest, "0190f5fe-7c00-7a00-8000-000000000000"] {
        for path in [chat.path(""), "/chats/nonsense/".to_owned(), "/nothing/".to_owned()] {
            let answer = alice.on(1).get(&path).header("x-request-id", id).await;
            assert_eq!(answer.header("x-request-id"), Some(id));
            if answer.status != 200 {
                assert_eq!(answer.json["request_id"], id);
            }
        }
        let answer = alice.on(0).delete(&chat.path("messages/x/")).header("x-request-id", id).await;
        assert_eq!(answer.header("x-request-id"), Some(id));
        let answer =
            cluster.anyone(0).request(Method::GET, "/healthz").header("x-request-id", id).await;
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
    let too_long = "x".repeat(129);
    let mut made = Vec::new();
    for id in ["", "has space", "\"quoted\"", "<b>", &too_long, "ключ"] {
        let answer = alice.on(1).get("/chats/").header("x-request-id", id).await;
        let own = answer.header("x-request-id").expect("an id").to_owned();
        assert_ne!(own, id);
        made.push(own);
    }
    let count = made.len();
    made.sort_unstable();
    made.dedup();
    assert_eq!(made.len(), count, "each its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_is_a_time_out_and_safe_to_retry() {
    let cluster = Cluster::with(2, |config| config.request_timeout = Duration::from_secs(2)).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let first = alice.on(0).send(&chat, "first").await;
    let report = format!("messages/{}/report/", first["message_id"].as_str().expect("an id"));
    cluster.psql("BEGIN; SELECT FROM chats FOR UPDATE").await;
    let reported = bob.on(0).post(&chat.path(&report), json!({})).await;
    reported.expect_problem(504, "timeout");
    // Sends and marks give up sooner: they hold up those of other chats.
    let body = json!({ "text": "late", "client_msg_id": "k" });
    let sent = alice.on(0).post(&chat.path("messages/"), body.clone()).await;
    let marked = bob.on(0).post(&chat.path("mark_read/"), json!({})).await;
    for answer in [sent, marked] {
        let status = answer.status;
        let (status, code) = if status == 504 { (504, "timeout") } else { (503, "unavailable") };
        answer.expect_problem(status, code);
    }
    // Reads wait for no lock.
    assert_eq!(bob.on(1).history(&chat, "").await["head_seq"], 1);
    cluster.psql("ROLLBACK").await;
    let answer = alice.on(1).post(&chat.path("messages/"), body).await;
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text);
    let page = bob.on(0).history(&chat, "").await;
    assert_eq!(page["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(bob.on(1).mark_read(&chat).await["unread_count"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_requests_are_told_to_come_back_and_do_once_it_is_there() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "before").await;
    cluster.stack().postgres.stop().await;
    let body = json!({ "text": "meanwhile", "client_msg_id": "k" });
    for replica in [0, 1] {
        let here = alice.on(replica);
        here.get("/chats/").await.expect_problem(503, "unavailable");
        let answer = here.post(&chat.path("messages/"), body.clone()).await;
        let problem = answer.expect_problem(503, "unavailable").to_string().to_lowercase();
        for internal in ["postgres", "sql", "connect", "127.0.0.1"] {
            assert!(!problem.contains(internal), "{problem}");
        }
        let ready = cluster.operator(replica).request(Method::GET, "/readyz").await;
        assert_eq!((ready.status, &ready.json["status"]), (503, &json!("not_ready")));
        cluster.anyone(replica).request(Method::GET, "/healthz").await.expect(200);
    }
    cluster.stack().postgres.restart().await.expect("Postgres comes back");
    // Each replica looks for new connections by itself, after a pause of its own.
    let again = eventually(async || {
        let answer = alice.on(1).post(&chat.path("messages/"), body.clone()).await;
        if matches!(answer.status, 200 | 201) { Ok(answer.json) } else { Err(answer.text) }
    })
    .await;
    let history = eventually(async || {
        let answer = bob.on(0).get(&chat.path("messages/")).await;
        if answer.status == 200 { Ok(answer.json) } else { Err(answer.text) }
    })
    .await;
    let results = history["results"].as_array().expect("messages").iter();
    assert_eq!(results.cloned().map(told).collect::<Vec<_>>(), [sent, told(again)]);
}
