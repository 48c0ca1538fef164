//! The REST calls.

mod attachments;
mod carried;
mod devices;
mod groups;
mod sync;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use beseda_protocol::{
    model::{Chat, ChatId, ExportLine, Mentions, Message, MessageId, Report, User, UserId},
    rest::{
        BlockPage, BulkResult, ChatPage, ChatTicket, Edit, HistoryView, ManyChatsTicket, MarkRead,
        NewChat, NewMessage, NewProfile, NewReport, NewUser, NewUsers, OpenedChat, ReadResult,
        ReportPage, SearchPage, UnreadSummary, Window,
    },
};
use http::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

pub use self::{groups::MemberFilter, sync::Changes};
use crate::{Credentials, Error, TokenReason, tls};

/// Longer than the service lets a request take by itself (15 s), so that its own answer comes first.
const TIMEOUT: Duration = Duration::from_secs(20);

/// REST calls to one of several addresses of a service, with one user's token. A clone is cheap, and
/// shares connections, token and address.
#[derive(Debug, Clone)]
pub struct Rest {
    http: reqwest::Client,
    urls: Arc<[Url]>,
    at: Arc<AtomicUsize>,
    credentials: Credentials,
}

/// Which chats of the caller are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatFilter {
    Unread,
    Archived,
    Pinned,
}

impl ChatFilter {
    fn name(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Archived => "archived",
            Self::Pinned => "pinned",
        }
    }
}

/// A call that is built up.
struct Call {
    method: Method,
    url: Url,
    body: Option<Vec<u8>>,
}

impl Call {
    fn query(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.url.query_pairs_mut().append_pair(name, &value.to_string());
        }
        self
    }

    fn json(mut self, body: &impl Serialize) -> Self {
        // The protocol's structs have string keys and can't fail to serialize.
        self.body = Some(serde_json::to_vec(body).unwrap_or_default());
        self
    }
}

impl Rest {
    /// `urls`: where the service is, `https://chat.example/`; several for several replicas, of which
    /// [`Rest::turn`] takes the next one.
    ///
    /// # Errors
    /// TLS or HTTP can't be used here.
    ///
    /// # Panics
    /// There is no address.
    pub fn new(urls: &[Url], credentials: Credentials) -> Result<Self, Error> {
        Self::with_tls(urls, credentials, tls::native()?)
    }

    /// The same with a TLS configuration of one's own.
    ///
    /// # Errors
    /// HTTP can't be used here.
    ///
    /// # Panics
    /// There is no address.
    pub fn with_tls(
        urls: &[Url],
        credentials: Credentials,
        tls: rustls::ClientConfig,
    ) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // A redirect would carry the token to wherever it leads.
            .redirect(reqwest::redirect::Policy::none())
            // Sockets do not go through a proxy either.
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(Error::network)?;
        Ok(Self::with_http(urls, credentials, http))
    }

    /// The same over an HTTP client of one's own, which may be shared by many users.
    ///
    /// # Panics
    /// There is no address.
    pub fn with_http(urls: &[Url], credentials: Credentials, http: reqwest::Client) -> Self {
        assert!(!urls.is_empty(), "an address of the service is needed");
        Self { http, urls: urls.into(), at: Arc::default(), credentials }
    }

    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The address in use.
    pub fn url(&self) -> &Url {
        &self.urls[self.at.load(Ordering::Relaxed) % self.urls.len()]
    }

    /// All addresses, the one in use first.
    pub fn urls(&self) -> Vec<Url> {
        let mut urls = self.urls.to_vec();
        urls.rotate_left(self.at.load(Ordering::Relaxed) % self.urls.len());
        urls
    }

    /// On to the next address, if there are several.
    pub fn turn(&self) {
        self.at.fetch_add(1, Ordering::Relaxed);
    }

    // ---- chats ----

    /// `POST /chats/`: opens the chat with a person, or finds it.
    pub async fn open_chat(&self, user_id: &UserId) -> Result<OpenedChat, Error> {
        let body = NewChat { user_id: Some(user_id.clone()), ..NewChat::default() };
        self.opened(self.call(Method::POST, &["chats"]).json(&body)).await
    }

    /// For the host application's server: the chat of two others.
    pub async fn open_chat_of(&self, pair: [UserId; 2]) -> Result<OpenedChat, Error> {
        let body = NewChat { user_ids: Some(pair.into()), ..NewChat::default() };
        self.opened(self.call(Method::POST, &["chats"]).json(&body)).await
    }

    async fn opened(&self, call: Call) -> Result<OpenedChat, Error> {
        let (status, body) = self.send(call).await?;
        Ok(OpenedChat { chat: read(&body)?, created: status == StatusCode::CREATED })
    }

    /// `GET /chats/`: pinned chats first, then latest activity first, without archived ones; `limit` 1 to
    /// 100.
    pub async fn list_chats(
        &self,
        limit: Option<u8>,
        cursor: Option<&str>,
    ) -> Result<ChatPage, Error> {
        let call = self.call(Method::GET, &["chats"]).query("limit", limit);
        self.ask(call.query("cursor", cursor)).await
    }

    /// Those of the chats that are unread, archived or pinned.
    pub async fn list_chats_that_are(
        &self,
        filter: ChatFilter,
        limit: Option<u8>,
        cursor: Option<&str>,
    ) -> Result<ChatPage, Error> {
        let call = self.call(Method::GET, &["chats"]).query("filter", Some(filter.name()));
        self.ask(call.query("limit", limit).query("cursor", cursor)).await
    }

    /// `GET /chats/{chat}/`; `chat` is a `chat_id` or a `room_name`, here and below.
    pub async fn get_chat(&self, chat: &str) -> Result<Chat, Error> {
        self.ask(self.call(Method::GET, &["chats", chat])).await
    }

    pub async fn delete_chat(&self, chat: &str) -> Result<(), Error> {
        self.done(self.call(Method::DELETE, &["chats", chat])).await
    }

    /// Counters of every chat.
    pub async fn unread(&self) -> Result<UnreadSummary, Error> {
        self.ask(self.call(Method::GET, &["chats", "unread"])).await
    }

    /// Moves the read marker up to a `seq`; without one, to all that was sent up to now.
    pub async fn mark_read(&self, chat: &str, up_to_seq: Option<i64>) -> Result<ReadResult, Error> {
        let body = MarkRead { room_name: None, up_to_seq };
        self.ask(self.call(Method::POST, &["chats", chat, "mark_read"]).json(&body)).await
    }

    /// Finds messages below the `seq` `before`, newest first; `limit` 1 to 50.
    pub async fn search(
        &self,
        chat: &str,
        query: &str,
        before: Option<i64>,
        limit: Option<u8>,
    ) -> Result<SearchPage, Error> {
        let call = self.call(Method::GET, &["chats", chat, "search"]).query("query", Some(query));
        self.ask(call.query("before", before).query("limit", limit)).await
    }

    // ---- messages ----

    /// A page of the history; `limit` 1 to 100.
    pub async fn history(
        &self,
        chat: &str,
        window: Window,
        limit: Option<u8>,
    ) -> Result<HistoryView, Error> {
        let call = self.call(Method::GET, &["chats", chat, "messages"]).query("limit", limit);
        let call = match window {
            Window::Newest => call,
            Window::Before(seq) => call.query("before", Some(seq)),
            Window::After(seq) => call.query("after", Some(seq)),
            Window::Around(seq) => call.query("around", Some(seq)),
        };
        self.ask(call).await
    }

    /// Sends a message. With a `client_msg_id` it is safe to repeat, however the first attempt ended.
    pub async fn send_message(&self, chat: &str, message: &NewMessage) -> Result<Message, Error> {
        self.ask(self.call(Method::POST, &["chats", chat, "messages"]).json(message)).await
    }

    pub async fn get_message(&self, chat: &str, id: MessageId) -> Result<Message, Error> {
        self.ask(self.message(Method::GET, chat, id)).await
    }

    /// Gives a message another text; whom it mentions stays.
    pub async fn edit_message(
        &self,
        chat: &str,
        id: MessageId,
        text: &str,
    ) -> Result<Message, Error> {
        let body = Edit { text: text.to_owned(), mentions: None };
        self.ask(self.message(Method::PATCH, chat, id).json(&body)).await
    }

    /// Gives a message another text and other mentions.
    pub async fn edit_message_mentioning(
        &self,
        chat: &str,
        id: MessageId,
        text: &str,
        mentions: Mentions,
    ) -> Result<Message, Error> {
        let body = Edit { text: text.to_owned(), mentions: Some(mentions) };
        self.ask(self.message(Method::PATCH, chat, id).json(&body)).await
    }

    pub async fn delete_message(&self, chat: &str, id: MessageId) -> Result<(), Error> {
        self.done(self.message(Method::DELETE, chat, id)).await
    }

    /// Reports a message to the host application; repeated, it gives the first report.
    pub async fn report_message(
        &self,
        chat: &str,
        id: MessageId,
        reason: Option<&str>,
    ) -> Result<Report, Error> {
        let id = id.to_string();
        let call = self.call(Method::POST, &["chats", chat, "messages", &id, "report"]);
        self.ask(call.json(&NewReport { reason: reason.map(str::to_owned) })).await
    }

    /// For the host application's server: what people have reported, latest first.
    pub async fn list_reports(
        &self,
        limit: Option<u8>,
        cursor: Option<&str>,
    ) -> Result<ReportPage, Error> {
        let call = self.call(Method::GET, &["reports"]).query("limit", limit);
        self.ask(call.query("cursor", cursor)).await
    }

    fn message(&self, method: Method, chat: &str, id: MessageId) -> Call {
        self.call(method, &["chats", chat, "messages", &id.to_string()])
    }

    // ---- sockets ----

    /// A ticket for a socket that follows one chat.
    pub async fn connect_chat(&self, chat: ChatId) -> Result<ChatTicket, Error> {
        self.ask(self.call(Method::GET, &["chats", &chat.to_string(), "connect"])).await
    }

    /// A ticket for the socket that carries many chats and the inbox.
    pub async fn connect(&self) -> Result<ManyChatsTicket, Error> {
        self.ask(self.call(Method::POST, &["connect"])).await
    }

    // ---- users ----

    pub async fn get_user(&self, user_id: &UserId) -> Result<User, Error> {
        self.ask(self.user(Method::GET, user_id, &[])).await
    }

    /// For the host application's server: creates or replaces a person.
    pub async fn put_user(&self, user_id: &UserId, profile: &NewProfile) -> Result<User, Error> {
        self.ask(self.user(Method::PUT, user_id, &[]).json(profile)).await
    }

    /// For the host application's server: up to 1,000 people at once.
    pub async fn put_users(&self, users: Vec<NewUser>) -> Result<BulkResult, Error> {
        self.ask(self.call(Method::POST, &["users"]).json(&NewUsers { users })).await
    }

    /// For the host application's server: erases the person.
    pub async fn delete_user(&self, user_id: &UserId) -> Result<(), Error> {
        self.done(self.user(Method::DELETE, user_id, &[])).await
    }

    /// For the host application's server: voids the person's tokens.
    pub async fn revoke_tokens(&self, user_id: &UserId) -> Result<(), Error> {
        self.done(self.user(Method::POST, user_id, &["revoke_tokens"])).await
    }

    /// For the host application's server: all that is kept of a person, line by line.
    pub async fn export_user(&self, user_id: &UserId) -> Result<Export, Error> {
        let response = self.request(self.user(Method::GET, user_id, &["export"])).await?;
        Ok(Export { response, bytes: Vec::new(), complete: false })
    }

    pub async fn block(&self, user_id: &UserId) -> Result<(), Error> {
        self.done(self.user(Method::PUT, user_id, &["block"])).await
    }

    pub async fn unblock(&self, user_id: &UserId) -> Result<(), Error> {
        self.done(self.user(Method::DELETE, user_id, &["block"])).await
    }

    /// A page of those whom the caller has blocked, latest first; `cursor` is the `next` of the page before.
    pub async fn list_blocks(&self, cursor: Option<&str>) -> Result<BlockPage, Error> {
        self.ask(self.call(Method::GET, &["blocks"]).query("cursor", cursor)).await
    }

    fn user(&self, method: Method, user_id: &UserId, rest: &[&str]) -> Call {
        let path = [&["users", user_id.as_str()], rest].concat();
        self.call(method, &path)
    }

    // ---- how ----

    /// A path below `/api/v1`, with a slash at its end.
    fn call(&self, method: Method, segments: &[&str]) -> Call {
        let mut url = self.url().clone();
        url.set_query(None);
        // An address that can't be a base has no path: the request fails then, and says so.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(segments).push("");
        }
        Call { method, url, body: None }
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        read(&self.send(call).await?.1)
    }

    async fn done(&self, call: Call) -> Result<(), Error> {
        self.send(call).await.map(|_| ())
    }

    async fn send(&self, call: Call) -> Result<(StatusCode, Vec<u8>), Error> {
        let response = self.request(call).await?;
        let status = response.status();
        Ok((status, response.bytes().await.map_err(Error::network)?.into()))
    }

    /// A successful answer. A token that the server refuses is renewed, and the call made once more.
    async fn request(&self, call: Call) -> Result<reqwest::Response, Error> {
        let token = self.credentials.current().await?;
        match self.attempt(&call, &token).await {
            Err(error) if error.is_unauthenticated() => {
                if !self.credentials.renew(Some(&token), TokenReason::Refused).await? {
                    return Err(error);
                }
                self.attempt(&call, &self.credentials.current().await?).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, call: &Call, token: &str) -> Result<reqwest::Response, Error> {
        let mut request =
            self.http.request(call.method.clone(), call.url.clone()).bearer_auth(token);
        if let Some(body) = &call.body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = request.send().await.map_err(Error::network)?;
        let status = response.status();
        if status.is_success() {
            self.credentials.prove(token);
            return Ok(response);
        }
        let body = response.bytes().await.map_err(Error::network)?;
        Err(Error::answered(status.as_u16(), &body))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(Error::network)
}

/// An export on its way.
#[derive(Debug)]
pub struct Export {
    response: reqwest::Response,
    bytes: Vec<u8>,
    complete: bool,
}

impl Export {
    /// The next line; `None` after the last one, which is [`ExportLine::End`].
    ///
    /// # Errors
    /// The export broke off: ask for it again.
    pub async fn next(&mut self) -> Result<Option<ExportLine>, Error> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let line = std::str::from_utf8(&line).map_err(Error::network)?;
                let line = ExportLine::decode(line).map_err(Error::network)?;
                self.complete = matches!(line, ExportLine::End(_));
                return Ok(Some(line));
            }
            match self.response.chunk().await.map_err(Error::network)? {
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None if self.complete => return Ok(None),
                None => return Err(Error::network(std::io::Error::other("the export broke off"))),
            }
        }
    }
}
