//! What a connection may cost, and what passes as a request: bytes as they are.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use beseda::config::{Config, Switch};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{CEILING, Client, Cluster};

/// Sends bytes and gives all that comes until the replica closes.
async fn exchange(client: &Client, bytes: &str) -> String {
    let mut stream = TcpStream::connect(client.host()).await.expect("the replica listens");
    // It may close before it has read all.
    let _ = stream.write_all(bytes.as_bytes()).await;
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4_096];
        // A reset is an end as well.
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
        }
    };
    timeout(CEILING, reading).await.expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of all answers in it.
fn statuses(answers: &str) -> Vec<&str> {
    let heads = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..]);
    heads.filter_map(|head| head.get(..3)).collect()
}

fn head(lines: &[&str]) -> String {
    let mut head = lines.join("\r\n");
    head.push_str("\r\n\r\n");
    head
}

/// Its JSON, where it is the one problem `invalid_request` of that status, and the last word.
#[track_caller]
fn expect_refusal(answer: &str, status: &str) {
    assert_eq!(statuses(answer), [status], "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let head = head.to_lowercase();
    for line in ["content-type: application/problem+json", "x-request-id: ", "connection: close"] {
        assert!(head.contains(line), "no {line} in {head}");
    }
    let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(problem["code"], "invalid_request");
    assert_eq!(problem["status"].to_string(), status);
    assert!(head.contains(problem["request_id"].as_str().expect("an id")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_a_problem_too() {
    let cluster = Cluster::start(1).await;
    let here = cluster.anyone(0);
    for garbage in [
        "hello\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        "GET /health z HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
    ] {
        let answer = exchange(&here, garbage).await;
        assert!(!answer.is_empty(), "no answer to {garbage:?}");
        expect_refusal(&answer, "400");
    }
    // Who speaks HTTP/2 without being asked gets no answer in HTTP/1.1.
    assert_eq!(exchange(&here, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
    let many = |count: usize| {
        let headers: Vec<String> = (0..count).map(|it| format!("X-{it}: x")).collect();
        let mut lines = vec!["GET /healthz HTTP/1.1", "Host: x", "Connection: close"];
        lines.extend(headers.iter().map(String::as_str));
        head(&lines)
    };
    assert_eq!(statuses(&exchange(&here, &many(62)).await), ["200"]);
    expect_refusal(&exchange(&here, &many(63)).await, "431");
    let large = |bytes: usize| {
        let padding = format!("X: {}", "x".repeat(bytes));
        head(&["GET /healthz HTTP/1.1", "Host: x", "Connection: close", &padding])
    };
    assert_eq!(statuses(&exchange(&here, &large(30_000)).await), ["200"]);
    expect_refusal(&exchange(&here, &large(100_000)).await, "431");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_can_hide_behind_another() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    let bearer = format!("Authorization: Bearer {}", alice.token);
    let (json, host) = ("Content-Type: application/json", "Host: x");
    let post = |framing: &[&str], body: &str| {
        let mut lines = vec!["POST /api/v1/connect/ HTTP/1.1", host, &bearer, json];
        lines.extend(framing);
        format!("{}{body}", head(&lines))
    };
    let hidden = head(&["GET /healthz HTTP/1.1", host]);
    let chunked = format!("0\r\n\r\n{hidden}");
    let refused = [
        post(&["Content-Length: 2", "Content-Length: 3"], "{} "),
        post(&["Content-Length: 2, 3"], "{} "),
        post(&["Content-Length: +2"], "{}"),
        post(&["Content-Length: -2"], "{}"),
        post(&["Content-Length: 0x2"], "{}"),
        post(&["Content-Length : 2"], "{}"),
        post(&["Content-Length: 2 2"], "{}"),
        post(&["Content-Length: 99999999999999999999"], "{}"),
        post(&["Transfer-Encoding: identity"], &chunked),
        post(&["Transfer-Encoding: chunked, identity"], &chunked),
        post(&["Transfer-Encoding: xchunked"], &chunked),
        post(&["Transfer-Encoding:\x0bchunked"], &chunked),
        post(&["X: y", " Content-Length: 2"], "{}"),
    ];
    for request in &refused {
        let answer = exchange(&alice.on(0), request).await;
        assert_eq!(statuses(&answer), ["400"], "{request}\n{answer}");
    }
    // Two framings, of which a proxy may have believed the other: one answer, and the end.
    let (length, encoding) =
        (format!("Content-Length: {}", chunked.len()), "Transfer-Encoding: chunked");
    for framing in [[&*length, encoding], [encoding, &*length]] {
        let answer = exchange(&alice.on(0), &post(&framing, &chunked)).await;
        assert_eq!(statuses(&answer).len(), 1, "{answer}");
        assert!(!answer.contains(r#""status":"ok""#), "{answer}");
    }
    // What is in order is answered in order.
    let last = head(&["GET /readyz HTTP/1.1", host, "Connection: close"]);
    let answer = exchange(&alice.on(0), &format!("{hidden}{hidden}{last}")).await;
    assert_eq!(statuses(&answer), ["200"; 3], "{answer}");
}

fn quick(config: &mut Config) {
    config.http.head_timeout = Duration::from_secs(1);
    config.http.body_timeout = Duration::from_secs(1);
    config.http.write_timeout = Duration::from_secs(1);
    config.http.idle_timeout = Duration::from_secs(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_clients_are_cut_off_while_others_are_served() {
    let cluster = Cluster::with(1, quick).await;
    let alice = cluster.user("alice");
    let bearer = format!("Authorization: Bearer {}", alice.token);
    let begun = head(&[
        "POST /api/v1/chats/ HTTP/1.1",
        "Host: x",
        &bearer,
        "Content-Type: application/json",
        "Content-Length: 20",
    ]);
    let whole = head(&["GET /healthz HTTP/1.1", "Host: x"]);
    let silent = ["", "GET /heal", "GET /healthz HTTP/1.1\r\nHost: x\r\n", &whole];
    let mut cut = Vec::new();
    for said in silent {
        let here = alice.on(0);
        let said = said.to_owned();
        cut.push(tokio::spawn(async move { exchange(&here, &said).await }));
    }
    let slow = exchange(&alice.on(0), &format!("{begun}{{")).await;
    assert_eq!(statuses(&slow), ["400"], "{slow}");
    assert!(slow.contains("took too long"), "{slow}");
    // A header every now and then is no head in time.
    let mut drip = TcpStream::connect(alice.on(0).host()).await.expect("the replica listens");
    drip.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("taken");
    let began = Instant::now();
    while drip.write_all(b"X: x\r\n").await.is_ok() {
        assert!(began.elapsed() < CEILING, "still taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    alice.on(0).get("/chats/").await.expect(200);
    let mut ends = Vec::new();
    for task in cut {
        ends.push(task.await.expect("an end"));
    }
    assert_eq!(ends[..3], ["", "", ""].map(str::to_owned));
    assert_eq!(statuses(&ends[3]), ["200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_an_answer_is_cut_off() {
    let cluster = Cluster::with(1, quick).await;
    let here = cluster.anyone(0);
    let socket = tokio::net::TcpSocket::new_v4().expect("a TCP socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let address = here.host().parse().expect("an address");
    let mut stream = socket.connect(address).await.expect("the replica listens");
    let document = head(&["GET /openapi.json HTTP/1.1", "Host: x"]);
    // Far more than all buffers between hold.
    stream.write_all(document.repeat(400).as_bytes()).await.expect("taken");
    let began = Instant::now();
    while stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok() {
        assert!(began.elapsed() < CEILING, "still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_past_the_rate_wait_and_are_served() {
    let cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.rate_accepts = 5;
    })
    .await;
    let request = head(&["GET /healthz HTTP/1.1", "Host: x", "Connection: close"]);
    let began = Instant::now();
    let mut asked = Vec::new();
    for _ in 0..135 {
        let (here, request) = (cluster.anyone(0), request.clone());
        asked.push(tokio::spawn(async move { exchange(&here, &request).await }));
    }
    for answer in asked {
        assert_eq!(statuses(&answer.await.expect("an answer")), ["200"]);
    }
    // A hundred and twenty-five at once, then five a second.
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rush_of_connections_waits_and_none_is_dropped() {
    // More than the 1,024 that sockets usually have room for, and as many as the system allows.
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    let most: usize = most.map_or(128, |most| most.trim().parse().expect("a number"));
    let cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.rate_accepts = 1;
    })
    .await;
    let address: SocketAddr = cluster.anyone(0).host().parse().expect("an address");
    let mut waiting = Vec::new();
    // Each takes a file here.
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, files, files).expect("as many as may be had");
    for number in 0..most.min(1_100) {
        // One that is dropped is tried again after a second.
        let opening = timeout(Duration::from_millis(900), TcpStream::connect(address)).await;
        let stream = opening.unwrap_or_else(|_| panic!("connection {number} was dropped"));
        waiting.push(stream.expect("the replica listens"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_what_it_is_not() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice").on(0);
    let paths = [
        ("/", true),
        ("/docs/", true),
        ("/assets/app.js", true),
        ("/openapi.json", false),
        ("/healthz", false),
        ("/nothing", false),
        ("/api/v1/chats/", false),
        ("/api/v1/chats/x/", false),
    ];
    for (path, page) in paths {
        for client in [alice.clone(), cluster.anyone(0)] {
            let answer = client.request(Method::GET, path).await;
            let header = |name: &str| {
                let value = answer.header(name);
                value.unwrap_or_else(|| panic!("{path}: no {name}")).to_owned()
            };
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "no-referrer");
            assert_eq!(header("cross-origin-resource-policy"), "same-origin");
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
            assert!(policy.contains("frame-ancestors"), "{path}: {policy}");
            assert!(!policy.contains("script-src 'self' 'unsafe"), "{path}: {policy}");
            assert!(page || !policy.contains("script-src"), "{path}: {policy}");
            assert!(!header("cache-control").is_empty());
            for name in ["server", "x-powered-by", "content-encoding"] {
                assert_eq!(answer.header(name), None, "{path}");
            }
        }
    }
    // The only file that may act for the page beyond its own folder.
    for (path, allowed) in [("/assets/sw.js", Some("../")), ("/assets/app.js", None)] {
        let answer = cluster.anyone(0).request(Method::GET, path).await;
        assert_eq!(answer.header("service-worker-allowed"), allowed, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
    }
    let compressed = alice.get("/chats/").header("accept-encoding", "gzip, br, zstd").await;
    assert_eq!(compressed.header("content-encoding"), None);
    compressed.expect(200);
    alice.post("/connect/", json!({})).await.expect(200);
}
