//! Where a client decides, without I/O and without a clock of its own.
//!
//! A [`Machine`] is told what came (frames, answers, closes, the time) and says what to do next
//! ([`Effect`]). [`Client`](crate::Client) does it over a network; the protocol's test vectors do it by
//! script.

mod chats;
mod connection;
mod effects;
mod frames;
mod messages;
mod outbox;
mod subscriptions;
mod timeline;
mod timers;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use beseda_protocol::{
    ClientFrame, ErrorCode,
    model::{ChatId, UserId},
};

pub use self::{
    chats::{ChatList, Moment},
    connection::State,
    effects::{Answer, Call, Effect, Event},
    outbox::Pending,
    timeline::{Entry, Position, Timeline},
};
use self::{connection::Phase, subscriptions::Subscription, timers::Timers};
use crate::{Closed, Error};

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
    /// Whether the credentials can give another token.
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
            self.gone(chat_id, None);
        }
    }

    /// Neither connected, nor trying to, nor about to try.
    fn is_not_begun(&self) -> bool {
        matches!(self.state(), State::Idle | State::Waiting { .. } | State::TokenRefused { .. })
            && !self.timers.contains(Timer::Reconnect)
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
}
