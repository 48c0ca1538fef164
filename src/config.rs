//! Configuration: every setting is a flag and an environment variable of the same name. Its doc comment
//! is the `--help`, and its row in docs/run/configuration.md, which `examples/settings.rs` prints.

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
    /// the user who opened it
    Creator,
    /// any member
    Member,
    /// only the host application's server, by the scope `chat:admin`
    Admin,
}

/// What happens when a user opens a chat with somebody unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnknownUsers {
    /// create the user, without a name
    Create,
    /// answer 404 `user_not_found`
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

/// The settings of logs and traces, which every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs and traces")]
pub struct LogConfig {
    /// Format of the log. BESEDA_LOG sets what is logged (`info`, `debug`, `beseda=debug,warn`).
    #[arg(long, global = true, env = "BESEDA_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// Where traces are sent, over OTLP (HTTP, protobuf): `http://collector:4318/v1/traces`. Without it,
    /// no traces are made.
    #[arg(long, global = true, env = "BESEDA_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<url::Url>,
}

/// A value that must not show in logs: its `Debug` is redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secrets in it, one per line: two during a rotation.
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

/// The settings of Postgres, which every command that uses the database takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Postgres")]
pub struct DatabaseConfig {
    /// Address of Postgres: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. With
    /// `?sslmode=verify-full` the connection uses TLS. Of several hosts, comma-separated, the one that
    /// accepts writes is used. `?options=-c%20search_path%3Dchat` puts all tables into the schema
    /// `chat`, for every command.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// PEM file with the authorities that may have signed Postgres's certificate. Without it, the
    /// system's authorities apply.
    #[arg(long, env = "BESEDA_DATABASE_CA")]
    pub database_ca: Option<PathBuf>,

    /// Maximum number of connections to Postgres per replica: its writers, twice its readers, one for
    /// mutations (edits, deletions, read markers), two for searches, and two or more for everything
    /// else.
    #[arg(long, env = "BESEDA_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: usize,

    /// Connections that write new messages, each one batch at a time. Fewer make larger batches, which
    /// cost less; more hide the latency of a distant Postgres.
    #[arg(long, env = "BESEDA_DATABASE_WRITERS", default_value_t = 1)]
    pub database_writers: usize,

    /// Connections that all short reads share, and as many again that lists of chats share. Fewer cost
    /// Postgres and the service less; more use more of Postgres's cores.
    #[arg(long, env = "BESEDA_DATABASE_READERS", default_value_t = 2)]
    pub database_readers: usize,

    /// Time limit of one statement, and of a request's wait for a connection or a lock.
    #[arg(long, env = "BESEDA_DATABASE_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub database_timeout: Duration,

    /// How long `serve` and `migrate` wait at their start for a Postgres that does not answer. Each
    /// attempt logs its cause.
    #[arg(long, env = "BESEDA_DATABASE_WAIT", default_value = "1m", value_parser = humantime::parse_duration)]
    pub database_wait: Duration,

    /// Use named prepared statements, and set time-outs as start-up options. Set `off` behind PgBouncer
    /// in transaction mode, whatever its version.
    #[arg(long, env = "BESEDA_DATABASE_PREPARED", value_enum, default_value = "on")]
    pub database_prepared: Switch,
}

/// Rate limits and caps. A rate is sustained; ten seconds' worth may come at once.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitConfig {
    /// Apply rate limits and the caps on sockets and requests. `off` lifts all of them.
    #[arg(long, env = "BESEDA_RATE_LIMITS", value_enum, default_value = "on")]
    pub rate_limits: Switch,

    /// Sends, edits, deletions, reports and read markers per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_SENDS", default_value_t = 10)]
    pub rate_sends: u32,

    /// Reads per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_READS", default_value_t = 50)]
    pub rate_reads: u32,

    /// Chats opened or deleted, and people named or blocked, per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_ROOMS", default_value_t = 5)]
    pub rate_rooms: u32,

    /// Searches per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_SEARCHES", default_value_t = 5)]
    pub rate_searches: u32,

    /// Tickets and sockets per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_CONNECTS", default_value_t = 2)]
    pub rate_connects: u32,

    /// Requests and sockets per second from one address (IPv6: one /64), counted before tokens are
    /// checked. Addresses behind proxies are seen only through BESEDA_TRUSTED_PROXIES.
    #[arg(long, env = "BESEDA_RATE_ADDRESSES", default_value_t = 1_000)]
    pub rate_addresses: u32,

    /// Commands per second on one socket.
    #[arg(long, env = "BESEDA_RATE_COMMANDS", default_value_t = 50)]
    pub rate_commands: u32,

    /// Connections that a replica accepts per second, and 25 times as many at once; the rest wait in
    /// the kernel's queue, with requests on new connections behind them. Raise it with the number of
    /// cores: at 400/s a handshake flood leaves most of two cores to connected clients.
    #[arg(long, env = "BESEDA_RATE_ACCEPTS", default_value_t = 400)]
    pub rate_accepts: u32,

    /// Maximum number of requests of one user in flight on one replica, each until its answer is taken;
    /// one more is answered 429. The largest answers have 3 MB, so 32 of them take a fifth of 512 MiB.
    #[arg(long, env = "BESEDA_REQUESTS_PER_USER", default_value_t = 32)]
    pub requests_per_user: usize,

    /// A user with this many chats can open no more: 403 `forbidden`. Other users may still open chats
    /// with them, and a `chat:admin` token may open any. Unread counters list all of them, in 140 bytes
    /// each.
    #[arg(long, env = "BESEDA_ROOMS_PER_USER", default_value_t = 20_000)]
    pub rooms_per_user: u32,

    /// Maximum number of people whom a user may block; beyond it, 403 `forbidden`.
    #[arg(long, env = "BESEDA_BLOCKS_PER_USER", default_value_t = 10_000)]
    pub blocks_per_user: u32,

    /// Maximum number of open sockets of one user on one replica; one more is closed with 4009.
    #[arg(long, env = "BESEDA_SOCKETS_PER_USER", default_value_t = 50)]
    pub sockets_per_user: usize,

    /// Maximum number of open sockets from one address (IPv6: one /64) on one replica; one more is
    /// closed with 4204.
    #[arg(long, env = "BESEDA_SOCKETS_PER_ADDRESS", default_value_t = 5_000)]
    pub sockets_per_address: usize,

    /// Maximum number of open sockets on one replica; one more is closed with 4204.
    #[arg(long, env = "BESEDA_SOCKETS", default_value_t = 50_000)]
    pub sockets: usize,

    /// Maximum number of chats that one socket may follow; one more is refused with `forbidden`.
    #[arg(long, env = "BESEDA_SUBSCRIPTIONS_PER_SOCKET", default_value_t = 1_000)]
    pub subscriptions_per_socket: usize,
}

/// Bounds of a single HTTP connection.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub struct HttpConfig {
    /// Maximum size of a request's head in bytes; 8192 or more. What arrived in the same read is still
    /// accepted, up to twice as much.
    #[arg(long, env = "BESEDA_MAX_HEAD_BYTES", default_value_t = 32 * 1024)]
    pub max_head_bytes: usize,

    /// Maximum number of headers of a request.
    #[arg(long, env = "BESEDA_MAX_HEADERS", default_value_t = 64)]
    pub max_headers: usize,

    /// How long a new connection may stay silent, and how long a request's head may take.
    #[arg(long, env = "BESEDA_HEAD_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub head_timeout: Duration,

    /// How long a request's body may take.
    #[arg(long, env = "BESEDA_BODY_TIMEOUT", default_value = "8s", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,

    /// How long a client may take nothing of an answer. Beyond that time it must take at least 16 KiB
    /// per second.
    #[arg(long, env = "BESEDA_WRITE_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub write_timeout: Duration,

    /// How long a connection may idle between two requests. Choose more than the balancer's own limit,
    /// so that the balancer closes first.
    #[arg(long, env = "BESEDA_IDLE_TIMEOUT", default_value = "75s", value_parser = humantime::parse_duration)]
    pub idle_timeout: Duration,
}

/// All settings of one replica.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// Address of Redis: `redis://`, `redis-sentinel://` or `redis-cluster://`; with `rediss` instead
    /// of `redis` over TLS.
    #[arg(help_heading = "Redis", long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// PEM file with the authorities that may have signed Redis's certificate. Without it, the system's
    /// authorities apply.
    #[arg(help_heading = "Redis", long, env = "BESEDA_REDIS_CA")]
    pub redis_ca: Option<PathBuf>,

    /// Prefix of every Redis key and channel, so that one Redis can serve several installations.
    /// Channels have the number of the database behind it (`beseda:db0:`), because Redis separates only
    /// keys by that number.
    #[arg(help_heading = "Redis", long, env = "BESEDA_REDIS_PREFIX", default_value = "beseda:")]
    pub redis_prefix: String,

    /// Use sharded pub/sub: each publication goes to one shard instead of all servers of a
    /// `redis-cluster://` (Redis 7 or newer). Set the same on all replicas; otherwise they do not hear
    /// each other.
    #[arg(
        help_heading = "Redis",
        long,
        env = "BESEDA_REDIS_SHARDED_PUBSUB",
        value_enum,
        default_value = "off"
    )]
    pub redis_sharded_pubsub: Switch,

    /// Address for clients: REST, sockets and the demo page.
    #[arg(help_heading = "Addresses", long, env = "BESEDA_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Address for metrics and health checks. Keep it off the internet.
    #[arg(
        help_heading = "Addresses",
        long,
        env = "BESEDA_INTERNAL_LISTEN",
        default_value = "0.0.0.0:9090"
    )]
    pub internal_listen: SocketAddr,

    /// Origin under which clients reach the service (`https://chat.example.com`, without a path). Its
    /// scheme and host make `ws_url`; without it they come from each request.
    #[arg(help_heading = "Addresses", long, env = "BESEDA_PUBLIC_URL")]
    pub public_url: Option<Origin>,

    /// Proxies whose `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto` are trusted:
    /// addresses or ranges (`10.0.0.0/8`), comma-separated.
    #[arg(help_heading = "Addresses", long, env = "BESEDA_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// Origins (`https://www.example.com`) whose pages may open sockets and call the API,
    /// comma-separated; there is no `*`. Without it, only pages of the same host may.
    #[arg(help_heading = "Addresses", long, env = "BESEDA_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<Origin>,

    #[command(flatten)]
    pub auth: AuthConfig,

    /// Who may delete a chat.
    #[arg(
        help_heading = "Chats and people",
        long,
        env = "BESEDA_DELETE_CHAT",
        value_enum,
        default_value = "creator"
    )]
    pub delete_chat: DeleteChat,

    /// What happens when a user opens a chat with somebody unknown. With somebody who was erased, both
    /// values refuse a new chat.
    #[arg(
        help_heading = "Chats and people",
        long,
        env = "BESEDA_UNKNOWN_USERS",
        value_enum,
        default_value = "create"
    )]
    pub unknown_users: UnknownUsers,

    #[command(flatten)]
    pub limits: LimitConfig,

    #[command(flatten)]
    pub http: HttpConfig,

    #[command(flatten)]
    pub webhooks: WebhookConfig,

    /// Time limit of a request, after which it is answered 504; for an export, until its answer begins.
    #[arg(help_heading = "Running", long, env = "BESEDA_REQUEST_TIMEOUT", default_value = "15s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// Interval between pings on an idle socket. A socket that stays silent for two of them is closed.
    #[arg(help_heading = "Running", long = "socket-heartbeat", env = "BESEDA_SOCKET_HEARTBEAT", default_value = "25s", value_parser = humantime::parse_duration)]
    pub heartbeat: Duration,

    /// Interval at which the heads of followed chats are compared with Postgres, so that a lost
    /// publication is found.
    #[arg(help_heading = "Running", long, env = "BESEDA_HEAD_CHECK_INTERVAL", default_value = "5s", value_parser = humantime::parse_duration)]
    pub head_check_interval: Duration,

    /// Time from SIGTERM to the end: sockets are told to reconnect elsewhere, and requests in flight
    /// are finished.
    #[arg(help_heading = "Running", long, env = "BESEDA_SHUTDOWN_GRACE", default_value = "25s", value_parser = humantime::parse_duration)]
    pub shutdown_grace: Duration,

    /// How long a draining replica still accepts connections, until the balancer has noticed; shorter
    /// than BESEDA_SHUTDOWN_GRACE.
    #[arg(help_heading = "Running", long, env = "BESEDA_DRAIN_DELAY", default_value = "3s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// Apply missing migrations at the start.
    #[arg(
        help_heading = "Running",
        long,
        env = "BESEDA_MIGRATE_ON_START",
        value_enum,
        default_value = "off"
    )]
    pub migrate_on_start: Switch,

    /// Names and tokens that the demo page offers to every visitor. Not a setting: only `beseda dev`,
    /// which serves this machine alone, fills it.
    #[arg(skip)]
    pub demo_people: Vec<(String, Secret)>,
}

/// A setting, or a combination of settings, that is refused.
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
    /// Checks bounds, and settings that depend on each other.
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
        // The HTTP library needs at least this much.
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
