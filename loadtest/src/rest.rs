//! The REST calls that a load test makes, over connections that all its users share.

use std::time::Duration;

use beseda_client::{Credentials, Error as CallError, Rest as Client};
use beseda_protocol::{
    model::{Chat, ChatId, UserId},
    rest::{AttachmentTicket, NewAttachment, NewMessage},
};
use bytes::Bytes;
use reqwest::Url;

use crate::error::Error;

/// Longer than the service's own time-out (15 s), so that its answer comes first.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Time-out of an upload: 100 MiB at 1 MiB/s.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(100);

/// Pause before a retry if the answer has no Retry-After.
const RETRY: Duration = Duration::from_millis(100);

/// REST calls to all replicas over kept-alive connections.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    http: reqwest::Client,
}

/// The outcome of one attempt to send.
#[derive(Debug)]
pub(crate) enum Sent {
    Acknowledged {
        seq: i64,
    },
    /// Refused for now: retry with the same id after a pause.
    Again {
        after: Duration,
        why: Retry,
    },
    /// Refused for good.
    Refused {
        status: u16,
        body: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    RateLimited,
    /// 5xx, a broken connection or a time-out: the outcome is unknown.
    Failed,
}

impl Rest {
    pub(crate) fn new() -> Result<Self, Error> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build();
        let http = http.map_err(|error| Box::new(CallError::network(error)));
        let call = "an HTTP client";
        Ok(Self { http: http.map_err(|source| Error::Request { call, source })? })
    }

    /// Returns a user's client for one replica. Cheap: the connections are shared.
    pub(crate) fn at(&self, url: &Url, token: &str) -> Client {
        let urls = std::slice::from_ref(url);
        Client::with_http(urls, Credentials::fixed(token), self.http.clone())
    }

    /// Opens a chat with `other`, or finds it.
    pub(crate) async fn open_chat(
        &self,
        url: &Url,
        token: &str,
        other: &str,
    ) -> Result<Chat, Error> {
        let other = UserId::parse(other).ok_or_else(|| Error::Prefix(other.to_owned()))?;
        let client = self.at(url, token);
        let opened = patiently("POST /chats/", async || client.open_chat(&other).await);
        Ok(opened.await?.chat)
    }

    /// Announces and uploads an attachment; returns the status of the last answer.
    pub(crate) async fn upload(
        &self,
        url: &Url,
        token: &str,
        chat_id: ChatId,
        file: &Bytes,
    ) -> Result<u16, reqwest::Error> {
        let call = format!("{url}api/v1/chats/{chat_id}/attachments/");
        let new = NewAttachment {
            name: "load.bin".to_owned(),
            content_type: "application/octet-stream".to_owned(),
            size: file.len() as u64,
        };
        let answer = self.http.post(call).bearer_auth(token).json(&new).send().await?;
        if answer.status() != 201 {
            return Ok(answer.status().as_u16());
        }
        let upload = answer.json::<AttachmentTicket>().await?.upload;
        let mut put = self.http.put(upload.url).timeout(UPLOAD_TIMEOUT).body(file.clone());
        for (name, value) in upload.headers {
            put = put.header(name, value);
        }
        Ok(put.send().await?.status().as_u16())
    }

    pub(crate) async fn get_chat(
        &self,
        url: &Url,
        token: &str,
        chat_id: ChatId,
    ) -> Result<Chat, Error> {
        let (client, chat_id) = (self.at(url, token), chat_id.to_string());
        patiently("GET /chats/{chat}/", async || client.get_chat(&chat_id).await).await
    }

    /// Makes one attempt at a durable send; the message has a `client_msg_id`.
    pub(crate) async fn send(
        &self,
        url: &Url,
        token: &str,
        chat_id: ChatId,
        message: &NewMessage,
    ) -> Sent {
        match self.at(url, token).send_message(&chat_id.to_string(), message).await {
            Ok(message) => Sent::Acknowledged { seq: message.seq },
            Err(error) if error.status == 429 => {
                Sent::Again { after: error.retry_after.unwrap_or(RETRY), why: Retry::RateLimited }
            }
            Err(error) if error.is_temporary() => Sent::Again { after: RETRY, why: Retry::Failed },
            Err(CallError { status, code, detail, .. }) => {
                Sent::Refused { status, body: format!("{code}: {detail}") }
            }
        }
    }
}

/// Repeats a call for as long as it is answered 429: for calls whose rate does not matter.
pub(crate) async fn patiently<T>(
    call: &'static str,
    mut ask: impl AsyncFnMut() -> Result<T, CallError>,
) -> Result<T, Error> {
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.status == 429 => {
                tokio::time::sleep(error.retry_after.unwrap_or(RETRY)).await;
            }
            Err(error) => return Err(Error::Request { call, source: Box::new(error) }),
        }
    }
}
