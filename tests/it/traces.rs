//! One message, followed from the request to the sockets.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
};

use crate::harness::{Cluster, Program, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_follows_a_message_through_the_database_and_the_logs() {
    // The one in this process migrates.
    let mut cluster = Cluster::start(1).await;
    let settings = [("BESEDA_LOG", "info,beseda::trace=debug"), ("BESEDA_LOG_FORMAT", "json")];
    let (here, one) = Program::join(&mut cluster, &settings).await;
    let (there, two) = Program::join(&mut cluster, &settings).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(one).open_chat(&bob).await;
    let mut socket = bob.on(two).connect(&chat).await;
    let other = alice.on(one).send(&chat, "another").await;
    let sent = alice.on(one).send(&chat, "hush").await;
    socket.expect_message().await;
    socket.expect_message().await;

    let folder = tempfile::tempdir().expect("a folder");
    let id = sent["message_id"].as_str().expect("an id");
    let text = eventually(async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
        command.args(["admin", "trace", id, "--chat", &chat.id]).env_clear();
        for (name, program) in [("here.json", &here), ("there.json", &there)] {
            let path = folder.path().join(name);
            std::fs::write(&path, program.log()).expect("a file");
            command.arg("--log").arg(path);
        }
        let output = command.env("DATABASE_URL", cluster.database_url()).output().await;
        let output = output.expect("the program runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("delivered") { Ok(text) } else { Err(format!("{output:?}")) }
    })
    .await;
    for told in [
        &format!("message    {id}"),
        "seq 2, last changed by ev 2",
        "sender     \"alice\"",
        "read by    \"bob\": not yet",
        "committed batch=1",
        "published",
        "delivered sockets=1",
        "there.json",
    ] {
        assert!(text.contains(told), "{told} is not in {text}");
    }
    assert!(!text.contains("hush") && !text.contains(other["message_id"].as_str().expect("an id")));
    let (committed, delivered) = (text.find("committed batch"), text.find("delivered"));
    assert!(committed < delivered, "{text}");
    drop((here, there, socket));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_goes_on_to_the_replica_that_delivers() {
    let (collector, sent) = collector().await;
    // The one in this process migrates.
    let mut cluster = Cluster::start(1).await;
    let settings = [("BESEDA_OTLP_ENDPOINT", collector.as_str())];
    let (here, one) = Program::join(&mut cluster, &settings).await;
    let (there, two) = Program::join(&mut cluster, &settings).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(one).open_chat(&bob).await;
    let mut socket = bob.on(two).connect(&chat).await;
    let trace: u128 = rand::random();
    let parent = format!("00-{trace:032x}-00f067aa0ba902b7-01");
    let body = json!({ "text": "hush" });
    let request = alice.on(one).post(&chat.path("messages/"), body);
    request.header("traceparent", &parent).await.expect(201);
    socket.expect_message().await;
    // Spans are sent in batches, every five seconds.
    eventually(async || {
        let sent = sent.lock().expect("no panic");
        let has =
            |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        let ours: Vec<&Vec<u8>> =
            sent.iter().filter(|body| has(body, &trace.to_be_bytes())).collect();
        let named = |name: &str| ours.iter().any(|body| has(body, name.as_bytes()));
        assert!(!named("hush"), "a text in a trace");
        if named("request") && named("deliver") {
            Ok(())
        } else {
            Err(format!("{} of {} batches are of this trace", ours.len(), sent.len()))
        }
    })
    .await;
    drop((here, there, socket));
}

/// Takes whatever is sent to it by HTTP: where, and the bodies so far.
async fn collector() -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let gathered: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let bodies = Arc::clone(&gathered);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bodies = Arc::clone(&bodies);
            tokio::spawn(async move {
                let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    request.extend_from_slice(&buffer[..read]);
                    if is_whole(&request) {
                        bodies.lock().expect("no panic").push(std::mem::take(&mut request));
                        let _ =
                            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    }
                }
            });
        }
    });
    (format!("http://{address}/v1/traces"), gathered)
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    let length = head.split_once("content-length: ").and_then(|(_, rest)| {
        rest.lines().next().and_then(|length| length.trim().parse::<usize>().ok())
    });
    request.len() >= end + 4 + length.unwrap_or(0)
}
