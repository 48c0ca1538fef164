//! State that the handlers and sockets of one replica share.

use std::{net::IpAddr, ops::Deref, sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    attachments::Attachments,
    auth::{Identity, Tickets, Verifier},
    broker::RedisClient,
    chat::SharedChats,
    config::Config,
    error::Error,
    hub::Feed,
    limits::{Allowance, Limits},
    metrics::Metrics,
    net,
    readiness::Readiness,
    token_cache::TokenCache,
};

/// The phase of a replica's life; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Reported as not ready; new sockets are refused, requests are still answered.
    Leaving,
    /// Sockets are closed, so that clients reconnect to other replicas.
    Closing,
}

/// Maximum number of handshakes in progress on a replica. Further ones wait, so that a send
/// competes with tens of them for CPU, Postgres and Redis, not with thousands. Each waits for two
/// or three round trips, so a lower limit would leave a processor idle.
pub const OPENINGS: usize = 32;

/// Caps the full inbox reloads of a replica, which would exhaust the pool after a failover: by
/// default a replica has ten connections for long reads, and each reload takes two.
pub const INBOX_READS: usize = 4;

/// How long a socket waits for an admission permit: as long as clients wait for a connection.
const PERMIT_WAIT: Duration = Duration::from_secs(10);

/// Permission to open a socket, or to reload an inbox, until dropped.
#[derive(Debug)]
pub struct AdmissionPermit(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// Shared state; a clone costs one reference count, and every layer of every request has one.
#[derive(Clone, Debug)]
pub struct Context(Arc<Shared>);

/// The parts of a replica.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub chats: SharedChats,
    pub attachments: Attachments,
    pub feed: Feed,
    pub redis: RedisClient,
    pub readiness: Readiness,
    pub verifier: Verifier,
    pub token_cache: TokenCache,
    pub tickets: Tickets,
    pub limits: Arc<Limits>,
    pub metrics: Arc<Metrics>,
    pub phase: watch::Receiver<Phase>,
    /// Open sockets, for which the HTTP server's graceful shutdown does not wait.
    pub sockets: TaskTracker,
    /// Permits for handshakes, [`OPENINGS`] of them.
    pub openings: Arc<Semaphore>,
    /// Permits for inbox reloads, [`INBOX_READS`] of them; separate from `openings`, so that open
    /// sockets do not keep new ones out.
    pub inbox_reads: Arc<Semaphore>,
    /// Aborts everything at once.
    pub abort: CancellationToken,
    /// Aborts the sockets at once; `abort` does so too.
    pub abort_sockets: CancellationToken,
}

impl Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Context {
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Whether the replica no longer waits for slow requests.
    pub fn is_closing(&self) -> bool {
        *self.phase.borrow() >= Phase::Closing
    }

    pub fn is_leaving(&self) -> bool {
        *self.phase.borrow() > Phase::Serving
    }

    /// Waits at most [`PERMIT_WAIT`] for a permit to open a socket. Must not be held while waiting
    /// for the client or for any other system outside.
    pub async fn take_admission(&self) -> Result<AdmissionPermit, Error> {
        let waiting = tokio::time::timeout(PERMIT_WAIT, Arc::clone(&self.openings).acquire_owned());
        match waiting.await {
            Ok(Ok(permit)) => Ok(AdmissionPermit(permit)),
            // Timed out; the semaphore itself is never closed.
            _ => Err(Error::Unavailable(None)),
        }
    }

    /// Waits without limit for a permit to reload an inbox, because the socket is served meanwhile.
    /// Held like the other kind. Cancel-safe, but a cancelled call loses its position in the queue.
    pub async fn take_inbox_admission(&self) -> Option<AdmissionPermit> {
        // Boxed, because an idle socket would hold memory for it.
        Box::pin(Arc::clone(&self.inbox_reads).acquire_owned()).await.ok().map(AdmissionPermit)
    }

    /// The client address of a request or an upgrade.
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        net::client_address(peer, headers, &self.config.trusted_proxies)
    }

    /// Takes a token from the bucket of the client's address. Without a peer, as with another
    /// transport in front, there is no address to count for.
    pub fn check_address(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Result<(), (Error, Allowance)> {
        let Some(peer) = peer else { return Ok(()) };
        self.limits.check_address(self.client_address(peer, headers))
    }

    /// Verifies a token. May wait for the issuer's keys.
    pub async fn verify(&self, token: &str) -> Result<Arc<Identity>, Error> {
        if let Some(identity) = self.token_cache.get(token, self.verifier.leeway()) {
            return Ok(identity);
        }
        let identity = Arc::new(self.verifier.verify(token).await?);
        self.token_cache.insert(token, Arc::clone(&identity));
        Ok(identity)
    }

    /// Verifies a token and admits its user.
    pub async fn authenticate(&self, token: &str) -> Result<Arc<Identity>, Error> {
        let identity = self.verify(token).await?;
        self.chats.admissions().admit(&identity).await?;
        Ok(identity)
    }
}
