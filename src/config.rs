//! Configuration: every setting is a flag and an environment variable of the same name. Its doc comment
//! is the `--help`, and its row in docs/run/configuration.md, which `examples/settings.rs` prints.

mod attachments;
mod auth;
mod database;
mod files;
mod groups;
mod http;
mod limits;
mod push;
mod secret;
mod webhooks;

use std::{borrow::Cow, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

pub use self::{
    attachments::{AttachmentConfig, AttachmentPlace, ScanAddress},
    auth::{AuthConfig, IssuerConfig, KeySource, MAX_FIXED_KEYS},
    database::DatabaseConfig,
    files::secrets_from_files,
    groups::{GroupConfig, SystemMessages},
    http::HttpConfig,
    limits::LimitConfig,
    push::PushConfig,
    secret::Secret,
    webhooks::WebhookConfig,
};
use crate::{net::Network, origin::Origin};

/// Who may delete a direct chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeleteChat {
    /// the user who opened it
    Creator,
    /// any member
    Member,
    /// only the host application's server, by the scope `chat:admin`
    Admin,
}

/// What happens when a user opens a chat with somebody unknown, or adds them to a group.
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

    /// Who may delete a direct chat. A group is deleted by its owner, or with `chat:admin`.
    #[arg(
        help_heading = "Chats and people",
        long,
        env = "BESEDA_DELETE_CHAT",
        value_enum,
        default_value = "creator"
    )]
    pub delete_chat: DeleteChat,

    /// What happens when a user opens a chat with somebody unknown, or adds them to a group. Somebody who
    /// was erased is refused with both values.
    #[arg(
        help_heading = "Chats and people",
        long,
        env = "BESEDA_UNKNOWN_USERS",
        value_enum,
        default_value = "create"
    )]
    pub unknown_users: UnknownUsers,

    #[command(flatten)]
    pub groups: GroupConfig,

    #[command(flatten)]
    pub attachments: AttachmentConfig,

    #[command(flatten)]
    pub limits: LimitConfig,

    #[command(flatten)]
    pub http: HttpConfig,

    #[command(flatten)]
    pub webhooks: WebhookConfig,

    #[command(flatten)]
    pub push: PushConfig,

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
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), reason: reason.into() }
    }
}

impl Config {
    /// Checks bounds, and settings that depend on each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.auth.validate()?;
        self.groups.validate()?;
        self.attachments.validate()?;
        self.webhooks.validate()?;
        self.push.validate()?;
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
        self.database.validate()?;
        if let Some(url) = &self.public_url
            && !matches!(url.scheme(), "http" | "https")
        {
            return Err(ConfigError::new("BESEDA_PUBLIC_URL", "must be http:// or https://"));
        }
        self.http.validate()?;
        self.limits.validate()
    }
}
