//! Where a client decides, without I/O and without a clock of its own.
//!
//! A [`Machine`] is told what came (frames, answers, closes, the time) and says what to do next
//! ([`Effect`]). [`Client`](crate::Client) does it over a network; the protocol's test vectors do it by
//! script.

mod carried;
mod chats;
mod connection;
mod effects;
mod messages;
mod outbox;
mod timeline;
mod timers;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use beseda_protocol::{
    ClientFrame, ErrorCode, ReceivedFrame,
    frame::{CommandName, GoneReason},
    model::{ChatId, LeftReason, UserId},
};

pub use self::{
    chats::{ChatList, Moment},
    connection::State,
    effects::{Answer, Call, Effect, Event},
    outbox::Pending,
    timeline::{Entry, Position, Timeline},
};
use self::{connection::Phase, timers::Timers};
use crate::{Closed, Error};

/// A subscription that the server refused for now is asked for again after this.
const RESUBSCRIBE: Duration = Duration::from_secs(5);

/// A pause before what has to succeed is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// A token is replaced this long before its end, or in the middle of its life if that is later.
const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// A token is used this long at least, however short the host application makes its life.
const LEAST_TOKEN_LIFE: Duration = Duration::from_secs(1);

/// What a machine is made for.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Follow this one chat over a socket of its own, instead of many with the inbox.
    pub only: Option<ChatId>,
    /// Messages of a chat's first page, 1 to 100; `None`: the server's own choice.
    pub page: Option<u8>,
    /// Attempts over a working connection before a message counts as failed.
    pub attempts: u32,
    /// Whether there is somebody to ask for another token.
    pub can_renew: bool,
    /// A number from 0 to 1, for jitter.
    pub random: fn() -> f64,
}

/// What is to be done at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Timer {
    Reconnect,
    List,
    Renew,
    Resubscribe(ChatId),
    History(ChatId),
    Outbox(ChatId),
    Mark(ChatId),
}

/// A followed chat's subscription. Until the server confirms the latest one, what comes is of an older.
#[derive(Debug, Default)]
struct Subscription {
    /// Of the latest `subscribe`.
    id: Option<String>,
    confirmed: bool,
}

/// One user's client, as a state machine.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    me: Option<UserId>,
    phase: Phase,
    chats: ChatList,
    timelines: BTreeMap<ChatId, Timeline>,
    followed: BTreeMap<ChatId, Subscription>,
    timers: Timers<Timer>,
    effects: VecDeque<Effect>,
    /// Names of commands, counted.
    commands: u64,
    reading_list: bool,
    read_list_again: bool,
    /// Why the one chat is the user's no longer, as its socket said before its close.
    gone_as: Option<GoneReason>,
    /// Since when the token is in use; `None` until a socket opens with it.
    token_since: Option<Instant>,
}

impl Machine {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            me: None,
            phase: Phase::default(),
            chats: ChatList::default(),
            timelines: BTreeMap::new(),
            followed: BTreeMap::new(),
            timers: Timers::default(),
            effects: VecDeque::new(),
            commands: 0,
            reading_list: false,
            read_list_again: false,
            gone_as: None,
            token_since: None,
        }
    }

    /// What is to be done next; nothing, until something else comes.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Machine::on_time`] is to be called, if nothing comes before.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub fn state(&self) -> &State {
        self.phase.state()
    }

    /// One's own id, known from the first `hello` on.
    pub fn me(&self) -> Option<&UserId> {
        self.me.as_ref()
    }

    /// The list of chats; empty where only one is followed.
    pub fn chats(&self) -> &ChatList {
        &self.chats
    }

    /// What is known of a chat that was opened.
    pub fn timeline(&self, chat_id: ChatId) -> Option<&Timeline> {
        self.timelines.get(&chat_id)
    }

    /// Connects, and stays connected.
    pub fn start(&mut self) {
        match self.settings.only {
            // Its socket begins where the history ends.
            Some(chat_id) => self.open(chat_id),
            None => {
                self.connect(false);
                self.read_list();
            }
        }
    }

    /// Ends the connection: [`State::Idle`] comes once it has said goodbye. Messages that were not sent
    /// stay, and go out after another [`Machine::start`].
    pub fn stop(&mut self) {
        self.timers.clear();
        self.effects.push_back(Effect::Disconnect);
        self.set_state(State::Idle);
    }

    /// There is no reason to wait any longer: the network or the token is back.
    pub fn wake(&mut self) {
        if matches!(self.state(), State::Waiting { .. } | State::TokenRefused { .. }) {
            match self.settings.only {
                // Its socket begins where the history ends.
                Some(chat_id) if !self.followed.contains_key(&chat_id) => self.load_newest(chat_id),
                _ => self.connect(false),
            }
        }
        let chats: Vec<ChatId> = self.timelines.keys().copied().collect();
        chats.into_iter().for_each(|chat_id| self.send_next(chat_id));
    }

    /// The time has come.
    pub fn on_time(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Reconnect => {
                    let renew = self.phase.takes_renewal();
                    self.connect(renew);
                }
                Timer::List => self.read_list(),
                Timer::Renew => self.call(Call::Renew),
                Timer::Resubscribe(chat_id) => self.subscribe(chat_id),
                Timer::History(chat_id) => self.load_newest(chat_id),
                Timer::Outbox(chat_id) => self.send_next(chat_id),
                Timer::Mark(chat_id) => self.mark_next(chat_id),
            }
        }
    }

    // ---- the connection ----

    fn set_state(&mut self, state: State) {
        self.phase.set(state.clone());
        self.emit(Event::State(state));
    }

    fn emit(&mut self, event: Event) {
        self.effects.push_back(Effect::Emit(Box::new(event)));
    }

    fn call(&mut self, call: Call) {
        self.effects.push_back(Effect::Call(call));
    }

    /// Asks for a ticket and a socket; with `renew` for another token first.
    fn connect(&mut self, renew: bool) {
        self.timers.cancel(Timer::Reconnect);
        if renew {
            self.timers.cancel(Timer::Renew);
            self.token_since = None;
        }
        self.effects.push_back(Effect::Disconnect);
        let attempt = self.phase.begin();
        self.set_state(State::Connecting);
        let only = self.settings.only;
        let position = only.and_then(|chat_id| self.timelines.get(&chat_id)?.position());
        self.effects.push_back(Effect::Connect { attempt, renew, only, position });
    }

    /// The attempt of that number gave no socket.
    pub fn on_refused(&mut self, now: Instant, attempt: u64, error: &Error) {
        if attempt != self.phase.attempt() {
            return;
        }
        let why = error.detail.clone();
        if error.is_unauthenticated() {
            self.set_state(State::TokenRefused { why });
        } else if error.is_temporary() {
            self.retry(now, why, error.retry_after, false);
        } else {
            let gone = error.known() == Some(ErrorCode::ChatNotFound);
            self.stopped(if gone { 4004 } else { error.status }, why);
        }
    }

    /// The socket of the latest attempt ended.
    pub fn on_closed(&mut self, now: Instant, closed: &Closed) {
        let Closed { code, reason } = closed;
        let why = format!("{reason} ({code})");
        match self.phase.closed(now, *code) {
            connection::Next::Stop => self.stopped(*code, why),
            // The first time at once: perhaps only the ticket was stale.
            connection::Next::RenewNow => self.connect(true),
            connection::Next::RenewLater if self.settings.can_renew => {
                self.retry(now, why, None, true);
            }
            connection::Next::RenewLater => self.set_state(State::TokenRefused { why }),
            connection::Next::Retry => {
                let promised = self.phase.take_promised();
                self.retry(now, why, promised, false);
            }
        }
    }

    fn retry(&mut self, now: Instant, why: String, asked: Option<Duration>, renew: bool) {
        let pause = self.phase.pause(asked, renew, self.settings.random);
        self.timers.set(Timer::Reconnect, now + pause);
        self.set_state(State::Waiting { why, until: now + pause });
    }

    fn stopped(&mut self, code: u16, why: String) {
        self.set_state(State::Stopped { code, why });
        if let (4004, Some(chat_id)) = (code, self.settings.only) {
            let reason = self.gone_as.take();
            self.gone(chat_id, None, reason);
        }
    }

    fn on_token_expiring(&mut self, now: Instant, expires_in: i64) {
        self.emit(Event::TokenExpiring { expires_in });
        if !self.settings.can_renew {
            return;
        }
        let age = self.token_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let left = Duration::from_secs(u64::try_from(expires_in).unwrap_or(0));
        let margin = RENEWAL_MARGIN.min((age + left) / 2);
        let pause = left.saturating_sub(margin).max(LEAST_TOKEN_LIFE.saturating_sub(age));
        self.timers.set(Timer::Renew, now + pause);
    }

    fn transmit(&mut self, frame: &ClientFrame<'_>) {
        self.effects.push_back(Effect::Transmit(frame.encode()));
    }

    fn next_id(&mut self, what: &str) -> String {
        self.commands += 1;
        format!("{what}:{}", self.commands)
    }

    // ---- subscriptions ----

    fn follow(&mut self, chat_id: ChatId) {
        self.followed.entry(chat_id).or_default();
        match self.settings.only {
            None => self.subscribe(chat_id),
            // The first page was waited for.
            Some(_) if self.is_not_begun() => self.connect(false),
            Some(_) => {}
        }
    }

    /// Neither connected, nor trying to, nor about to try.
    fn is_not_begun(&self) -> bool {
        matches!(self.state(), State::Idle | State::Waiting { .. } | State::TokenRefused { .. })
            && !self.timers.contains(Timer::Reconnect)
    }

    fn unfollow(&mut self, chat_id: ChatId) {
        self.timers.cancel(Timer::Resubscribe(chat_id));
        if self.followed.remove(&chat_id).is_some() && self.settings.only.is_none() {
            self.unsubscribe(chat_id);
        }
    }

    fn unsubscribe(&mut self, chat_id: ChatId) {
        let id = self.next_id("unsubscribe");
        self.transmit(&ClientFrame::Unsubscribe { id: &id, chat_id });
    }

    fn subscribe(&mut self, chat_id: ChatId) {
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
    fn gone(&mut self, chat_id: ChatId, total_unread: Option<i64>, reason: Option<GoneReason>) {
        self.unfollow(chat_id);
        let was_open = self.timelines.remove(&chat_id).is_some();
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
            // A pause that the lost connection made is over.
            if self.timers.cancel(Timer::Outbox(chat_id)) {
                self.send_next(chat_id);
            }
        }
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
