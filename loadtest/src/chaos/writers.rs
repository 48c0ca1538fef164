//! Members who send, resend, edit, delete, react and read.

mod annotations;
mod attachments;

use std::sync::Arc;

use beseda_protocol::model::{ChatId, ChatKind, Message};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    context::{Answer, Person, SimContext},
    findings::{Kind, now_micros, tick},
    history::{Deletion, Given},
};

/// Pause between two operations of one member, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..220;

/// Number of latest own messages that are edited, deleted and resent.
const REMEMBERED: usize = 40;

/// An acknowledged message of this member.
#[derive(Debug, Clone)]
struct Own {
    chat_id: ChatId,
    message_id: beseda_protocol::model::MessageId,
    client_msg_id: String,
    /// As first sent.
    body: Value,
}

pub(super) struct Writer {
    context: Arc<SimContext>,
    person: Person,
    /// The member's chats, the most used first.
    chats: Vec<ChatId>,
    own: Vec<Own>,
    count: u64,
    rng: StdRng,
}

#[derive(Deserialize)]
struct Marked {
    read_seq: i64,
    unread_count: i64,
}

impl Writer {
    pub(super) fn new(context: &Arc<SimContext>, person: Person, chats: Vec<ChatId>) -> Self {
        let rng = context.dice();
        Self { context: Arc::clone(context), person, chats, own: Vec::new(), count: 0, rng }
    }

    /// Works until the end of the busy phase.
    pub(super) async fn run(mut self) {
        while self.context.is_busy() && !self.chats.is_empty() {
            // Squared, so that some chats are quiet: no later message reveals the loss of one
            // there.
            let skewed: f64 = self.rng.random_range(0.0_f64..1.0).powi(2);
            let chat_id = self.chats[(skewed * self.chats.len() as f64) as usize];
            self.act(chat_id).await;
            self.context.pause(&mut self.rng, PAUSE_MS).await;
        }
    }

    /// Makes one operation, in this chat or on an own message of any.
    pub(super) async fn act(&mut self, chat_id: ChatId) {
        match self.rng.random_range(0..100) {
            0..54 => self.send(chat_id).await,
            54..68 => self.edit().await,
            68..75 => self.delete().await,
            75..82 => self.send_again().await,
            82..86 => self.set_own(chat_id).await,
            86..92 => self.annotate(chat_id).await,
            _ => self.mark(chat_id).await,
        }
    }

    fn path(chat_id: ChatId, rest: &str) -> String {
        format!("/api/v1/chats/{chat_id}/{rest}")
    }

    pub(super) async fn send(&mut self, chat_id: ChatId) {
        self.count += 1;
        let id = format!("{}-{}-{}", self.person.id, &chat_id.to_string()[24..], self.count);
        let text = format!("message {id}");
        self.context.history.sending(&id, chat_id, &self.person.id, &text);
        let mut body = json!({ "text": text, "client_msg_id": id });
        if let Some(mentions) = self.any_mentions(chat_id) {
            body["mentions"] = mentions;
        }
        let answered = self.own.iter().rev().find(|own| own.chat_id == chat_id);
        if let Some(own) = answered.filter(|_| self.count.is_multiple_of(4)) {
            body["reply_to"] = json!(own.message_id);
        }
        if self.count.is_multiple_of(10)
            && let Some(id) = self.upload(chat_id).await
        {
            body["attachments"] = json!([id]);
        }
        let from = now_micros();
        let Some(answer) = self.post(chat_id, &body).await else { return };
        if self.is_refused(chat_id, &answer, from) {
            return;
        }
        let Some(message) = self.read_sent(&answer, &id) else { return };
        tick(&self.context.figures.sends);
        if self.own.len() == REMEMBERED {
            self.own.remove(0);
        }
        let message_id = message.message_id;
        self.own.push(Own { chat_id, message_id, client_msg_id: id, body });
    }

    async fn post(&mut self, chat_id: ChatId, body: &Value) -> Option<Answer> {
        let path = Self::path(chat_id, "messages/");
        let context = Arc::clone(&self.context);
        context.call(&mut self.rng, Method::POST, &path, &self.person, Some(body)).await
    }

    /// Chooses whom a message mentions; `None`: that is left out.
    fn any_mentions(&mut self, chat_id: ChatId) -> Option<Value> {
        let chat = self.context.history.chat(chat_id)?;
        match self.rng.random_range(0..100) {
            0..8 => Some(json!("all")),
            8..35 => {
                // Who is no member, and oneself, are dropped by the service.
                let count = self.rng.random_range(1..4);
                let users: Vec<&String> =
                    chat.members.choose_multiple(&mut self.rng, count).collect();
                Some(json!(users))
            }
            35..40 => Some(json!([])),
            _ => None,
        }
    }

    /// True if a group refused an operation, as it may where users come, go and are silenced.
    fn is_refused(&self, chat_id: ChatId, answer: &Answer, from: i64) -> bool {
        let context = &self.context;
        if context.history.chat(chat_id).is_none_or(|chat| chat.kind == ChatKind::Direct) {
            return false;
        }
        match (answer.status, answer.code().as_str()) {
            (404, "chat_not_found") => {
                let to = now_micros();
                context.history.given(chat_id, &self.person.id, Given::Refused { from, to });
            }
            (403, "silenced" | "forbidden") => {}
            // Who came back may see only what was written since, not even their own.
            (404, "message_not_found") => {}
            (422, "validation_failed") if answer.text().contains("reply_to") => {}
            _ => return false,
        }
        tick(&context.figures.refusals);
        true
    }

    /// Records an acknowledgement: 201, or 200 if an earlier attempt wrote the message.
    fn read_sent(&self, answer: &Answer, id: &str) -> Option<Message> {
        let expected = match answer.status {
            201 => !answer.replayed,
            200 => answer.replayed,
            _ => false,
        };
        if !expected {
            self.context.unexpected(&format!("the send of {id}"), answer);
            return None;
        }
        let message: Message = answer
            .read()
            .inspect_err(|error| self.context.findings.add(Kind::Answer, error))
            .ok()?;
        if message.client_msg_id.as_deref() != Some(id)
            || message.sender_id.as_ref().is_none_or(|id| id.as_str() != self.person.id)
        {
            self.context.unexpected(&format!("the send of {id}"), answer);
        }
        let (message_id, seq) = (message.message_id, message.seq);
        if let Some(before) = self.context.history.acknowledged(id, message_id, seq) {
            let what = format!("{id} was acknowledged as {before:?}, and now as {message:?}");
            self.context.findings.add(Kind::Doubled, what);
        }
        Some(message)
    }

    fn any_own(&mut self) -> Option<Own> {
        (!self.own.is_empty()).then(|| self.own[self.rng.random_range(0..self.own.len())].clone())
    }

    /// Resends an old acknowledged message with its original content.
    async fn send_again(&mut self) {
        let Some(own) = self.any_own() else { return };
        let from = now_micros();
        let Some(answer) = self.post(own.chat_id, &own.body).await else { return };
        if answer.status == 200 {
            self.read_sent(&answer, &own.client_msg_id);
            tick(&self.context.figures.replays);
        } else if !self.is_refused(own.chat_id, &answer, from) {
            self.context.unexpected("a message sent again", &answer);
        }
    }

    async fn edit(&mut self) {
        let Some(own) = self.any_own() else { return };
        self.count += 1;
        let text = format!("edit {} of {}", self.count, own.client_msg_id);
        let path = Self::path(own.chat_id, &format!("messages/{}/", own.message_id));
        let (context, mut body) = (Arc::clone(&self.context), json!({ "text": text }));
        if let Some(mentions) = self.any_mentions(own.chat_id) {
            body["mentions"] = mentions;
        }
        let from = now_micros();
        let answer =
            context.call(&mut self.rng, Method::PATCH, &path, &self.person, Some(&body)).await;
        let deletion = context.history.deletion_of(&own.client_msg_id);
        match answer {
            Some(answer) if answer.status == 200 => {
                context.history.edited(&own.client_msg_id, &text, answer.loose);
                tick(&context.figures.edits);
                match answer.read::<Message>() {
                    Ok(message) if message.text == text && message.edited_at.is_some() => {}
                    _ => context.unexpected("an edit", &answer),
                }
            }
            Some(answer) if answer.code() == "message_not_found" && deletion != Deletion::Never => {
            }
            Some(answer) if self.is_refused(own.chat_id, &answer, from) => {
                if answer.loose {
                    context.history.may_be_edited(&own.client_msg_id, &text);
                }
            }
            Some(answer) => context.unexpected("an edit", &answer),
            // Reported; the call may have taken effect.
            None => context.history.edited(&own.client_msg_id, &text, true),
        }
    }

    async fn delete(&mut self) {
        let Some(own) = self.any_own() else { return };
        let path = Self::path(own.chat_id, &format!("messages/{}/", own.message_id));
        let context = Arc::clone(&self.context);
        if context.history.deletion_of(&own.client_msg_id) == Deletion::Never {
            context.history.deletion(&own.client_msg_id, Deletion::Tried);
        }
        let from = now_micros();
        let answer = context.call(&mut self.rng, Method::DELETE, &path, &self.person, None).await;
        match answer {
            Some(answer) if answer.status == 204 => {
                context.history.deletion(&own.client_msg_id, Deletion::Acknowledged);
                tick(&context.figures.deletions);
            }
            Some(answer) if self.is_refused(own.chat_id, &answer, from) => {}
            Some(answer) => context.unexpected("a deletion", &answer),
            None => {}
        }
    }

    /// Changes one's own settings of a group, which take no revision.
    async fn set_own(&mut self, chat_id: ChatId) {
        let context = Arc::clone(&self.context);
        if context.history.chat(chat_id).is_none_or(|chat| chat.kind == ChatKind::Direct) {
            return self.mark(chat_id).await;
        }
        let notify = ["all", "mentions", "none"][self.rng.random_range(0..3)];
        let body = match self.rng.random_range(0..3) {
            0 => json!({ "notify": notify }),
            1 => json!({ "pinned": self.rng.random_bool(0.5) }),
            _ => json!({ "archived": self.rng.random_bool(0.3) }),
        };
        let (path, from) = (Self::path(chat_id, "me/"), now_micros());
        let answer =
            context.call(&mut self.rng, Method::PATCH, &path, &self.person, Some(&body)).await;
        match answer {
            Some(answer) if answer.status == 200 => tick(&context.figures.settings),
            Some(answer) if self.is_refused(chat_id, &answer, from) => {}
            Some(answer) => context.unexpected("one's own settings", &answer),
            None => {}
        }
    }

    pub(super) async fn mark(&mut self, chat_id: ChatId) {
        let context = Arc::clone(&self.context);
        let top = context.history.top(chat_id);
        // The head, a random position, beyond the head.
        let up_to = match self.rng.random_range(0..4) {
            0 if top > 0 => Some(self.rng.random_range(1..=top)),
            1 => Some(top + 1_000_000),
            _ => None,
        };
        let body = up_to.map_or_else(|| json!({}), |up_to| json!({ "up_to_seq": up_to }));
        let path = Self::path(chat_id, "mark_read/");
        let from = now_micros();
        let answer =
            context.call(&mut self.rng, Method::POST, &path, &self.person, Some(&body)).await;
        let Some(answer) = answer else { return };
        if self.is_refused(chat_id, &answer, from) {
            return;
        }
        let marked = match (answer.status, answer.read::<Marked>()) {
            (200, Ok(marked)) => marked,
            _ => return context.unexpected("a mark", &answer),
        };
        tick(&context.figures.marks);
        let before = context.history.marked(chat_id, &self.person.id, marked.read_seq);
        let at_least = before.max(up_to.unwrap_or(top).min(top));
        if marked.read_seq < at_least || marked.unread_count < 0 {
            let what = format!(
                "{} marked {chat_id} to {up_to:?} with {top} acknowledged and {before} read: {}",
                self.person.id,
                answer.text()
            );
            context.findings.add(Kind::State, what);
        }
    }
}
