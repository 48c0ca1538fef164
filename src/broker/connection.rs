//! One connection of fred's, with what fred leaves to its users: a way out of a stuck socket.

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

/// How long a command may take. Redis answers in well under a millisecond; who waits longer than
/// this is better served from Postgres.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_millis(250);
/// How long opening a socket, and each step of the handshake on it, may take: a frozen Redis still
/// accepts (the kernel does), so that only the handshake shows it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts to connect, in milliseconds. Longer than 2 s would
/// only delay the healing: an attempt costs the server next to nothing.
const RECONNECT_MS: (u32, u32) = (50, 2_000);
/// Publications that fred holds for a receiver that is behind: 32 (its default) lost 968 of 1,000
/// in a burst, this many lost none and cost 5 MB.
const RECEIVE_CAPACITY: usize = 8_192;

/// What a URL may begin with: with `s` for TLS; a single server, Sentinel, Cluster.
const SCHEMES: [&str; 6] =
    ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"];

/// Settings of every connection, read from the URL once.
#[derive(Debug, Clone)]
pub(crate) struct Settings(Config);

impl Settings {
    /// `ca` names the authorities that the server's certificate may be of, where not the system's.
    pub(crate) fn parse(url: &str, ca: Option<&Path>) -> Result<Self, RedisError> {
        // fred takes any scheme it does not know for a single server's.
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(RedisError::Url(format!("it must begin with one of {SCHEMES:?}")));
        }
        // fred's own TLS gives up where one of the system's certificates is broken: ours instead.
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
        // Its publications arrive beside replies on one socket only with RESP3.
        config.version = RespVersion::RESP3;
        // Redis may be away when a replica starts.
        config.fail_fast = false;
        Ok(Self(config))
    }

    /// The number of the database; a cluster has none but 0.
    pub(crate) fn database(&self) -> u8 {
        self.0.database.unwrap_or(0)
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
            // A command that is sent twice may run twice; the caller has Postgres to fall back on.
            max_command_attempts: 1,
            reconnect_on_auth_error: true,
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        };
        let (first, longest) = RECONNECT_MS;
        // 0 attempts: without limit.
        let policy = ReconnectPolicy::new_exponential(0, first, longest, 2);
        Client::new(self.0.clone(), Some(performance), Some(connection), Some(policy))
    }
}

/// A running connection. It reconnects by itself; [`Live::reopen`] replaces it where it can't:
/// fred's task waits without a time limit for a full socket to take more, and then hears no order
/// to reconnect. Aborted, it leaves a wrong count of queued commands behind in its client (which
/// then flushes nothing any more), so the client is replaced with it.
#[derive(Debug)]
pub(crate) struct Live {
    client: Client,
    task: JoinHandle<FredResult<()>>,
    /// fred announces a connection here before anything can be answered on it: so looking here
    /// after an answer tells whether everything before it was said to the same server.
    reconnects: Mutex<Receiver<Server>>,
    /// fred says here whenever it has read anew which server has which slots of a cluster: on
    /// connecting, and where a server sent it elsewhere.
    moves: Mutex<Receiver<Vec<ClusterStateChange>>>,
    /// fred says here why a connection broke or was not made.
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

    /// Whether fred has given up for good (it does on what it takes for a mistake in the settings).
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Whether there was a new connection since this was last asked.
    pub(crate) fn take_reconnected(&self) -> bool {
        take_any(&self.reconnects)
    }

    /// Whether slots may have moved since this was last asked, as far as fred has noticed.
    pub(crate) fn take_moved(&self) -> bool {
        take_any(&self.moves)
    }

    /// Why there is no connection, where anything new was said of it since this was last asked.
    pub(crate) fn take_error(&self) -> Option<String> {
        take_last(&self.errors).map(|(error, _)| error.details().to_owned())
    }

    /// Asks every server that this client talks to for an answer.
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

    /// A ping on the connection that fred puts classic subscriptions on: in a cluster that is the node of
    /// the slot of the client's own name, elsewhere there is one connection only.
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

/// Whether anything was told since this was last asked.
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

/// The last that was told since this was last asked.
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
