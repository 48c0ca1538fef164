//! Settings of webhooks.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use url::Url;

use super::{ConfigError, Secret, Switch};
use crate::outbound::{UrlFault, check_url};

/// Bounds of a secret in bytes, as the receivers' libraries have them.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The settings of webhooks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookConfig {
    /// URL that events are POSTed to, `https://`. Without it there are no webhooks.
    #[arg(long, env = "BESEDA_WEBHOOK_URL")]
    pub webhook_url: Option<Url>,

    /// Key that signs events: base64 of 24 to 64 bytes, with or without `whsec_` before it. During a
    /// rotation it holds two, comma-separated. Required with BESEDA_WEBHOOK_URL.
    #[arg(long, env = "BESEDA_WEBHOOK_SECRET", hide_env_values = true)]
    pub webhook_secret: Option<Secret>,

    /// Allow private, loopback and link-local addresses, and `http://`. `off` refuses them behind any
    /// name.
    #[arg(long, env = "BESEDA_WEBHOOK_ALLOW_PRIVATE", value_enum, default_value = "off")]
    pub webhook_allow_private: Switch,

    /// How long the receiver may take to answer.
    #[arg(long, env = "BESEDA_WEBHOOK_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub webhook_timeout: Duration,

    /// Events that one replica sends at the same time; always one at a time per chat.
    #[arg(long, env = "BESEDA_WEBHOOK_CONCURRENCY", default_value_t = 16)]
    pub webhook_concurrency: usize,

    /// How long after a message Beseda checks whether its recipient is away. Choose more than the 3 s
    /// for which a user stays online after their last socket.
    #[arg(long, env = "BESEDA_WEBHOOK_DELAY", default_value = "5s", value_parser = humantime::parse_duration)]
    pub webhook_delay: Duration,

    /// Age beyond which an event is given up when an attempt fails; it becomes a dead letter.
    #[arg(long, env = "BESEDA_WEBHOOK_MAX_AGE", default_value = "1day", value_parser = humantime::parse_duration)]
    pub webhook_max_age: Duration,
}

impl WebhookConfig {
    /// Returns how long a message's event waits before its first attempt; `None` without webhooks.
    pub fn delay(&self) -> Option<Duration> {
        self.webhook_url.as_ref().map(|_| self.webhook_delay)
    }

    /// Returns the keys that sign events.
    pub fn keys(&self) -> Result<Vec<Vec<u8>>, ConfigError> {
        let secrets = self.webhook_secret.as_ref().map_or("", Secret::expose);
        let keys = secrets.split(',').map(|secret| {
            let secret = secret.trim();
            let bytes = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret));
            bytes.ok().filter(|bytes| SECRET_BYTES.contains(&bytes.len()))
        });
        keys.collect::<Option<_>>().ok_or_else(|| {
            ConfigError::new(
                "BESEDA_WEBHOOK_SECRET",
                "must be base64 of 24 to 64 bytes; `openssl rand -base64 32` makes one",
            )
        })
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let Some(url) = &self.webhook_url else { return Ok(()) };
        self.keys()?;
        let refuse = |reason| Err(ConfigError::new("BESEDA_WEBHOOK_URL", reason));
        let private = self.webhook_allow_private == Switch::On;
        match check_url(url, private) {
            Ok(()) => {}
            Err(UrlFault::Scheme) => {
                return refuse(
                    "must be https://, or http:// with BESEDA_WEBHOOK_ALLOW_PRIVATE=on: people's \
                     messages are in it",
                );
            }
            Err(UrlFault::Credentials) => {
                return refuse("must have no user and no password: URLs show in logs");
            }
            Err(UrlFault::Private) => {
                return refuse("is a private address: BESEDA_WEBHOOK_ALLOW_PRIVATE=on allows it");
            }
        }
        if self.webhook_concurrency < 1 {
            return Err(ConfigError::new("BESEDA_WEBHOOK_CONCURRENCY", "must be at least 1"));
        }
        if self.webhook_timeout < Duration::from_millis(100) {
            return Err(ConfigError::new("BESEDA_WEBHOOK_TIMEOUT", "must be at least 100ms"));
        }
        Ok(())
    }
}
