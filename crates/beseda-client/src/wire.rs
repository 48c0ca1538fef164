//! The thin layer: one WebSocket, without any knowledge of chats.
//!
//! [`Wire`] is what the resuming [`Client`](crate::Client) stands on, and what a load driver with
//! thousands of sockets uses by itself. [`Connection`] adds a watch over whether the other end lives.

use std::{io, sync::Arc, time::Duration};

use beseda_protocol::{ClientFrame, SUBPROTOCOL};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

pub use tokio_tungstenite::tungstenite::{Message as WsMessage, Utf8Bytes};

/// What is read at once, in bytes. The library's own 128 KiB are allocated anew for nearly every
/// message, which costs a listener more than all the rest.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// How long a socket may take to open, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the line may be silent before it is tried, until `hello` has said how often the server
/// pings.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// What of that is believed.
const HEARTBEATS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a socket is opened.
#[derive(Debug, Clone, Default)]
pub struct WireOptions {
    /// Headers beside those of the upgrade; `Authorization` where there is no ticket in the URL.
    pub headers: HeaderMap,
    /// For `wss:`; without one this machine's authorities are trusted.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Size of the TCP receive buffer, in bytes; the system's own where not given.
    pub receive_buffer: Option<u32>,
    /// Whether the subprotocol is left out.
    pub without_subprotocol: bool,
}

/// Why a socket did not open.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The answer is no upgrade.
    #[error("it answered {}", .0.status())]
    Refused(Box<Response<Option<Vec<u8>>>>),
    #[error("no answer")]
    TimedOut,
    #[error("it can't be reached: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(Box<tungstenite::Error>),
}

impl WireError {
    /// Of an answer that is no upgrade.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(response) => Some(response.status()),
            _ => None,
        }
    }
}

impl From<tungstenite::Error> for WireError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::Refused(response),
            tungstenite::Error::Io(error) => Self::Io(error),
            error => Self::Protocol(Box::new(error)),
        }
    }
}

/// How a socket ended: the close code, 1005 for a close without one, 1006 for a connection that broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}")]
pub struct Closed {
    pub code: u16,
    pub reason: String,
}

impl Closed {
    pub(crate) fn broken(reason: impl ToString) -> Self {
        Self { code: 1006, reason: reason.to_string() }
    }
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Wire {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    upgrade: Response<()>,
    heard: Instant,
    pings: usize,
}

impl Wire {
    /// Opens a `ws:` or `wss:` URL; nothing has been read.
    ///
    /// # Errors
    /// It did not open within 10 s.
    pub async fn open(url: &str, options: &WireOptions) -> Result<Self, WireError> {
        timeout(PATIENCE, Self::opening(url, options)).await.map_err(|_| WireError::TimedOut)?
    }

    async fn opening(url: &str, options: &WireOptions) -> Result<Self, WireError> {
        let mut request = url.into_client_request()?;
        let headers = request.headers_mut();
        if !options.without_subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        headers.extend(options.headers.clone());
        let uri = request.uri();
        let secure = uri.scheme_str() == Some("wss");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = connect(&host, port, options.receive_buffer).await?;
        // Small frames must not wait for each other.
        tcp.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let tls = options.tls.clone().map(Connector::Rustls);
        let opened = client_async_tls_with_config(request, tcp, Some(config), tls).await?;
        let (stream, upgrade) = opened;
        let upgrade = upgrade.map(|_| ());
        Ok(Self { stream, upgrade, heard: Instant::now(), pings: 0 })
    }

    /// The answer to the upgrade.
    pub fn upgrade(&self) -> &Response<()> {
        &self.upgrade
    }

    /// How many pings came. They are answered while something is awaited on the socket.
    pub fn pings(&self) -> usize {
        self.pings
    }

    /// The next text frame. Safe to cancel.
    ///
    /// # Errors
    /// How the socket ended.
    pub async fn next_text(&mut self) -> Result<Utf8Bytes, Closed> {
        loop {
            let came = self.stream.next().await;
            self.heard = Instant::now();
            match came {
                Some(Ok(WsMessage::Text(text))) => return Ok(text),
                // The library has queued the pong; it goes out with a flush.
                Some(Ok(WsMessage::Ping(_))) => {
                    self.pings += 1;
                    let _ = self.stream.flush().await;
                }
                Some(Ok(WsMessage::Close(close))) => {
                    // Answers the close.
                    let _ = timeout(GOODBYE, self.stream.flush()).await;
                    return Err(close.map_or_else(
                        || Closed { code: 1005, reason: String::new() },
                        |close| Closed {
                            code: close.code.into(),
                            reason: close.reason.to_string(),
                        },
                    ));
                }
                Some(Ok(WsMessage::Pong(_) | WsMessage::Frame(_))) => {}
                // Not of chat.v1.
                Some(Ok(WsMessage::Binary(_))) => {
                    return Err(Closed { code: 1003, reason: "a binary frame came".to_owned() });
                }
                Some(Err(error)) => return Err(Closed::broken(error)),
                None => return Err(Closed::broken("without a close frame")),
            }
        }
    }

    /// The same, where nothing at all, not even a ping, may fail to come for as long as `silence`.
    ///
    /// # Errors
    /// How the socket ended.
    pub async fn next_text_within(&mut self, silence: Duration) -> Result<Utf8Bytes, Closed> {
        loop {
            let deadline = self.heard + silence;
            match timeout_at(deadline, self.next_text()).await {
                Ok(outcome) => return outcome,
                Err(_) if self.heard + silence > deadline => {}
                Err(_) => return Err(Closed::broken("nothing comes any more")),
            }
        }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, frame: &ClientFrame<'_>) -> Result<(), tungstenite::Error> {
        self.send_raw(WsMessage::text(frame.encode())).await
    }

    /// Sends anything that a WebSocket can carry.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send_raw(&mut self, message: WsMessage) -> Result<(), tungstenite::Error> {
        self.stream.send(message).await
    }

    /// Says goodbye; [`Wire::next_text`] tells when the other end has answered.
    pub async fn close(&mut self) {
        let _ = timeout(GOODBYE, self.stream.close(None)).await;
    }
}

async fn connect(host: &str, port: u16, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A socket that notices when the server no longer responds.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    heartbeat: Duration,
    /// Since when an answer is waited for.
    asked: Option<Instant>,
}

impl Connection {
    /// # Errors
    /// It did not open.
    pub async fn open(url: &str, options: &WireOptions) -> Result<Self, WireError> {
        let wire = Wire::open(url, options).await?;
        Ok(Self { wire, heartbeat: HEARTBEAT, asked: None })
    }

    /// How often the server pings, as `hello` tells.
    pub fn set_heartbeat(&mut self, told: Duration) {
        self.heartbeat = told.clamp(HEARTBEATS.0, HEARTBEATS.1);
    }

    /// The next text frame. A line that is silent for a heartbeat is tried with a `ping`, and given up
    /// where nothing comes within 10 s. Safe to cancel.
    ///
    /// # Errors
    /// How the socket ended.
    pub async fn next_text(&mut self) -> Result<Utf8Bytes, Closed> {
        loop {
            let heard = self.wire.heard;
            if self.asked.is_some_and(|asked| heard > asked) {
                self.asked = None;
            }
            let deadline = match self.asked {
                Some(asked) => asked + PATIENCE,
                None => heard + self.heartbeat,
            };
            if let Ok(outcome) = timeout_at(deadline, self.wire.next_text()).await {
                return outcome;
            }
            if self.wire.heard > heard {
                // Pings came meanwhile, which are a sign of life too.
                continue;
            }
            if self.asked.is_some() || !self.send(ClientFrame::Ping.encode()).await {
                return Err(Closed::broken("the line is dead"));
            }
        }
    }

    /// Whether an encoded command went out; where it did not, [`Connection::next_text`] tells the end.
    pub async fn send(&mut self, command: String) -> bool {
        self.asked.get_or_insert_with(Instant::now);
        let sending = self.wire.send_raw(WsMessage::text(command));
        matches!(timeout(PATIENCE, sending).await, Ok(Ok(())))
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        self.wire.close().await;
    }
}
