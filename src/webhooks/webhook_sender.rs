//! Sends events to the receiver: signed according to Standard Webhooks
//! (<https://www.standardwebhooks.com>), and never to a forbidden address.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{
    Client, Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header,
    redirect::Policy,
};
use url::Url;
use uuid::Uuid;

use crate::{
    config::{ConfigError, Switch, WebhookConfig},
    net::is_public,
    tls,
};

/// Maximum bytes read of a response, so that its connection can be reused.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// How long an idle connection is kept: receivers close theirs after a similar time.
const KEEP: Duration = Duration::from_secs(30);

/// The reason why a delivery failed. Short, because it is stored in the database and shown to
/// operators.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("answered {}", .0.as_u16())]
    Status(StatusCode),
    #[error("no answer in time")]
    TimedOut,
    #[error("its host has private addresses only")]
    Private,
    #[error("no connection")]
    Unreachable,
    #[error("the connection broke")]
    Broken,
}

pub(super) struct WebhookSender {
    client: Client,
    url: Url,
    keys: Vec<hmac::Key>,
}

impl WebhookSender {
    pub(super) fn new(url: Url, config: &WebhookConfig) -> Result<Self, ConfigError> {
        let refused = |error: &dyn std::error::Error| ConfigError {
            name: "BESEDA_WEBHOOK_URL".into(),
            reason: format!("no HTTP client: {error}"),
        };
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::client_config(None).map_err(|error| refused(&error))?)
            // Only the configured URL is trusted.
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!("Beseda/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(KEEP)
            .timeout(config.webhook_timeout);
        if config.webhook_allow_private == Switch::Off {
            builder = builder.https_only(true).dns_resolver(Arc::new(PublicOnly));
        }
        let client = builder.build().map_err(|error| refused(&error))?;
        let keys = config.keys()?;
        let keys = keys.iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)).collect();
        Ok(Self { client, url, keys })
    }

    /// Sends an event; any 2xx counts as accepted.
    pub(super) async fn post(&self, event_id: Uuid, body: Vec<u8>) -> Result<(), Failure> {
        let id = event_id.to_string();
        let timestamp = jiff::Timestamp::now().as_second().to_string();
        let signatures: Vec<String> =
            self.keys.iter().map(|key| sign(key, &id, &timestamp, &body)).collect();
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures.join(" "))
            .body(body);
        let answer = request.send().await.map_err(|error| failure(&error))?;
        let status = answer.status();
        // Only the status counts, so a failure to read the body does not matter.
        let _ = read_to_end(answer).await;
        if status.is_success() { Ok(()) } else { Err(Failure::Status(status)) }
    }
}

/// Signs an event: `v1,` and the base64 of HMAC-SHA256 over id, time and body.
fn sign(key: &hmac::Key, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
}

async fn read_to_end(mut answer: Response) -> Result<(), reqwest::Error> {
    let mut read = 0;
    while let Some(chunk) = answer.chunk().await? {
        read += chunk.len();
        if read > MAX_ANSWER_BYTES {
            break;
        }
    }
    Ok(())
}

/// Maps an error to a failure; reqwest's own text contains the URL, which must not be logged.
fn failure(error: &reqwest::Error) -> Failure {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<NoPublicAddress>() {
            return Failure::Private;
        }
        cause = inner.source();
    }
    match error {
        _ if error.is_timeout() => Failure::TimedOut,
        _ if error.is_connect() => Failure::Unreachable,
        _ => Failure::Broken,
    }
}

/// Resolves names to public addresses only, because the owner of a name decides where it points.
struct PublicOnly;

#[derive(Debug, thiserror::Error)]
#[error("no public address")]
struct NoPublicAddress;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|it| is_public(it.ip())).collect();
            if public.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[tokio::test]
    async fn a_name_of_this_machine_leads_nowhere() {
        let name = "localhost".parse().expect("a name");
        let resolved = PublicOnly.resolve(name).await;
        assert!(resolved.err().is_some_and(|error| error.is::<NoPublicAddress>()));
    }
}
