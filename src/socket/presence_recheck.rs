//! Chats subscribed to while Redis was unavailable: their presence was unknown then, and is sent
//! later.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::connection::Connection;
use crate::{
    model::{ChatId, UserId},
    protocol::ServerFrame,
};

/// Pause between two checks, in seconds. Redis must be up at two of them in a row: a replica takes
/// up to 2.25 s to notice that its leases are gone, and rewrites them without announcing anyone.
/// Random, because all sockets that were opened meanwhile have to check.
const PAUSE_SECONDS: std::ops::Range<f64> = 2.5..5.0;

#[derive(Debug, Default)]
pub(super) struct PresenceRecheck {
    chats: BTreeSet<ChatId>,
    /// When to check next.
    pub(super) look_at: Option<Instant>,
    /// Whether Redis was up at the last check.
    was_up: bool,
}

impl PresenceRecheck {
    pub(super) fn add(&mut self, chat_id: ChatId) {
        self.chats.insert(chat_id);
        self.look_later(false);
    }

    /// A presence change was sent, so there is nothing left to look up.
    pub(super) fn remove(&mut self, chat_id: ChatId) {
        self.chats.remove(&chat_id);
    }

    fn look_later(&mut self, is_up: bool) {
        self.was_up = is_up;
        let pause = Duration::from_secs_f64(rand::random_range(PAUSE_SECONDS));
        self.look_at = Some(Instant::now() + pause);
    }
}

impl Connection {
    /// Sends who is online, once Redis can tell again. All others were sent as offline already.
    pub(super) async fn look_again(&mut self) {
        let is_up = self.context.redis.is_up();
        if !(is_up && self.presence_recheck.was_up) {
            self.presence_recheck.look_later(is_up);
            return;
        }
        for chat_id in std::mem::take(&mut self.presence_recheck).chats {
            if !self.session.is_subscribed(chat_id) {
                continue;
            }
            for user_id in self.online(chat_id).await {
                self.tell_online(&user_id);
            }
        }
    }

    fn tell_online(&mut self, user_id: &UserId) {
        if user_id != self.session.user_id() {
            let frame = ServerFrame::Presence { user_id, online: true, last_seen_at: None };
            self.out.push(frame.encode());
        }
    }
}
