//! Tickets for sockets.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts, State},
    http::{HeaderMap, header, request::Parts},
};
use beseda_protocol::rest::{ChatTicket, ManyChatsTicket};

use super::extract::{AuthUser, ChatPath};
use crate::{
    auth::TICKET_LIFETIME,
    config::Config,
    context::Context,
    error::Error,
    net::is_within,
    origin::{Authority, Origin},
    protocol::SUBPROTOCOL,
};

/// The origin of the service as the client sees it: `https`, `chat.example.com`.
pub(crate) struct ExternalOrigin {
    secure: bool,
    host: Authority,
}

impl ExternalOrigin {
    /// Takes the origin from the configuration, else from a trusted proxy's headers, else from the
    /// request.
    pub(crate) fn of(config: &Config, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<Self> {
        if let Some(url) = &config.public_url {
            return Some(Self { secure: url.scheme() == "https", host: url.authority().clone() });
        }
        let first = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.split(',').next()?.trim())
        };
        let trusted = peer.is_some_and(|peer| is_within(&config.trusted_proxies, peer));
        let forwarded = |name: &str| trusted.then(|| first(name)).flatten();
        let host = forwarded("x-forwarded-host").or_else(|| first(header::HOST.as_str()))?;
        // Traefik sends `wss` for sockets.
        let secure = forwarded("x-forwarded-proto").is_some_and(|scheme| {
            ["https", "wss"].iter().any(|secure| secure.eq_ignore_ascii_case(scheme))
        });
        // Parsed as a host, because the header's value ends up in a URL.
        Some(Self { secure, host: host.parse().ok()? })
    }

    /// Whether a page's origin has the same host. The scheme is not compared, because a proxy that
    /// terminates TLS may not report it.
    pub(crate) fn is_at_home(&self, page: &Origin) -> bool {
        page.is_of_host(&self.host)
    }

    /// The URL of a path.
    pub(super) fn http(&self, path: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.host.within(scheme))
    }

    fn ws(&self, path: &str, ticket: &str) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{path}?ticket={ticket}", self.host.within(scheme))
    }
}

impl FromRequestParts<Context> for ExternalOrigin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        Self::of(&context.config, peer, &parts.headers)
            .ok_or(Error::InvalidRequest("The Host header is not a host."))
    }
}

/// Issues a ticket for the socket of one chat.
#[utoipa::path(get, path = "/chats/{chat}/connect/", tag = "sockets", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), responses(
    (status = 200, description = "Good for one socket within a minute", body = ChatTicket),
))]
pub(super) async fn connect_chat(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    reached: ExternalOrigin,
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

/// Issues a ticket for the socket of many chats and the user's inbox.
#[utoipa::path(post, path = "/connect/", tag = "sockets", responses(
    (status = 200, description = "Good for one socket within a minute", body = ManyChatsTicket),
))]
pub(super) async fn connect_many(
    State(context): State<Context>,
    user: AuthUser,
    reached: ExternalOrigin,
) -> Result<Json<ManyChatsTicket>, Error> {
    let ticket = context.tickets.issue(&user.0, None)?;
    Ok(Json(ManyChatsTicket {
        ws_url: reached.ws("/ws/", &ticket),
        ticket,
        expires_in: TICKET_LIFETIME.as_secs(),
        protocol: SUBPROTOCOL.into(),
        heartbeat_ms: heartbeat_ms(&context),
        epoch: context.chats.get_epoch().await?.to_string(),
    }))
}

fn heartbeat_ms(context: &Context) -> u64 {
    u64::try_from(context.config.heartbeat.as_millis()).unwrap_or(u64::MAX)
}
