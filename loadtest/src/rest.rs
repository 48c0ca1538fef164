//! The few REST calls that a load test makes.

use std::time::Duration;

use beseda::model::{Chat, ChatId, Message};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::Error;

/// Longer than the service lets a request take by itself (15 s), so that its own answer comes first.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Calls to all replicas over connections that are kept.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    client: Client,
}

/// What came of a send.
#[derive(Debug)]
pub(crate) enum Sent {
    Acknowledged {
        seq: i64,
    },
    /// To be tried again with the same id, after a while.
    Again {
        after: Duration,
        why: Retry,
    },
    /// Never to be tried again.
    Refused {
        status: u16,
        body: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    RateLimited,
    /// 5xx, a broken connection, no answer in time: the outcome is not known.
    Failed,
}

#[derive(Serialize)]
struct Draft<'a> {
    text: &'a str,
    client_msg_id: &'a str,
}

/// Pause before a retry where the service names none.
const RETRY: Duration = Duration::from_millis(100);

impl Rest {
    pub(crate) fn new() -> Result<Self, Error> {
        let client = Client::builder().timeout(TIMEOUT).build();
        Ok(Self {
            client: client.map_err(|source| Error::Request { call: "an HTTP client", source })?,
        })
    }

    /// Opens a room with `other`, or finds it.
    pub(crate) async fn open_chat(
        &self,
        url: &Url,
        token: &str,
        other: &str,
    ) -> Result<Chat, Error> {
        let body = serde_json::json!({ "user_id": other });
        let request = self.client.post(path(url, "/api/v1/chats/")).json(&body);
        call("POST /chats/", request.bearer_auth(token)).await
    }

    pub(crate) async fn get_chat(
        &self,
        url: &Url,
        token: &str,
        chat_id: ChatId,
    ) -> Result<Chat, Error> {
        let url = path(url, &format!("/api/v1/chats/{chat_id}/"));
        self.get("GET /chats/{chat}/", url, token).await
    }

    /// Any read.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        name: &'static str,
        url: Url,
        token: &str,
    ) -> Result<T, Error> {
        call(name, self.client.get(url).bearer_auth(token)).await
    }

    /// One attempt at a durable send.
    pub(crate) async fn send(
        &self,
        endpoint: &Url,
        token: &str,
        text: &str,
        client_msg_id: &str,
    ) -> Sent {
        let request = self.client.post(endpoint.clone()).bearer_auth(token);
        let failed = Sent::Again { after: RETRY, why: Retry::Failed };
        let Ok(response) = request.json(&Draft { text, client_msg_id }).send().await else {
            return failed;
        };
        let status = response.status();
        if matches!(status, StatusCode::CREATED | StatusCode::OK) {
            return match response.json::<Message>().await {
                Ok(message) => Sent::Acknowledged { seq: message.seq },
                Err(_) => failed,
            };
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Sent::Again { after: retry_after(&response), why: Retry::RateLimited };
        }
        if status.is_server_error() {
            return failed;
        }
        Sent::Refused { status: status.as_u16(), body: response.text().await.unwrap_or_default() }
    }
}

/// Where a room's messages are sent to.
pub(crate) fn messages_endpoint(url: &Url, chat_id: ChatId) -> Url {
    path(url, &format!("/api/v1/chats/{chat_id}/messages/"))
}

/// A path on a replica; a base URL's own path is not used, as the service has none.
pub(crate) fn path(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    seconds.and_then(|raw| raw.parse().ok()).map_or(RETRY, Duration::from_secs)
}

async fn call<T: DeserializeOwned>(
    call: &'static str,
    request: RequestBuilder,
) -> Result<T, Error> {
    let failed = |source| Error::Request { call, source };
    loop {
        let response = request.try_clone().map_or_else(
            || unreachable!("a JSON body is kept in memory, so the request can be cloned"),
            RequestBuilder::send,
        );
        let response = response.await.map_err(failed)?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            tokio::time::sleep(retry_after(&response)).await;
            continue;
        }
        if !status.is_success() {
            let body = response.text().await.unwrap_or_default();
            return Err(Error::Refused { call, status: status.as_u16(), body });
        }
        return response.json().await.map_err(failed);
    }
}
