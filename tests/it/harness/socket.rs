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

/// A receive buffer that holds next to nothing, in bytes: its reader is slow at once.
const NARROW: u32 = 4_096;

/// Frames shown when an expectation fails: the last ones.
const SHOWN: usize = 40;

/// What came.
#[derive(Debug, Clone, PartialEq)]
enum Arrival {
    Frame(Value),
    /// Close code and reason; 1006 where the connection broke.
    Close(u16, String),
}

/// An open socket. Its pings are answered while something is awaited on it.
#[derive(Debug)]
pub(crate) struct Socket {
    wire: Wire,
    /// The answer to the upgrade.
    pub(crate) upgrade: Response<()>,
    seen: Vec<String>,
}

impl Socket {
    /// Opens `ws://…`; nothing has been read.
    pub(crate) async fn open(url: &str) -> Self {
        Self::open_with(url, &[]).await.unwrap_or_else(|answer| panic!("{url}: {answer:?}"))
    }

    /// Opens with headers of one's own; an answer that is no upgrade comes back.
    pub(crate) async fn open_with(
        url: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        Self::open_over(url, headers, None).await
    }

    /// Opens with a small receive buffer: what is not read waits at the replica.
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
                Ok(Self { wire, upgrade, seen: Vec::new() })
            }
            Err(WireError::Refused(answer)) => Err(*answer),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    /// The first frames of a socket that follows one chat from its head.
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

    /// Reads for that long, in which no frame may come; pings are answered.
    pub(crate) async fn stay(&mut self, time: Duration) {
        if self.arrival(time).await.is_some() {
            panic!("something came; {}", self.seen());
        }
    }

    /// How many pings came.
    pub(crate) fn pings(&self) -> usize {
        self.wire.pings()
    }

    /// The frames so far, for a message.
    fn seen(&self) -> String {
        let from = self.seen.len().saturating_sub(SHOWN);
        format!("{} frames so far, ending with\n{}", self.seen.len(), self.seen[from..].join("\n"))
    }

    /// The next frame, of whatever type.
    pub(crate) async fn next_frame(&mut self) -> Value {
        match self.arrival(CEILING).await {
            Some(Arrival::Frame(frame)) => frame,
            Some(Arrival::Close(..)) => panic!("no frame, but the end; {}", self.seen()),
            None => panic!("no frame within {CEILING:?}; {}", self.seen()),
        }
    }

    /// The next frame, or the code of the close that came instead.
    pub(crate) async fn next_frame_or_close(&mut self) -> Result<Value, u16> {
        match self.arrival(CEILING).await {
            Some(Arrival::Frame(frame)) => Ok(frame),
            Some(Arrival::Close(code, _)) => Err(code),
            None => panic!("neither a frame nor a close within {CEILING:?}; {}", self.seen()),
        }
    }

    /// The next frame, of that type. `presence` is passed over, unless asked for: it may come at
    /// any time.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next_frame().await;
            if frame["type"] == kind {
                return frame;
            }
            assert_eq!(frame["type"], "presence", "expected {kind}; {}", self.seen());
        }
    }

    /// The message of the next frame, a `message.created`.
    pub(crate) async fn expect_message(&mut self) -> Value {
        self.expect("message.created").await["message"].take()
    }

    /// The next frame of that type, whatever comes before it.
    pub(crate) async fn wait_for(&mut self, kind: &str) -> Value {
        self.frames_until(kind).await.pop().expect("the frame waited for")
    }

    /// All frames up to the next one of that type, which is the last.
    pub(crate) async fn frames_until(&mut self, kind: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.next_frame().await);
            if frames.last().is_some_and(|frame| frame["type"] == kind) {
                return frames;
            }
        }
    }

    /// All frames that came before the answer to a `ping`: what the replica had sent by now.
    pub(crate) async fn frames_so_far(&mut self) -> Vec<Value> {
        self.send(serde_json::json!({ "type": "ping" })).await;
        let mut frames = self.frames_until("pong").await;
        frames.pop();
        frames
    }

    /// The frames before the close, which must come with that code.
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

    /// Anything that a WebSocket can carry.
    pub(crate) async fn send_raw(&mut self, message: Message) {
        let sent = self.try_send_raw(message).await;
        sent.unwrap_or_else(|error| panic!("the socket takes nothing: {error}; {}", self.seen()));
    }

    /// The same to a socket that may be closed by now.
    pub(crate) async fn try_send_raw(&mut self, message: Message) -> Result<(), WsError> {
        self.wire.send_raw(message).await
    }

    /// Sends a command and gives what answers its `id`: `ack` or `error` (or `subscribed`).
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

    /// Leaves, and waits until the replica has noticed.
    pub(crate) async fn close(mut self) {
        self.wire.close().await;
        while !matches!(self.arrival(CEILING).await, None | Some(Arrival::Close(..))) {}
    }
}
