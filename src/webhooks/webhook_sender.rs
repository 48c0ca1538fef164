//! Sends events to the receiver: signed according to Standard Webhooks
//! (<https://www.standardwebhooks.com>), and never to a forbidden address.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Client, StatusCode, header};
use url::Url;
use uuid::Uuid;

use crate::{
    config::{ConfigError, Switch, WebhookConfig},
    outbound,
};

/// Maximum bytes read of a response, so that its connection can be reused.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// The reason why a delivery failed. Short, because it is stored in the database and shown to
/// operators.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("answered {}", .0.as_u16())]
    Status(StatusCode),
    #[error(transparent)]
    Unanswered(#[from] outbound::Failure),
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
        let private = config.webhook_allow_private == Switch::On;
        let builder = outbound::client(None, &[], private, config.webhook_timeout);
        let builder = builder.map_err(|error| refused(&error))?;
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
        let answer = request.send().await.map_err(outbound::Failure::from)?;
        let status = answer.status();
        // Only the status counts.
        outbound::read_body(answer, MAX_ANSWER_BYTES).await;
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
}
