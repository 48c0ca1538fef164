//! Configuration: flags and environment, one name each. The doc comment is the `--help`.

mod auth;
mod files;
mod webhooks;

use std::{borrow::Cow, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

pub use self::{
    auth::{AuthConfig, IssuerConfig, KeySource, MAX_FIXED_KEYS},
    files::secrets_from_files,
    webhooks::WebhookConfig,
};
use crate::{net::Network, origin::Origin};

/// Who may delete a whole chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeleteChat {
    /// Whoever opened it.
    Creator,
    /// Either of the two.
    Member,
    /// The host application's server only (scope `chat:admin`).
    Admin,
}

/// What opening a chat with somebody unknown does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnknownUsers {
    /// Makes them known, without a name.
    Create,
    /// Answers 404 `user_not_found`.
    Reject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// A value that must not show in logs: its `Debug` is redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secrets in it, one a line: two while one takes the place of the other.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.lines()
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(Self(value.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseConfig {
    /// Postgres: postgresql://USER:PASSWORD@HOST:PORT/DATABASE; with `?sslmode=verify-full` over TLS.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// The authorities that Postgres's certificate may be of: a PEM file. Without it: those that the
    /// system trusts.
    #[arg(long, env = "BESEDA_DATABASE_CA")]
    pub database_ca: Option<PathBuf>,

    /// Most connections to Postgres a replica opens: its writers, twice its readers, one that writes
    /// what changes (edits, deletions, read markers), and 2 or more for all else.
    #[arg(long, env = "BESEDA_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: usize,

    /// Connections that write new messages, each a batch at a time; fewer make larger batches, which cost
    /// less, more hide the latency of a distant Postgres.
    #[arg(long, env = "BESEDA_DATABASE_WRITERS", default_value_t = 1)]
    pub database_writers: usize,

    /// Connections that all short reads share, one behind the other, and as many that lists of chats
    /// share: fewer cost Postgres and the service less, more use more of Postgres's cores.
    #[arg(long, env = "BESEDA_DATABASE_READERS", default_value_t = 2)]
    pub database_readers: usize,

    /// How long one statement may run, and a request may wait for a connection or a lock.
    #[arg(long, env = "BESEDA_DATABASE_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub database_timeout: Duration,

    /// How long `serve` and `migrate` wait at their start for a Postgres that does not answer.
    #[arg(long, env = "BESEDA_DATABASE_WAIT", default_value = "1m", value_parser = humantime::parse_duration)]
    pub database_wait: Duration,

    /// Named prepared statements, and time-outs as start-up options: `off` behind PgBouncer in
    /// transaction mode, whatever its version.
    #[arg(long, env = "BESEDA_DATABASE_PREPARED", value_enum, default_value = "on")]
    pub database_prepared: Switch,
}

/// Sustained requests a second of one user on one replica; ten seconds' worth may come at once.
#[derive(Debug, Clone, Args)]
pub struct LimitConfig {
    /// Rate limits, and caps on sockets and requests; `off` lifts them all.
    #[arg(long, env = "BESEDA_RATE_LIMITS", value_enum, default_value = "on")]
    pub rate_limits: Switch,

    /// Sends, edits, deletions, reports and read markers a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_SENDS", default_value_t = 10)]
    pub rate_sends: u32,

    /// Reads a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_READS", default_value_t = 50)]
    pub rate_reads: u32,

    /// Chats opened or deleted a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_ROOMS", default_value_t = 5)]
    pub rate_rooms: u32,

    /// Searches a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_SEARCHES", default_value_t = 5)]
    pub rate_searches: u32,

    /// Tickets and sockets a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_CONNECTS", default_value_t = 2)]
    pub rate_connects: u32,

    /// Requests and sockets a second from one address (IPv6: one /64), whoever asks, before tokens
    /// are looked at; addresses behind proxies are seen through BESEDA_TRUSTED_PROXIES only.
    #[arg(long, env = "BESEDA_RATE_ADDRESSES", default_value_t = 1_000)]
    pub rate_addresses: u32,

    /// Commands a second on one socket.
    #[arg(long, env = "BESEDA_RATE_COMMANDS", default_value_t = 50)]
    pub rate_commands: u32,

    /// Connections a replica accepts a second, 25 times as many at once; more wait in the system's
    /// queue, where a request that needs a new connection waits behind them. Raise it with the cores: a
    /// flood of so many, each with a handshake, leaves most of two to those who are in.
    #[arg(long, env = "BESEDA_RATE_ACCEPTS", default_value_t = 400)]
    pub rate_accepts: u32,

    /// Requests of one user under way on one replica, each until its answer is taken; one more is
    /// answered 429. The largest answers have 3 MB: so many of these are a fifth of 512 MiB.
    #[arg(long, env = "BESEDA_REQUESTS_PER_USER", default_value_t = 32)]
    pub requests_per_user: usize,

    /// Chats that a user opens one more of is refused past (403); others may open chats with them, and
    /// chat:admin may any. Unread counters tell of all of them, 140 bytes each.
    #[arg(long, env = "BESEDA_ROOMS_PER_USER", default_value_t = 20_000)]
    pub rooms_per_user: u32,

    /// Most people whom a user blocks; one more is refused (403).
    #[arg(long, env = "BESEDA_BLOCKS_PER_USER", default_value_t = 10_000)]
    pub blocks_per_user: u32,

    /// Open sockets of one user on one replica; one more is closed with 4009.
    #[arg(long, env = "BESEDA_SOCKETS_PER_USER", default_value_t = 50)]
    pub sockets_per_user: usize,

    /// Open sockets from one address (IPv6: one /64) on one replica; one more is closed with 4204.
    #[arg(long, env = "BESEDA_SOCKETS_PER_ADDRESS", default_value_t = 5_000)]
    pub sockets_per_address: usize,

    /// Open sockets on one replica; one more is closed with 4204.
    #[arg(long, env = "BESEDA_SOCKETS", default_value_t = 50_000)]
    pub sockets: usize,

    /// Chats that one socket may follow.
    #[arg(long, env = "BESEDA_SUBSCRIPTIONS_PER_SOCKET", default_value_t = 1_000)]
    pub subscriptions_per_socket: usize,
}

/// What a connection may cost, whoever is at its other end.
#[derive(Debug, Clone, Args)]
pub struct HttpConfig {
    /// Largest head of a request, in bytes; 8192 or more. What has arrived by one read past it may
    /// still be taken: up to twice as much.
    #[arg(long, env = "BESEDA_MAX_HEAD_BYTES", default_value_t = 32 * 1024)]
    pub max_head_bytes: usize,

    /// Most headers of a request.
    #[arg(long, env = "BESEDA_MAX_HEADERS", default_value_t = 64)]
    pub max_headers: usize,

    /// How long a new connection may stay silent, and a request's head may take.
    #[arg(long, env = "BESEDA_HEAD_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub head_timeout: Duration,

    /// How long a request's body may take.
    #[arg(long, env = "BESEDA_BODY_TIMEOUT", default_value = "8s", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,

    /// How long a client may take nothing of an answer, and, beyond that time, less than 16 KiB of it a
    /// second.
    #[arg(long, env = "BESEDA_WRITE_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub write_timeout: Duration,

    /// How long a connection may idle between two requests; longer than the balancer's own limit,
    /// so that the balancer closes first.
    #[arg(long, env = "BESEDA_IDLE_TIMEOUT", default_value = "75s", value_parser = humantime::parse_duration)]
    pub idle_timeout: Duration,
}

/// Everything a replica needs.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// Redis: redis://…, rediss://…, redis-sentinel://… or redis-cluster://…
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// The authorities that Redis's certificate may be of, for rediss://…: a PEM file. Without it:
    /// those that the system trusts.
    #[arg(long, env = "BESEDA_REDIS_CA")]
    pub redis_ca: Option<PathBuf>,

    /// What every Redis key and channel begins with, so that one Redis can serve several installations.
    #[arg(long, env = "BESEDA_REDIS_PREFIX", default_value = "beseda:")]
    pub redis_prefix: String,

    /// Publications by sharded pub/sub, each on one shard and not on all servers: for a redis-cluster://…
    /// of Redis 7 or newer. On all replicas or on none: they do not hear each other otherwise.
    #[arg(long, env = "BESEDA_REDIS_SHARDED_PUBSUB", value_enum, default_value = "off")]
    pub redis_sharded_pubsub: Switch,

    /// Where clients are served: REST, sockets, the demo page.
    #[arg(long, env = "BESEDA_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Where metrics and health are served; not for the internet.
    #[arg(long, env = "BESEDA_INTERNAL_LISTEN", default_value = "0.0.0.0:9090")]
    pub internal_listen: SocketAddr,

    /// How clients reach the service (`https://chat.example.com`, without a path); else taken from each
    /// request.
    #[arg(long, env = "BESEDA_PUBLIC_URL")]
    pub public_url: Option<Origin>,

    /// Proxies whose X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Proto are believed: addresses
    /// or ranges like 10.0.0.0/8, comma-separated.
    #[arg(long, env = "BESEDA_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// Origins (`https://www.example.com`) whose pages may open sockets and call the API,
    /// comma-separated; none given: the same host only.
    #[arg(long, env = "BESEDA_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<Origin>,

    #[command(flatten)]
    pub auth: AuthConfig,

    /// Who may delete a whole chat.
    #[arg(long, env = "BESEDA_DELETE_CHAT", value_enum, default_value = "creator")]
    pub delete_chat: DeleteChat,

    /// What opening a chat with somebody unknown does.
    #[arg(long, env = "BESEDA_UNKNOWN_USERS", value_enum, default_value = "create")]
    pub unknown_users: UnknownUsers,

    #[command(flatten)]
    pub limits: LimitConfig,

    #[command(flatten)]
    pub http: HttpConfig,

    #[command(flatten)]
    pub webhooks: WebhookConfig,

    /// How long a request may take in all before it is answered 504; an export, until its answer begins.
    #[arg(long, env = "BESEDA_REQUEST_TIMEOUT", default_value = "15s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// How often an idle socket is pinged; one that stays silent for two of these is closed.
    #[arg(long = "socket-heartbeat", env = "BESEDA_SOCKET_HEARTBEAT", default_value = "25s", value_parser = humantime::parse_duration)]
    pub heartbeat: Duration,

    /// How often the heads of followed chats are compared with Postgres, so that a lost publication is found.
    #[arg(long, env = "BESEDA_HEAD_CHECK_INTERVAL", default_value = "5s", value_parser = humantime::parse_duration)]
    pub head_check_interval: Duration,

    /// From SIGTERM to the end: sockets are told to go elsewhere, requests under way are finished.
    #[arg(long, env = "BESEDA_SHUTDOWN_GRACE", default_value = "25s", value_parser = humantime::parse_duration)]
    pub shutdown_grace: Duration,

    /// How long a draining replica still takes connections, until the balancer has noticed.
    #[arg(long, env = "BESEDA_DRAIN_DELAY", default_value = "3s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// Apply missing migrations at the start.
    #[arg(long, env = "BESEDA_MIGRATE_ON_START", value_enum, default_value = "off")]
    pub migrate_on_start: Switch,

    /// Names and tokens that the demo page gives to whoever asks. No setting: only `beseda dev`,
    /// which serves nobody but this machine, fills it.
    #[arg(skip)]
    pub demo_people: Vec<(String, Secret)>,
}

/// A setting that can't be.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct ConfigError {
    pub name: Cow<'static, str>,
    pub reason: String,
}

impl ConfigError {
    fn new(name: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), reason: reason.into() }
    }
}

impl Config {
    /// Checks what belongs together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.auth.validate()?;
        self.webhooks.validate()?;
        if self.drain_delay >= self.shutdown_grace {
            return Err(ConfigError::new(
                "BESEDA_DRAIN_DELAY",
                "must be shorter than BESEDA_SHUTDOWN_GRACE",
            ));
        }
        if self.heartbeat < Duration::from_millis(100) {
            return Err(ConfigError::new("BESEDA_SOCKET_HEARTBEAT", "must be at least 100ms"));
        }
        let cluster = ["redis-cluster://", "rediss-cluster://"];
        if self.redis_sharded_pubsub == Switch::On
            && !cluster.iter().any(|scheme| self.redis_url.expose().starts_with(scheme))
        {
            return Err(ConfigError::new(
                "BESEDA_REDIS_SHARDED_PUBSUB",
                "needs a REDIS_URL that begins with redis-cluster:// or rediss-cluster://",
            ));
        }
        let DatabaseConfig { database_connections, database_writers, database_readers, .. } =
            self.database;
        if database_writers < 1 {
            return Err(ConfigError::new("BESEDA_DATABASE_WRITERS", "must be at least 1"));
        }
        if database_readers < 1 {
            return Err(ConfigError::new("BESEDA_DATABASE_READERS", "must be at least 1"));
        }
        if database_connections
            < database_writers.saturating_add(database_readers.saturating_mul(2)).saturating_add(5)
        {
            return Err(ConfigError::new(
                "BESEDA_DATABASE_CONNECTIONS",
                "must leave at least 5 beside the writers and twice the readers",
            ));
        }
        if let Some(url) = &self.public_url
            && !matches!(url.scheme(), "http" | "https")
        {
            return Err(ConfigError::new("BESEDA_PUBLIC_URL", "must be http:// or https://"));
        }
        let rates = [
            ("BESEDA_RATE_SENDS", self.limits.rate_sends),
            ("BESEDA_RATE_READS", self.limits.rate_reads),
            ("BESEDA_RATE_ROOMS", self.limits.rate_rooms),
            ("BESEDA_RATE_SEARCHES", self.limits.rate_searches),
            ("BESEDA_RATE_CONNECTS", self.limits.rate_connects),
            ("BESEDA_RATE_ADDRESSES", self.limits.rate_addresses),
            ("BESEDA_RATE_COMMANDS", self.limits.rate_commands),
            ("BESEDA_RATE_ACCEPTS", self.limits.rate_accepts),
        ];
        self.http.validate()?;
        match rates.into_iter().find(|(_, rate)| *rate == 0) {
            Some((name, _)) => Err(ConfigError::new(name, "must be at least 1")),
            None => Ok(()),
        }
    }
}

impl HttpConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        // What the HTTP library needs at the least.
        if self.max_head_bytes < 8 * 1024 {
            return Err(ConfigError::new("BESEDA_MAX_HEAD_BYTES", "must be at least 8192"));
        }
        let times = [
            ("BESEDA_HEAD_TIMEOUT", self.head_timeout),
            ("BESEDA_BODY_TIMEOUT", self.body_timeout),
            ("BESEDA_WRITE_TIMEOUT", self.write_timeout),
            ("BESEDA_IDLE_TIMEOUT", self.idle_timeout),
        ];
        match times.into_iter().find(|(_, time)| *time < Duration::from_millis(100)) {
            Some((name, _)) => Err(ConfigError::new(name, "must be at least 100ms")),
            None => Ok(()),
        }
    }
}
