//! Configuration: flags and environment, one name each. The doc comment is the `--help`.

mod files;

use std::{borrow::Cow, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use url::Url;

pub use self::files::secrets_from_files;

/// Who may delete a whole room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeleteChat {
    /// Whoever opened it.
    Creator,
    /// Either of the two.
    Member,
    /// The host application's server only (scope `chat:admin`).
    Admin,
}

/// What opening a room with somebody unknown does.
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
    /// Postgres: postgresql://USER:PASSWORD@HOST:PORT/DATABASE; `sslmode=require` verifies the certificate.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// Most connections to Postgres a replica opens (its writers included).
    #[arg(long, env = "BESEDA_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: usize,

    /// Connections that write messages, each a batch at a time; fewer make larger batches, which cost
    /// less, more hide the latency of a distant Postgres.
    #[arg(long, env = "BESEDA_DATABASE_WRITERS", default_value_t = 1)]
    pub database_writers: usize,

    /// How long one statement may run, and a request may wait for a connection or a lock.
    #[arg(long, env = "BESEDA_DATABASE_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub database_timeout: Duration,

    /// Named prepared statements: `off` behind a PgBouncer older than 1.21 in transaction mode.
    #[arg(long, env = "BESEDA_DATABASE_PREPARED", value_enum, default_value = "on")]
    pub database_prepared: Switch,
}

/// Who may come in.
#[derive(Debug, Clone, Args)]
pub struct AuthConfig {
    /// The secret of HS256 tokens, at least 32 bytes.
    #[arg(long, env = "BESEDA_JWT_HS256_SECRET", hide_env_values = true)]
    pub jwt_hs256_secret: Option<Secret>,

    /// The public key of RS256, ES256 or EdDSA tokens: PEM, or the path of a PEM file. The key's
    /// kind fixes the algorithm.
    #[arg(long, env = "BESEDA_JWT_PUBLIC_KEY", hide_env_values = true)]
    pub jwt_public_key: Option<String>,

    /// What `iss` must be, where given.
    #[arg(long, env = "BESEDA_JWT_ISSUER")]
    pub jwt_issuer: Option<String>,

    /// What `aud` must contain, where given.
    #[arg(long, env = "BESEDA_JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,

    /// By how much the clocks of the issuer and of this machine may differ; 30s at most.
    #[arg(long, env = "BESEDA_JWT_LEEWAY", default_value = "10s", value_parser = humantime::parse_duration)]
    pub jwt_leeway: Duration,
}

/// Sustained requests a second of one user on one replica; ten seconds' worth may come at once.
#[derive(Debug, Clone, Args)]
pub struct LimitConfig {
    /// Rate limits and socket caps; `off` lifts them all.
    #[arg(long, env = "BESEDA_RATE_LIMITS", value_enum, default_value = "on")]
    pub rate_limits: Switch,

    /// Sends, edits, deletions and read markers a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_SENDS", default_value_t = 10)]
    pub rate_sends: u32,

    /// Reads a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_READS", default_value_t = 50)]
    pub rate_reads: u32,

    /// Rooms opened or deleted a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_ROOMS", default_value_t = 5)]
    pub rate_rooms: u32,

    /// Searches a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_SEARCHES", default_value_t = 5)]
    pub rate_searches: u32,

    /// Tickets and sockets a second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_CONNECTS", default_value_t = 10)]
    pub rate_connects: u32,

    /// Open sockets of one user on one replica; one more is closed with 4009.
    #[arg(long, env = "BESEDA_SOCKETS_PER_USER", default_value_t = 50)]
    pub sockets_per_user: usize,
}

/// Everything a replica needs.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// Redis: redis://…, rediss://…, redis-sentinel://… or redis-cluster://…
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// What every Redis key and channel begins with, so that one Redis can serve several installations.
    #[arg(long, env = "BESEDA_REDIS_PREFIX", default_value = "beseda:")]
    pub redis_prefix: String,

    /// Where clients are served: REST, sockets, the demo page.
    #[arg(long, env = "BESEDA_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Where metrics and health are served; not for the internet.
    #[arg(long, env = "BESEDA_INTERNAL_LISTEN", default_value = "0.0.0.0:9090")]
    pub internal_listen: SocketAddr,

    /// How clients reach the service (`https://chat.example.com`); else taken from each request.
    #[arg(long, env = "BESEDA_PUBLIC_URL")]
    pub public_url: Option<Url>,

    /// Proxies whose X-Forwarded-Host and X-Forwarded-Proto are believed: addresses, comma-separated.
    #[arg(long, env = "BESEDA_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<std::net::IpAddr>,

    /// Origins whose pages may open sockets and call the API, comma-separated; none given: the same host only.
    #[arg(long, env = "BESEDA_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,

    #[command(flatten)]
    pub auth: AuthConfig,

    /// Who may delete a whole room.
    #[arg(long, env = "BESEDA_DELETE_CHAT", value_enum, default_value = "creator")]
    pub delete_chat: DeleteChat,

    /// What opening a room with somebody unknown does.
    #[arg(long, env = "BESEDA_UNKNOWN_USERS", value_enum, default_value = "create")]
    pub unknown_users: UnknownUsers,

    #[command(flatten)]
    pub limits: LimitConfig,

    /// How long a request may take in all before it is answered 504.
    #[arg(long, env = "BESEDA_REQUEST_TIMEOUT", default_value = "15s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// How often an idle socket is pinged; one that stays silent for two of these is closed.
    #[arg(long, env = "BESEDA_SOCKET_HEARTBEAT", default_value = "25s", value_parser = humantime::parse_duration)]
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

/// Shortest secret for HS256: as long as its hash (RFC 7518 §3.2).
const MIN_HS256_SECRET_BYTES: usize = 32;

impl Config {
    /// Checks what belongs together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.auth.validate()?;
        if self.drain_delay >= self.shutdown_grace {
            return Err(ConfigError::new(
                "BESEDA_DRAIN_DELAY",
                "must be shorter than BESEDA_SHUTDOWN_GRACE",
            ));
        }
        if self.heartbeat < Duration::from_millis(100) {
            return Err(ConfigError::new("BESEDA_SOCKET_HEARTBEAT", "must be at least 100ms"));
        }
        let DatabaseConfig { database_connections, database_writers, .. } = self.database;
        if database_writers < 1 {
            return Err(ConfigError::new("BESEDA_DATABASE_WRITERS", "must be at least 1"));
        }
        if database_connections < database_writers.saturating_add(2) {
            return Err(ConfigError::new(
                "BESEDA_DATABASE_CONNECTIONS",
                "must leave at least 2 beside the writers",
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
        ];
        match rates.into_iter().find(|(_, rate)| *rate == 0) {
            Some((name, _)) => Err(ConfigError::new(name, "must be at least 1")),
            None => Ok(()),
        }
    }
}

impl AuthConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        match (&self.jwt_hs256_secret, &self.jwt_public_key) {
            (Some(secret), None) if secret.expose().len() < MIN_HS256_SECRET_BYTES => {
                Err(ConfigError::new(
                    "BESEDA_JWT_HS256_SECRET",
                    "must be at least 32 bytes; `openssl rand -base64 48` makes one",
                ))
            }
            (None, None) => Err(ConfigError::new(
                "BESEDA_JWT_HS256_SECRET",
                "set this or BESEDA_JWT_PUBLIC_KEY: without a key no token can be checked",
            )),
            (Some(_), Some(_)) => Err(ConfigError::new(
                "BESEDA_JWT_PUBLIC_KEY",
                "set this or BESEDA_JWT_HS256_SECRET, not both: one key, one algorithm",
            )),
            _ if self.jwt_leeway > Duration::from_secs(30) => {
                Err(ConfigError::new("BESEDA_JWT_LEEWAY", "must be 30s at most"))
            }
            _ => Ok(()),
        }
    }
}

impl AuthConfig {
    /// The public key's PEM, read from its file where a path was given.
    pub fn public_key_pem(&self) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(value) = &self.jwt_public_key else { return Ok(None) };
        if value.trim_start().starts_with("-----BEGIN") {
            return Ok(Some(value.clone().into_bytes()));
        }
        let path = PathBuf::from(value);
        std::fs::read(&path).map(Some).map_err(|error| {
            ConfigError::new("BESEDA_JWT_PUBLIC_KEY", format!("{}: {error}", path.display()))
        })
    }
}
