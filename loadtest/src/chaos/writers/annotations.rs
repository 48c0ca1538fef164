//! Reactions and pins, on anybody's messages.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::Writer;
use crate::chaos::{
    findings::{now_micros, tick},
    history::Deletion,
};
use beseda_protocol::model::{ChatId, Reaction};
use rand::{Rng, seq::IndexedRandom};
use std::sync::Arc;

/// Few, so that members meet on the same; as in a path, too.
const EMOJIS: [(&str, &str); 4] = [
    ("👍", "%F0%9F%91%8D"),
    ("❤️", "%E2%9D%A4%EF%B8%8F"),
    (":party:", ":party:"),
    ("🎉", "%F0%9F%8E%89"),
];

#[derive(Deserialize)]
struct Reactions {
    reactions: Vec<Reaction>,
}

impl Writer {
    /// Sets a reaction to a message of the chat, or takes it back; sometimes pins or unpins it instead.
    pub(super) async fn annotate(&mut self, chat_id: ChatId) {
        let context = Arc::clone(&self.context);
        let Some(message_id) = context.history.any_message(chat_id, &mut self.rng) else { return };
        let present = self.rng.random_bool(0.6);
        let method = if present { Method::PUT } else { Method::DELETE };
        let body = present.then(|| json!({}));
        let is_pin = self.rng.random_bool(0.2);
        let Some((emoji, encoded)) = EMOJIS.choose(&mut self.rng) else { return };
        let path = if is_pin {
            Self::path(chat_id, &format!("pins/{message_id}/"))
        } else {
            Self::path(chat_id, &format!("messages/{message_id}/reactions/{encoded}/"))
        };
        if !is_pin {
            context.history.reacting(message_id, emoji, &self.person.id);
        }
        let from = now_micros();
        let answer = context.call(&mut self.rng, method, &path, &self.person, body.as_ref()).await;
        let loose = answer.as_ref().is_none_or(|answer| answer.loose);
        let done = answer.as_ref().is_some_and(|answer| matches!(answer.status, 200 | 204));
        if !is_pin {
            let now = done.then_some(present);
            context.history.reacted(message_id, emoji, &self.person.id, now, loose);
        }
        let Some(answer) = answer else { return };
        let is_gone = answer.code() == "message_not_found"
            && context.history.deletion_of_message(message_id) != Deletion::Never;
        if done {
            tick(&context.figures.annotations);
            let is_told = |reactions: Reactions| {
                // Only the first 20 are named, and a run has fewer people.
                let of = reactions.reactions.iter().find(|one| one.emoji == *emoji);
                present
                    == of.is_some_and(|one| {
                        one.user_ids.iter().any(|id| id.as_str() == self.person.id)
                    })
            };
            if !is_pin && !answer.loose && !answer.read::<Reactions>().is_ok_and(is_told) {
                context.unexpected("a reaction", &answer);
            }
        } else if !is_gone
            && answer.code() != "limit_reached"
            && !self.is_refused(chat_id, &answer, from)
        {
            context.unexpected("an annotation", &answer);
        }
    }
}
