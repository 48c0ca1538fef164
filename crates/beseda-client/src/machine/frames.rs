//! What the server says.

use std::time::{Duration, Instant};

use beseda_protocol::{
    ReceivedFrame,
    model::{ChatId, UserId},
};

use super::{Event, Machine, State, Timer, subscriptions::Subscription, timeline::Taken};

impl Machine {
    /// The server said something.
    pub fn on_frame(&mut self, now: Instant, frame: ReceivedFrame) {
        let is_other_epoch = frame.epoch().is_some_and(|epoch| self.chats.enter(epoch));
        let is_hello = matches!(frame, ReceivedFrame::Hello { .. });
        self.take_frame(now, frame);
        if (is_other_epoch || is_hello) && self.settings.only.is_none() {
            self.read_list();
        }
    }

    fn take_frame(&mut self, now: Instant, frame: ReceivedFrame) {
        match frame {
            ReceivedFrame::Hello { user_id, .. } => self.on_hello(now, user_id),
            ReceivedFrame::Bye { reconnect_in_ms, .. } => {
                self.phase.promise(Duration::from_millis(reconnect_in_ms));
            }
            ReceivedFrame::TokenExpiring { expires_in } => self.on_token_expiring(now, expires_in),
            ReceivedFrame::Error { id, code, retry_after_ms, .. } => {
                self.on_error(now, id.as_ref(), &code, retry_after_ms);
            }
            ReceivedFrame::ChatCreated { chat, total_unread, .. }
            | ReceivedFrame::ChatUpdated { chat, total_unread, .. } => {
                // A followed chat gets presence in frames of its own; this one may come from a time
                // without Redis.
                let keep_presence = self.followed.contains_key(&chat.chat_id);
                self.chats.tell(*chat, total_unread, keep_presence);
                self.emit(Event::Chats);
            }
            // On a socket of one chat close 4004 follows, which tells it.
            ReceivedFrame::ChatDeleted { chat_id, total_unread, .. }
                if self.settings.only.is_none() =>
            {
                self.gone(chat_id, total_unread);
            }
            ReceivedFrame::Typing { .. } => self.emit(Event::Frame(Box::new(frame))),
            ReceivedFrame::Presence { .. } => {
                self.apply_to_list(&frame);
                self.emit(Event::Frame(Box::new(frame)));
            }
            ReceivedFrame::Subscribed { ref id, chat_id, ref online, .. } => {
                if let Some(subscription) = self.followed.get_mut(&chat_id)
                    && (self.settings.only.is_some() || subscription.is_named(id.as_ref()))
                {
                    subscription.confirmed = true;
                    if self.chats.set_online(chat_id, online) {
                        self.emit(Event::Chats);
                    }
                    self.on_chat_frame(chat_id, frame);
                }
            }
            ReceivedFrame::MessageCreated { chat_id, .. }
            | ReceivedFrame::MessageUpdated { chat_id, .. }
            | ReceivedFrame::MessageDeleted { chat_id, .. }
            | ReceivedFrame::ChatRead { chat_id, .. }
            | ReceivedFrame::Synced { chat_id, .. }
            | ReceivedFrame::Catchup { chat_id, .. }
            | ReceivedFrame::Reset { chat_id, .. }
                // Else of a subscription that ended: a position taken from it would skip what lies between.
                if self.followed.get(&chat_id).is_some_and(|one| one.confirmed) =>
            {
                self.on_chat_frame(chat_id, frame);
            }
            _ => {}
        }
    }

    fn on_hello(&mut self, now: Instant, user_id: UserId) {
        self.me = Some(user_id);
        self.phase.live(now);
        self.set_state(State::Live);
        self.token_since.get_or_insert(now);
        let followed: Vec<ChatId> = self.followed.keys().copied().collect();
        for chat_id in followed {
            match self.settings.only {
                None => self.subscribe(chat_id),
                Some(_) => {
                    self.followed.insert(chat_id, Subscription::default());
                }
            }
        }
        let chats: Vec<ChatId> = self.timelines.keys().copied().collect();
        for chat_id in chats {
            // A pause that the lost connection made is over.
            if self.timers.cancel(Timer::Outbox(chat_id)) {
                self.send_next(chat_id);
            }
        }
    }

    fn apply_to_list(&mut self, frame: &ReceivedFrame) {
        if self.chats.apply(frame) {
            self.emit(Event::Chats);
        }
    }

    fn on_chat_frame(&mut self, chat_id: ChatId, frame: ReceivedFrame) {
        self.apply_to_list(&frame);
        let me = self.me.clone();
        let Some(timeline) = self.timelines.get_mut(&chat_id) else { return };
        match timeline.apply(&frame, me.as_ref()) {
            Taken::Old => {}
            Taken::Gap => self.resume(chat_id),
            Taken::News => {
                let is_reset = matches!(frame, ReceivedFrame::Reset { .. });
                self.emit(Event::Frame(Box::new(frame)));
                if is_reset {
                    self.load_newest(chat_id);
                }
            }
        }
    }
}
