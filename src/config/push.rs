//! Settings of push.

use std::{path::PathBuf, time::Duration};

use beseda_protocol::model::PushPlatform;
use clap::Args;
use url::Url;

use super::{ConfigError, Secret, Switch};

/// The settings of push.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Push")]
pub struct PushConfig {
    /// Private key of Web Push (VAPID, RFC 8292): a P-256 key in PEM, or its 32 bytes in base64url. Without
    /// it there is no Web Push. All settings of push must be the same on all replicas.
    #[arg(long, env = "BESEDA_VAPID_KEY", hide_env_values = true)]
    pub vapid_key: Option<Secret>,

    /// Where push services reach you: `mailto:` or `https://`. Required with BESEDA_VAPID_KEY.
    #[arg(long, env = "BESEDA_VAPID_SUBJECT")]
    pub vapid_subject: Option<Url>,

    /// Key of a Google service account in JSON, as its console gives it. Without it there is no FCM.
    #[arg(long, env = "BESEDA_FCM_KEY", hide_env_values = true)]
    pub fcm_key: Option<Secret>,

    /// Where FCM is.
    #[arg(long, env = "BESEDA_FCM_URL", default_value = "https://fcm.googleapis.com")]
    pub fcm_url: Url,

    /// Private key for APNs: the `.p8` file that Apple gives. Without it there is no APNs.
    #[arg(long, env = "BESEDA_APNS_KEY", hide_env_values = true)]
    pub apns_key: Option<Secret>,

    /// The id of that key, ten characters.
    #[arg(long, env = "BESEDA_APNS_KEY_ID")]
    pub apns_key_id: Option<String>,

    /// The id of the team that owns the app, ten characters.
    #[arg(long, env = "BESEDA_APNS_TEAM_ID")]
    pub apns_team_id: Option<String>,

    /// The app's bundle id.
    #[arg(long, env = "BESEDA_APNS_TOPIC")]
    pub apns_topic: Option<String>,

    /// Where APNs is; builds for development have `https://api.sandbox.push.apple.com`.
    #[arg(long, env = "BESEDA_APNS_URL", default_value = "https://api.push.apple.com")]
    pub apns_url: Url,

    /// How long a message stays unread before devices are told of it: who reads it in time, on any device,
    /// is not told.
    #[arg(long, env = "BESEDA_PUSH_DELAY", default_value = "5s", value_parser = humantime::parse_duration)]
    pub push_delay: Duration,

    /// Age beyond which a message is not pushed any more, and a push that fails is given up.
    #[arg(long, env = "BESEDA_PUSH_MAX_AGE", default_value = "1day", value_parser = humantime::parse_duration)]
    pub push_max_age: Duration,

    /// How long a provider may take to answer.
    #[arg(long, env = "BESEDA_PUSH_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub push_timeout: Duration,

    /// Devices that one replica pushes to at the same time; always one push at a time per device.
    #[arg(long, env = "BESEDA_PUSH_CONCURRENCY", default_value_t = 64)]
    pub push_concurrency: usize,

    /// Allow subscriptions of Web Push with private, loopback and link-local addresses, and `http://`: for
    /// a push service of your own. `off` refuses them behind any name.
    #[arg(long, env = "BESEDA_PUSH_ALLOW_PRIVATE", value_enum, default_value = "off")]
    pub push_allow_private: Switch,

    /// PEM file of the authorities that push services and providers are trusted by, instead of the
    /// system's.
    #[arg(long, env = "BESEDA_PUSH_CA")]
    pub push_ca: Option<PathBuf>,
}

impl PushConfig {
    /// Returns the platforms that are set up.
    pub fn platforms(&self) -> Vec<PushPlatform> {
        PushPlatform::ALL.into_iter().filter(|platform| self.has(*platform)).collect()
    }

    fn has(&self, platform: PushPlatform) -> bool {
        match platform {
            PushPlatform::Webpush => self.vapid_key.is_some(),
            PushPlatform::Fcm => self.fcm_key.is_some(),
            PushPlatform::Apns => self.apns_key.is_some(),
        }
    }

    /// Returns how long a message waits before devices are told of it; `None` without push.
    pub fn delay(&self) -> Option<Duration> {
        (!self.platforms().is_empty()).then_some(self.push_delay)
    }

    /// Checks what belongs together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let is_contact = |url: &Url| matches!(url.scheme(), "mailto" | "https");
        if self.vapid_key.is_some() && !self.vapid_subject.as_ref().is_some_and(is_contact) {
            return Err(ConfigError::new(
                "BESEDA_VAPID_SUBJECT",
                "must be mailto: or https://, as push services require with BESEDA_VAPID_KEY",
            ));
        }
        if self.apns_key.is_some() {
            for (name, value) in [
                ("BESEDA_APNS_KEY_ID", &self.apns_key_id),
                ("BESEDA_APNS_TEAM_ID", &self.apns_team_id),
                ("BESEDA_APNS_TOPIC", &self.apns_topic),
            ] {
                if value.as_ref().is_none_or(String::is_empty) {
                    return Err(ConfigError::new(name, "is required with BESEDA_APNS_KEY"));
                }
            }
        }
        for (name, url) in [("BESEDA_FCM_URL", &self.fcm_url), ("BESEDA_APNS_URL", &self.apns_url)]
        {
            if url.scheme() != "https" || url.host().is_none() {
                return Err(ConfigError::new(name, "must be https://"));
            }
        }
        if self.push_concurrency < 1 {
            return Err(ConfigError::new("BESEDA_PUSH_CONCURRENCY", "must be at least 1"));
        }
        if self.push_timeout < Duration::from_millis(100) {
            return Err(ConfigError::new("BESEDA_PUSH_TIMEOUT", "must be at least 100ms"));
        }
        Ok(())
    }
}
