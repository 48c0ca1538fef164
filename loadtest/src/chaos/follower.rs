//! Sockets of one chat, which disconnect and resume on any replica from any position.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use beseda_protocol::model::{ChatId, Message};
use rand::{Rng, rngs::StdRng};
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    context::{Person, Phase, SimContext},
    findings::{Kind, lock, now_micros, tick},
    history::Deletion,
    model::{Frame, Model},
    socket::{Incoming, Socket},
    timeline::Arrival,
};

/// Time before a client disconnects by itself, in milliseconds.
const STAY_MS: std::ops::Range<u64> = 2_000..15_000;

/// Pause before the next attempt, in milliseconds.
const RECONNECT_MS: std::ops::Range<u64> = 30..200;

/// Longest time after its deletion in which a chat still accepts sockets: a replica learns of it by the
/// comparison with the database at the latest, delayed by a fault.
const DELETED: Duration = Duration::from_secs(15);

/// A follower's state, which the final check reads.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub name: String,
    pub chat_id: ChatId,
    pub model: Mutex<Model>,
    /// True once the service has reported the chat's deletion.
    pub gone: AtomicBool,
}

impl Subscriber {
    pub(super) fn new(
        context: &SimContext,
        name: &str,
        chat_id: ChatId,
        members: [String; 2],
    ) -> Arc<Self> {
        let subscriber = Arc::new(Self {
            name: format!("{name} in {chat_id}"),
            chat_id,
            model: Mutex::new(Model::new(chat_id, members)),
            gone: AtomicBool::new(false),
        });
        context.add_subscriber(&subscriber);
        subscriber
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Records that the service reported no such chat.
    pub(super) fn told_gone(&self, context: &SimContext, replica: usize) {
        let deletion = context.history.chat(self.chat_id).map(|chat| chat.deletion);
        if deletion == Some(Deletion::Never) {
            let (name, at) = (&self.name, context.timeline.now());
            let what = format!("{name} on replica {replica}: gone, and nobody deleted it ({at})");
            context.findings.add(Kind::Lost, what);
            return;
        }
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Applies a frame of this chat, and reports violations. Messages since `counts_from` count as live
    /// deliveries.
    pub(super) fn take(
        &self,
        context: &SimContext,
        frame: &Frame,
        replica: usize,
        counts_from: i64,
    ) {
        let mut broken = Vec::new();
        let told = lock(&self.model).apply(frame, &mut broken);
        if frame.kind == "catchup" {
            tick(&context.figures.catchups);
        }
        if let Some((ev, change)) = told
            && let Some(other) = context.history.told(self.chat_id, ev, &change)
        {
            broken.push((Kind::Order, format!("ev {ev} is {change:?}, and to others {other:?}")));
        }
        for (kind, what) in broken {
            let (name, at) = (&self.name, context.timeline.now());
            context.findings.add(kind, format!("{name} on replica {replica}: {what} ({at})"));
        }
        if let ("message.created", Some(message)) = (frame.kind.as_str(), &frame.message) {
            let committed = message.created_at.0.as_microsecond();
            if committed >= counts_from {
                let (message_id, arrived) = (message.message_id, now_micros());
                context.timeline.arrived(Arrival { message_id, committed, arrived });
            }
        }
    }
}

/// The fields of a history page that are checked.
#[derive(Deserialize)]
struct History {
    results: Vec<Message>,
    head_seq: i64,
    head_ev: i64,
    epoch: String,
    read_seq: i64,
    peer_read_seq: Option<i64>,
}

pub(super) struct Follower {
    pub context: Arc<SimContext>,
    pub person: Person,
    pub subscriber: Arc<Subscriber>,
}

impl Follower {
    /// Follows the chat until the end of the run or of the chat.
    pub(super) async fn run(self) {
        let mut rng = self.context.dice();
        let mut checkpoint = lock(&self.subscriber.model).clone();
        // After a voluntary absence, messages sent meanwhile may be late.
        let mut counts_from = i64::MAX;
        while self.context.phase() < Phase::Over && !self.subscriber.is_gone() {
            if counts_from == i64::MAX && !self.rewind(&mut rng, &mut checkpoint).await {
                continue;
            }
            let (position, epoch) = {
                let model = lock(&self.subscriber.model);
                (model.position, model.epoch.clone())
            };
            let mut query = vec![("after_ev", position.to_string())];
            query.extend(epoch.map(|epoch| ("epoch", epoch)));
            let chat_id = self.subscriber.chat_id;
            let (path, connect) =
                (format!("/ws/chat/{chat_id}/"), format!("/api/v1/chats/{chat_id}/connect/"));
            let connect = (Method::GET, connect.as_str());
            let opened =
                Socket::open(&self.context, &mut rng, &self.person, &path, &query, connect).await;
            let Ok(mut socket) = opened else {
                self.check_gone(&mut rng).await;
                rest(&mut rng).await;
                continue;
            };
            if position > 0 {
                tick(&self.context.figures.resumes);
            }
            let left = self.listen(&mut socket, &mut rng, &mut counts_from).await;
            lock(&self.subscriber.model).in_step = false;
            if left {
                counts_from = i64::MAX;
                socket.leave(&mut rng).await;
            } else if !self.subscriber.is_gone() {
                tick(&self.context.figures.breaks);
            }
            rest(&mut rng).await;
        }
    }

    /// Chooses the position to resume from: the last one, an old one, none, or that of a page of history.
    /// False if the page could not be read.
    async fn rewind(&self, rng: &mut StdRng, checkpoint: &mut Model) -> bool {
        let subscriber = &self.subscriber;
        match rng.random_range(0..10) {
            0 | 1 => *lock(&subscriber.model) = checkpoint.clone(),
            2 => {
                if let Some(chat) = self.context.history.chat(subscriber.chat_id) {
                    *lock(&subscriber.model) = Model::new(subscriber.chat_id, chat.members);
                }
            }
            3 | 4 => return self.read_history(rng).await,
            5 | 6 => *checkpoint = lock(&subscriber.model).clone(),
            _ => {}
        }
        true
    }

    async fn read_history(&self, rng: &mut StdRng) -> bool {
        let (context, chat_id) = (&self.context, self.subscriber.chat_id);
        let Some(chat) = context.history.chat(chat_id) else { return true };
        let path = format!("/api/v1/chats/{chat_id}/messages/?limit=100");
        let replica = context.any_replica(rng);
        let Some(answer) = context.once(replica, &Method::GET, &path, &self.person, None).await
        else {
            rest(rng).await;
            return false;
        };
        if answer.status == 404 {
            self.check_gone(rng).await;
            return false;
        }
        match answer.read::<History>() {
            Ok(page) => {
                let head = (page.head_seq, page.head_ev, page.epoch);
                let mut model =
                    Model::from_history(chat_id, chat.members.clone(), &page.results, head);
                for member in chat.members {
                    let own = member == self.person.id;
                    let read_seq = if own { Some(page.read_seq) } else { page.peer_read_seq };
                    model.reads.insert(member, read_seq.unwrap_or(0));
                }
                *lock(&self.subscriber.model) = model;
            }
            Err(error) => context.findings.add(Kind::Answer, format!("GET {path}: {error}")),
        }
        true
    }

    /// Listens to the socket's end. True if the client left by itself.
    async fn listen(&self, socket: &mut Socket, rng: &mut StdRng, counts_from: &mut i64) -> bool {
        let (context, subscriber, replica) = (&self.context, &self.subscriber, socket.replica);
        let leave_at = Instant::now() + Duration::from_millis(rng.random_range(STAY_MS));
        loop {
            let incoming = tokio::select! {
                incoming = socket.next(context) => incoming,
                () = context.may_leave(leave_at) => return true,
                () = context.until(Phase::Over) => return true,
            };
            match incoming {
                Incoming::Frame(frame) => {
                    if !self.is_ours(&frame, replica) {
                        continue;
                    }
                    if frame.kind == "synced" && *counts_from == i64::MAX {
                        *counts_from = now_micros();
                    }
                    subscriber.take(context, &frame, replica, *counts_from);
                }
                Incoming::Closed(4004) => {
                    subscriber.told_gone(context, replica);
                    return false;
                }
                // Draining, too slow, no pong, internal: back off and resume.
                Incoming::Closed(4200..=4203) | Incoming::Broken => return false,
                Incoming::Closed(code) => {
                    let (name, at) = (&subscriber.name, context.timeline.now());
                    let what = format!("{name} on replica {replica} was closed with {code} ({at})");
                    context.findings.add(Kind::Answer, what);
                    return false;
                }
            }
        }
    }

    /// Reports a frame of another chat.
    fn is_ours(&self, frame: &Frame, replica: usize) -> bool {
        let foreign = frame.chat_id.is_some_and(|chat_id| chat_id != self.subscriber.chat_id);
        if foreign {
            let name = &self.subscriber.name;
            let what =
                format!("{name} on replica {replica} got a frame of another chat: {frame:?}");
            self.context.findings.add(Kind::Leak, what);
        }
        !foreign
    }

    /// Handles a socket that did not open, perhaps because the chat was deleted.
    async fn check_gone(&self, rng: &mut StdRng) {
        let chat = self.context.history.chat(self.subscriber.chat_id);
        if chat.is_none_or(|chat| chat.deletion == Deletion::Never) {
            return;
        }
        let path = format!("/api/v1/chats/{}/", self.subscriber.chat_id);
        let replica = self.context.any_replica(rng);
        let answer = self.context.once(replica, &Method::GET, &path, &self.person, None).await;
        if answer.is_some_and(|answer| answer.status == 404) {
            self.subscriber.gone.store(true, Ordering::Relaxed);
        }
    }

    /// Time that the service may take to report a deletion.
    pub(super) const fn deletion_ceiling() -> Duration {
        DELETED
    }
}

async fn rest(rng: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(RECONNECT_MS))).await;
}
