//! The head of a request: what it has to say once, and what it is told where it does not.

use crate::{harness::Cluster, problems::raw};

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
