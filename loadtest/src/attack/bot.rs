//! A hostile client: it connects, misbehaves until it is disconnected, and reconnects.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};

/// The kinds of misbehaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Connects and sends nothing.
    Silent,
    /// Sends an endless request head, one byte at a time (slowloris).
    Trickle,
    /// Opens a socket without authentication.
    Unnamed,
    /// Opens a socket, reads nothing and answers no ping, like a client without network.
    Deaf,
    /// Sends invalid JSON.
    Junk,
    /// Sends a frame of more than 64 KiB.
    Oversized,
    /// Sends valid and invalid commands and pings at twice the allowed rate.
    Chatter,
}

/// The share of each kind, in percent.
const MIX: [(Kind, u32); 7] = [
    (Kind::Silent, 25),
    (Kind::Trickle, 20),
    (Kind::Unnamed, 20),
    (Kind::Deaf, 25),
    (Kind::Junk, 4),
    (Kind::Oversized, 4),
    (Kind::Chatter, 2),
];

/// Shortest and longest pause before a reconnect, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 500..1_500;

/// Lifetime of a socket that reads nothing: longer than the service's wait for a pong.
const DEAF_FOR: Duration = Duration::from_secs(60);

/// Frames of a chatter per burst, and pause between bursts: 100 a second, twice the limit.
const CHATTER: (usize, Duration) = (10, Duration::from_millis(100));

/// Size of an oversized frame, in bytes; the limit is 64 KiB.
const OVERSIZED: usize = 100_000;

/// The counters of all bots.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) came: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) connections: AtomicU64,
}

/// Counts a connection while it is open.
struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct Bot {
    pub(super) kind: Kind,
    pub(super) at: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) token: String,
}

type Socket = WebSocketStream<TcpStream>;

impl Kind {
    pub(super) fn of(number: u32) -> Self {
        let mut left = number % MIX.iter().map(|(_, count)| count).sum::<u32>();
        for (kind, count) in MIX {
            match left.checked_sub(count) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        Self::Silent
    }
}

impl Bot {
    pub(super) async fn run(self, counts: Arc<Counts>) {
        let mut came = false;
        loop {
            if let Ok(stream) = self.connect().await {
                counts.connections.fetch_add(1, Relaxed);
                counts.open.fetch_add(1, Relaxed);
                let _open = Open(Arc::clone(&counts));
                if !std::mem::replace(&mut came, true) {
                    counts.came.fetch_add(1, Relaxed);
                }
                // Any end counts as a disconnect by the service.
                let _ = self.misbehave(stream).await;
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = if self.at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(from) = self.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        socket.connect(self.at).await
    }

    async fn misbehave(&self, mut stream: TcpStream) -> Result<(), tungstenite::Error> {
        match self.kind {
            Kind::Silent => {
                stream.read_u8().await?;
            }
            Kind::Trickle => {
                stream.write_all(b"GET /ws/ HTTP/1.1\r\nHost: chat\r\nX-Slow: ").await?;
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    stream.write_all(b"x").await?;
                }
            }
            Kind::Unnamed => read_to_end(self.upgrade(stream, false).await?).await,
            Kind::Deaf => {
                let _socket = self.upgrade(stream, true).await?;
                tokio::time::sleep(DEAF_FOR).await;
            }
            Kind::Junk => {
                let mut socket = self.upgrade(stream, true).await?;
                socket.send(Message::text("{\"type\": \"send\", [[[[")).await?;
                read_to_end(socket).await;
            }
            Kind::Oversized => {
                let mut socket = self.upgrade(stream, true).await?;
                socket.send(Message::text("x".repeat(OVERSIZED))).await?;
                read_to_end(socket).await;
            }
            Kind::Chatter => self.chatter(self.upgrade(stream, true).await?).await?,
        }
        Ok(())
    }

    async fn upgrade(&self, stream: TcpStream, named: bool) -> Result<Socket, tungstenite::Error> {
        let mut request = format!("ws://{}/ws/", self.at).into_client_request()?;
        if named {
            let token = HeaderValue::from_str(&format!("Bearer {}", self.token))
                .map_err(tungstenite::http::Error::from)?;
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let config = WebSocketConfig::default().read_buffer_size(1_024);
        Ok(client_async_with_config(request, stream, Some(config)).await?.0)
    }

    async fn chatter(&self, socket: Socket) -> Result<(), tungstenite::Error> {
        let (at_once, pause) = CHATTER;
        let (mut sending, receiving) = socket.split();
        let talking = async {
            let nobodys = beseda_protocol::model::ChatId::nil();
            let subscribe = format!(r#"{{"type":"subscribe","id":1,"chat_id":"{nobodys}"}}"#);
            for number in 0_usize.. {
                let frame = match number % 4 {
                    0 => Message::Ping(Vec::new().into()),
                    1 => Message::text(r#"{"type":"nonsense","id":1}"#),
                    2 => Message::text(&*subscribe),
                    _ => Message::text(r#"{"type":"ping"}"#),
                };
                sending.feed(frame).await?;
                if number % at_once == at_once - 1 {
                    sending.flush().await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Ok(())
        };
        tokio::select! {
            ended = talking => ended,
            () = receiving.for_each(async |_| ()) => Ok(()),
        }
    }
}

async fn read_to_end(mut socket: Socket) {
    while let Some(Ok(_)) = socket.next().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_bots_are_the_whole_mix() {
        assert_eq!(MIX.iter().map(|(_, count)| count).sum::<u32>(), 100);
        for (kind, count) in MIX {
            let found = (200..300).filter(|number| Kind::of(*number) == kind).count();
            assert_eq!(found, count as usize, "{kind:?}");
        }
    }
}
