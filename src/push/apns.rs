//! Apple Push Notification service: HTTP/2, with tokens that the team's key signs.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{
    content::{Content, What},
    keys::SigningKey,
    senders::{Answer, retry_after},
};
use crate::{outbound, store::PushAddress};

/// How long a token is used: Apple takes one for an hour, and wants no new one within 20 minutes.
const TOKEN_LIFE: Duration = Duration::from_secs(50 * 60);

/// Maximum bytes read of an answer; Apple's have some 50.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

pub(super) struct Apns {
    client: Client,
    url: Url,
    key: SigningKey,
    key_id: String,
    team_id: String,
    topic: String,
    token: Mutex<Option<(String, Instant)>>,
}

impl Apns {
    pub(super) fn new(
        client: Client,
        url: &Url,
        key: SigningKey,
        key_id: String,
        team_id: String,
        topic: String,
    ) -> Self {
        Self { client, url: url.clone(), key, key_id, team_id, topic, token: Mutex::default() }
    }

    pub(super) async fn send(&self, to: &PushAddress, content: &Content, life: Duration) -> Answer {
        let (Ok(url), Some(token)) =
            (self.url.join(&format!("/3/device/{}", to.token)), self.token())
        else {
            return Answer::later("no signature");
        };
        let until = jiff::Timestamp::now().as_second() + life.as_secs() as i64;
        let mut request = self
            .client
            .post(url)
            .header(header::AUTHORIZATION, format!("bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("apns-topic", &self.topic)
            // A badge is something that the user sees, so it is an alert, too.
            .header("apns-push-type", "alert")
            .header("apns-priority", if content.what.is_urgent() { "10" } else { "5" })
            .header("apns-expiration", until);
        if let Some(chat_id) = content.what.chat_id() {
            request = request.header("apns-collapse-id", chat_id.to_string());
        }
        let answer = match request.body(payload(content).to_string()).send().await {
            Ok(answer) => answer,
            Err(error) => return Answer::from(outbound::Failure::from(error)),
        };
        let (status, after) = (answer.status(), retry_after(answer.headers()));
        let body = outbound::read_body(answer, MAX_ANSWER_BYTES).await;
        let answer = meaning(status, after, &body);
        if answer == Answer::later("ExpiredProviderToken") {
            self.forget(&token);
        }
        answer
    }

    /// Returns the token in use, or a new one.
    fn token(&self) -> Option<String> {
        // A panic leaves it whole.
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, since)) = &*token
            && since.elapsed() < TOKEN_LIFE
        {
            return Some(token.clone());
        }
        let claims = json!({ "iss": self.team_id, "iat": jiff::Timestamp::now().as_second() });
        let signed = self.key.sign(Some(&self.key_id), &claims).ok()?;
        *token = Some((signed.clone(), Instant::now()));
        Some(signed)
    }

    fn forget(&self, expired: &str) {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        token.take_if(|(token, _)| token == expired);
    }
}

fn meaning(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Body<'a> {
        reason: &'a str,
    }
    if status.is_success() {
        return Answer::Accepted;
    }
    let reason = serde_json::from_slice::<Body<'_>>(body).map_or("", |body| body.reason);
    let known = reason.len() <= 64 && reason.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let reason = if known && !reason.is_empty() {
        reason.to_owned()
    } else {
        format!("answered {}", status.as_u16())
    };
    match (status, &*reason) {
        (StatusCode::GONE, _) | (_, "BadDeviceToken" | "Unregistered" | "ExpiredToken") => {
            Answer::Gone
        }
        // A new one is signed.
        (_, "ExpiredProviderToken") => Answer::later(reason),
        // Of another app than BESEDA_APNS_TOPIC says: that setting is wrong more often than the token.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)
        | (_, "DeviceTokenNotForTopic" | "TopicDisallowed" | "BadTopic" | "MissingTopic") => {
            Answer::Unauthorized(reason)
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => Answer::Later { after, reason },
        _ if status.is_server_error() => Answer::Later { after, reason },
        _ => Answer::Refused(reason),
    }
}

/// What iOS shows by itself, and under `beseda` all that the app needs.
pub(super) fn payload(content: &Content) -> Value {
    let aps = match &content.what {
        What::Message(told) => {
            let mut alert = json!({ "title": told.title });
            if let Some(name) = &told.sender_name {
                alert["subtitle"] = name.as_str().into();
            }
            if let Some(text) = &told.text {
                alert["body"] = text.as_str().into();
            }
            json!({
                "alert": alert, "badge": content.badge, "sound": "default",
                "thread-id": told.chat_id, "mutable-content": 1,
            })
        }
        What::Test { title, text } => {
            json!({ "alert": { "title": title, "body": text }, "badge": content.badge })
        }
        What::Read { .. } | What::Badge => {
            json!({ "badge": content.badge, "content-available": 1 })
        }
    };
    let mut own = json!({ "badge": content.badge });
    match &content.what {
        What::Message(told) => {
            own["type"] = "message".into();
            own["chat_id"] = told.chat_id.to_string().into();
            own["message_id"] = told.message_id.to_string().into();
            own["seq"] = told.seq.into();
            if told.attachments > 0 {
                own["attachments"] = told.attachments.into();
            }
        }
        What::Read { chat_id } => {
            own["type"] = "read".into();
            own["chat_id"] = chat_id.to_string().into();
        }
        What::Badge => own["type"] = "badge".into(),
        What::Test { .. } => own["type"] = "test".into(),
    }
    json!({ "aps": aps, "beseda": own })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_by_class() {
        let class = |status: u16, reason: &str| {
            let body = json!({ "reason": reason }).to_string();
            meaning(StatusCode::from_u16(status).expect("a status"), None, body.as_bytes())
        };
        assert_eq!(class(200, ""), Answer::Accepted);
        for (status, reason) in
            [(410, "Unregistered"), (410, "ExpiredToken"), (400, "BadDeviceToken")]
        {
            assert_eq!(class(status, reason), Answer::Gone, "{reason}");
        }
        for (status, reason) in [
            (403, "InvalidProviderToken"),
            (403, "MissingProviderToken"),
            (400, "DeviceTokenNotForTopic"),
            (400, "TopicDisallowed"),
        ] {
            assert_eq!(class(status, reason), Answer::Unauthorized(reason.to_owned()));
        }
        for (status, reason) in [
            (403, "ExpiredProviderToken"),
            (429, "TooManyRequests"),
            (429, "TooManyProviderTokenUpdates"),
            (500, "InternalServerError"),
            (503, "Shutdown"),
        ] {
            assert_eq!(class(status, reason), Answer::later(reason));
        }
        for (status, reason) in [(413, "PayloadTooLarge"), (400, "BadPriority")] {
            assert_eq!(class(status, reason), Answer::Refused(reason.to_owned()));
        }
        let odd = meaning(StatusCode::BAD_REQUEST, None, b"<html>");
        assert_eq!(odd, Answer::Refused("answered 400".to_owned()));
    }
}
