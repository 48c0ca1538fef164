//! What handlers and sockets of one replica share.

use std::{net::IpAddr, ops::Deref, sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
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

/// Where a replica is in its life. Goes one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Not ready any more; new sockets are refused, requests still answered.
    Leaving,
    /// Sockets are told to go elsewhere.
    Closing,
}

/// Sockets that a replica opens at once. The rest of a rush waits in line, so that a send meets tens
/// that want the processors, Postgres and Redis before it, and not thousands. As each waits for two
/// or three round trips, fewer would leave a processor idle.
pub const OPENINGS: usize = 32;

/// Inboxes of a replica that read all their chats at once. After a failover every one of them does, and
/// some thousands would stand before everybody else in the queue for a connection to Postgres: by
/// default a replica has ten for all but writing and short reads, and each of these takes two.
pub const INBOX_READS: usize = 4;

/// How long a socket waits for its turn: as long as clients wait for a connection.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// A socket's turn, to be opened or to read all its chats, until dropped.
#[derive(Debug)]
pub struct AdmissionPermit(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// A clone counts one reference: every layer of every request has one.
#[derive(Clone, Debug)]
pub struct Context(Arc<Shared>);

/// The parts of a replica.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub chats: SharedChats,
    pub feed: Feed,
    pub link: RedisClient,
    pub readiness: Readiness,
    pub verifier: Verifier,
    pub token_cache: TokenCache,
    pub tickets: Tickets,
    pub limits: Arc<Limits>,
    pub metrics: Arc<Metrics>,
    pub phase: watch::Receiver<Phase>,
    /// Sockets, which a server's own graceful shutdown does not wait for.
    pub sockets: TaskTracker,
    /// Turns of sockets to be opened, [`OPENINGS`].
    pub openings: Arc<Semaphore>,
    /// Turns of inboxes that read all their chats, [`INBOX_READS`]: others than those, since who is
    /// there already must not keep anybody from coming in.
    pub inbox_reads: Arc<Semaphore>,
    /// Ends everything at once.
    pub abort: CancellationToken,
    /// Ends the sockets at once; `abort` ends them too.
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

    /// It no longer waits for what takes long.
    pub fn is_closing(&self) -> bool {
        *self.phase.borrow() >= Phase::Closing
    }

    pub fn is_leaving(&self) -> bool {
        *self.phase.borrow() > Phase::Serving
    }

    /// Waits until a socket may be opened, [`TURN_WAIT`] at most. To be held only while nothing waits
    /// for its client, nor for anybody else outside.
    pub async fn take_admission(&self) -> Result<AdmissionPermit, Error> {
        let waiting = tokio::time::timeout(TURN_WAIT, Arc::clone(&self.openings).acquire_owned());
        match waiting.await {
            Ok(Ok(permit)) => Ok(AdmissionPermit(permit)),
            // Too late; the semaphore itself is never closed.
            _ => Err(Error::Unavailable(None)),
        }
    }

    /// Waits until an inbox may read all its chats, however long: the socket is served meanwhile. To be
    /// held like the other kind. Cancelled, it has taken none, and its place in line is lost.
    pub async fn take_inbox_admission(&self) -> Option<AdmissionPermit> {
        // Boxed, as it is rare: a socket that idles would have room for it.
        Box::pin(Arc::clone(&self.inbox_reads).acquire_owned()).await.ok().map(AdmissionPermit)
    }

    /// Whom a request or an upgrade came from.
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        net::client_address(peer, headers, &self.config.trusted_proxies)
    }

    /// Takes one from the bucket of the address that a request came from. Without a peer, as where
    /// another transport is in front, there is nobody to count for.
    pub fn check_address(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Result<(), (Error, Allowance)> {
        let Some(peer) = peer else { return Ok(()) };
        self.limits.check_address(self.client_address(peer, headers))
    }

    /// Checks a token. May wait for its issuer's keys.
    pub async fn verify(&self, token: &str) -> Result<Arc<Identity>, Error> {
        if let Some(identity) = self.token_cache.get(token, self.verifier.leeway()) {
            return Ok(identity);
        }
        let identity = Arc::new(self.verifier.verify(token).await?);
        self.token_cache.insert(token, Arc::clone(&identity));
        Ok(identity)
    }

    /// Checks a token and makes its bearer known, before anything is answered.
    pub async fn authenticate(&self, token: &str) -> Result<Arc<Identity>, Error> {
        let identity = self.verify(token).await?;
        self.chats.admissions().admit(&identity).await?;
        Ok(identity)
    }
}
