//! Settings of HTTP connections.

use std::time::Duration;

use clap::Args;

use super::ConfigError;

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

impl HttpConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
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
