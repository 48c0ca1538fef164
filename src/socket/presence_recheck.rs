//! Chats followed while Redis was away: who was there could not be known, and is told later.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::connection::Connection;
use crate::{
    model::{ChatId, UserId},
    protocol::ServerFrame,
};

/// Pause between two looks, in seconds. Redis must be back for two of them: a replica takes up to
/// 2.25 s to find that its leases are gone, and writes them anew without announcing anybody. Spread,
/// since all sockets that were opened meanwhile have to look.
const PAUSE_SECONDS: std::ops::Range<f64> = 2.5..5.0;

#[derive(Debug, Default)]
pub(super) struct PresenceRecheck {
    chats: BTreeSet<ChatId>,
    /// When to look next.
    pub(super) look_at: Option<Instant>,
    /// Whether Redis was there at the last look.
    was_up: bool,
}

impl PresenceRecheck {
    pub(super) fn add(&mut self, chat_id: ChatId) {
        self.chats.insert(chat_id);
        self.look_later(false);
    }

    /// Somebody came or went, and that was told: there is nothing left to find out.
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
    /// Tells who is there, once that can be known again. Who is not was told to be away already.
    pub(super) async fn look_again(&mut self) {
        let is_up = self.context.link.is_up();
        if !(is_up && self.presence_recheck.was_up) {
            self.presence_recheck.look_later(is_up);
            return;
        }
        for chat_id in std::mem::take(&mut self.presence_recheck).chats {
            if !self.session.follows(chat_id) {
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
