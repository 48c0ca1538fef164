//! Sockets: `/ws/chat/{chat}/` follows one chat, `/ws/` carries many and the user's inbox.

pub(crate) mod command;
mod commands;
mod connection;
mod handshake;
mod inbox;
mod metered;
mod presence_recheck;
pub(crate) mod session;
mod subscriptions;
mod wire;

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{ConnectInfo, Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::any,
};

pub(crate) use self::connection::{CLOSE_WAIT, drain_window};
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
    // What can't name a chat is as good as unknown, and said by a close code like the rest.
    let chat = chat.ok().and_then(|Path(raw)| ChatRef::parse(&raw));
    open(context, Opening::Chat(chat), request).await
}

async fn open_many(State(context): State<Context>, request: Request) -> Result<Response, Error> {
    open(context, Opening::Many, request).await
}

/// Refusals that a browser must not see by status come after the upgrade, as close codes.
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
    let place = match peer.map(|peer| context.client_address(peer, headers)) {
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
            // Of one who has no place nothing more is looked at.
            Ok(Some(token)) if place.is_ok() => Claim::Token(context.verify(token).await),
            Ok(Some(_)) => Claim::Refused,
            Ok(None) => Claim::FirstFrame,
            Err(_) => Claim::Refused,
        },
    };
    let after = params.string("after_ev").map(|raw| Position {
        // What is no number is beyond any head: the answer is a reset.
        ev: raw.parse().ok().filter(|ev| *ev >= 0).unwrap_or(i64::MAX),
        epoch: params.string("epoch"),
    });
    // Whoever says who they are with the upgrade waits here, where they have cost least.
    let admission = match (&place, &claim) {
        (Ok(_), Claim::Ticket(_) | Claim::Token(Ok(_))) => Some(context.take_admission().await?),
        _ => None,
    };
    // While it waited the replica may have begun to go.
    if context.is_leaving() {
        return Err(Error::Unavailable(None));
    }
    let arrival = Arrival { opening, claim, after, place, admission };
    let sockets = context.sockets.clone();
    drop(sockets.spawn(handshake::run(context, upgrade, arrival)));
    Ok(response)
}

/// Pages of other origins may not open sockets with what their browser knows. No `Origin`: no browser.
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
