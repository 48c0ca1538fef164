//! A client's socket.

use std::time::Duration;

use beseda_client::{Closed, Wire, WireError, WireOptions};
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    Error as WsError, Message,
    http::{HeaderName, HeaderValue, Response},
};

use super::{CEILING, documented};

/// Size of a tiny receive buffer, in bytes: its reader is slow at once.
const NARROW: u32 = 4_096;

/// Number of last frames in a failure message.
const SHOWN: usize = 40;

/// A received frame, or the close.
#[derive(Debug, Clone, PartialEq)]
enum Arrival {
    Frame(Value),
    /// Close code and reason; 1006 if the connection broke.
    Close(u16, String),
}

/// An open socket. Pings are answered only during reads.
#[derive(Debug)]
pub(crate) struct Socket {
    wire: Wire,
    /// The answer to the upgrade.
    pub(crate) upgrade: Response<()>,
    seen: Vec<String>,
    /// A `catchup` was skipped, whose `synced` has not come yet.
    catching_up: bool,
}

impl Socket {
    /// Opens `ws://…`; reads no frame.
    pub(crate) async fn open(url: &str) -> Self {
        Self::open_with(url, &[]).await.unwrap_or_else(|answer| panic!("{url}: {answer:?}"))
    }

    /// Opens with additional headers; returns the answer if it is no upgrade.
    pub(crate) async fn open_with(
        url: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        Self::open_over(url, headers, None).await
    }

    /// Opens with a small receive buffer: unread data waits at the replica.
    pub(crate) async fn open_narrow(url: &str) -> Self {
        let opened = Self::open_over(url, &[], Some(NARROW)).await;
        opened.unwrap_or_else(|answer| panic!("{url}: {answer:?}"))
    }

    async fn open_over(
        url: &str,
        headers: &[(&'static str, &str)],
        receive_buffer: Option<u32>,
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        // A test that is about the subprotocol offers it itself.
        let mut options =
            WireOptions { receive_buffer, without_subprotocol: true, ..WireOptions::default() };
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a header's value");
            options.headers.insert(HeaderName::from_static(name), value);
        }
        match Wire::open(url, &options).await {
            Ok(wire) => {
                let upgrade = wire.upgrade().clone();
                Ok(Self { wire, upgrade, seen: Vec::new(), catching_up: false })
            }
            Err(WireError::Refused(answer)) => Err(*answer),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    /// Reads the first frames of a socket that follows one chat from its head.
    pub(crate) async fn greet(&mut self) {
        self.expect("hello").await;
        let head = self.expect("subscribed").await;
        let synced = self.expect("synced").await;
        assert_eq!(synced["ev"], head["head_ev"]);
    }

    async fn arrival(&mut self, ceiling: Duration) -> Option<Arrival> {
        let arrival = match timeout(ceiling, self.wire.next_text()).await.ok()? {
            Ok(text) => {
                let frame = serde_json::from_str(&text);
                let frame = frame.unwrap_or_else(|e| panic!("{e} in {text}"));
                documented::check_frame(&frame);
                Arrival::Frame(frame)
            }
            Err(Closed { code, reason }) => Arrival::Close(code, reason),
        };
        self.seen.push(match &arrival {
            Arrival::Frame(frame) => frame.to_string(),
            Arrival::Close(code, reason) => format!("closed: {code} {reason}"),
        });
        Some(arrival)
    }

    /// Reads for this time, in which no frame may come; answers pings.
    pub(crate) async fn stay(&mut self, time: Duration) {
        if self.arrival(time).await.is_some() {
            panic!("something came; {}", self.seen());
        }
    }

    /// Counts the received pings.
    pub(crate) fn pings(&self) -> usize {
        self.wire.pings()
    }

    /// Formats the last frames for a failure message.
    fn seen(&self) -> String {
        let from = self.seen.len().saturating_sub(SHOWN);
        format!("{} frames so far, ending with\n{}", self.seen.len(), self.seen[from..].join("\n"))
    }

    /// Returns the next frame of any type.
    pub(crate) async fn next_frame(&mut self) -> Value {
        match self.arrival(CEILING).await {
            Some(Arrival::Frame(frame)) => frame,
            Some(Arrival::Close(..)) => panic!("no frame, but the end; {}", self.seen()),
            None => panic!("no frame within {CEILING:?}; {}", self.seen()),
        }
    }

    /// Returns the next frame, or the close code.
    pub(crate) async fn next_frame_or_close(&mut self) -> Result<Value, u16> {
        match self.arrival(CEILING).await {
            Some(Arrival::Frame(frame)) => Ok(frame),
            Some(Arrival::Close(code, _)) => Err(code),
            None => panic!("neither a frame nor a close within {CEILING:?}; {}", self.seen()),
        }
    }

    /// Returns the next frame, which must have this type. Skips what may come at any time, unless it is
    /// expected: `presence`, and the frames around changes that were read, not heard, since Redis may
    /// acknowledge a subscription late on a busy machine.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next_frame().await;
            if frame["type"] == kind {
                return frame;
            }
            match frame["type"].as_str() {
                Some("presence") => {}
                Some("catchup") => self.catching_up = true,
                Some("synced") if self.catching_up => self.catching_up = false,
                _ => panic!("expected {kind}; {}", self.seen()),
            }
        }
    }

    /// Returns the message of the next frame, a `message.created`.
    pub(crate) async fn expect_message(&mut self) -> Value {
        self.expect("message.created").await["message"].take()
    }

    /// Returns the next frame of this type; skips others.
    pub(crate) async fn wait_for(&mut self, kind: &str) -> Value {
        self.frames_until(kind).await.pop().expect("the frame waited for")
    }

    /// Returns all frames up to the next one of this type, inclusive.
    pub(crate) async fn frames_until(&mut self, kind: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.next_frame().await);
            if frames.last().is_some_and(|frame| frame["type"] == kind) {
                return frames;
            }
        }
    }

    /// Returns all frames before the answer to a `ping`: those that the replica has sent so far.
    pub(crate) async fn frames_so_far(&mut self) -> Vec<Value> {
        self.send(serde_json::json!({ "type": "ping" })).await;
        let mut frames = self.frames_until("pong").await;
        frames.pop();
        frames
    }

    /// Returns the frames before the close, which must have this code.
    pub(crate) async fn expect_close(&mut self, code: u16) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            match self.arrival(CEILING).await {
                Some(Arrival::Frame(frame)) => frames.push(frame),
                Some(Arrival::Close(got, _)) => {
                    assert_eq!(got, code, "expected close {code}; {}", self.seen());
                    return frames;
                }
                None => panic!("not closed within {CEILING:?}; {}", self.seen()),
            }
        }
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_raw(Message::text(frame.to_string())).await;
    }

    /// Sends any WebSocket message.
    pub(crate) async fn send_raw(&mut self, message: Message) {
        let sent = self.try_send_raw(message).await;
        sent.unwrap_or_else(|error| panic!("the socket takes nothing: {error}; {}", self.seen()));
    }

    /// Sends to a socket that may be closed.
    pub(crate) async fn try_send_raw(&mut self, message: Message) -> Result<(), WsError> {
        self.wire.send_raw(message).await
    }

    /// Sends a command and returns the answer to its `id`: `ack` or `error` (or `subscribed`).
    pub(crate) async fn ask(&mut self, command: Value) -> Value {
        let id = command["id"].clone();
        assert!(!id.is_null(), "a command that is answered has an id: {command}");
        self.send(command).await;
        loop {
            let frame = self.next_frame().await;
            if frame["id"] == id {
                return frame;
            }
        }
    }

    /// Closes, and waits for the replica's close.
    pub(crate) async fn close(mut self) {
        self.wire.close().await;
        while !matches!(self.arrival(CEILING).await, None | Some(Arrival::Close(..))) {}
    }
}
