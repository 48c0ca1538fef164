//! Settings of webhooks.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use url::{Host, Url};

use super::{ConfigError, Secret, Switch};
use crate::net::is_public;

/// Bounds of a secret, in bytes: what the receivers' libraries take.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Whom to tell of events.
#[derive(Debug, Clone, Args)]
pub struct WebhookConfig {
    /// Where events are POSTed to, https://; none: there are no webhooks.
    #[arg(long, env = "BESEDA_WEBHOOK_URL")]
    pub webhook_url: Option<Url>,

    /// What events are signed with: base64 of 24 to 64 bytes, `whsec_` may stand before it. Two of
    /// them, comma-separated, while one takes the place of the other.
    #[arg(long, env = "BESEDA_WEBHOOK_SECRET", hide_env_values = true)]
    pub webhook_secret: Option<Secret>,

    /// Private, loopback and link-local addresses, and http://; `off` refuses them, by whatever name.
    #[arg(long, env = "BESEDA_WEBHOOK_ALLOW_PRIVATE", value_enum, default_value = "off")]
    pub webhook_allow_private: Switch,

    /// How long the receiver may take to answer.
    #[arg(long, env = "BESEDA_WEBHOOK_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub webhook_timeout: Duration,

    /// Events that one replica sends at the same time; of a chat it is always one.
    #[arg(long, env = "BESEDA_WEBHOOK_CONCURRENCY", default_value_t = 16)]
    pub webhook_concurrency: usize,

    /// How long after a message Beseda checks whether its recipient is away; above the 3 s for which
    /// somebody stays online after their last socket.
    #[arg(long, env = "BESEDA_WEBHOOK_DELAY", default_value = "5s", value_parser = humantime::parse_duration)]
    pub webhook_delay: Duration,

    /// An event older than this is given up when an attempt fails: a dead letter.
    #[arg(long, env = "BESEDA_WEBHOOK_MAX_AGE", default_value = "1day", value_parser = humantime::parse_duration)]
    pub webhook_max_age: Duration,
}

impl WebhookConfig {
    /// How long a message's event waits first; `None` where there are no webhooks.
    pub fn delay(&self) -> Option<Duration> {
        self.webhook_url.as_ref().map(|_| self.webhook_delay)
    }

    /// The keys that events are signed with.
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
        // A host's name is looked at whenever it is looked up.
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            _ => None,
        };
        match url.scheme() {
            "https" => {}
            "http" if private => {}
            _ => {
                return refuse(
                    "must be https://, or http:// with BESEDA_WEBHOOK_ALLOW_PRIVATE=on: people's \
                     messages are in it",
                );
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("must be without a user and a password: addresses show in logs");
        }
        if !private && address.is_some_and(|address| !is_public(address)) {
            return refuse("is a private address: BESEDA_WEBHOOK_ALLOW_PRIVATE=on allows it");
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
