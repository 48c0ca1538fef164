//! One chat's socket, as a client reads it.

use std::borrow::Cow;

use beseda::{model::ChatId, protocol::SUBPROTOCOL};
use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};

use crate::rest;

/// What is read at once. The library's own 128 KiB are allocated anew for nearly every message, which
/// costs more than all the rest of a listener, and with thousands of sockets all the memory there is.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// A server frame, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(default)]
    pub ev: i64,
    #[serde(borrow)]
    pub epoch: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub message: Option<Content<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Content<'a> {
    pub seq: i64,
    #[serde(borrow)]
    pub client_msg_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

pub(crate) fn read(text: &str) -> Result<Frame<'_>, String> {
    serde_json::from_str(text).map_err(|error| format!("a frame could not be read: {error}"))
}

/// Where a socket goes on from.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub ev: i64,
    /// Unknown before the first `subscribed`.
    pub epoch: Option<String>,
}

pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn open(
        at: &Url,
        chat_id: ChatId,
        token: &str,
        from: &Position,
    ) -> Result<Self, String> {
        Self::try_open(at, chat_id, token, from).await.map_err(|error| error.to_string())
    }

    async fn try_open(
        at: &Url,
        chat_id: ChatId,
        token: &str,
        from: &Position,
    ) -> Result<Self, tungstenite::Error> {
        let mut url = rest::path(at, &format!("/ws/chat/{chat_id}/"));
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        // Both are special schemes, between which a URL may be changed.
        let _ = url.set_scheme(scheme);
        url.query_pairs_mut().append_pair("after_ev", &from.ev.to_string());
        if let Some(epoch) = &from.epoch {
            url.query_pairs_mut().append_pair("epoch", epoch);
        }
        let mut request = url.as_str().into_client_request()?;
        let token = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(tungstenite::http::Error::from)?;
        request.headers_mut().insert(header::AUTHORIZATION, token);
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        // Small frames must not wait for each other on either side.
        let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let (socket, _) = connecting.await?;
        Ok(Self(socket))
    }

    /// The next text frame, or how the socket ended. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Utf8Bytes, String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                // Flushed with the pong that the library has queued.
                Some(Ok(Message::Ping(_))) => {
                    let _ = self.0.flush().await;
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(format!("{} {}", frame.code, frame.reason));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("without a close frame".to_owned()),
            }
        }
    }
}
