//! A client that comes back by itself.

use std::sync::Arc;

use beseda_protocol::{model::ChatId, rest::NewMessage};
use tokio::sync::mpsc;
use url::Url;

use crate::{
    Credentials, Error, NewFile, Rest,
    driver::{Driver, Shared},
    machine::{Event, Machine, Settings},
    tls,
};

/// Events that wait for their reader. A reader that falls further behind holds the socket back, until
/// the server closes it as too slow and it resumes: nothing is lost, and memory stays bounded.
const WAITING_EVENTS: usize = 1_024;

/// How a client is made.
#[derive(Debug)]
pub struct ClientBuilder {
    urls: Vec<Url>,
    credentials: Credentials,
    tls: Option<rustls::ClientConfig>,
    only: Option<ChatId>,
    page: Option<u8>,
    attempts: u32,
}

/// Attempts over a working connection before a message counts as failed, and its author is asked.
const ATTEMPTS: u32 = 4;

impl ClientBuilder {
    /// A further address of the service, of another replica; the next one is taken when one is lost.
    pub fn url(mut self, url: Url) -> Self {
        self.urls.push(url);
        self
    }

    /// A TLS configuration of one's own, in place of this machine's authorities.
    pub fn tls(mut self, config: rustls::ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Follows this one chat over a socket of its own, instead of many with the inbox.
    pub fn only(mut self, chat_id: ChatId) -> Self {
        self.only = Some(chat_id);
        self
    }

    /// Messages of a chat's first page, 1 to 100; without it the server's own choice.
    pub fn page(mut self, messages: u8) -> Self {
        self.page = Some(messages.clamp(1, 100));
        self
    }

    /// Attempts over a working connection before a message counts as failed (4; a file has 8 at least). Without a
    /// connection both wait for one, however long that takes.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Connects, and stays connected until the last clone of the client is dropped. Who wants no events drops them; who
    /// keeps them has to read them, as 1,024 that nobody has read hold all else up. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// TLS or HTTP can't be used here.
    pub fn connect(self) -> Result<(Client, Events), Error> {
        let tls = match self.tls {
            Some(tls) => tls,
            None => tls::native()?,
        };
        let rest = Rest::with_tls(&self.urls, self.credentials, tls.clone())?;
        let settings = Settings {
            only: self.only,
            page: self.page,
            attempts: self.attempts,
            can_renew: rest.credentials().can_renew(),
            random: rand::random::<f64>,
        };
        let mut machine = Machine::new(settings);
        machine.start();
        let shared = Shared::new(machine);
        let (events, received) = mpsc::channel(WAITING_EVENTS);
        let driver = Driver::new(Arc::clone(&shared), rest.clone(), tls, events);
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok((Client { shared, rest, _task: Arc::new(Task(task)) }, Events(received)))
    }
}

/// Ends the driver with the last clone of its client.
#[derive(Debug)]
struct Task(tokio::task::AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One user's connection to a service, which comes back by itself. A clone is cheap.
///
/// What it knows is asked with [`Client::look`]; what changes comes as [`Events`].
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    rest: Rest,
    _task: Arc<Task>,
}

/// What a client tells.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the client is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl Client {
    /// `url`: where the service is, `https://chat.example/`.
    pub fn builder(url: Url, credentials: Credentials) -> ClientBuilder {
        ClientBuilder {
            urls: vec![url],
            credentials,
            tls: None,
            only: None,
            page: None,
            attempts: ATTEMPTS,
        }
    }

    /// The REST calls, at the same address and with the same token.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Looks at what is known: state, list, timelines. `look` must not block.
    pub fn look<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.shared.machine())
    }

    fn act<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        self.shared.act(act)
    }

    /// Opens a chat: reads its newest page, and follows it from there on.
    pub fn open(&self, chat_id: ChatId) {
        self.act(|machine| machine.open(chat_id));
    }

    /// Follows a chat no longer, and forgets it but for what is still to be sent.
    pub fn close(&self, chat_id: ChatId) {
        self.act(|machine| machine.close(chat_id));
    }

    /// Reads the page before what is there; it comes as [`Event::Page`].
    pub fn load_before(&self, chat_id: ChatId) {
        self.act(|machine| machine.load_before(chat_id));
    }

    /// Reads the page after what is there, where the window does not reach the end.
    pub fn load_after(&self, chat_id: ChatId) {
        self.act(|machine| machine.load_after(chat_id));
    }

    /// Sends a message, now or once there is a connection, and gives its `client_msg_id`. It is
    /// stored once, however many attempts that takes; messages of a chat arrive in their order.
    pub fn send(&self, chat_id: ChatId, text: impl Into<String>) -> String {
        self.send_message(chat_id, NewMessage { text: text.into(), ..NewMessage::default() })
    }

    /// The same with metadata and mentions, or with a `client_msg_id` that was kept from an earlier run.
    pub fn send_message(&self, chat_id: ChatId, message: NewMessage) -> String {
        self.send_with_files(chat_id, message, Vec::new())
    }

    /// The same with files, up to 10, which are uploaded before; what is sent later to this chat waits for them.
    /// [`Event::Upload`] tells how they get on. A file that is refused is told as [`Event::NotSent`] of the message,
    /// and holds up nothing else.
    pub fn send_with_files(
        &self,
        chat_id: ChatId,
        mut message: NewMessage,
        files: Vec<NewFile>,
    ) -> String {
        let make_id = || uuid::Uuid::new_v4().simple().to_string();
        let id = message.client_msg_id.get_or_insert_with(make_id).clone();
        self.act(|machine| machine.send(chat_id, message, files));
        id
    }

    /// Sends a message again that failed, with its files from where they were.
    pub fn send_again(&self, chat_id: ChatId, client_msg_id: &str) {
        self.act(|machine| machine.send_again(chat_id, client_msg_id));
    }

    /// Takes back a message that failed or waits, and stops its uploads. One that is being sent at this moment may
    /// arrive nevertheless.
    pub fn discard(&self, chat_id: ChatId, client_msg_id: &str) {
        self.act(|machine| machine.discard(chat_id, client_msg_id));
    }

    /// Marks an opened chat as read up to a `seq`, however many attempts that takes.
    pub fn mark_read(&self, chat_id: ChatId, up_to_seq: i64) {
        self.act(|machine| machine.mark_read(chat_id, up_to_seq));
    }

    /// Tells the others; say it again every few seconds while it lasts.
    pub fn typing(&self, chat_id: ChatId, typing: bool) {
        self.act(|machine| machine.typing(chat_id, typing));
    }

    /// Ends the connection; [`State::Idle`](crate::State::Idle) comes once it has said goodbye.
    pub fn stop(&self) {
        self.act(Machine::stop);
    }

    /// There is no reason to wait any longer: the network is back, or there is a token.
    pub fn wake(&self) {
        self.rest.credentials().wake();
        self.act(Machine::wake);
    }
}
