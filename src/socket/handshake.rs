//! From the upgrade to a socket that knows its user.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    command::{Command, Request},
    connection::{Bearer, Connection, FirstFrame, close},
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
    store::Barred,
};

/// How long a socket may stay without saying who it is.
const AUTH_WAIT: Duration = Duration::from_secs(5);

/// Pings and pongs that may come before the first frame: a client has no reason to send more, and nobody
/// counts them before it is known whose they are.
const FIRST_HEARTBEATS: usize = 16;

/// How long the answer to an upgrade may take to be sent: it is one small packet.
const UPGRADE_WAIT: Duration = Duration::from_secs(1);

/// What a socket was opened for.
pub(super) enum Opening {
    /// `None`: a path that can name no chat.
    Chat(Option<ChatRef>),
    Many,
}

/// How a socket says who it is.
pub(super) enum Claim {
    Ticket(String),
    /// A token, as far as it can be judged without the database.
    Token(Result<Arc<Identity>, Error>),
    /// Not in the upgrade: by its first frame.
    FirstFrame,
    /// By something that is no token.
    Refused,
}

/// What is known of a socket before its upgrade.
pub(super) struct Arrival {
    pub opening: Opening,
    pub claim: Claim,
    pub after: Option<Position>,
    /// Its place among the sockets, which it keeps to its end; or why there is none.
    pub place: Result<Option<Permit<IpAddr>>, Error>,
    /// Taken already, unless it has to say first who it is.
    pub admission: Option<AdmissionPermit>,
}

/// Runs a socket from its upgrade to its end.
///
/// A future has room for the largest of all that it ever waits for, and a socket idles nearly all of
/// its life. So whatever is rare (here and in [`Connection`]: coming in, commands, reading from
/// Postgres, going) is boxed, and has its chat only while it happens. What is passed on by value has
/// chat in both, so that a connection is boxed too.
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
        // Not by the token's own method, which would have room for `serving` twice.
        tokio::select! {
            biased;
            () = abort.cancelled() => {}
            () = &mut serving => {}
        }
    }
}

/// Opens a socket; `None` where it is over already.
async fn open(context: Context, upgrade: Upgrade, arrival: Arrival) -> Option<Box<Connection>> {
    // A client that takes not even the answer to its upgrade must not keep a admission.
    let mut wire = timeout(UPGRADE_WAIT, upgrade.finish()).await.ok()??;
    context.metrics.sockets_opened.inc();
    let Arrival { opening, claim, after, place, admission } = arrival;
    let (place, admitted) = match place {
        Ok(place) => (place, admit(&context, &mut wire, &opening, claim, admission).await),
        Err(error) => (None, Err(Close::from(&error))),
    };
    match admitted {
        Ok(Admitted { mut bearer, single, admission }) => {
            let auth = bearer.auth.take();
            let mut connection =
                Connection::open(context.clone(), wire, place, bearer, single).await;
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

/// Who it is, before the database was asked.
enum Known {
    Ticket(String),
    Identity(Arc<Identity>, Option<FirstFrame>),
}

/// A socket that may be opened.
struct Admitted {
    bearer: Bearer,
    /// The chat it was opened for; `None`: for many.
    single: Option<ChatId>,
    /// Kept until all that it begins with was read.
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
        // Only now, so that nobody's silence takes a admission.
        None => context.take_admission().await.map_err(fail)?,
    };
    let (bearer, ticket) = match known {
        Known::Ticket(raw) => {
            let ticket = use_ticket(context, &raw).await.map_err(fail)?;
            // It may have been given before its user was erased, or their tokens revoked.
            let user_id = std::slice::from_ref(&ticket.user_id);
            let barred = context.chats.store().list_barred(user_id).await;
            for Barred { admission, .. } in barred.map_err(|error| fail(error.into()))? {
                if admission.erased {
                    return Err(Close::UserGone);
                }
                if is_revoked(ticket.token_issued_at, admission.revoked_at) {
                    return Err(Close::TokenInvalid);
                }
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

/// A ticket opens one socket. While Redis is away nobody remembers which were used: then the minute
/// that a ticket lives is all that bounds it.
async fn use_ticket(context: &Context, raw: &str) -> Result<Ticket, Error> {
    let ticket = context.tickets.check(raw)?;
    if context.link.claim_once(&format!("ticket:{}", ticket.id)).await == Ok(false) {
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
