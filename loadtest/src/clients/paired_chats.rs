//! Chats in which the other member expects every message; each is logged.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use beseda_protocol::model::{Chat, ChatId};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Url;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
};

use crate::{
    clients::{
        chats::{PairChat, SETUP_AT_ONCE},
        listener::Listener,
        send::{Post, send},
    },
    context::Context,
    error::Error,
    report::{
        counters::Counters,
        delivery_log::{DeliveryLog, Violation},
    },
    rest::Rest,
};

/// Time-out for the opening of a socket.
const OPENING: Duration = Duration::from_secs(30);

/// Time-out for the last messages after the sends: the service checks for lost ones every 5 s, so
/// three checks must have found them.
pub(crate) const SETTLE: Duration = Duration::from_secs(15);

/// Pause between two checks for these.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) struct PairedChats {
    chats: Vec<Listened>,
    /// Aborted on drop.
    _listeners: JoinSet<()>,
}

struct Listened {
    chat: PairChat,
    /// The chat before the run, as seen by the reader, who never moves their marker.
    before: Chat,
    outlet: Arc<Outlet>,
    cut: Arc<Notify>,
}

/// The sending side of a chat.
#[derive(Debug)]
pub(crate) struct Outlet {
    chat: u32,
    chat_id: ChatId,
    urls: Vec<Url>,
    token: String,
    log: Arc<DeliveryLog>,
    rest: Rest,
    counters: Arc<Counters>,
}

impl Outlet {
    /// Sends one message, and logs it.
    pub(crate) async fn send(&self, text: &str, id: &str, due: Instant) {
        self.log.sending(id, due);
        let Self { chat, chat_id, urls, token, .. } = self;
        let post = Post {
            chat: *chat,
            chat_id: *chat_id,
            urls,
            token,
            text,
            mentions: None,
            client_msg_id: id,
            due,
        };
        match send(&self.rest, &self.counters, post).await {
            Some(seq) => {
                if let Err(violation) = self.log.acknowledged(id, seq) {
                    self.counters.violation(&violation);
                }
            }
            None => self.log.abandoned(id),
        }
    }
}

impl PairedChats {
    /// Opens the chats and their readers' sockets, and returns once all are in step.
    pub(crate) async fn open(context: &Context<'_>, count: u32) -> Result<Self, Error> {
        context.counters.say(&format!("opening {count} chats and their sockets"));
        let chats = context.chats(count).await?;
        let before: Vec<Chat> = read_chats(context, chats.iter()).await?;
        let chats: Vec<Listened> = chats
            .into_iter()
            .zip(before)
            .map(|(chat, before)| {
                let log = DeliveryLog::new(chat.number, before.last_seq, before.last_ev);
                let outlet = Outlet {
                    chat: chat.number,
                    chat_id: chat.chat_id,
                    urls: chat.sender.urls.clone(),
                    token: chat.sender.token.clone(),
                    log: Arc::new(log),
                    rest: context.rest.clone(),
                    counters: Arc::clone(&context.counters),
                };
                Listened { chat, before, outlet: Arc::new(outlet), cut: Arc::default() }
            })
            .collect();
        let mut listeners = JoinSet::new();
        for some in chats.chunks(SETUP_AT_ONCE) {
            let mut opening = Vec::new();
            for Listened { chat, outlet, cut, .. } in some {
                let listener = Listener {
                    chat: chat.number,
                    chat_id: chat.chat_id,
                    reader: chat.reader.clone(),
                    log: Arc::clone(&outlet.log),
                    counters: Arc::clone(&context.counters),
                    cut: Arc::clone(cut),
                };
                let (ready, is_ready) = oneshot::channel();
                listeners.spawn(listener.run(ready));
                opening.push((chat.number, is_ready));
            }
            for (chat, is_ready) in opening {
                let opened = tokio::time::timeout(OPENING, is_ready).await;
                opened
                    .map_err(|_| Error::Socket { chat, reason: "not within 30 s".to_owned() })?
                    .map_err(|_| Error::Socket { chat, reason: "its task ended".to_owned() })?;
            }
        }
        Ok(Self { chats, _listeners: listeners })
    }

    /// Returns the sending side of a chat, which `turn` selects modulo the number of chats.
    pub(crate) fn outlet(&self, turn: usize) -> Arc<Outlet> {
        Arc::clone(&self.chats[turn % self.chats.len()].outlet)
    }

    /// Cuts the socket of a random chat; its reader resumes.
    pub(crate) fn cut_one(&self) {
        self.chats[rand::random_range(0..self.chats.len())].cut.notify_one();
    }

    /// Waits until all acknowledged messages have arrived, or until the time-out.
    pub(crate) async fn settle(&self) {
        let deadline = Instant::now() + SETTLE;
        let waiting = |chat: &Listened| chat.outlet.log.is_waiting();
        while self.chats.iter().any(waiting) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reports lost messages, and compares the chats' `last_seq` and unread counters with the arrivals.
    pub(crate) async fn judge(&self, context: &Context<'_>) -> Result<(), Error> {
        let lost = self.chats.iter().flat_map(|chat| chat.outlet.log.lost());
        lost.for_each(|lost| context.counters.violation(&lost));
        let now = read_chats(context, self.chats.iter().map(|listened| &listened.chat)).await?;
        for (Listened { chat, before, outlet, .. }, now) in self.chats.iter().zip(now) {
            let arrivals = outlet.log.arrivals();
            for (what, found, expected) in [
                ("last_seq", now.last_seq, before.last_seq + arrivals),
                ("unread_count", now.unread_count, before.unread_count + arrivals),
            ] {
                if found != expected {
                    let chat = chat.number;
                    context.counters.violation(&Violation::Count { chat, what, found, expected });
                }
            }
        }
        Ok(())
    }
}

/// Reads the chats as their readers see them.
async fn read_chats(
    context: &Context<'_>,
    chats: impl Iterator<Item = &PairChat>,
) -> Result<Vec<Chat>, Error> {
    let asked: Vec<(Url, String, ChatId)> = chats
        .map(|chat| (chat.reader.urls[0].clone(), chat.reader.token.clone(), chat.chat_id))
        .collect();
    let answers = stream::iter(asked).map(|(url, token, chat_id)| async move {
        context.rest.get_chat(&url, &token, chat_id).await
    });
    answers.buffered(SETUP_AT_ONCE).try_collect().await
}
