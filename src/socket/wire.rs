//! WebSocket frames over a connection. The library reads, replies to pings and closes, and encodes
//! our frames; but these bypass its write buffer, which would keep the size of the largest burst
//! for the life of the socket.

use axum::{body::Body, extract::Request, response::Response};
use bytes::{Buf, BufMut, BytesMut};
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::{HeaderValue, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self,
        error::CapacityError,
        handshake::server::create_response_with_body,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::coding::{Data, OpCode},
        },
    },
};

pub use tokio_tungstenite::tungstenite::Message as WsMessage;
pub(super) use tokio_tungstenite::tungstenite::protocol::frame::Frame as WsFrame;

use super::metered::Metered;
use crate::protocol::{Frame, MAX_FRAME_BYTES, SUBPROTOCOL};

/// Size of the read buffer in bytes. The library's default of 128 KiB would be most of an idle
/// socket's memory; larger frames only take more reads.
const READ_BUFFER_BYTES: usize = 512;

/// Frames read after our close frame until the client's arrives: as many as may have been in
/// flight.
const LAST_FRAMES: usize = 256;

/// Frames are collected up to this many bytes before a write.
pub(super) const WRITE_BUFFER_BYTES: usize = 8 * 1024;

/// A requested upgrade.
#[derive(Debug)]
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// Accepts the upgrade and makes its response. Compression is never offered. `None`: the
    /// request is not a WebSocket upgrade.
    pub fn accept(request: &mut Request) -> Option<(Self, Response)> {
        let mut response = create_response_with_body(request, Body::empty).ok()?;
        let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let mut offers = offers.iter().filter_map(|offer| offer.to_str().ok());
        if offers.any(|offer| offer.split(',').any(|one| one.trim() == SUBPROTOCOL)) {
            let ours = HeaderValue::from_static(SUBPROTOCOL);
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, ours);
        }
        Some((Self(hyper::upgrade::on(request)), response))
    }

    /// Waits until the response is sent; `None` if the client left before.
    pub async fn finish(self) -> Option<Wire> {
        let stream = Metered::new(TokioIo::new(self.0.await.ok()?));
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES))
            .read_buffer_size(READ_BUFFER_BYTES);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Some(Wire { socket, unsent: BytesMut::new(), replies: false })
    }
}

/// An open socket.
#[derive(Debug)]
pub struct Wire {
    socket: WebSocketStream<Metered<TokioIo<Upgraded>>>,
    /// Encoded frames that are not written yet.
    unsent: BytesMut,
    /// Whether the library may have frames that are not written yet.
    replies: bool,
}

/// A text frame; our encoder writes UTF-8.
pub(super) fn text(frame: Frame) -> WsFrame {
    WsFrame::message(frame, OpCode::Data(Data::Text), true)
}

impl Wire {
    /// Receives the next frame; cancel-safe. The library has replied to pings and closes already.
    pub async fn recv(&mut self) -> Option<Result<WsMessage, tungstenite::Error>> {
        let received = self.socket.next().await;
        let meter = self.socket.get_mut();
        match &received {
            Some(Ok(message @ (WsMessage::Ping(payload) | WsMessage::Pong(payload)))) => {
                meter.on_control(payload.len());
                self.replies |= matches!(message, WsMessage::Ping(_));
            }
            Some(Ok(_)) => meter.on_message(),
            Some(Err(tungstenite::Error::Io(_))) if meter.is_exceeded() => {
                let (size, max_size) = (usize::MAX, MAX_FRAME_BYTES);
                return Some(Err(CapacityError::MessageTooLong { size, max_size }.into()));
            }
            _ => {}
        }
        received
    }

    /// When the client's unfinished message began.
    pub(super) fn unfinished_since(&self) -> Option<Instant> {
        self.socket.get_ref().unfinished_since()
    }

    /// Writes frames with as few system calls as possible. If cancelled, any part of them may have
    /// been written: only [`Self::close`] may follow.
    pub async fn send(
        &mut self,
        frames: impl IntoIterator<Item = WsFrame>,
    ) -> Result<(), tungstenite::Error> {
        // Unfinished writes come first: ours, then the library's.
        self.write().await?;
        if self.replies {
            self.socket.flush().await?;
            self.replies = false;
        }
        for frame in frames {
            self.encode(frame)?;
            if self.unsent.len() > WRITE_BUFFER_BYTES {
                self.write().await?;
            }
        }
        self.write().await
    }

    /// Writes frames as far as the connection takes them now; what is left is written with the next
    /// [`Self::send`], where an error shows too. Only where [`Self::is_clear`]. True: all are written.
    pub(super) fn send_now(&mut self, frames: impl IntoIterator<Item = WsFrame>) -> bool {
        frames.into_iter().all(|frame| self.encode(frame).is_ok())
            && matches!(self.write().now_or_never(), Some(Ok(())))
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_clear(&self) -> bool {
        !self.replies && self.unsent.is_empty()
    }

    fn encode(&mut self, frame: WsFrame) -> Result<(), tungstenite::Error> {
        self.unsent.reserve(frame.len());
        frame.format(&mut (&mut self.unsent).writer())
    }

    async fn write(&mut self) -> Result<(), tungstenite::Error> {
        if self.unsent.has_remaining() {
            self.socket.get_mut().write_all_buf(&mut self.unsent).await?;
        }
        // Frees the buffer of a burst, because most sockets are idle.
        self.unsent = BytesMut::new();
        Ok(())
    }

    pub(super) async fn ping(&mut self) -> Result<(), tungstenite::Error> {
        self.replies = true;
        self.socket.feed(WsMessage::Ping(bytes::Bytes::new())).await
    }

    /// Writes the last frames and a close frame, then reads until the client's close frame:
    /// otherwise every close would be unclean.
    pub(super) async fn close(
        &mut self,
        last: impl IntoIterator<Item = Frame>,
        close: CloseFrame,
    ) -> Result<(), tungstenite::Error> {
        self.send(last.into_iter().map(text)).await?;
        self.socket.send(WsMessage::Close(Some(close))).await?;
        for _ in 0..LAST_FRAMES {
            let Some(Ok(_)) = self.recv().await else { break };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use bytes::Bytes;
    use tokio::{io::DuplexStream, sync::mpsc};
    use tokio_tungstenite::client_async;

    use super::*;

    /// Returns both ends of a socket over a pipe that holds so many bytes.
    async fn pair(holds: usize) -> (Wire, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = tokio::io::duplex(holds);
        let (upgrades, mut upgraded) = mpsc::unbounded_channel();
        let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
            let mut request = request.map(Body::new);
            let (upgrade, response) = Upgrade::accept(&mut request).expect("an upgrade");
            upgrades.send(upgrade).expect("the test waits");
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let server = hyper::server::conn::http1::Builder::new();
        tokio::spawn(server.serve_connection(TokioIo::new(ours), service).with_upgrades());
        let (client, _) = client_async("ws://beseda/", theirs).await.expect("a socket");
        let upgrade = upgraded.recv().await.expect("an upgrade");
        (upgrade.finish().await.expect("a socket"), client)
    }

    fn frames(count: usize, length: usize) -> impl Iterator<Item = WsFrame> {
        (0..count).map(move |_| text(Bytes::from("x".repeat(length))))
    }

    #[tokio::test]
    async fn what_a_burst_took_is_given_back() {
        let (mut wire, client) = pair(1 << 20).await;
        wire.send(frames(100, 3_000)).await.expect("written");
        assert!(!wire.unsent.try_reclaim(1), "the buffer was not freed");
        assert_eq!(
            client.take(100).filter(|frame| std::future::ready(frame.is_ok())).count().await,
            100
        );
    }

    #[tokio::test]
    async fn what_a_client_does_not_take_at_once_is_sent_later_and_whole() {
        let (mut wire, client) = pair(10_000).await;
        assert!(wire.is_clear() && wire.send_now(frames(2, 3_000)), "there is room");
        assert!(!wire.send_now(frames(2, 3_000)) && !wire.is_clear(), "the pipe is full");
        let reading = client.take(5).map(|frame| frame.expect("a frame").len()).collect::<Vec<_>>();
        let (sent, read) = tokio::join!(wire.send(frames(1, 3_000)), reading);
        sent.expect("written");
        assert!(wire.is_clear());
        assert_eq!(read, [3_000; 5]);
    }

    #[tokio::test]
    async fn a_pong_is_owed_until_it_is_written() {
        let (mut wire, mut client) = pair(10_000).await;
        client.send(WsMessage::Ping(Bytes::from_static(b"so"))).await.expect("written");
        let received = wire.recv().await.expect("a frame").expect("no error");
        assert!(matches!(received, WsMessage::Ping(_)) && !wire.is_clear());
        wire.send([]).await.expect("written");
        assert!(wire.is_clear());
        let reply = client.next().await.expect("a frame").expect("no error");
        assert_eq!(reply, WsMessage::Pong(Bytes::from_static(b"so")));
    }

    #[tokio::test]
    async fn a_close_comes_whole_after_a_write_that_was_cut_short() {
        let (mut wire, mut client) = pair(10_000).await;
        let sending = wire.send(frames(100, 3_000));
        let cut = tokio::time::timeout(Duration::from_millis(50), sending).await;
        assert!(cut.is_err() && wire.unsent.has_remaining(), "the client does not read");
        let close = CloseFrame { code: 4000.into(), reason: "so".into() };
        let said = close.clone();
        // Moves `wire`, so that its end of the pipe is dropped after the close.
        let closing = async move { wire.close(Some(Bytes::from_static(b"bye")), said).await };
        let reading = async {
            let mut told = Vec::new();
            while let Some(Ok(message)) = client.next().await {
                told.push(message);
            }
            told
        };
        let both = async { tokio::join!(closing, reading) };
        let ended = tokio::time::timeout(Duration::from_secs(10), both).await;
        let (closed, told) = ended.expect("an end");
        closed.expect("a clean end");
        let [texts @ .., bye, last] = told.as_slice() else { panic!("{told:?}") };
        assert!(texts.iter().all(|text| text.len() == 3_000), "{texts:?}");
        assert_eq!((bye, last), (&WsMessage::text("bye"), &WsMessage::Close(Some(close))));
    }
}
