//! Fragmented messages: any fragments are accepted, but no message stays unfinished for ever.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::harness::{Cluster, Socket};

/// Builds the first fragment of a message, or a continuation.
fn fragment(kind: Data, content: &[u8], last: bool) -> Message {
    Message::Frame(Frame::message(content.to_vec(), OpCode::Data(kind), last))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_come_in_tiny_fragments_with_pings_between() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = alice.on(0).connect(&chat).await;
    let text = "x".repeat(2_000);
    for round in 0..10 {
        let command = json!({ "type": "send", "id": round, "text": text }).to_string();
        let command = command.as_bytes();
        socket.send_raw(fragment(Data::Text, &[], false)).await;
        for (at, byte) in command.iter().enumerate() {
            socket.send_raw(fragment(Data::Continue, &[*byte], at + 1 == command.len())).await;
            if at % 500 == 0 {
                socket.send_raw(Message::Ping(b"between".as_slice().into())).await;
            }
        }
        let ack = loop {
            let frame = socket.next_frame().await;
            if frame["type"] == "ack" {
                break frame;
            }
        };
        assert_eq!((&ack["id"], &ack["message"]["text"]), (&json!(round), &json!(text)));
    }
}

/// Sends a message repeatedly until the socket accepts no more, at most `times` times.
async fn flood(socket: &mut Socket, times: usize, message: &Message) {
    for _ in 0..times {
        if socket.try_send_raw(message.clone()).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_without_end_or_content_close_the_socket() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let many = format!("ws://{}/ws/", alice.on(0).host());
    for content in [&b""[..], b"x"] {
        let more = fragment(Data::Continue, content, false);
        // Before and after authentication.
        for mut socket in [Socket::open(&many).await, alice.on(0).connect(&chat).await] {
            socket.send_raw(fragment(Data::Text, b"{", false)).await;
            flood(&mut socket, 40_000, &more).await;
            socket.expect_close(4000).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_never_finished_is_not_kept() {
    const HEARTBEAT: Duration = Duration::from_millis(300);
    let cluster = Cluster::with(1, |config| config.heartbeat = HEARTBEAT).await;
    let mut socket = cluster.user("alice").on(0).connect_many().await;
    socket.send_raw(fragment(Data::Text, &[b' '; 1_000], false)).await;
    // The client answers pings meanwhile.
    socket.expect_close(4201).await;
    assert!(socket.pings() >= 2, "{} pings", socket.pings());
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_without_a_first_frame_close_the_socket() {
    let cluster = Cluster::start(1).await;
    let url = format!("ws://{}/ws/", cluster.user("alice").on(0).host());
    let mut socket = Socket::open(&url).await;
    flood(&mut socket, 1_000, &Message::Ping(b"".as_slice().into())).await;
    socket.expect_close(4204).await;
}
