//! From the upgrade to a socket that knows its user.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    closing::close,
    command::{Command, Request},
    connection::{Bearer, Connection, FirstFrame},
    wire::{Upgrade, Wire, WsMessage},
};
use crate::{
    auth::{Identity, Ticket, is_revoked},
    chat::ChatRef,
    config::Switch,
    context::{AdmissionPermit, Context},
    error::Error,
    limits::{Class, Permit},
    model::{ChatId, Position},
    protocol::Close,
};

/// How long a socket may take to authenticate.
const AUTH_WAIT: Duration = Duration::from_secs(5);

/// Maximum pings and pongs before the first frame: a client has no reason to send more, and no rate
/// limit counts them before the user is known.
const FIRST_HEARTBEATS: usize = 16;

/// How long the response to an upgrade may take to be sent: it is one small packet.
const UPGRADE_WAIT: Duration = Duration::from_secs(1);

/// The scope of a socket.
pub(super) enum Opening {
    /// `None`: the path cannot name a chat.
    Chat(Option<ChatRef>),
    Many,
}

/// How a socket authenticates.
pub(super) enum Claim {
    Ticket(String),
    /// A token, verified without the database.
    Token(Result<Arc<Identity>, Error>),
    /// Not in the upgrade request: the first frame must be an `auth`.
    FirstFrame,
    /// An `Authorization` header without a usable token.
    Refused,
}

/// The facts about a socket that its upgrade request gives.
pub(super) struct Arrival {
    pub opening: Opening,
    pub claim: Claim,
    pub after: Option<Position>,
    /// The socket's permit, held until it ends; or why it got none.
    pub permit: Result<Option<Permit<IpAddr>>, Error>,
    /// Acquired already, unless the socket authenticates by its first frame.
    pub admission: Option<AdmissionPermit>,
}

/// Runs a socket from its upgrade to its end.
///
/// A future is as large as the largest future that it awaits, and a socket idles nearly all of its
/// life. So the rare steps (here and in [`Connection`]: the handshake, commands, reads from
/// Postgres, the close) are boxed and take memory only while they run. A value that is moved into a
/// future takes memory in both, so the connection is boxed too.
pub(super) fn run(
    context: Context,
    upgrade: Upgrade,
    arrival: Arrival,
) -> impl Future<Output = ()> + Send {
    let abort = context.abort_sockets.clone();
    let opening = Box::pin(open(context, upgrade, arrival));
    async move {
        let mut serving = pin!(async {
            if let Some(connection) = opening.await {
                connection.run().await;
            }
        });
        // `run_until_cancelled` would hold `serving` twice.
        tokio::select! {
            biased;
            () = abort.cancelled() => {}
            () = &mut serving => {}
        }
    }
}

/// Completes the handshake; `None` where the socket was closed by it.
async fn open(context: Context, upgrade: Upgrade, arrival: Arrival) -> Option<Box<Connection>> {
    // A client that does not read the response to its upgrade must not hold an admission permit.
    let mut wire = timeout(UPGRADE_WAIT, upgrade.finish()).await.ok()??;
    context.metrics.sockets_opened.inc();
    let Arrival { opening, claim, after, permit, admission } = arrival;
    let (permit, admitted) = match permit {
        Ok(permit) => (permit, admit(&context, &mut wire, &opening, claim, admission).await),
        Err(error) => (None, Err(Close::from(&error))),
    };
    match admitted {
        Ok(Admitted { mut bearer, single, admission }) => {
            let auth = bearer.auth.take();
            let mut connection =
                Connection::open(context.clone(), wire, permit, bearer, single).await;
            match connection.start(single, auth, after, admission).await {
                Ok(()) => return Some(connection),
                Err(end) => connection.end(end).await,
            }
        }
        Err(reason) => {
            close(&mut wire, [], reason).await;
            context.metrics.count_close(reason.code());
        }
    }
    None
}

/// The user as the ticket or token names them, before the database was asked.
enum Known {
    Ticket(String),
    Identity(Arc<Identity>, Option<FirstFrame>),
}

/// A socket that passed every check.
struct Admitted {
    bearer: Bearer,
    /// The socket's one chat; `None` on the many-chats socket.
    single: Option<ChatId>,
    /// Held until the initial state was read.
    admission: AdmissionPermit,
}

async fn admit(
    context: &Context,
    wire: &mut Wire,
    opening: &Opening,
    claim: Claim,
    admission: Option<AdmissionPermit>,
) -> Result<Admitted, Close> {
    let fail = |error: Error| {
        if let Error::Internal(cause) | Error::Unavailable(Some(cause)) = &error {
            let cause = crate::error::chain(cause);
            tracing::warn!(code = error.code(), cause, "opening a socket failed");
        }
        Close::from(&error)
    };
    let known = match claim {
        Claim::Ticket(raw) => Known::Ticket(raw),
        Claim::Token(identity) => Known::Identity(identity.map_err(fail)?, None),
        Claim::FirstFrame => {
            let (token, auth) = first_frame(wire).await?;
            Known::Identity(context.verify(&token).await.map_err(fail)?, Some(auth))
        }
        Claim::Refused => return Err(Close::TokenInvalid),
    };
    let admission = match admission {
        Some(admission) => admission,
        // Only now, so that a silent client holds no admission permit.
        None => context.take_admission().await.map_err(fail)?,
    };
    let (bearer, ticket) = match known {
        Known::Ticket(raw) => {
            let ticket = use_ticket(context, &raw).await.map_err(fail)?;
            // The user may have been erased, or their tokens revoked, after the ticket was issued.
            let admission = context.chats.get_admission(&ticket.user_id).await.map_err(fail)?;
            if admission.erased {
                return Err(Close::UserGone);
            }
            if is_revoked(ticket.token_issued_at, admission.revoked_at) {
                return Err(Close::TokenInvalid);
            }
            let bearer = Bearer {
                user_id: ticket.user_id.clone(),
                token_expires_at: ticket.token_expires_at,
                token_issued_at: ticket.token_issued_at,
                auth: None,
            };
            (bearer, Some(ticket))
        }
        Known::Identity(identity, auth) => {
            context.chats.admissions().admit(&identity).await.map_err(fail)?;
            context.limits.check(identity.user_id(), Class::Connects).map_err(fail)?;
            let bearer = Bearer {
                token_expires_at: identity.expires_at,
                token_issued_at: identity.issued_at,
                user_id: identity.user_id().clone(),
                auth,
            };
            (bearer, None)
        }
    };
    let single = match opening {
        Opening::Many => None,
        Opening::Chat(None) => return Err(Close::ChatGone),
        Opening::Chat(Some(chat)) => {
            Some(context.chats.resolve(chat, Some(&bearer.user_id)).await.map_err(fail)?)
        }
    };
    if ticket.is_some_and(|ticket| ticket.chat_id != single) {
        return Err(Close::TokenInvalid);
    }
    let limits = &context.config.limits;
    if limits.rate_limits == Switch::On
        && context.feed.hub().count_user(&bearer.user_id) >= limits.sockets_per_user
    {
        return Err(Close::TooManySockets);
    }
    Ok(Admitted { bearer, single, admission })
}

/// Spends a ticket, which opens one socket. While Redis is unavailable nothing records which
/// tickets were used: then only their lifetime of a minute bounds them.
async fn use_ticket(context: &Context, raw: &str) -> Result<Ticket, Error> {
    let ticket = context.tickets.check(raw)?;
    if context.redis.claim_once(&format!("ticket:{}", ticket.id)).await == Ok(false) {
        return Err(Error::TokenInvalid("this ticket was used"));
    }
    Ok(ticket)
}

async fn first_frame(wire: &mut Wire) -> Result<(String, FirstFrame), Close> {
    let frame = timeout(AUTH_WAIT, async {
        for _ in 0..FIRST_HEARTBEATS {
            match wire.recv().await {
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => {}
                other => return Ok(other),
            }
        }
        Err(Close::RateLimited)
    })
    .await;
    let text = match frame.ok().transpose()? {
        Some(Some(Ok(WsMessage::Text(text)))) => text,
        // Binary, too large, or against the protocol.
        Some(Some(Ok(WsMessage::Binary(_)) | Err(_))) => return Err(Close::BadFrame),
        _ => return Err(Close::TokenInvalid),
    };
    match Request::parse(&text) {
        Ok(Request { id, command: Ok(Command::Auth { token }) }) => Ok((token, FirstFrame { id })),
        Ok(_) => Err(Close::TokenInvalid),
        Err(_) => Err(Close::BadFrame),
    }
}
