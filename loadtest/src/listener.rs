//! The socket of a room's other member, which awaits every message.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use beseda::{
    model::{ChatId, Message},
    protocol::SUBPROTOCOL,
};
use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use serde::Deserialize;
use tokio::{net::TcpStream, sync::oneshot};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        self, Message as WsMessage,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};

use crate::{ledger::Ledger, rest, run::Tally};

/// Pause before a socket that ended is opened again, as a client does that resumes.
const RECONNECT: Duration = Duration::from_millis(500);

/// What is read at once. The library's own 128 KiB are allocated anew for nearly every message, which
/// costs more than all the rest of a listener.
const READ_BUFFER_BYTES: usize = 4 * 1024;

pub(crate) struct Listener {
    pub room: u32,
    pub chat_id: ChatId,
    /// Where to listen; after a failure the next one.
    pub urls: Vec<Url>,
    pub token: String,
    pub ledger: Arc<Ledger>,
    pub tally: Arc<Tally>,
}

/// A server frame, as far as it matters here.
#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    ev: i64,
    epoch: Option<String>,
    message: Option<Message>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Listener {
    /// Listens for ever, resuming where a socket ended; says once when the first one is in step.
    pub(crate) async fn run(self, ready: oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut epoch = None;
        for attempt in 0.. {
            let url = &self.urls[attempt % self.urls.len()];
            match self.connect(url, epoch.as_deref()).await {
                Ok(mut socket) => {
                    let end = self.listen(&mut socket, &mut epoch, &mut ready).await;
                    self.note(&format!("the socket of room {} ended: {end}", self.room));
                    let _ = socket.close(None).await;
                }
                Err(error) => {
                    self.note(&format!("the socket of room {} did not open: {error}", self.room));
                }
            }
            self.tally.reconnects.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RECONNECT).await;
        }
    }

    fn note(&self, line: &str) {
        self.tally.note(line);
    }

    async fn connect(&self, url: &Url, epoch: Option<&str>) -> Result<Socket, tungstenite::Error> {
        let mut url = rest::path(url, &format!("/ws/chat/{}/", self.chat_id));
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        // Both are special schemes, between which a URL may be changed.
        let _ = url.set_scheme(scheme);
        let after_ev = self.ledger.position().to_string();
        url.query_pairs_mut().append_pair("after_ev", &after_ev);
        if let Some(epoch) = epoch {
            url.query_pairs_mut().append_pair("epoch", epoch);
        }
        let mut request = url.as_str().into_client_request()?;
        let token = HeaderValue::from_str(&format!("Bearer {}", self.token))
            .map_err(tungstenite::http::Error::from)?;
        request.headers_mut().insert(header::AUTHORIZATION, token);
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        // Small frames must not wait for each other on either side.
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let (socket, _) = connecting.await?;
        Ok(socket)
    }

    /// Reads to the socket's end, and says how it ended.
    async fn listen(
        &self,
        socket: &mut Socket,
        epoch: &mut Option<String>,
        ready: &mut Option<oneshot::Sender<()>>,
    ) -> String {
        loop {
            match socket.next().await {
                Some(Ok(WsMessage::Text(text))) => match serde_json::from_str::<Frame>(&text) {
                    Ok(frame) => self.on_frame(frame, epoch, ready),
                    Err(error) => self.unexpected(format!("a frame could not be read: {error}")),
                },
                // Flushed with the pong that the library has queued.
                Some(Ok(WsMessage::Ping(_))) => {
                    let _ = socket.flush().await;
                }
                Some(Ok(WsMessage::Close(Some(frame)))) => {
                    return format!("{} {}", frame.code, frame.reason);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.to_string(),
                None => return "without a close frame".to_owned(),
            }
        }
    }

    fn on_frame(
        &self,
        frame: Frame,
        epoch: &mut Option<String>,
        ready: &mut Option<oneshot::Sender<()>>,
    ) {
        match (frame.kind.as_str(), frame.message) {
            ("message.created", Some(message)) => {
                let id = message.client_msg_id.as_deref().unwrap_or_default();
                let arrived = self.ledger.arrived(id, message.seq, frame.ev, Instant::now());
                match arrived {
                    Ok(took) => self.tally.on_arrival(took),
                    Err(violation) => self.tally.violation(violation),
                }
            }
            ("subscribed", _) => *epoch = frame.epoch,
            ("synced", _) => {
                if let Some(ready) = ready.take() {
                    // Nobody waits any more: the run is over.
                    let _ = ready.send(());
                }
            }
            ("catchup", _) => {
                self.tally.catchups.fetch_add(1, Ordering::Relaxed);
            }
            ("message.updated" | "message.deleted" | "chat.read" | "reset" | "chat.deleted", _) => {
                self.unexpected(format!("a frame {} came", frame.kind));
            }
            _ => {}
        }
    }

    fn unexpected(&self, what: String) {
        self.tally.violation(crate::ledger::Violation::Unexpected { room: self.room, what });
    }
}
