//! A socket that notices when nobody is there any more.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
    },
};
use url::Url;

use super::{
    lines::harmless,
    service::{self, Failure},
    wire::{Command, Frame},
};
use crate::protocol::SUBPROTOCOL;

/// How long a socket may take to open, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the line may be silent before it is tried, until `hello` has said how often the server
/// pings.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// What of that is believed.
const HEARTBEATS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a socket ended, by its close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Stop,
    Token,
    RateLimited,
    Retry,
}

impl Ending {
    /// What is none of the service's own codes comes from something between, and is a retry.
    fn of(code: u16) -> Self {
        match code {
            1003 | 1009 | 4000..=4099 => Self::Stop,
            4100..=4199 => Self::Token,
            4204 => Self::RateLimited,
            _ => Self::Retry,
        }
    }
}

#[derive(Debug)]
pub(super) enum Incoming {
    Frame(Box<Frame>),
    Ended { ending: Ending, why: String },
}

pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    heartbeat: Duration,
    heard: Instant,
    /// Since when an answer is waited for.
    asked: Option<Instant>,
}

impl Socket {
    pub(super) async fn open(url: &Url, tls: &Arc<rustls::ClientConfig>) -> Result<Self, Failure> {
        let again = |why: String| Failure::Again { why, pause: None };
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|error| Failure::Final(error.to_string()))?;
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let tls = Connector::Rustls(Arc::clone(tls));
        // Small frames must not wait for each other.
        let opening = connect_async_tls_with_config(request, None, true, Some(tls));
        match timeout(PATIENCE, opening).await {
            Ok(Ok((stream, _))) => {
                Ok(Self { stream, heartbeat: HEARTBEAT, heard: Instant::now(), asked: None })
            }
            Ok(Err(tungstenite::Error::Http(answer))) => {
                Err(service::failure(answer.status(), None))
            }
            Ok(Err(error)) => Err(again(error.to_string())),
            Err(_) => Err(again("no answer".to_owned())),
        }
    }

    /// The next frame, or the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Incoming {
        loop {
            let deadline = match self.asked {
                Some(asked) => asked + PATIENCE,
                None => self.heard + self.heartbeat,
            };
            let Ok(came) = timeout_at(deadline, self.stream.next()).await else {
                if self.asked.is_some() || !self.send(&Command::Ping).await {
                    return lost("the line is dead".to_owned());
                }
                continue;
            };
            (self.heard, self.asked) = (Instant::now(), None);
            match came {
                Some(Ok(Message::Text(text))) => {
                    // What can't be read is of another version, and nothing that we need.
                    let frame = serde_json::from_str(&text).unwrap_or(Frame::Unknown);
                    if let Frame::Hello { heartbeat_ms } = frame {
                        let told = Duration::from_millis(heartbeat_ms);
                        self.heartbeat = told.clamp(HEARTBEATS.0, HEARTBEATS.1);
                    }
                    return Incoming::Frame(Box::new(frame));
                }
                // Flushed with the pong that the library has queued.
                Some(Ok(Message::Ping(_))) => {
                    let _ = timeout(PATIENCE, self.stream.flush()).await;
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    // Answers the close.
                    let _ = timeout(GOODBYE, self.stream.flush()).await;
                    let code = close.code.into();
                    let why = format!("{} ({code})", harmless(&close.reason));
                    return Incoming::Ended { ending: Ending::of(code), why };
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return lost(error.to_string()),
                None => return lost("it ended".to_owned()),
            }
        }
    }

    /// Whether it went out; where it did not, [`Self::next`] tells the end.
    pub(super) async fn send(&mut self, command: &Command<'_>) -> bool {
        self.asked.get_or_insert_with(Instant::now);
        // Plain structs with string keys can't fail to serialize.
        let text = serde_json::to_string(command).unwrap_or_default();
        matches!(timeout(PATIENCE, self.stream.send(Message::text(text))).await, Ok(Ok(())))
    }

    pub(super) async fn close(mut self) {
        let _ = timeout(GOODBYE, self.stream.close(None)).await;
    }
}

fn lost(why: String) -> Incoming {
    Incoming::Ended { ending: Ending::Retry, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_code_says_what_to_do() {
        for (code, ending) in [
            (4000, Ending::Stop),
            (4004, Ending::Stop),
            (1009, Ending::Stop),
            (4101, Ending::Token),
            (4102, Ending::Token),
            (4200, Ending::Retry),
            (4203, Ending::Retry),
            (4204, Ending::RateLimited),
            (1000, Ending::Retry),
            (1006, Ending::Retry),
            (1012, Ending::Retry),
        ] {
            assert_eq!(Ending::of(code), ending, "{code}");
        }
    }
}
