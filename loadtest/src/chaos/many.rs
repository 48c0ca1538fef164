//! Sockets of many chats: the inbox, and subscriptions to all of the user's chats on one connection.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use beseda_protocol::{
    frame::GoneReason,
    model::{Chat, ChatId, ChatKind},
};
use rand::{Rng, rngs::StdRng};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    context::{Phase, SimContext},
    findings::{Kind, lock, now_micros, tick},
    frame::Frame,
    history::Given,
    list::{Inbox, List, Shown},
    model::Model,
    socket::{Incoming, Socket},
    subscriber::{Subscriber, note_given},
};

/// Time before a client disconnects by itself, in milliseconds.
const STAY_MS: std::ops::Range<u64> = 5_000..25_000;

/// Pause before the next attempt, in milliseconds.
const RECONNECT_MS: std::ops::Range<u64> = 30..200;

/// Pause before a refused subscription is retried, and between two checks for these.
const AGAIN: Duration = Duration::from_millis(300);

/// Longest time until a subscription tells what the inbox has told on the same socket, in microseconds: no fault
/// that the inbox gets through lasts as long.
const SILENT: i64 = 10_000_000;

/// Probability per check of a redundant subscription to a followed chat.
const TWICE: f64 = 0.05;

#[derive(Deserialize)]
struct Page {
    results: Vec<Chat>,
    next: Option<String>,
}

/// A socket from its opening to its end.
struct Session<'a> {
    context: &'a Arc<SimContext>,
    inbox: &'a Inbox,
    socket: Socket,
    rng: &'a mut StdRng,
    /// Commands in flight: the chat, and the client's state at the command.
    asked: HashMap<i64, (ChatId, Model)>,
    refused: Vec<ChatId>,
    next_id: i64,
    /// The time since which each chat is in step here.
    counts_from: HashMap<ChatId, i64>,
}

/// Keeps a socket of many chats open until the end of the run.
pub(super) async fn run(context: Arc<SimContext>, inbox: Arc<Inbox>) {
    let mut rng = context.dice();
    while context.phase() < Phase::Over {
        let connect = (Method::POST, "/api/v1/connect/");
        let opened = Socket::open(&context, &mut rng, &inbox.person, "/ws/", &[], connect).await;
        if let Ok(socket) = opened {
            let session = Session {
                context: &context,
                inbox: &inbox,
                socket,
                rng: &mut rng,
                asked: HashMap::new(),
                refused: Vec::new(),
                next_id: 0,
                counts_from: HashMap::new(),
            };
            session.run().await;
            lock(&inbox.list).live = false;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(RECONNECT_MS))).await;
    }
}

impl Session<'_> {
    async fn run(mut self) {
        let context = self.context;
        let leave_at = Instant::now() + Duration::from_millis(self.rng.random_range(STAY_MS));
        let mut look = tokio::time::interval(AGAIN);
        loop {
            let incoming = tokio::select! {
                incoming = self.socket.next(context) => incoming,
                () = context.may_leave(leave_at) => break,
                () = context.until(Phase::Over) => break,
                _ = look.tick() => {
                    if !self.look().await { return }
                    continue;
                }
            };
            match incoming {
                Incoming::Frame(frame) => {
                    if !self.on_frame(&frame).await {
                        return;
                    }
                }
                Incoming::Closed(4200..=4203) | Incoming::Broken => {
                    return tick(&context.figures.breaks);
                }
                Incoming::Closed(code) => {
                    let (id, at) = (&self.inbox.person.id, context.timeline.now());
                    let what = format!("the inbox of {id} was closed with {code} ({at})");
                    return context.findings.add(Kind::Answer, what);
                }
            }
        }
        self.socket.leave(self.rng).await;
    }

    /// Retries refused subscriptions, and sometimes repeats an existing one. Reads what clients of groups want.
    async fn look(&mut self) -> bool {
        let mut chats = std::mem::take(&mut self.refused);
        let subscribers: Vec<Arc<Subscriber>> =
            lock(&self.inbox.list).subscribers.values().cloned().collect();
        for subscriber in subscribers {
            // What is known stays until the answer, as frames come until then.
            if lock(&subscriber.model).must_begin_anew() {
                chats.push(subscriber.chat_id);
            }
            subscriber.read_members(self.context, &self.inbox.person, self.rng).await;
        }
        let silent = lock(&self.inbox.list).take_silent(now_micros() - SILENT);
        if let Some((chat_id, ev, at)) = silent {
            let what = format!(
                "the inbox of {} told of a message with ev {ev} of {chat_id}, whose subscription is in \
                 step at ev {at} and tells nothing",
                self.inbox.person.id
            );
            self.context.findings.add(Kind::Lost, what);
        }
        // Not while settling: a subscription makes the service compare, and hides what it must find by itself.
        if self.context.is_busy() && self.rng.random_bool(TWICE) {
            let pick = self.rng.random_range(0..20);
            chats.extend(lock(&self.inbox.list).subscribers.keys().nth(pick).copied());
        }
        for chat_id in chats {
            if !self.subscribe(chat_id).await {
                return false;
            }
        }
        true
    }

    async fn subscribe(&mut self, chat_id: ChatId) -> bool {
        let subscriber = lock(&self.inbox.list).subscribers.get(&chat_id).cloned();
        let Some(subscriber) = subscriber.filter(|subscriber| !subscriber.is_gone()) else {
            return true;
        };
        if self.asked.values().any(|(asked, _)| *asked == chat_id) {
            return true;
        }
        let model = {
            let model = lock(&subscriber.model);
            if model.must_begin_anew() { model.anew() } else { model.clone() }
        };
        if model.position == 0 {
            // Messages of before come late, as they must.
            self.counts_from.remove(&chat_id);
        }
        self.next_id += 1;
        let mut command = json!({
            "type": "subscribe", "id": self.next_id, "chat_id": chat_id, "after_ev": model.position,
        });
        if let Some(epoch) = &model.epoch {
            command["epoch"] = json!(epoch);
        }
        self.asked.insert(self.next_id, (chat_id, model));
        self.socket.send(&command).await
    }

    /// Handles a frame; false if the socket must be left.
    async fn on_frame(&mut self, frame: &Frame) -> bool {
        match frame.kind.as_str() {
            "hello" => self.read_list().await,
            "chat.created" | "chat.updated" => {
                tick(&self.context.figures.inbox);
                self.on_chat(frame).await
            }
            "chat.deleted" => {
                tick(&self.context.figures.inbox);
                self.on_deleted(frame);
                true
            }
            "error" => {
                self.on_error(frame);
                true
            }
            _ => {
                self.on_chat_frame(frame);
                true
            }
        }
    }

    /// Reads all chats by REST after `hello`, as the protocol demands.
    async fn read_list(&mut self) -> bool {
        {
            let list = &mut *lock(&self.inbox.list);
            let subscribers = std::mem::take(&mut list.subscribers);
            *list = List { subscribers, ..List::default() };
        }
        // Chats that are archived are in a list of their own.
        let mut lists = vec!["?limit=20".to_owned(), "?limit=20&filter=archived".to_owned()];
        while let Some(list) = lists.pop() {
            let path = format!("/api/v1/chats/{list}");
            let person = &self.inbox.person;
            let answer = self.context.call(self.rng, Method::GET, &path, person, None).await;
            let Some(answer) = answer else { return false };
            let page: Page = match answer.read() {
                Ok(page) => page,
                Err(_) => {
                    self.context.unexpected("GET /chats/", &answer);
                    return false;
                }
            };
            for chat in page.results {
                self.show(&chat);
                if !self.subscribe(chat.chat_id).await {
                    return false;
                }
            }
            lists.extend(page.next.map(|next| {
                let archived = if list.contains("archived") { "&filter=archived" } else { "" };
                format!("?limit=20{archived}&cursor={next}")
            }));
        }
        let gone: Vec<Arc<Subscriber>> = {
            let list = &mut *lock(&self.inbox.list);
            list.live = true;
            let List { chats, subscribers, .. } = list;
            subscribers
                .extract_if(|chat_id, _| !chats.contains_key(chat_id))
                .map(|(_, s)| s)
                .collect()
        };
        // Chats that were deleted while no socket was open.
        gone.iter().for_each(|subscriber| self.retire(subscriber));
        true
    }

    /// Ends a subscription to a chat that is gone; one that begins later has another state.
    fn retire(&self, subscriber: &Subscriber) {
        subscriber.told_gone(self.context, self.socket.replica);
        if subscriber.kind == ChatKind::Group {
            subscriber.retired.store(true, Ordering::Relaxed);
        }
    }

    /// Updates a chat unless a newer change is known.
    fn show(&self, chat: &Chat) {
        let (list, id) = (&mut *lock(&self.inbox.list), &self.inbox.person.id);
        if list.chats.get(&chat.chat_id).is_none_or(|known| chat.last_ev >= known.last_ev) {
            list.chats.insert(chat.chat_id, Shown::of(chat));
        }
        if chat.kind == ChatKind::Group {
            let given = Given::State { ev: chat.last_ev, seq: None };
            self.context.history.given(chat.chat_id, id, given);
        }
        list.subscribers.entry(chat.chat_id).or_insert_with(|| {
            let known = self.context.known_chat(id, chat);
            Subscriber::new(self.context, &format!("inbox of {id}"), id, chat.chat_id, &known)
        });
    }

    async fn on_chat(&mut self, frame: &Frame) -> bool {
        let Some(chat) = &frame.chat else {
            self.note(Kind::Answer, "no chat", frame);
            return true;
        };
        let member = self.context.history.chat(chat.chat_id).map(|chat| chat.members);
        if member.is_some_and(|members| !members.contains(&self.inbox.person.id)) {
            self.note(Kind::Leak, "a chat of others", frame);
        }
        let now = Shown::of(chat);
        let (before, seen) = {
            let list = &mut *lock(&self.inbox.list);
            list.total = frame.total_unread.or(list.total);
            list.awaits(chat, now_micros());
            let known = list.chats.contains_key(&chat.chat_id);
            (list.told.insert(chat.chat_id, now.clone()), known)
        };
        // One's own settings and silent marks take no revision.
        let is_doubled = |before: &Shown| match chat.kind {
            ChatKind::Direct => before.last_ev >= now.last_ev,
            ChatKind::Group => before.last_ev > now.last_ev || *before == now,
        };
        if let Some(before) = before.filter(is_doubled) {
            self.note(Kind::Doubled, &format!("told before, as {before:?}"), frame);
        }
        self.show(chat);
        seen || self.subscribe(chat.chat_id).await
    }

    fn on_deleted(&mut self, frame: &Frame) {
        let Some(chat_id) = frame.chat_id else { return };
        let subscriber = {
            let list = &mut *lock(&self.inbox.list);
            list.chats.remove(&chat_id);
            list.told.remove(&chat_id);
            list.awaited.remove(&chat_id);
            list.total = frame.total_unread;
            list.subscribers.remove(&chat_id)
        };
        self.counts_from.remove(&chat_id);
        // Absent if opened and deleted faster than the list was read.
        if let Some(subscriber) = subscriber {
            if subscriber.kind == ChatKind::Direct && frame.gone_reason() != GoneReason::Deleted {
                self.note(Kind::State, "nobody leaves a direct chat", frame);
            }
            self.retire(&subscriber);
        }
    }

    fn on_error(&mut self, frame: &Frame) {
        let asked = frame.id.and_then(|id| self.asked.remove(&id));
        let code = frame.code.as_ref().and_then(|code| code.as_str()).unwrap_or_default();
        match (asked, code) {
            (Some((chat_id, _)), "unavailable" | "timeout") => self.refused.push(chat_id),
            (Some((chat_id, _)), "chat_not_found") => {
                let subscriber = {
                    let list = &mut *lock(&self.inbox.list);
                    list.chats.remove(&chat_id);
                    list.subscribers.remove(&chat_id)
                };
                subscriber.iter().for_each(|subscriber| self.retire(subscriber));
            }
            _ => self.note(Kind::Answer, "an error", frame),
        }
    }

    /// Handles a frame of a chat that is followed here.
    fn on_chat_frame(&mut self, frame: &Frame) {
        let Some(chat_id) = frame.chat_id else { return };
        let subscriber = lock(&self.inbox.list).subscribers.get(&chat_id).cloned();
        // Of one that is new here, after its user was out of the group, the subscription of before may still tell.
        let is_begun =
            |it: &Arc<Subscriber>| frame.kind == "subscribed" || lock(&it.model).epoch.is_some();
        let Some(subscriber) = subscriber.filter(is_begun) else {
            let chat = self.context.history.chat(chat_id);
            if chat.is_some_and(|chat| chat.kind == ChatKind::Group) {
                // The inbox may tell of the end first: what is of before it may still come, and of after it, once
                // they are in again.
                let user = &self.inbox.person.id;
                return note_given(self.context, chat_id, user, frame, false);
            }
            if frame.ev > 0 && !matches!(frame.kind.as_str(), "presence" | "typing") {
                self.note(Kind::Leak, "a frame of a chat not asked for", frame);
            }
            return;
        };
        if frame.kind == "subscribed" {
            let asked = frame.id.and_then(|id| self.asked.remove(&id));
            match asked {
                // Changes since the command come again: the answer starts at the position of the command.
                Some((_, model)) => *lock(&subscriber.model) = model,
                None => self.note(Kind::Answer, "never asked for", frame),
            }
        }
        if frame.kind == "synced" {
            self.counts_from.entry(chat_id).or_insert_with(now_micros);
        }
        let counts_from = self.counts_from.get(&chat_id).copied().unwrap_or(i64::MAX);
        subscriber.take(self.context, frame, self.socket.replica, counts_from);
    }

    fn note(&self, kind: Kind, what: &str, frame: &Frame) {
        let (id, replica, at) =
            (&self.inbox.person.id, self.socket.replica, self.context.timeline.now());
        let what = format!("the inbox of {id} on replica {replica}: {what}: {frame:?} ({at})");
        self.context.findings.add(kind, what);
    }
}

impl Drop for Session<'_> {
    /// Resets the subscriptions: no chat is in step until it is subscribed to again.
    fn drop(&mut self) {
        for subscriber in lock(&self.inbox.list).subscribers.values() {
            if !subscriber.gone.load(Ordering::Relaxed) {
                lock(&subscriber.model).in_step = false;
            }
        }
    }
}
