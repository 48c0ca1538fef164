//! Where a client decides, without I/O and without a clock of its own.
//!
//! A [`Machine`] is told what came (frames, answers, closes, the time) and says what to do next
//! ([`Effect`]). [`Client`](crate::Client) does it over a network; the protocol's test vectors do it by
//! script.

mod carried;
mod chats;
mod connection;
mod effects;
mod frames;
mod messages;
mod outbox;
mod retries;
mod timeline;
mod timers;
mod uploads;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use beseda_protocol::{
    ClientFrame,
    frame::GoneReason,
    model::{ChatId, UserId},
};

pub(crate) use self::uploads::takes_parts;
pub use self::{
    chats::{ChatList, Moment},
    connection::State,
    effects::{Answer, Call, Effect, Event},
    outbox::Pending,
    timeline::{Entry, Position, Timeline},
    uploads::{Brought, Upload, UploadPhase, UploadStep},
};
use self::{connection::Phase, frames::Subscription, timers::Timers};

/// A pause before what has to succeed is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// What a machine is made for.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Follow this one chat over a socket of its own, instead of many with the inbox.
    pub only: Option<ChatId>,
    /// Messages of a chat's first page, 1 to 100; `None`: the server's own choice.
    pub page: Option<u8>,
    /// Attempts over a working connection before a message counts as failed; a file has 8 at least.
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
    Upload(u64),
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
    /// Uploads so far, which names them.
    uploads: u64,
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
            uploads: 0,
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
        self.halt_uploads(|_| true);
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
        self.resume_uploads();
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
                Timer::Upload(_) => self.start_uploads(),
                Timer::Mark(chat_id) => self.mark_next(chat_id),
            }
        }
    }

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

    fn transmit(&mut self, frame: &ClientFrame<'_>) {
        self.effects.push_back(Effect::Transmit(frame.encode()));
    }

    fn next_id(&mut self, what: &str) -> String {
        self.commands += 1;
        format!("{what}:{}", self.commands)
    }
}
