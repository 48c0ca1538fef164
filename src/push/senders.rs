//! The platforms that are set up, and what their providers answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderMap;
use reqwest::header;

use super::{
    apns::Apns,
    content::Content,
    fcm::Fcm,
    keys::SigningKey,
    web_push::{Tokens, WebPush},
};
use crate::{
    config::{ConfigError, PushConfig, Secret, Switch},
    model::PushPlatform,
    outbound,
    store::PushAddress,
};

/// HTTP/2 where a push service has it.
const BOTH: &[&str] = &["h2", "http/1.1"];

/// What a provider's answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    /// The device is known no more.
    Gone,
    /// This push will never be accepted.
    Refused(String),
    /// The provider does not accept our key: nothing is until an operator has changed that.
    Unauthorized(String),
    /// To be tried again, after this time if the provider says one.
    Later {
        after: Option<Duration>,
        reason: String,
    },
}

impl Answer {
    pub(super) fn later(reason: impl Into<String>) -> Self {
        Self::Later { after: None, reason: reason.into() }
    }
}

impl From<outbound::Failure> for Answer {
    fn from(failure: outbound::Failure) -> Self {
        match failure {
            outbound::Failure::Private => Self::Refused(failure.to_string()),
            _ => Self::later(failure.to_string()),
        }
    }
}

/// Reads `Retry-After` in seconds; providers of push give no dates.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Sends pushes to the platforms that are set up. Cheap to clone.
#[derive(Clone)]
pub struct Senders(Arc<Platforms>);

struct Platforms {
    web_push: Option<WebPush>,
    fcm: Option<Fcm>,
    apns: Option<Apns>,
    /// Limit of an attempt, with all that it waits for, so that it ends within its lane's lease.
    timeout: Duration,
    /// By platform, when the log said last that a provider does not accept our key.
    said: Mutex<[Option<Instant>; 3]>,
}

/// Pause between two lines of the log that say so: of Web Push each server that a client names is a provider.
const SAID_AGAIN: Duration = Duration::from_secs(600);

impl std::fmt::Debug for Senders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Senders")
    }
}

impl Senders {
    /// Reads the keys of the platforms that are set up.
    pub fn new(config: &PushConfig) -> Result<Self, ConfigError> {
        let client = |protocols, private| {
            let refuse = |error: &dyn std::error::Error| {
                ConfigError::new("BESEDA_PUSH_CA", format!("no HTTP client: {error}"))
            };
            outbound::client(config.push_ca.as_deref(), protocols, private, config.push_timeout)
                .map_err(|error| refuse(&error))
        };
        let build = |name: &'static str, builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| ConfigError::new(name, error.to_string()))
        };
        let refuse = |name: &'static str| {
            move |error: super::keys::KeyError| ConfigError::new(name, error.to_string())
        };
        let allow_private = config.push_allow_private == Switch::On;
        let web_push = config.vapid_key.as_ref().map(|key| {
            Ok(WebPush {
                client: build("BESEDA_VAPID_KEY", client(BOTH, allow_private)?)?,
                key: vapid_key(key).map_err(refuse("BESEDA_VAPID_KEY"))?,
                subject: config.vapid_subject.as_ref().map(ToString::to_string).unwrap_or_default(),
                allow_private,
                tokens: Tokens::default(),
            })
        });
        // The other two go where the operator's own settings say.
        let fcm = config.fcm_key.as_ref().map(|key| {
            let client = build("BESEDA_FCM_KEY", client(BOTH, true)?)?;
            Fcm::new(client, key, &config.fcm_url)
        });
        let apns = config.apns_key.as_ref().map(|key| {
            let of = |setting: &Option<String>| setting.clone().unwrap_or_default();
            let builder = client(&["h2"], true)?.http2_prior_knowledge();
            Ok(Apns::new(
                build("BESEDA_APNS_KEY", builder)?,
                &config.apns_url,
                SigningKey::from_pem(key.expose()).map_err(refuse("BESEDA_APNS_KEY"))?,
                of(&config.apns_key_id),
                of(&config.apns_team_id),
                of(&config.apns_topic),
            ))
        });
        Ok(Self(Arc::new(Platforms {
            web_push: web_push.transpose()?,
            fcm: fcm.transpose()?,
            apns: apns.transpose()?,
            timeout: config.push_timeout,
            said: Mutex::default(),
        })))
    }

    /// Returns VAPID's public key, if Web Push is set up.
    pub fn vapid_public_key(&self) -> Option<String> {
        self.0.web_push.as_ref().map(|web_push| web_push.key.public())
    }

    /// Sends a push, which its provider keeps for a device that is away for `life` at most.
    pub(super) async fn send(
        &self,
        platform: PushPlatform,
        to: &PushAddress,
        content: &Content,
        life: Duration,
    ) -> Answer {
        let sending = self.send_by(platform, to, content, life);
        let answer = tokio::time::timeout(self.0.timeout, sending).await;
        let answer = answer.unwrap_or_else(|_| Answer::later("no answer in time"));
        if let Answer::Unauthorized(reason) = &answer {
            let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
            let said = &mut said[platform as usize];
            if said.is_none_or(|at| at.elapsed() >= SAID_AGAIN) {
                *said = Some(Instant::now());
                let platform = platform.as_str();
                tracing::error!(platform, reason, "a provider of push does not accept our key");
            }
        }
        answer
    }

    async fn send_by(
        &self,
        platform: PushPlatform,
        to: &PushAddress,
        content: &Content,
        life: Duration,
    ) -> Answer {
        match platform {
            PushPlatform::Webpush => match &self.0.web_push {
                Some(web_push) => web_push.send(to, content, life).await,
                None => not_set_up(),
            },
            PushPlatform::Fcm => match &self.0.fcm {
                Some(fcm) => fcm.send(to, content, life).await,
                None => not_set_up(),
            },
            PushPlatform::Apns => match &self.0.apns {
                Some(apns) => apns.send(to, content, life).await,
                None => not_set_up(),
            },
        }
    }
}

/// Of a platform that was set up when the device was registered.
fn not_set_up() -> Answer {
    Answer::Refused("its platform is not set up".to_owned())
}

fn vapid_key(key: &Secret) -> Result<SigningKey, super::keys::KeyError> {
    let text = key.expose();
    if text.contains("-----BEGIN") {
        SigningKey::from_pem(text)
    } else {
        SigningKey::from_scalar(text)
    }
}
