//! Tickets for sockets.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts, State},
    http::{HeaderMap, header, request::Parts},
};
use beseda_protocol::rest::{ChatTicket, ManyChatsTicket};
use url::Url;

use super::extract::{AuthUser, ChatPath};
use crate::{
    auth::TICKET_LIFETIME, config::Config, context::Context, error::Error, net::is_within,
    protocol::SUBPROTOCOL,
};

/// Where this request came in, as the client sees it: `https`, `chat.example.com`.
pub(crate) struct Reached {
    secure: bool,
    host: String,
}

impl Reached {
    /// From the configuration; else from a trusted proxy's headers; else from the request's own.
    pub(crate) fn of(config: &Config, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<Self> {
        if let Some(url) = &config.public_url {
            return Some(Self { secure: url.scheme() == "https", host: authority(url)? });
        }
        let first = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.split(',').next()?.trim().to_owned())
        };
        let trusted = peer.is_some_and(|peer| is_within(&config.trusted_proxies, peer));
        let forwarded = |name: &str| trusted.then(|| first(name)).flatten();
        let host = forwarded("x-forwarded-host").or_else(|| first(header::HOST.as_str()))?;
        let secure = forwarded("x-forwarded-proto").is_some_and(|proto| proto == "https");
        // Whatever stands in a header ends up in a URL: it must be a host and no more.
        let plain = Url::parse(&format!("http://{host}/")).ok()?;
        (authority(&plain)? == host.to_ascii_lowercase()
            || format!("{}:80", authority(&plain)?) == host)
            .then_some(Self { secure, host })
    }

    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.host)
    }

    fn ws(&self, path: &str, ticket: &str) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{path}?ticket={ticket}", self.host)
    }
}

fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

impl FromRequestParts<Context> for Reached {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        Self::of(&context.config, peer, &parts.headers)
            .ok_or(Error::InvalidRequest("The Host header is not a host."))
    }
}

/// A ticket for one chat's socket.
#[utoipa::path(get, path = "/chats/{chat}/connect/", tag = "sockets", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), responses(
    (status = 200, description = "Good for one socket within a minute", body = ChatTicket),
))]
pub(super) async fn connect_chat(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    reached: Reached,
) -> Result<Json<ChatTicket>, Error> {
    let head = context.chats.get_head(user.id(), chat_id).await?;
    let ticket = context.tickets.issue(&user.0, Some(chat_id))?;
    Ok(Json(ChatTicket {
        ws_url: reached.ws(&format!("/ws/chat/{chat_id}/"), &ticket),
        ticket,
        expires_in: TICKET_LIFETIME.as_secs(),
        protocol: SUBPROTOCOL.into(),
        heartbeat_ms: heartbeat_ms(&context),
        head_ev: head.ev,
        head_seq: head.seq,
        epoch: head.epoch,
    }))
}

/// A ticket for the socket of many chats and the user's inbox.
#[utoipa::path(post, path = "/connect/", tag = "sockets", responses(
    (status = 200, description = "Good for one socket within a minute", body = ManyChatsTicket),
))]
pub(super) async fn connect_many(
    State(context): State<Context>,
    user: AuthUser,
    reached: Reached,
) -> Result<Json<ManyChatsTicket>, Error> {
    let ticket = context.tickets.issue(&user.0, None)?;
    Ok(Json(ManyChatsTicket {
        ws_url: reached.ws("/ws/", &ticket),
        ticket,
        expires_in: TICKET_LIFETIME.as_secs(),
        protocol: SUBPROTOCOL.into(),
        heartbeat_ms: heartbeat_ms(&context),
        epoch: context.chats.store().get_epoch().await?,
    }))
}

fn heartbeat_ms(context: &Context) -> u64 {
    u64::try_from(context.config.heartbeat.as_millis()).unwrap_or(u64::MAX)
}
