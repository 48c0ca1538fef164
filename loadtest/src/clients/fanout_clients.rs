//! Many sockets on few chats; each checks that it misses nothing.

mod count;
mod subscriber;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

use self::{count::Count, subscriber::Subscriber};
use crate::{
    clients::{
        chats::{PairChat, Person, SETUP_AT_ONCE},
        send::{Post, send},
    },
    context::Context,
    error::Error,
    report::{counters::Counters, delivery_log::Violation},
};

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
    counters: Arc<Counters>,
}

pub(crate) struct FanoutClients<'a> {
    context: &'a Context<'a>,
    pub chats: Arc<Vec<PairChat>>,
    shared: Arc<FanoutState>,
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl<'a> FanoutClients<'a> {
    /// Opens the chats, without sockets.
    pub(crate) async fn gather(context: &'a Context<'a>, chats: u32) -> Result<Self, Error> {
        let chats = context.chats(chats).await?;
        let now = Instant::now();
        let shared = FanoutState {
            began: now,
            delivered: Count::default(),
            synced: Count::default(),
            cut: watch::Sender::new(now),
            counters: Arc::clone(&context.counters),
        };
        Ok(Self {
            context,
            chats: Arc::new(chats),
            shared: Arc::new(shared),
            subscribers: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// Opens sockets up to this number, spread over the chats and both members, and returns once all are
    /// in step.
    pub(crate) async fn fill(&self, to: u32) -> Result<(), Error> {
        let mut subscribers = self.subscribers.lock().await;
        let mut tasks = self.tasks.lock().await;
        while subscribers.len() < to as usize {
            let chunk = OPENING_AT_ONCE.min(to as usize - subscribers.len());
            for _ in 0..chunk {
                let number = subscribers.len();
                let chat = &self.chats[number / 2 % self.chats.len()];
                let person = if number.is_multiple_of(2) { &chat.reader } else { &chat.sender };
                let mut person = person.clone();
                // A chat's further sockets use the other replicas.
                let turn = number / 2 / self.chats.len() % person.urls.len();
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
    /// Sends one message; true if it was acknowledged.
    pub(crate) async fn send(&self, number: usize, due: Instant, bytes: u16) -> bool {
        let chat = &self.chats[number % self.chats.len()];
        // Each socket computes the latency from this.
        let micros = due.saturating_duration_since(self.began).as_micros();
        let text = format!("{micros} {}", "x".repeat(bytes.into()));
        let client_msg_id = format!("{}-{number}", self.id);
        let post = Post {
            chat: chat.number,
            chat_id: chat.chat_id,
            urls: &chat.sender.urls,
            token: &chat.sender.token,
            text: &text,
            client_msg_id: &client_msg_id,
            due,
        };
        send(&self.rest, &self.counters, post).await.is_some()
    }
}
