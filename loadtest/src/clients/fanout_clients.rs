//! Many sockets on few chats; each checks that it misses nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use beseda_protocol::model::{ChatId, Mentions};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

use crate::{
    clients::{
        chats::{PairChat, Person, SETUP_AT_ONCE},
        count::Count,
        send::{Post, send},
        socket::{Content, Frame, Position, Socket, read},
    },
    context::Context,
    error::Error,
    report::{
        counters::{Counters, add},
        delivery_log::Violation,
    },
};

/// Shortest and longest pause before a socket reconnects: random, as in clients, so that they do not
/// all reconnect at once.
const RETRY_MS: std::ops::Range<u64> = 100..1_000;

/// Concurrent openings of sockets while a run is prepared.
const OPENING_AT_ONCE: usize = 64;

/// Time-out for one of these.
const OPENING: Duration = Duration::from_secs(60);

/// The state that all sockets share.
#[derive(Debug)]
struct FanoutState {
    /// Origin of the times in the messages' texts.
    began: Instant,
    delivered: Count,
    synced: Count,
    /// The time of the last cut of all connections.
    cut: watch::Sender<Instant>,
    /// True if members set read markers, or react, which sockets are then told of.
    changes: AtomicBool,
    counters: Arc<Counters>,
}

pub(crate) struct FanoutClients<'a> {
    context: &'a Context<'a>,
    pub chats: Arc<Vec<PairChat>>,
    /// The members of the one group; empty where the chats are direct ones.
    group: Vec<Person>,
    shared: Arc<FanoutState>,
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// One socket and its position.
#[derive(Debug)]
struct Subscriber {
    chat: u32,
    chat_id: ChatId,
    person: Person,
    /// The last `ev` received.
    ev: AtomicU64,
    shared: Arc<FanoutState>,
}

impl<'a> FanoutClients<'a> {
    /// Opens the chats, without sockets.
    pub(crate) async fn gather(context: &'a Context<'a>, chats: u32) -> Result<Self, Error> {
        Ok(Self::of(context, context.chats(chats).await?, Vec::new()))
    }

    /// Makes one group of so many members, or finds that of an earlier run, without sockets.
    pub(crate) async fn gather_group(
        context: &'a Context<'a>,
        members: u32,
    ) -> Result<Self, Error> {
        let (chat, group) = context.group(members).await?;
        Ok(Self::of(context, vec![chat], group))
    }

    fn of(context: &'a Context<'a>, chats: Vec<PairChat>, group: Vec<Person>) -> Self {
        let now = Instant::now();
        let shared = FanoutState {
            began: now,
            delivered: Count::default(),
            synced: Count::default(),
            cut: watch::Sender::new(now),
            changes: AtomicBool::new(false),
            counters: Arc::clone(&context.counters),
        };
        Self {
            context,
            chats: Arc::new(chats),
            group,
            shared: Arc::new(shared),
            subscribers: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// The members of the group, its owner first.
    pub(crate) fn people(&self) -> &[Person] {
        &self.group
    }

    /// Expects that members set read markers, or react.
    pub(crate) fn expect_changes(&self) {
        self.shared.changes.store(true, Ordering::Relaxed);
    }

    /// Who opens a chat's socket with this number.
    fn member<'b>(&'b self, chat: &'b PairChat, number: usize) -> &'b Person {
        match number % self.members() {
            0 if self.group.is_empty() => &chat.reader,
            1 if self.group.is_empty() => &chat.sender,
            number => &self.group[number],
        }
    }

    /// The number of a chat's members.
    fn members(&self) -> usize {
        if self.group.is_empty() { 2 } else { self.group.len() }
    }

    /// Opens sockets up to this number, spread over the chats and their members, and returns once all are
    /// in step.
    pub(crate) async fn fill(&self, to: u32) -> Result<(), Error> {
        let mut subscribers = self.subscribers.lock().await;
        let mut tasks = self.tasks.lock().await;
        while subscribers.len() < to as usize {
            let chunk = OPENING_AT_ONCE.min(to as usize - subscribers.len());
            for _ in 0..chunk {
                let number = subscribers.len();
                let round = number / self.members();
                let chat = &self.chats[round % self.chats.len()];
                let mut person = self.member(chat, number).clone();
                // A chat's further sockets use the other replicas.
                let turn = round / self.chats.len() % person.urls.len();
                person.urls.rotate_left(turn);
                let subscriber = Arc::new(Subscriber {
                    chat: chat.number,
                    chat_id: chat.chat_id,
                    person,
                    ev: AtomicU64::new(chat.ev.unsigned_abs()),
                    shared: Arc::clone(&self.shared),
                });
                tasks.spawn(Arc::clone(&subscriber).run());
                subscribers.push(subscriber);
            }
            let reached = self.shared.synced.reaches(subscribers.len() as u64, OPENING).await;
            if !reached {
                let reason = "not all sockets were in step within 60 s".to_owned();
                return Err(Error::Socket { chat: 0, reason });
            }
        }
        Ok(())
    }

    /// The number of deliveries to all sockets.
    pub(crate) fn delivered(&self) -> u64 {
        self.shared.delivered.get()
    }

    pub(crate) async fn delivers(&self, count: u64, limit: Duration) -> bool {
        self.shared.delivered.reaches(count, limit).await
    }

    /// Cuts all connections without a close frame. Returns the time until all sockets were in step again;
    /// `None` if it exceeded `limit`.
    pub(crate) async fn storm(&self, limit: Duration) -> Option<Duration> {
        let sockets = self.subscribers.lock().await.len() as u64;
        let awaited = self.shared.synced.get() + sockets;
        let began = Instant::now();
        self.shared.cut.send_replace(began);
        self.shared.synced.reaches(awaited, limit).await.then(|| began.elapsed())
    }

    /// Returns a sender to the chats.
    pub(crate) fn speaker(&self) -> Speaker {
        let Context { rest, counters, id, .. } = self.context;
        let (rest, counters, id) = (rest.clone(), Arc::clone(counters), id.clone());
        Speaker { rest, counters, id, chats: Arc::clone(&self.chats), began: self.shared.began }
    }

    /// Returns a sender with its own connections: connections belong to the runtime that opened them.
    pub(crate) fn speaker_apart(&self) -> Result<Speaker, Error> {
        Ok(Speaker { rest: crate::rest::Rest::new()?, ..self.speaker() })
    }

    /// Waits until every socket has all changes of its chat, and reports those that miss some.
    pub(crate) async fn judge(&self, limit: Duration) -> Result<(), Error> {
        let heads = stream::iter(self.chats.iter().cloned()).map(|chat| async move {
            let Person { urls, token, .. } = &chat.reader;
            let chat = self.context.rest.get_chat(&urls[0], token, chat.chat_id).await?;
            Ok::<_, Error>(chat.last_ev)
        });
        let heads: Vec<i64> = heads.buffered(SETUP_AT_ONCE).try_collect().await?;
        let subscribers = self.subscribers.lock().await;
        let behind =
            |subscriber: &&Arc<Subscriber>| subscriber.position() < heads[subscriber.chat as usize];
        let deadline = Instant::now() + limit;
        while subscribers.iter().any(|subscriber| behind(&subscriber)) && Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for subscriber in subscribers.iter().filter(behind) {
            let (chat, what) = (subscriber.chat, "the last change that a socket was told of");
            let (found, expected) = (subscriber.position(), heads[subscriber.chat as usize]);
            self.context.counters.violation(&Violation::Count { chat, what, found, expected });
        }
        Ok(())
    }
}

/// Sends to the chats in turn.
#[derive(Clone)]
pub(crate) struct Speaker {
    rest: crate::rest::Rest,
    counters: Arc<Counters>,
    id: String,
    chats: Arc<Vec<PairChat>>,
    began: Instant,
}

impl Speaker {
    /// Sends one message of the chat's sender; true if it was acknowledged.
    pub(crate) async fn send(&self, number: usize, due: Instant, bytes: u16) -> bool {
        let sender = &self.chats[number % self.chats.len()].sender;
        self.send_as(sender, None, number, due, bytes).await
    }

    /// Sends one message of any member; true if it was acknowledged.
    pub(crate) async fn send_as(
        &self,
        sender: &Person,
        mentions: Option<Mentions>,
        number: usize,
        due: Instant,
        bytes: u16,
    ) -> bool {
        let chat = &self.chats[number % self.chats.len()];
        // Each socket computes the latency from this.
        let micros = due.saturating_duration_since(self.began).as_micros();
        let text = format!("{micros} {}", "x".repeat(bytes.into()));
        let client_msg_id = format!("{}-{number}", self.id);
        let post = Post {
            chat: chat.number,
            chat_id: chat.chat_id,
            urls: &sender.urls,
            token: &sender.token,
            text: &text,
            mentions,
            client_msg_id: &client_msg_id,
            due,
        };
        send(&self.rest, &self.counters, post).await.is_some()
    }
}

impl Subscriber {
    fn position(&self) -> i64 {
        self.ev.load(Ordering::Relaxed).cast_signed()
    }

    /// Listens for ever; resumes after each end.
    async fn run(self: Arc<Self>) {
        let mut cut = self.shared.cut.subscribe();
        let mut asked = Instant::now();
        let mut in_step = None;
        let mut epoch = None;
        for url in self.person.urls.iter().cycle() {
            let from = Position { ev: self.position(), epoch: epoch.clone() };
            let opened = Socket::open(url, self.chat_id, &self.person.token, &from);
            let end = match opened.await {
                Ok(mut socket) => tokio::select! {
                    end = self.listen(&mut socket, asked, &mut in_step, &mut epoch) => end,
                    _ = cut.changed() => {
                        asked = *cut.borrow_and_update();
                        continue;
                    }
                },
                Err(error) => format!("not open: {error}"),
            };
            add(&self.shared.counters.reconnects);
            self.shared.counters.note(&format!("a socket of chat {} ended: {end}", self.chat));
            let pause = Duration::from_millis(rand::random_range(RETRY_MS));
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads to the socket's end, and returns its reason. The subscriber counts as in step once per request,
    /// however often its socket breaks in between.
    async fn listen(
        &self,
        socket: &mut Socket,
        asked: Instant,
        in_step: &mut Option<Instant>,
        epoch: &mut Option<String>,
    ) -> String {
        loop {
            let text = match socket.next().await {
                Ok(text) => text,
                Err(end) => return end.to_string(),
            };
            let frame = match read(&text) {
                Ok(frame) => frame,
                Err(what) => {
                    self.unexpected(what);
                    continue;
                }
            };
            match &*frame.kind {
                "message.created" => self.on_message(&frame),
                "subscribed" => *epoch = frame.epoch.map(std::borrow::Cow::into_owned),
                "synced" if *in_step != Some(asked) => {
                    *in_step = Some(asked);
                    self.shared.counters.synced.record(asked.elapsed());
                    self.shared.synced.add();
                }
                "catchup" => add(&self.shared.counters.catchups),
                "chat.read" | "message.updated" if self.shared.changes.load(Ordering::Relaxed) => {
                    self.on_change(frame.ev);
                }
                "message.updated" | "message.deleted" | "chat.read" | "reset" | "chat.deleted" => {
                    self.unexpected(format!("a frame {} came", frame.kind));
                }
                _ => {}
            }
        }
    }

    fn on_message(&self, frame: &Frame<'_>) {
        let shared = &self.shared;
        let Some(message) = &frame.message else {
            return self.unexpected("a message.created without a message came".to_owned());
        };
        if !self.on_number(frame.ev, Some(message)) {
            return;
        }
        let micros = message.text.split(' ').next().and_then(|micros| micros.parse().ok());
        match micros {
            Some(micros) => {
                let due = shared.began + Duration::from_micros(micros);
                shared.counters.arrived.record(due.elapsed());
            }
            None => self.unexpected(format!("{:?} is nothing that was sent", message.text)),
        }
        shared.delivered.add();
    }

    /// Notes a change; a read marker without a revision is the user's own, in a chat without receipts.
    fn on_change(&self, ev: i64) {
        if ev > 0 {
            self.on_number(ev, None);
        }
    }

    /// Notes a revision; false if it came before.
    fn on_number(&self, ev: i64, message: Option<&Content<'_>>) -> bool {
        let (chat, after_ev) = (self.chat, self.position());
        let counters = &self.shared.counters;
        let seq = message.map_or(0, |message| message.seq);
        if ev <= after_ev {
            let id = message.and_then(|message| message.client_msg_id.as_deref());
            let id = id.unwrap_or_default().to_owned();
            counters.violation(&Violation::Doubled { chat, id, seq, ev });
            return false;
        }
        if ev != after_ev + 1 {
            // Where only messages are sent, `seq` and `ev` increase together.
            let after_seq = seq - (ev - after_ev);
            counters.violation(&Violation::OutOfOrder { chat, after_seq, after_ev, seq, ev });
        }
        self.ev.store(ev.unsigned_abs(), Ordering::Relaxed);
        true
    }

    fn unexpected(&self, what: String) {
        self.shared.counters.violation(&Violation::Unexpected { chat: self.chat, what });
    }
}

#[cfg(test)]
mod tests;
