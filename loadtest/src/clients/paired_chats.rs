//! Rooms in which everything that is sent is awaited by the other member, and accounted for.

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
        chats::{Room, SETUP_AT_ONCE},
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

/// How long a socket may take to open.
const OPENING: Duration = Duration::from_secs(30);

/// How long the last messages may take to arrive once nothing is sent any more: the service itself
/// looks for what was lost every five seconds, so that three times this is an honest failure.
pub(crate) const SETTLE: Duration = Duration::from_secs(15);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) struct PairedChats {
    rooms: Vec<Listened>,
    /// End when dropped.
    _listeners: JoinSet<()>,
}

struct Listened {
    room: Room,
    /// As the reader, who never reads, saw it before.
    before: Chat,
    outlet: Arc<Outlet>,
    cut: Arc<Notify>,
}

/// A room as a sender sees it.
#[derive(Debug)]
pub(crate) struct Outlet {
    room: u32,
    chat_id: ChatId,
    urls: Vec<Url>,
    token: String,
    log: Arc<DeliveryLog>,
    rest: Rest,
    counters: Arc<Counters>,
}

impl Outlet {
    /// Sends one message, and enters it in the books.
    pub(crate) async fn send(&self, text: &str, id: &str, due: Instant) {
        self.log.sending(id, due);
        let Self { room, chat_id, urls, token, .. } = self;
        let post =
            Post { room: *room, chat_id: *chat_id, urls, token, text, client_msg_id: id, due };
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
    /// Opens the rooms and their readers' sockets, and returns once all of them are in step.
    pub(crate) async fn open(context: &Context<'_>, count: u32) -> Result<Self, Error> {
        context.counters.say(&format!("opening {count} rooms and their sockets"));
        let rooms = context.rooms(count).await?;
        let before: Vec<Chat> = chats(context, rooms.iter()).await?;
        let rooms: Vec<Listened> = rooms
            .into_iter()
            .zip(before)
            .map(|(room, before)| {
                let log = DeliveryLog::new(room.number, before.last_seq, before.last_ev);
                let outlet = Outlet {
                    room: room.number,
                    chat_id: room.chat_id,
                    urls: room.sender.urls.clone(),
                    token: room.sender.token.clone(),
                    log: Arc::new(log),
                    rest: context.rest.clone(),
                    counters: Arc::clone(&context.counters),
                };
                Listened { room, before, outlet: Arc::new(outlet), cut: Arc::default() }
            })
            .collect();
        let mut listeners = JoinSet::new();
        for some in rooms.chunks(SETUP_AT_ONCE) {
            let mut opening = Vec::new();
            for Listened { room, outlet, cut, .. } in some {
                let listener = Listener {
                    room: room.number,
                    chat_id: room.chat_id,
                    reader: room.reader.clone(),
                    log: Arc::clone(&outlet.log),
                    counters: Arc::clone(&context.counters),
                    cut: Arc::clone(cut),
                };
                let (ready, is_ready) = oneshot::channel();
                listeners.spawn(listener.run(ready));
                opening.push((room.number, is_ready));
            }
            for (room, is_ready) in opening {
                let opened = tokio::time::timeout(OPENING, is_ready).await;
                opened
                    .map_err(|_| Error::Socket { room, reason: "not within 30 s".to_owned() })?
                    .map_err(|_| Error::Socket { room, reason: "its task ended".to_owned() })?;
            }
        }
        Ok(Self { rooms, _listeners: listeners })
    }

    /// For whoever sends to the rooms in turn.
    pub(crate) fn outlet(&self, turn: usize) -> Arc<Outlet> {
        Arc::clone(&self.rooms[turn % self.rooms.len()].outlet)
    }

    /// Cuts the socket of some room, whose reader resumes.
    pub(crate) fn cut_one(&self) {
        self.rooms[rand::random_range(0..self.rooms.len())].cut.notify_one();
    }

    /// Waits until everything acknowledged has arrived, or until it is too late.
    pub(crate) async fn settle(&self) {
        let deadline = Instant::now() + SETTLE;
        let waiting = |room: &Listened| room.outlet.log.is_waiting();
        while self.rooms.iter().any(waiting) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What was lost; and what Postgres holds must be what arrived, and the readers' counters must
    /// say so.
    pub(crate) async fn judge(&self, context: &Context<'_>) -> Result<(), Error> {
        let lost = self.rooms.iter().flat_map(|room| room.outlet.log.lost());
        lost.for_each(|lost| context.counters.violation(&lost));
        let now = chats(context, self.rooms.iter().map(|listened| &listened.room)).await?;
        for (Listened { room, before, outlet, .. }, now) in self.rooms.iter().zip(now) {
            let arrivals = outlet.log.arrivals();
            for (what, found, expected) in [
                ("last_seq", now.last_seq, before.last_seq + arrivals),
                ("unread_count", now.unread_count, before.unread_count + arrivals),
            ] {
                if found != expected {
                    let room = room.number;
                    context.counters.violation(&Violation::Count { room, what, found, expected });
                }
            }
        }
        Ok(())
    }
}

/// The rooms as their readers see them.
async fn chats(
    context: &Context<'_>,
    rooms: impl Iterator<Item = &Room>,
) -> Result<Vec<Chat>, Error> {
    let asked: Vec<(Url, String, ChatId)> = rooms
        .map(|room| (room.reader.urls[0].clone(), room.reader.token.clone(), room.chat_id))
        .collect();
    let answers = stream::iter(asked).map(|(url, token, chat_id)| async move {
        context.rest.get_chat(&url, &token, chat_id).await
    });
    answers.buffered(SETUP_AT_ONCE).try_collect().await
}
