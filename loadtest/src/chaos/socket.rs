//! Opening and reading sockets, as a careful client does.

use std::time::Duration;

use beseda::protocol::SUBPROTOCOL;
use futures_util::{SinkExt, StreamExt};
use rand::{Rng, rngs::StdRng};
use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        self, Message as WsMessage,
        client::IntoClientRequest,
        http::{HeaderValue, header},
    },
};

use super::{
    findings::{Kind, tick},
    model::Frame,
    world::{Person, World},
};

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a socket may take to open.
const OPENING: Duration = Duration::from_secs(5);

/// The service pings every 5 s here: who hears nothing for this long has been left alone.
const SILENCE: Duration = Duration::from_secs(12);

#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    pub replica: usize,
}

/// What came.
#[derive(Debug)]
pub(super) enum Incoming {
    Frame(Box<Frame>),
    /// Closed by the service, with its code.
    Closed(u16),
    /// Without a word.
    Broken,
}

impl Socket {
    /// Opens the socket `path` (`/ws/…`) on a random replica: with the token, or with a ticket that
    /// another one may have given (by `connect`, a method and a path of REST).
    pub(super) async fn open(
        world: &World,
        rng: &mut StdRng,
        person: &Person,
        path: &str,
        query: &[(&str, String)],
        connect: (Method, &str),
    ) -> Result<Self, String> {
        let replica = world.any_replica(rng);
        let mut query: Vec<String> = query
            .iter()
            // Numbers and epochs: nothing to encode.
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let with_ticket = rng.random_bool(0.5);
        if with_ticket {
            let giver = world.any_replica(rng);
            let answer = world.once(giver, &connect.0, connect.1, person, None).await;
            let answer = answer.ok_or("no answer about a ticket")?;
            let ticket: Option<Value> = answer.read().ok();
            let ticket = ticket.and_then(|t| Some(t.get("ticket")?.as_str()?.to_owned()));
            let Some(ticket) = ticket else { return Err(format!("no ticket: {}", answer.text())) };
            query.push(format!("ticket={ticket}"));
        }
        let url = format!("ws://{}{path}?{}", world.replicas[replica], query.join("&"));
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        if !with_ticket {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", person.token));
            let bearer = bearer.map_err(|error| error.to_string())?;
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let opening = tokio_tungstenite::connect_async_with_config(request, None, true);
        match tokio::time::timeout(OPENING, opening).await {
            Ok(Ok((stream, _))) => {
                tick(&world.figures.sockets);
                Ok(Self { stream, replica })
            }
            Ok(Err(tungstenite::Error::Http(response))) => {
                // A draining replica sends upgrades elsewhere; nothing else is refused by status.
                if response.status().as_u16() != 503 {
                    let what = format!("an upgrade of {path} was answered {}", response.status());
                    world.findings.add(Kind::Answer, what);
                }
                Err(response.status().to_string())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("not in time".to_owned()),
        }
    }

    pub(super) async fn next(&mut self, world: &World) -> Incoming {
        loop {
            let Ok(next) = tokio::time::timeout(SILENCE, self.stream.next()).await else {
                return Incoming::Broken;
            };
            match next {
                Some(Ok(WsMessage::Text(text))) => {
                    tick(&world.figures.frames);
                    match serde_json::from_str::<Frame>(&text) {
                        Ok(frame) => return Incoming::Frame(Box::new(frame)),
                        Err(error) => {
                            let what = format!("a frame could not be read: {error}: {text}");
                            world.findings.add(Kind::Answer, what);
                        }
                    }
                }
                // Flushed with the pong that the library has queued.
                Some(Ok(WsMessage::Ping(_))) => {
                    let _ = self.stream.flush().await;
                }
                Some(Ok(WsMessage::Close(Some(frame)))) => {
                    let code = frame.code.into();
                    // Answers the close.
                    let _ = self.stream.flush().await;
                    return Incoming::Closed(code);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Incoming::Broken,
            }
        }
    }

    pub(super) async fn send(&mut self, command: &Value) -> bool {
        self.stream.send(WsMessage::text(command.to_string())).await.is_ok()
    }

    /// Leaves, now and then without a word.
    pub(super) async fn leave(&mut self, rng: &mut StdRng) {
        if rng.random_bool(0.7) {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.close(None)).await;
        }
    }
}
