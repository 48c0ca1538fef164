//! Users, and their requests to a replica.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, CEILING, Socket, documented};

/// The addresses of a replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) public: SocketAddr,
    pub(super) internal: SocketAddr,
}

/// The replicas' addresses, and an HTTP client.
#[derive(Debug)]
pub(super) struct Net {
    http: reqwest::Client,
    replicas: RwLock<Vec<Addresses>>,
}

impl Net {
    pub(super) fn new() -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(CEILING * 2)
            .build()
            .expect("an HTTP client");
        Self { http, replicas: RwLock::default() }
    }

    /// Adds a replica; returns its index.
    pub(super) fn add(&self, addresses: Addresses) -> usize {
        let mut replicas = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
        replicas.push(addresses);
        replicas.len() - 1
    }

    pub(super) fn addresses(&self, replica: usize) -> Addresses {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner)[replica]
    }
}

/// A user with a token.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) token: String,
    net: Arc<Net>,
}

impl User {
    pub(super) fn new(id: &str, token: String, net: &Arc<Net>) -> Self {
        Self { id: id.to_owned(), token, net: Arc::clone(net) }
    }

    /// Returns the same user with another token.
    pub(crate) fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: token.into(), ..self.clone() }
    }

    /// Returns this user's client for a replica.
    pub(crate) fn on(&self, replica: usize) -> Client {
        let address = self.net.addresses(replica).public;
        Client { address, token: Some(self.token.clone()), net: Arc::clone(&self.net) }
    }
}

/// A chat.
#[derive(Debug, Clone)]
pub(crate) struct Chat {
    pub(crate) id: String,
    pub(crate) room_name: String,
}

impl Chat {
    pub(crate) fn from_json(json: &Value) -> Self {
        let field = |name: &str| json[name].as_str().expect("a Chat").to_owned();
        Self { id: field("chat_id"), room_name: field("room_name") }
    }

    /// A path below the chat: `chat.path("messages/")`.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/chats/{}/{rest}", self.id)
    }
}

/// The `chat_id`.
impl fmt::Display for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// A user's client for a replica; anonymous without a token.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(super) address: SocketAddr,
    pub(super) token: Option<String>,
    net: Arc<Net>,
}

impl Client {
    pub(super) fn anonymous(address: SocketAddr, net: &Arc<Net>) -> Self {
        Self { address, token: None, net: Arc::clone(net) }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Builds a request to any path: `client.request(Method::GET, "/healthz")`.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        let url = format!("http://{}{path}", self.address);
        let asked = format!("{method} {url}");
        let builder = self.net.http.request(method, url);
        let builder = match &self.token {
            Some(token) => builder.bearer_auth(token),
            None => builder,
        };
        Request { builder, asked }
    }

    fn call(&self, method: Method, path: &str) -> Request {
        self.request(method, &format!("/api/v1{path}"))
    }

    /// Builds a GET; `path` is relative to `/api/v1`, as in the following methods.
    pub(crate) fn get(&self, path: &str) -> Request {
        self.call(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Request {
        self.call(Method::POST, path).json(&body)
    }

    pub(crate) fn put(&self, path: &str, body: Value) -> Request {
        self.call(Method::PUT, path).json(&body)
    }

    pub(crate) fn patch(&self, path: &str, body: Value) -> Request {
        self.call(Method::PATCH, path).json(&body)
    }

    pub(crate) fn delete(&self, path: &str) -> Request {
        self.call(Method::DELETE, path)
    }

    /// Opens the chat with `other`, or finds it.
    pub(crate) async fn open_chat(&self, other: &User) -> Chat {
        let answer = self.post("/chats/", json!({ "user_id": other.id })).await;
        let status = answer.status;
        let json = answer.expect(if status == 200 { 200 } else { 201 });
        assert_eq!(json["created"], status == 201);
        Chat::from_json(&json)
    }

    /// Reads the chat from the caller's side.
    pub(crate) async fn chat(&self, chat: &Chat) -> Value {
        self.get(&chat.path("")).await.expect(200)
    }

    /// Sends a new message and returns it, as all members are told of it.
    pub(crate) async fn send(&self, chat: &Chat, text: &str) -> Value {
        told(self.post(&chat.path("messages/"), json!({ "text": text })).await.expect(201))
    }

    /// Reads a page of history, as all members are told of its messages: `client.history(&chat, "?before=7")`.
    pub(crate) async fn history(&self, chat: &Chat, query: &str) -> Value {
        let mut page = self.get(&chat.path(&format!("messages/{query}"))).await.expect(200);
        let results = page["results"].as_array_mut().expect("messages");
        results.iter_mut().for_each(|message| *message = told(message.take()));
        page
    }

    pub(crate) async fn mark_read(&self, chat: &Chat) -> Value {
        self.post(&chat.path("mark_read/"), json!({})).await.expect(200)
    }

    /// Reads one chat's entry in `/chats/unread/`.
    pub(crate) async fn unread_in(&self, chat: &Chat) -> i64 {
        let unread = self.get("/chats/unread/").await.expect(200);
        let chats = unread["chats"].as_array().expect("a list of chats");
        let sum: i64 = chats.iter().filter_map(|chat| chat["unread_count"].as_i64()).sum();
        assert_eq!(unread["total"], sum, "{unread}");
        let told = chats.iter().find(|told| told["chat_id"] == *chat.id);
        let told = told.unwrap_or_else(|| panic!("chat {chat} is not in {unread}"));
        told["unread_count"].as_i64().expect("a number")
    }

    /// Follows one chat from its head; returns after `hello`, `subscribed` and `synced`.
    pub(crate) async fn connect(&self, chat: &Chat) -> Socket {
        let mut socket = Socket::open(&self.chat_url(chat).await).await;
        socket.greet().await;
        socket
    }

    /// Follows one chat from a position; reads no frame yet.
    pub(crate) async fn resume(&self, chat: &Chat, after_ev: i64, epoch: &str) -> Socket {
        let url = self.chat_url(chat).await;
        Socket::open(&format!("{url}&after_ev={after_ev}&epoch={epoch}")).await
    }

    /// Opens the many-chats socket; returns after its `hello`.
    pub(crate) async fn connect_many(&self) -> Socket {
        let ticket = self.post("/connect/", json!({})).await.expect(200);
        let mut socket = Socket::open(ticket["ws_url"].as_str().expect("a URL")).await;
        socket.expect("hello").await;
        socket
    }

    /// Returns the URL of a chat's socket, with a new ticket.
    pub(crate) async fn chat_url(&self, chat: &Chat) -> String {
        let ticket = self.get(&chat.path("connect/")).await.expect(200);
        ticket["ws_url"].as_str().expect("a URL").to_owned()
    }
}

/// What all members are told of a message that was sent, edited or read: without the reader's own reactions.
pub(crate) fn told(mut message: Value) -> Value {
    let members = message.as_object_mut().expect("a message");
    assert!(
        members.remove("my_reactions").is_some_and(|mine| mine.is_array()),
        "an answer of REST"
    );
    message
}

/// A request, sent when awaited.
#[derive(Debug)]
pub(crate) struct Request {
    builder: reqwest::RequestBuilder,
    asked: String,
}

impl Request {
    fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub(crate) fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        Self { builder: self.builder.header(name, value.as_ref()), ..self }
    }

    /// For an answer that may take longer than others.
    pub(crate) fn within(self, ceiling: Duration) -> Self {
        Self { builder: self.builder.timeout(ceiling), ..self }
    }

    /// Sets a raw body with its content type.
    pub(crate) fn body(self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        let builder = self.builder.header("content-type", content_type).body(body);
        Self { builder, ..self }
    }
}

impl Request {
    /// Sends the request; an error if the connection broke.
    pub(crate) async fn attempt(self) -> Result<Answer, reqwest::Error> {
        let Self { builder, asked } = self;
        let answer = builder.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let answer = Answer::new(asked, status, headers, answer.bytes().await?);
        documented::check_answer(&answer);
        Ok(answer)
    }
}

impl IntoFuture for Request {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let asked = self.asked.clone();
            self.attempt().await.unwrap_or_else(|error| panic!("{asked}: {error:?}"))
        })
    }
}
