//! One connection of fred, with a remedy for a stuck socket, which fred leaves to its users.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fred::{
    clients::Client,
    error::Error as FredError,
    interfaces::{ClientLike, EventInterface, FredResult},
    types::{
        ClusterHash, ClusterStateChange, RespVersion,
        config::{
            Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, Server,
            TcpConfig,
        },
    },
    util::redis_keyslot,
};
use tokio::{
    sync::broadcast::{Receiver, error::TryRecvError},
    task::JoinHandle,
};

use super::RedisError;
use crate::tls;

/// Time-out of a command. Redis answers in well under a millisecond; beyond this, Postgres serves the
/// caller better.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_millis(250);
/// Time-out of a connect and of each step of its handshake. The kernel accepts for a frozen Redis, so
/// only the handshake reveals it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts to connect, in milliseconds. An attempt costs the
/// server next to nothing, so more than 2 s would only delay the recovery.
const RECONNECT_MS: (u32, u32) = (50, 2_000);
/// Publications that fred buffers for a slow receiver. Of a burst of 1,000, its default of 32 lost 968;
/// this many lost none and cost 5 MB.
const RECEIVE_CAPACITY: usize = 8_192;

/// Schemes of a URL: a single server, Sentinel, Cluster; each with an `s` for TLS.
const SCHEMES: [&str; 6] =
    ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"];

/// Settings of every connection, read from the URL once.
#[derive(Debug, Clone)]
pub(crate) struct Settings(Config);

impl Settings {
    /// `ca` is a PEM file of the authorities to trust instead of the system's.
    pub(crate) fn parse(url: &str, ca: Option<&Path>) -> Result<Self, RedisError> {
        // fred takes an unknown scheme for that of a single server.
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(RedisError::Url(format!("it must begin with one of {SCHEMES:?}")));
        }
        // fred's own TLS fails on a broken certificate among the system's, so ours is used.
        let plain = match url.strip_prefix("rediss") {
            Some(rest) => &format!("redis{rest}"),
            None => url,
        };
        let mut config =
            Config::from_url(plain).map_err(|error| RedisError::Url(error.details().to_owned()))?;
        if scheme.starts_with("rediss") {
            config.tls = Some(tls::client_config(ca)?.into());
        } else if ca.is_some() {
            return Err(RedisError::PlainWithCa);
        }
        // Only RESP3 carries publications and replies on one socket.
        config.version = RespVersion::RESP3;
        // Redis may be unavailable when a replica starts.
        config.fail_fast = false;
        Ok(Self(config))
    }

    /// The number of the database. A cluster has only 0.
    pub(crate) fn database(&self) -> u8 {
        self.0.database.unwrap_or(0)
    }

    /// Whether keys are divided among servers.
    pub(crate) fn is_clustered(&self) -> bool {
        self.0.server.is_clustered()
    }

    fn client(&self) -> Client {
        let performance = PerformanceConfig {
            default_command_timeout: COMMAND_TIMEOUT,
            broadcast_channel_capacity: RECEIVE_CAPACITY,
            ..PerformanceConfig::default()
        };
        let connection = ConnectionConfig {
            connection_timeout: CONNECT_TIMEOUT,
            internal_command_timeout: CONNECT_TIMEOUT,
            // A command that is sent twice may run twice, and callers can fall back on Postgres.
            max_command_attempts: 1,
            reconnect_on_auth_error: true,
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        };
        let (first, longest) = RECONNECT_MS;
        // 0 attempts means no limit.
        let policy = ReconnectPolicy::new_exponential(0, first, longest, 2);
        Client::new(self.0.clone(), Some(performance), Some(connection), Some(policy))
    }
}

/// A running connection. It reconnects by itself, except while fred's task waits, without a time-out,
/// for a full socket to drain; then [`Live::reopen`] replaces it. An aborted task leaves a wrong count
/// of queued commands in its client, which then no longer flushes, so the client is replaced too.
#[derive(Debug)]
pub(crate) struct Live {
    client: Client,
    task: JoinHandle<FredResult<()>>,
    /// fred announces a connection here before any answer on it. A look here after an answer therefore
    /// tells whether all earlier commands went to the same server.
    reconnects: Mutex<Receiver<Server>>,
    /// fred announces here that it has read the slots of a cluster again: after connecting, and after a
    /// redirection.
    moves: Mutex<Receiver<Vec<ClusterStateChange>>>,
    /// fred reports here why a connection broke or failed.
    errors: Mutex<Receiver<(FredError, Option<Server>)>>,
}

impl Live {
    pub(crate) fn open(settings: &Settings) -> Self {
        let client = settings.client();
        let reconnects = Mutex::new(client.reconnect_rx());
        let moves = Mutex::new(client.cluster_change_rx());
        let errors = Mutex::new(client.error_rx());
        let task = client.connect();
        Self { client, task, reconnects, moves, errors }
    }

    pub(crate) fn reopen(&self, settings: &Settings) -> Self {
        self.task.abort();
        Self::open(settings)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// Whether fred has given up for good, as it does on what it takes for a mistake in the settings.
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Whether there was a new connection since the last call.
    pub(crate) fn take_reconnected(&self) -> bool {
        take_any(&self.reconnects)
    }

    /// Whether fred has noticed a move of slots since the last call.
    pub(crate) fn take_moved(&self) -> bool {
        take_any(&self.moves)
    }

    /// Returns the latest error since the last call.
    pub(crate) fn take_error(&self) -> Option<String> {
        take_last(&self.errors).map(|(error, _)| error.details().to_owned())
    }

    /// Pings every server that this client is connected to. True if all answer.
    pub(crate) async fn ping_all(&self) -> bool {
        if !self.is_connected() {
            return false;
        }
        if !self.client.is_clustered() {
            return self.client.ping::<()>(None).await.is_ok();
        }
        let servers = self.client.active_connections();
        let pings = servers.iter().map(|server| async {
            let options = Options { cluster_node: Some(server.clone()), ..Options::default() };
            self.client.with_options(&options).ping::<()>(None).await.is_ok()
        });
        !servers.is_empty() && futures_util::future::join_all(pings).await.into_iter().all(|ok| ok)
    }

    /// Pings on the connection that carries classic subscriptions. In a cluster, fred uses the node of the
    /// slot of the client's own name; elsewhere there is only one connection.
    pub(crate) async fn ping_subscriptions(&self) -> bool {
        let slot = redis_keyslot(self.client.id().as_bytes());
        let options = Options {
            cluster_hash: Some(ClusterHash::Custom(slot)),
            fail_fast: true,
            ..Options::default()
        };
        self.is_connected() && self.client.with_options(&options).ping::<()>(None).await.is_ok()
    }
}

/// Whether anything was announced since the last call.
fn take_any<T: Clone>(told: &Mutex<Receiver<T>>) -> bool {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let mut any = false;
    loop {
        match told.try_recv() {
            Ok(_) | Err(TryRecvError::Lagged(_)) => any = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return any,
        }
    }
}

/// Returns the latest announcement since the last call.
fn take_last<T: Clone>(told: &Mutex<Receiver<T>>) -> Option<T> {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last = None;
    loop {
        match told.try_recv() {
            Ok(value) => last = Some(value),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return last,
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}
