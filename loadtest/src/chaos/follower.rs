//! Sockets of one chat, which disconnect and resume on any replica from any position.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use beseda_protocol::model::{ChatId, ChatKind, Message};
use rand::{Rng, rngs::StdRng};
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    context::{Person, Phase, SimContext},
    findings::{Kind, lock, now_micros, tick},
    frame::Frame,
    history::{Deletion, Given},
    model::Model,
    socket::{Incoming, Socket},
    subscriber::Subscriber,
};

/// Time before a client disconnects by itself, in milliseconds.
const STAY_MS: std::ops::Range<u64> = 2_000..15_000;

/// Pause before the next attempt, in milliseconds.
const RECONNECT_MS: std::ops::Range<u64> = 30..200;

/// Pause before a user who is out of a group looks whether they are in again, in milliseconds.
const OUTSIDE_MS: std::ops::Range<u64> = 200..900;

/// Pause between two checks whether a list of members is wanted.
const AGAIN: Duration = Duration::from_millis(200);

/// Longest time after its deletion in which a chat still accepts sockets: a replica learns of it by the
/// comparison with the database at the latest, delayed by a fault.
const DELETED: Duration = Duration::from_secs(15);

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
    /// Makes the follower of a chat that is known.
    pub(super) fn new(context: &Arc<SimContext>, person: &Person, chat_id: ChatId) -> Option<Self> {
        let chat = context.history.chat(chat_id)?;
        let subscriber = Subscriber::new(context, &person.id, &person.id, chat_id, &chat);
        Some(Self { context: Arc::clone(context), person: person.clone(), subscriber })
    }

    /// Follows the chat until the end of the run or of the chat.
    pub(super) async fn run(self) {
        let mut rng = self.context.dice();
        let mut checkpoint = lock(&self.subscriber.model).clone();
        // After a voluntary absence, messages sent meanwhile may be late.
        let mut counts_from = i64::MAX;
        while self.context.phase() < Phase::Over {
            if self.subscriber.is_gone() {
                if self.is_ended() {
                    return;
                }
                self.look_outside(&mut rng, &mut checkpoint).await;
                counts_from = i64::MAX;
                continue;
            }
            if lock(&self.subscriber.model).group.as_ref().is_some_and(|group| group.came_back) {
                self.begin_anew(&mut checkpoint);
            }
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
                let mut model = lock(&subscriber.model);
                *model = model.anew();
            }
            3 | 4 => return self.read_history(rng).await,
            5 | 6 => *checkpoint = lock(&subscriber.model).clone(),
            _ => {}
        }
        true
    }

    /// True once there is nothing to wait for: the chat is gone for good.
    fn is_ended(&self) -> bool {
        let chat = self.context.history.chat(self.subscriber.chat_id);
        self.subscriber.kind == ChatKind::Direct
            || chat.is_some_and(|chat| chat.deletion != Deletion::Never)
    }

    fn begin_anew(&self, checkpoint: &mut Model) {
        let mut model = lock(&self.subscriber.model);
        *model = model.anew();
        *checkpoint = model.clone();
    }

    /// Out of a group: looks from time to time whether the user is in again.
    async fn look_outside(&self, rng: &mut StdRng, checkpoint: &mut Model) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(OUTSIDE_MS))).await;
        let path = format!("/api/v1/chats/{}/", self.subscriber.chat_id);
        let replica = self.context.any_replica(rng);
        let answer = self.context.once(replica, &Method::GET, &path, &self.person, None).await;
        if answer.is_some_and(|answer| answer.status == 200) {
            self.begin_anew(checkpoint);
            self.subscriber.gone.store(false, Ordering::Relaxed);
        }
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
                let lowest = page.results.first().map(|message| message.seq);
                let mut model =
                    Model::from_history(chat_id, chat.party(&self.person.id), &page.results, head);
                match chat.kind {
                    ChatKind::Direct => {
                        for member in chat.members.iter() {
                            let own = *member == self.person.id;
                            let read = if own { Some(page.read_seq) } else { page.peer_read_seq };
                            model.reads.insert(member.clone(), read.unwrap_or(0));
                        }
                    }
                    ChatKind::Group => {
                        let given = Given::State { ev: page.head_ev, seq: lowest };
                        context.history.given(chat_id, &self.person.id, given);
                    }
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
        let mut look = tokio::time::interval(AGAIN);
        loop {
            let incoming = tokio::select! {
                incoming = socket.next(context) => incoming,
                () = context.may_leave(leave_at) => return true,
                () = context.until(Phase::Over) => return true,
                _ = look.tick() => {
                    if lock(&subscriber.model).must_begin_anew() {
                        return true;
                    }
                    subscriber.read_members(context, &self.person, rng).await;
                    continue;
                }
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
        if chat.is_none_or(|chat| chat.kind == ChatKind::Direct && chat.deletion == Deletion::Never)
        {
            return;
        }
        let path = format!("/api/v1/chats/{}/", self.subscriber.chat_id);
        let replica = self.context.any_replica(rng);
        let answer = self.context.once(replica, &Method::GET, &path, &self.person, None).await;
        if answer.is_some_and(|answer| answer.status == 404) {
            self.subscriber.told_gone(&self.context, replica);
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
