//! The socket of one chat, from the client's side.

use std::borrow::Cow;

use beseda_client::{Closed, Utf8Bytes, Wire, WireOptions};
use beseda_protocol::model::ChatId;
use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::{Deserialize, Deserializer};

/// The fields of a server frame that are checked. Nothing is copied: this process reads thousands of
/// sockets.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// 0 where it is null or missing.
    #[serde(default, deserialize_with = "number")]
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

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(crate) fn read(text: &str) -> Result<Frame<'_>, String> {
    serde_json::from_str(text).map_err(|error| format!("a frame could not be read: {error}"))
}

/// The position from which a socket resumes.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub ev: i64,
    /// Unknown before the first `subscribed`.
    pub epoch: Option<String>,
}

pub(crate) struct Socket(Wire);

impl Socket {
    pub(crate) async fn open(
        at: &Url,
        chat_id: ChatId,
        token: &str,
        from: &Position,
    ) -> Result<Self, String> {
        let mut url = at.clone();
        url.set_path(&format!("/ws/chat/{chat_id}/"));
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        // Both schemes are special, and `set_scheme` allows this change.
        let _ = url.set_scheme(scheme);
        url.query_pairs_mut().append_pair("after_ev", &from.ev.to_string());
        if let Some(epoch) = &from.epoch {
            url.query_pairs_mut().append_pair("epoch", epoch);
        }
        let mut options = WireOptions::default();
        let token = HeaderValue::from_str(&format!("Bearer {token}"));
        options.headers.insert(AUTHORIZATION, token.map_err(|error| error.to_string())?);
        let wire = Wire::open(url.as_str(), &options).await;
        wire.map(Self).map_err(|error| error.to_string())
    }

    /// Returns the next text frame, or the reason of the socket's end. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Utf8Bytes, Closed> {
        self.0.next_text().await
    }
}
