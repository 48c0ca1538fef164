//! REST calls, to one of several addresses of the service.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

use super::{
    TalkError,
    lines::harmless,
    socket::Socket,
    wire::{Page, Problem, Room, Ticket},
};
use crate::tls;

/// Longer than the service lets a request take by itself (15 s), so that its own answer comes first.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Largest page of history.
const MAX_PAGE: usize = 100;

/// Why something did not work, by what is to be done now.
#[derive(Debug)]
pub(super) enum Failure {
    /// Try again after a pause, which may have been asked for.
    Again { why: String, pause: Option<Duration> },
    /// Get a new token or ticket first.
    Token(String),
    /// It makes no sense to try again.
    Final(String),
}

/// Where to begin.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// With the newest messages, so many of them.
    Newest(usize),
    /// With what came after a message: the position is void.
    After(i64),
    /// With what changed after an `ev`.
    Position { ev: i64, epoch: String },
}

/// The service, at one of its addresses. A clone is cheap.
#[derive(Debug, Clone)]
pub(super) struct Service {
    http: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    urls: Arc<[Url]>,
    at: usize,
}

impl Service {
    pub(super) fn new(urls: &[Url]) -> Result<Self, TalkError> {
        let tls = tls::client_config(None)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            // A redirect would carry the token to wherever it leads.
            .redirect(reqwest::redirect::Policy::none())
            // Nor do sockets go through one.
            .no_proxy()
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { http, tls: Arc::new(tls), urls: urls.into(), at: 0 })
    }

    /// The address in use.
    pub(super) fn url(&self) -> &Url {
        &self.urls[self.at]
    }

    pub(super) fn addresses(&self) -> usize {
        self.urls.len()
    }

    /// On to the next address, if there are several.
    pub(super) fn turn(&mut self) {
        self.at = (self.at + 1) % self.urls.len();
    }

    /// Opens the room with `other`, or finds it.
    pub(super) async fn open_room(&self, token: &str, other: &str) -> Result<Room, Failure> {
        let body = serde_json::json!({ "user_id": other });
        self.call(Method::POST, &self.path(&["chats"]), token, Some(body.to_string())).await
    }

    /// Reads what `start` asks for, and opens the room's socket to go on from there.
    pub(super) async fn connect(
        &self,
        token: &str,
        chat_id: Uuid,
        start: Start,
    ) -> Result<(Vec<Page>, Socket), Failure> {
        let chat = chat_id.to_string();
        let mut pages = Vec::new();
        match &start {
            Start::Newest(messages) => {
                let limit = (*messages).clamp(1, MAX_PAGE).to_string();
                let mut page = self.history(token, &chat, ("limit", limit)).await?;
                let surplus = page.results.len().saturating_sub(*messages);
                page.results.drain(..surplus);
                page.has_more_before |= surplus > 0;
                pages.push(page);
            }
            Start::After(seq) => loop {
                let after = pages.last().and_then(|page: &Page| page.results.last());
                let after = after.map_or(*seq, |message| message.seq);
                let page = self.history(token, &chat, ("after", after.to_string())).await?;
                let whole = !page.has_more_after || page.results.is_empty();
                pages.push(page);
                if whole {
                    break;
                }
            },
            Start::Position { .. } => {}
        }
        let (ev, epoch) = match (&start, pages.first()) {
            (Start::Position { ev, epoch }, _) => (*ev, epoch.as_str()),
            (_, Some(page)) => (page.head_ev, page.epoch.as_str()),
            (_, None) => unreachable!("both other beginnings read a page"),
        };
        let path = self.path(&["chats", &chat, "connect"]);
        let ticket: Ticket = self.call(Method::GET, &path, token, None).await?;
        let mut url: Url = ticket.ws_url.parse().map_err(|_| foreign())?;
        url.query_pairs_mut().append_pair("after_ev", &ev.to_string()).append_pair("epoch", epoch);
        let socket = Socket::open(&url, &self.tls).await?;
        Ok((pages, socket))
    }

    async fn history(
        &self,
        token: &str,
        chat: &str,
        (name, value): (&str, String),
    ) -> Result<Page, Failure> {
        let mut url = self.path(&["chats", chat, "messages"]);
        url.query_pairs_mut().append_pair(name, &value);
        self.call(Method::GET, &url, token, None).await
    }

    /// A path of the API, with a slash at its end.
    fn path(&self, segments: &[&str]) -> Url {
        let mut url = self.url().clone();
        url.set_path("/api/v1");
        // `http:` and `https:`, which the options ask for, can be a base.
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments).push("");
        }
        url
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &Url,
        token: &str,
        body: Option<String>,
    ) -> Result<T, Failure> {
        let again = |error: reqwest::Error| {
            let mut why = "no answer".to_owned();
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                why = error.to_string();
                cause = error.source();
            }
            Failure::Again { why, pause: None }
        };
        let mut request = self.http.request(method, url.clone()).bearer_auth(token);
        if let Some(body) = body {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        }
        let answer = request.send().await.map_err(again)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(again)?;
        if status.is_success() {
            let read = serde_json::from_slice(&body);
            return read
                .map_err(|_| Failure::Final("this is not the answer of a Beseda".to_owned()));
        }
        Err(failure(status, serde_json::from_slice(&body).ok()))
    }
}

fn foreign() -> Failure {
    Failure::Final("this is not the answer of a Beseda".to_owned())
}

/// What a status that is no success asks for.
pub(super) fn failure(status: StatusCode, problem: Option<Problem>) -> Failure {
    let pause = problem.as_ref().and_then(|problem| problem.retry_after_ms);
    let pause = pause.map(Duration::from_millis);
    let detail = problem.map(|problem| harmless(&problem.detail)).unwrap_or_default();
    let why = if detail.is_empty() { format!("it answered {status}") } else { detail };
    match status {
        StatusCode::UNAUTHORIZED => Failure::Token(why),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Failure::Again { why, pause }
        }
        _ if status.is_server_error() => Failure::Again { why, pause },
        _ => Failure::Final(why),
    }
}
