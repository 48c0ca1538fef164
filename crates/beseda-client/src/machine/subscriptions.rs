//! Which chats a machine follows, and whether the server has confirmed it.

use std::time::{Duration, Instant};

use beseda_protocol::{ClientFrame, ErrorCode, frame::CommandName, model::ChatId};

use super::{Event, Machine, State, Timeline, Timer};

/// A subscription that the server refused for now is asked for again after this.
const RESUBSCRIBE: Duration = Duration::from_secs(5);

/// A followed chat's subscription. Until the server confirms the latest one, what comes is of an older.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// Of the latest `subscribe`.
    id: Option<String>,
    pub(super) confirmed: bool,
}

impl Subscription {
    /// Whether the latest `subscribe` has that name.
    pub(super) fn is_named(&self, id: Option<&CommandName>) -> bool {
        matches!((id, &self.id), (Some(CommandName::Text(id)), Some(name)) if id == name)
    }
}

impl Machine {
    pub(super) fn follow(&mut self, chat_id: ChatId) {
        self.followed.entry(chat_id).or_default();
        match self.settings.only {
            None => self.subscribe(chat_id),
            // The first page was waited for.
            Some(_) if self.is_not_begun() => self.connect(false),
            Some(_) => {}
        }
    }

    pub(super) fn unfollow(&mut self, chat_id: ChatId) {
        self.timers.cancel(Timer::Resubscribe(chat_id));
        if self.followed.remove(&chat_id).is_some() && self.settings.only.is_none() {
            self.unsubscribe(chat_id);
        }
    }

    fn unsubscribe(&mut self, chat_id: ChatId) {
        let id = self.next_id("unsubscribe");
        self.transmit(&ClientFrame::Unsubscribe { id: &id, chat_id });
    }

    pub(super) fn subscribe(&mut self, chat_id: ChatId) {
        let id = self.next_id("subscribe");
        let Some(subscription) = self.followed.get_mut(&chat_id) else { return };
        *subscription = Subscription { id: Some(id.clone()), confirmed: false };
        if !matches!(self.state(), State::Live) {
            // `hello` subscribes to all.
            return;
        }
        let position = self.timelines.get(&chat_id).and_then(Timeline::position);
        let (after_ev, epoch) = match &position {
            Some(position) => (Some(position.ev), Some(position.epoch.as_str())),
            None => (None, None),
        };
        self.transmit(&ClientFrame::Subscribe { id: &id, chat_id, after_ev, epoch });
    }

    /// Asks once more for what came after the position.
    pub(super) fn resume(&mut self, chat_id: ChatId) {
        if self.settings.only.is_some() {
            return self.connect(false);
        }
        self.unsubscribe(chat_id);
        self.subscribe(chat_id);
    }

    /// `total_unread`: in the chats that are left, where the server said it.
    pub(super) fn gone(&mut self, chat_id: ChatId, total_unread: Option<i64>) {
        self.unfollow(chat_id);
        self.timelines.remove(&chat_id);
        self.chats.remove(chat_id, total_unread);
        self.emit(Event::Gone { chat_id });
    }

    /// The server refused a command.
    pub(super) fn on_error(
        &mut self,
        now: Instant,
        id: Option<&CommandName>,
        code: &str,
        retry_after_ms: Option<u64>,
    ) {
        let asked = self.followed.iter().find(|(_, one)| one.is_named(id));
        let Some((&chat_id, _)) = asked else { return };
        match ErrorCode::parse(code) {
            Some(ErrorCode::ChatNotFound) => self.gone(chat_id, None),
            _ => {
                let pause = retry_after_ms.map_or(RESUBSCRIBE, Duration::from_millis);
                self.timers.set(Timer::Resubscribe(chat_id), now + pause);
            }
        }
    }
}
