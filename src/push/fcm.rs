//! Firebase Cloud Messaging, HTTP v1, with access tokens of a service account.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::{Client, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use url::{Url, form_urlencoded};

use super::{
    apns,
    content::{Content, What},
    senders::{Answer, retry_after},
};
use crate::{
    config::{ConfigError, Secret},
    outbound,
    store::PushAddress,
};

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// Life of what asks for an access token; Google allows an hour.
const ASSERTION_LIFE: Duration = Duration::from_secs(3_600);

/// How much earlier than it ends an access token is replaced.
const EARLY: Duration = Duration::from_secs(60);

/// Maximum bytes read of an answer; Google's have some 2,000.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// What FCM says of a token that never was one, often with no more than `INVALID_ARGUMENT` beside it.
const BAD_TOKEN: &str = "The registration token is not a valid FCM registration token";

/// Longest life that FCM takes: four weeks.
const MAX_LIFE: Duration = Duration::from_secs(28 * 24 * 3_600);

pub(super) struct Fcm {
    client: Client,
    url: Url,
    account: Account,
    token_url: Url,
    key: EncodingKey,
    /// The access token in use, and until when. Locked while a new one is asked for, so that one is.
    access: Mutex<Option<(String, Instant)>>,
}

/// The file that Google's console gives.
#[derive(Deserialize)]
struct Account {
    project_id: String,
    private_key_id: String,
    private_key: String,
    client_email: String,
    token_uri: String,
}

impl Fcm {
    pub(super) fn new(client: Client, key: &Secret, url: &Url) -> Result<Self, ConfigError> {
        let refuse = |reason: &str| ConfigError::new("BESEDA_FCM_KEY", reason);
        // serde's own text might quote the key.
        let account: Account = serde_json::from_str(key.expose())
            .map_err(|_| refuse("must be the key of a service account, in JSON"))?;
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes())
            .map_err(|_| refuse("its private_key must be an RSA key in PEM"))?;
        let path = format!("/v1/projects/{}/messages:send", account.project_id);
        let url = url.join(&path).map_err(|_| refuse("its project_id is none"))?;
        let token_url = account.token_uri.parse::<Url>().ok().filter(|url| url.scheme() == "https");
        let token_url = token_url.ok_or_else(|| refuse("its token_uri must be https://"))?;
        Ok(Self { client, url, account, token_url, key, access: Mutex::default() })
    }

    pub(super) async fn send(&self, to: &PushAddress, content: &Content, life: Duration) -> Answer {
        let access = match self.access_token().await {
            Ok(access) => access,
            Err(answer) => return answer,
        };
        let request = self
            .client
            .post(self.url.clone())
            .bearer_auth(&access)
            .header(header::CONTENT_TYPE, "application/json")
            .body(message(&to.token, content, life.min(MAX_LIFE)).to_string());
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Answer::from(outbound::Failure::from(error)),
        };
        let (status, after) = (answer.status(), retry_after(answer.headers()));
        let body = outbound::read_body(answer, MAX_ANSWER_BYTES).await;
        if status == StatusCode::UNAUTHORIZED {
            // It may have been revoked.
            self.access.lock().await.take_if(|(token, _)| *token == access);
        }
        meaning(status, after, &body)
    }

    /// Returns an access token, or what becomes of pushes without one.
    async fn access_token(&self) -> Result<String, Answer> {
        let mut access = self.access.lock().await;
        if let Some((token, until)) = &*access
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "iss": self.account.client_email,
            "scope": SCOPE,
            "aud": self.account.token_uri,
            "iat": now,
            "exp": now + ASSERTION_LIFE.as_secs() as i64,
        });
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.account.private_key_id.clone());
        let assertion =
            encode(&header, &claims, &self.key).map_err(|_| Answer::later("no signature"))?;
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        let request = self
            .client
            .post(self.token_url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let answer =
            request.send().await.map_err(|error| Answer::from(outbound::Failure::from(error)))?;
        let (status, after) = (answer.status(), retry_after(answer.headers()));
        let body = outbound::read_body(answer, MAX_ANSWER_BYTES).await;
        let reason = format!("the token's answer was {}", status.as_u16());
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            expires_in: u64,
        }
        match serde_json::from_slice::<Granted>(&body) {
            Ok(granted) if status.is_success() => {
                let life = Duration::from_secs(granted.expires_in).saturating_sub(EARLY);
                *access = Some((granted.access_token.clone(), Instant::now() + life));
                Ok(granted.access_token)
            }
            _ if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Err(Answer::Unauthorized(reason))
            }
            _ => Err(Answer::Later { after, reason }),
        }
    }
}

fn meaning(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Answer {
    if status.is_success() {
        return Answer::Accepted;
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let details = body["error"]["details"].as_array().map_or(&[][..], Vec::as_slice);
    let code = details.iter().find_map(|detail| detail["errorCode"].as_str()).unwrap_or_default();
    // An argument that is at fault is named, or told in these words; the token is the only one that is the device's.
    let at_fault =
        details.iter().filter_map(|detail| detail["fieldViolations"].as_array()).flatten();
    let is_of_token = |fault: &Value| fault["field"] == "message.token";
    let is_said = body["error"]["message"] == BAD_TOKEN;
    let known =
        code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let reason = if known && !code.is_empty() {
        code.to_owned()
    } else {
        format!("answered {}", status.as_u16())
    };
    match (status, code) {
        // A token of another project is none of ours.
        (_, "UNREGISTERED" | "SENDER_ID_MISMATCH") => Answer::Gone,
        (StatusCode::BAD_REQUEST, _) if is_said || at_fault.into_iter().any(is_of_token) => {
            Answer::Gone
        }
        // Apple's key, which the project has for its devices, among them.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Answer::Unauthorized(reason),
        // Without UNREGISTERED it is the project that is not found.
        (StatusCode::NOT_FOUND, _) => Answer::Unauthorized(reason),
        (StatusCode::TOO_MANY_REQUESTS, _) => Answer::Later { after, reason },
        _ if status.is_server_error() => Answer::Later { after, reason },
        _ => Answer::Refused(reason),
    }
}

/// A message for both of the systems that FCM carries to: Android's apps get data, and show it themselves; iOS shows
/// what APNs would carry.
fn message(token: &str, content: &Content, life: Duration) -> Value {
    let is_urgent = content.what.is_urgent();
    let mut android = json!({
        "priority": if is_urgent { "HIGH" } else { "NORMAL" },
        "ttl": format!("{}s", life.as_secs()),
    });
    let mut headers = json!({
        "apns-push-type": "alert",
        "apns-priority": if is_urgent { "10" } else { "5" },
        "apns-expiration": (jiff::Timestamp::now().as_second() + life.as_secs() as i64).to_string(),
    });
    // FCM keeps four keys a device, and more only of pushes that do not collapse.
    if let Some(chat_id) = content.what.chat_id() {
        headers["apns-collapse-id"] = chat_id.to_string().into();
    }
    if let What::Badge = content.what {
        android["collapse_key"] = "badge".into();
    }
    json!({ "message": {
        "token": token,
        "data": data(content),
        "android": android,
        "apns": { "headers": headers, "payload": apns::payload(content) },
    }})
}

/// The content as FCM's data has it: a flat object of strings.
fn data(content: &Content) -> Map<String, Value> {
    let Ok(Value::Object(all)) = serde_json::to_value(content) else { return Map::new() };
    let as_text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    all.into_iter().map(|(name, value)| (name, as_text(value).into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_by_class() {
        let class = |status: u16, details: Value| {
            let body = json!({ "error": { "code": status, "details": details } }).to_string();
            meaning(StatusCode::from_u16(status).expect("a status"), None, body.as_bytes())
        };
        let coded = |code: &str| json!([{ "errorCode": code }]);
        assert_eq!(class(200, json!([])), Answer::Accepted);
        assert_eq!(class(404, coded("UNREGISTERED")), Answer::Gone);
        assert_eq!(class(403, coded("SENDER_ID_MISMATCH")), Answer::Gone);
        let fault = json!([{ "errorCode": "INVALID_ARGUMENT" },
                           { "fieldViolations": [{ "field": "message.token" }] }]);
        assert_eq!(class(400, fault), Answer::Gone);
        let said =
            json!({ "error": { "message": BAD_TOKEN, "details": coded("INVALID_ARGUMENT") } });
        let said = meaning(StatusCode::BAD_REQUEST, None, said.to_string().as_bytes());
        assert_eq!(said, Answer::Gone);
        let refused = Answer::Refused("INVALID_ARGUMENT".to_owned());
        assert_eq!(class(400, coded("INVALID_ARGUMENT")), refused);
        let unauthorized = Answer::Unauthorized("THIRD_PARTY_AUTH_ERROR".to_owned());
        assert_eq!(class(401, coded("THIRD_PARTY_AUTH_ERROR")), unauthorized);
        assert_eq!(class(404, json!([])), Answer::Unauthorized("answered 404".to_owned()));
        assert_eq!(class(429, coded("QUOTA_EXCEEDED")), Answer::later("QUOTA_EXCEEDED"));
        assert_eq!(class(503, coded("UNAVAILABLE")), Answer::later("UNAVAILABLE"));
    }
}
