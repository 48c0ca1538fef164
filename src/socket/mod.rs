//! Sockets: `/ws/chat/{chat}/` is for one chat, `/ws/` for many chats and the user's inbox.

mod catch_up;
mod closing;
pub(crate) mod command;
mod commands;
mod connection;
mod flush;
mod handshake;
mod inbox;
mod metered;
mod presence_recheck;
pub(crate) mod session;
mod subscriptions;
mod token_expiry;
mod waiting;
mod wire;

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{ConnectInfo, Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::any,
};

pub(crate) use self::closing::{CLOSE_WAIT, drain_window};
use self::handshake::{Arrival, Claim, Opening};
pub use self::wire::{Upgrade, Wire, WsMessage};
use crate::{
    api::{ExternalOrigin, bearer},
    chat::ChatRef,
    context::Context,
    error::Error,
    input::Params,
    model::Position,
    origin::Origin,
};

pub(crate) fn router() -> Router<Context> {
    Router::new().route("/ws/", any(open_many)).route("/ws/chat/{chat}/", any(open_chat))
}

async fn open_chat(
    State(context): State<Context>,
    chat: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    // A path that cannot name a chat counts as unknown, and is refused by a close code like any
    // other.
    let chat = chat.ok().and_then(|Path(raw)| ChatRef::parse(&raw));
    open(context, Opening::Chat(chat), request).await
}

async fn open_many(State(context): State<Context>, request: Request) -> Result<Response, Error> {
    open(context, Opening::Many, request).await
}

/// Refusals are sent after the upgrade, as close codes, because a browser hides the status of a
/// failed upgrade from the page.
async fn open(context: Context, opening: Opening, mut request: Request) -> Result<Response, Error> {
    if context.is_leaving() {
        return Err(Error::Unavailable(None));
    }
    let Some((upgrade, response)) = Upgrade::accept(&mut request) else {
        const REFUSED: Error = Error::InvalidRequest("This path takes WebSocket upgrades only.");
        // A client of another version of the protocol may know this one too (RFC 6455 §4.4).
        return Ok(([(header::SEC_WEBSOCKET_VERSION, "13")], REFUSED).into_response());
    };
    let headers = request.headers();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    check_origin(&context, peer, headers)?;
    let permit = match peer.map(|peer| context.client_address(peer, headers)) {
        Some(address) => match context.limits.check_address(address) {
            Ok(()) => context.limits.take_socket_permit(address),
            Err((error, _)) => Err(error),
        },
        None => Ok(None),
    };
    let mut params = Params::parse(request.uri().query().unwrap_or_default());
    let claim = match params.string("ticket") {
        Some(ticket) => Claim::Ticket(ticket),
        None => match bearer(headers) {
            // Without a permit the socket will be refused, so its token is not verified.
            Ok(Some(token)) if permit.is_ok() => Claim::Token(context.verify(token).await),
            Ok(Some(_)) => Claim::Refused,
            Ok(None) => Claim::FirstFrame,
            Err(_) => Claim::Refused,
        },
    };
    let after = params.string("after_ev").map(|raw| Position {
        // An invalid number counts as beyond any head, so the client gets a reset.
        ev: raw.parse().ok().filter(|ev| *ev >= 0).unwrap_or(i64::MAX),
        epoch: params.string("epoch"),
    });
    // A client that authenticates with the upgrade waits here, where it has cost least.
    let admission = match (&permit, &claim) {
        (Ok(_), Claim::Ticket(_) | Claim::Token(Ok(_))) => Some(context.take_admission().await?),
        _ => None,
    };
    // The replica may have begun to drain meanwhile.
    if context.is_leaving() {
        return Err(Error::Unavailable(None));
    }
    let arrival = Arrival { opening, claim, after, permit, admission };
    let sockets = context.sockets.clone();
    drop(sockets.spawn(handshake::run(context, upgrade, arrival)));
    Ok(response)
}

/// Refuses pages of other origins: their browser would send the user's credentials along. A request
/// without `Origin` comes from no browser.
fn check_origin(
    context: &Context,
    peer: Option<std::net::IpAddr>,
    headers: &HeaderMap,
) -> Result<(), Error> {
    const REFUSED: Error = Error::Forbidden("Pages of this origin may not open sockets here.");
    let mut given = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = given.next() else { return Ok(()) };
    let page = origin.to_str().ok().filter(|_| given.next().is_none());
    let page = page.and_then(|page| page.parse::<Origin>().ok()).ok_or(REFUSED)?;
    let allowed = &context.config.allowed_origins;
    let fits = if allowed.is_empty() {
        ExternalOrigin::of(&context.config, peer, headers)
            .is_some_and(|reached| reached.is_at_home(&page))
    } else {
        allowed.contains(&page)
    };
    if fits { Ok(()) } else { Err(REFUSED) }
}
