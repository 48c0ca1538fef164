//! Which chats are followed, and what the server says of them.

use std::time::{Duration, Instant};

use beseda_protocol::{
    ClientFrame, ErrorCode, ReceivedFrame,
    frame::{CommandName, GoneReason},
    model::{ChatId, LeftReason, UserId},
};

use super::{Event, Machine, State, Timeline, Timer, timeline};

/// A subscription that the server refused for now is asked for again after this.
const RESUBSCRIBE: Duration = Duration::from_secs(5);

/// A followed chat's subscription. Until the server confirms the latest one, what comes is of an older.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// Of the latest `subscribe`.
    id: Option<String>,
    confirmed: bool,
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
    fn resume(&mut self, chat_id: ChatId) {
        if self.settings.only.is_some() {
            return self.connect(false);
        }
        self.unsubscribe(chat_id);
        self.subscribe(chat_id);
    }

    /// `total_unread`: in the chats that are left, where the server said it.
    pub(super) fn gone(
        &mut self,
        chat_id: ChatId,
        total_unread: Option<i64>,
        reason: Option<GoneReason>,
    ) {
        self.unfollow(chat_id);
        let timeline = self.timelines.remove(&chat_id);
        let was_open = timeline.is_some();
        for pending in timeline.into_iter().flat_map(|timeline| timeline.outbox.pending) {
            self.give_up(chat_id, pending);
        }
        self.start_uploads();
        // Who leaves may hear of it twice: in the chat, and on the inbox.
        let was_known = self.chats.remove(chat_id, total_unread) || was_open;
        if was_known {
            self.emit(Event::Gone { chat_id, reason });
        }
    }

    // ---- frames ----

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
            ReceivedFrame::ChatDeleted { chat_id, total_unread, reason, .. } => {
                match self.settings.only {
                    None => self.gone(chat_id, total_unread, Some(reason)),
                    // Close 4004 follows. If it is lost, the next ticket is refused for the same reason, or
                    // the user is a member again.
                    Some(_) => self.gone_as = Some(reason),
                }
            }
            ReceivedFrame::Typing { .. } => self.emit(Event::Frame(Box::new(frame))),
            ReceivedFrame::Presence { .. } => {
                self.apply_to_list(&frame);
                self.emit(Event::Frame(Box::new(frame)));
            }
            ReceivedFrame::Subscribed { ref id, chat_id, ref online, .. } => {
                if let Some(subscription) = self.followed.get_mut(&chat_id)
                    && (self.settings.only.is_some() || is_named(id.as_ref(), &subscription.id))
                {
                    subscription.confirmed = true;
                    if self.chats.set_online(chat_id, online) {
                        self.emit(Event::Chats);
                    }
                    self.on_chat_frame(chat_id, frame);
                }
            }
            frame => {
                if let Some(chat_id) = placed(&frame)
                    // Else of a subscription that ended: a position taken from it would skip what lies between.
                    && self.followed.get(&chat_id).is_some_and(|one| one.confirmed)
                {
                    self.on_chat_frame(chat_id, frame);
                }
            }
        }
    }

    fn on_hello(&mut self, now: Instant, user_id: UserId) {
        self.me = Some(user_id);
        self.gone_as = None;
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
            // A pause that the lost connection made is over; so is a stop.
            self.timers.cancel(Timer::Outbox(chat_id));
            self.send_next(chat_id);
        }
        self.resume_uploads();
    }

    fn on_error(
        &mut self,
        now: Instant,
        id: Option<&CommandName>,
        code: &str,
        retry_after_ms: Option<u64>,
    ) {
        let asked = self.followed.iter().find(|(_, one)| is_named(id, &one.id));
        let Some((&chat_id, _)) = asked else { return };
        match ErrorCode::parse(code) {
            Some(ErrorCode::ChatNotFound) => self.gone(chat_id, None, None),
            _ => {
                let pause = retry_after_ms.map_or(RESUBSCRIBE, Duration::from_millis);
                self.timers.set(Timer::Resubscribe(chat_id), now + pause);
            }
        }
    }

    fn apply_to_list(&mut self, frame: &ReceivedFrame) {
        if self.chats.apply(frame, self.me.as_ref()) {
            self.emit(Event::Chats);
        }
    }

    fn on_chat_frame(&mut self, chat_id: ChatId, frame: ReceivedFrame) {
        self.apply_to_list(&frame);
        let me = self.me.clone();
        let Some(timeline) = self.timelines.get_mut(&chat_id) else { return };
        match timeline.apply(&frame, me.as_ref()) {
            timeline::Taken::Old => {}
            timeline::Taken::Gap => self.resume(chat_id),
            timeline::Taken::News => {
                let left = left_as(&frame, me.as_ref());
                // Who joins anew may see other messages than before.
                let starts_over =
                    matches!(frame, ReceivedFrame::Reset { .. }) || has_joined(&frame, me.as_ref());
                self.emit(Event::Frame(Box::new(frame)));
                if left.is_some() {
                    self.gone(chat_id, None, left);
                } else if starts_over {
                    self.load_newest(chat_id);
                }
            }
        }
    }
}

/// The chat of a frame that belongs to a subscription.
fn placed(frame: &ReceivedFrame) -> Option<ChatId> {
    match frame {
        ReceivedFrame::ChatRead { chat_id, .. }
        | ReceivedFrame::Synced { chat_id, .. }
        | ReceivedFrame::Catchup { chat_id, .. }
        | ReceivedFrame::Reset { chat_id, .. } => Some(*chat_id),
        frame => frame.change().map(|(chat_id, _)| chat_id),
    }
}

/// How the user's own membership ended, where a frame says so.
fn left_as(frame: &ReceivedFrame, me: Option<&UserId>) -> Option<GoneReason> {
    match frame {
        ReceivedFrame::MemberLeft { user_id, reason, .. } if Some(user_id) == me => {
            Some(match reason {
                LeftReason::Left => GoneReason::Left,
                LeftReason::Banned => GoneReason::Banned,
                LeftReason::Removed | LeftReason::Erased => GoneReason::Removed,
            })
        }
        _ => None,
    }
}

fn has_joined(frame: &ReceivedFrame, me: Option<&UserId>) -> bool {
    let ReceivedFrame::MemberJoined { members, .. } = frame else { return false };
    members.iter().any(|member| Some(&member.user.user_id) == me)
}

fn is_named(id: Option<&CommandName>, name: &Option<String>) -> bool {
    matches!((id, name), (Some(CommandName::Text(id)), Some(name)) if id == name)
}
