//! Phases of a connection, the pauses between its attempts, and what a machine does for it.

use std::time::{Duration, Instant};

use beseda_protocol::{Close, CloseAction, ErrorCode};

use super::{Effect, Event, Machine, Timer, Upload};
use crate::{Closed, Error};

/// The shortest back-off, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A socket that lived this long was healthy: the next failure starts the back-off anew.
const HEALTHY: Duration = Duration::from_secs(5);

/// Failures that a socket closed for its rate counts as: the next pause is 2 s or more.
const RATE_LIMITED_FAILURES: u32 = 3;

/// A token is replaced this long before its end, or in the middle of its life if that is later.
const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// A token is used this long at least, however short the host application makes its life.
const LEAST_TOKEN_LIFE: Duration = Duration::from_secs(1);

/// How a client is connected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Idle,
    Connecting,
    Live,
    /// The connection was lost, for the reason `why`; the next attempt comes at `until`.
    Waiting {
        why: String,
        until: Instant,
    },
    /// No token is taken any more: [`Credentials::set`](crate::Credentials::set) another one.
    TokenRefused {
        why: String,
    },
    /// Another attempt would end in the same way: a close code, or the status of a refused ticket.
    Stopped {
        code: u16,
        why: String,
    },
}

/// What a close asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Stop,
    RenewNow,
    RenewLater,
    Retry,
}

/// Doubles from half a second to half a minute. The upper half is random, so that clients dropped
/// together do not come back together. `failures` in a row, from 0.
pub(super) fn backoff(failures: u32, random: fn() -> f64) -> Duration {
    let ceiling = (BACKOFF.0 * 2_u32.pow(failures.min(10))).min(BACKOFF.1);
    ceiling.mul_f64(0.5 + random() / 2.0)
}

#[derive(Debug, Default)]
pub(super) struct Phase {
    state: State,
    attempt: u64,
    failures: u32,
    /// Tokens or tickets refused one after another.
    refusals: u32,
    live_since: Option<Instant>,
    /// When the server asked to come back.
    promised: Option<Duration>,
    renew: bool,
}

impl Phase {
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn set(&mut self, state: State) {
        self.state = state;
    }

    pub(super) fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Another attempt; what the one before still has under way no longer counts.
    pub(super) fn begin(&mut self) -> u64 {
        self.attempt += 1;
        self.live_since = None;
        self.attempt
    }

    pub(super) fn live(&mut self, now: Instant) {
        self.refusals = 0;
        self.live_since = Some(now);
    }

    pub(super) fn promise(&mut self, pause: Duration) {
        self.promised = Some(pause);
    }

    pub(super) fn take_promised(&mut self) -> Option<Duration> {
        self.promised.take()
    }

    /// Whether the attempt that is due begins with another token.
    pub(super) fn takes_renewal(&mut self) -> bool {
        std::mem::take(&mut self.renew)
    }

    pub(super) fn closed(&mut self, now: Instant, code: u16) -> Next {
        if self.live_since.take().is_some_and(|since| now.duration_since(since) >= HEALTHY) {
            self.failures = 0;
        }
        match Close::action(code) {
            CloseAction::Stop => Next::Stop,
            CloseAction::Renew => {
                self.refusals += 1;
                if self.refusals == 1 { Next::RenewNow } else { Next::RenewLater }
            }
            CloseAction::Retry => {
                if code == Close::RateLimited.code() {
                    self.failures = self.failures.max(RATE_LIMITED_FAILURES);
                }
                Next::Retry
            }
        }
    }

    /// How long to wait before the next attempt: as asked, else by the number of failures.
    pub(super) fn pause(
        &mut self,
        asked: Option<Duration>,
        renew: bool,
        random: fn() -> f64,
    ) -> Duration {
        let pause = asked.unwrap_or_else(|| backoff(self.failures, random));
        self.failures += 1;
        self.renew = renew;
        pause
    }
}

impl Machine {
    /// Asks for a ticket and a socket; with `renew` for another token first.
    pub(super) fn connect(&mut self, renew: bool) {
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
        // Their replica may be frozen, which a call would notice late. They go on with the next connection.
        self.halt_uploads(Upload::can_go_on);
        match self.phase.closed(now, *code) {
            Next::Stop => self.stopped(*code, why),
            // The first time at once: perhaps only the ticket was stale.
            Next::RenewNow => self.connect(true),
            Next::RenewLater if self.settings.can_renew => {
                self.retry(now, why, None, true);
            }
            Next::RenewLater => self.set_state(State::TokenRefused { why }),
            Next::Retry => {
                let promised = self.phase.take_promised();
                self.retry(now, why, promised, false);
            }
        }
    }

    pub(super) fn retry(
        &mut self,
        now: Instant,
        why: String,
        asked: Option<Duration>,
        renew: bool,
    ) {
        let pause = self.phase.pause(asked, renew, self.settings.random);
        self.timers.set(Timer::Reconnect, now + pause);
        self.set_state(State::Waiting { why, until: now + pause });
    }

    pub(super) fn stopped(&mut self, code: u16, why: String) {
        self.set_state(State::Stopped { code, why });
        if let (4004, Some(chat_id)) = (code, self.settings.only) {
            let reason = self.gone_as.take();
            self.gone(chat_id, None, reason);
        }
    }

    pub(super) fn on_token_expiring(&mut self, now: Instant, expires_in: i64) {
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

    /// Neither connected, nor trying to, nor about to try.
    pub(super) fn is_not_begun(&self) -> bool {
        matches!(self.state(), State::Idle | State::Waiting { .. } | State::TokenRefused { .. })
            && !self.timers.contains(Timer::Reconnect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_never_come_in_step() {
        let pauses = |random| [0, 1, 3, 6, 40].map(|n| backoff(n, random).as_millis());
        assert_eq!(pauses(|| 1.0), [500, 1_000, 4_000, 30_000, 30_000]);
        assert_eq!(pauses(|| 0.0), [250, 500, 2_000, 15_000, 15_000]);
    }

    #[test]
    fn a_token_refused_again_is_not_asked_for_in_a_loop_and_a_healthy_socket_forgets() {
        let (mut phase, now) = (Phase::default(), Instant::now());
        assert_eq!(phase.closed(now, 4101), Next::RenewNow);
        assert_eq!(phase.closed(now, 4102), Next::RenewLater);
        phase.live(now);
        assert_eq!(phase.closed(now, 4101), Next::RenewNow);
        phase.pause(None, false, || 1.0);
        assert_eq!(phase.pause(None, false, || 1.0), Duration::from_secs(1));
        phase.live(now);
        assert_eq!(phase.closed(now + HEALTHY, 1006), Next::Retry);
        assert_eq!(phase.pause(None, false, || 1.0), Duration::from_millis(500));
        assert_eq!(phase.closed(now, 4204), Next::Retry);
        assert_eq!(phase.pause(None, false, || 0.0), Duration::from_secs(2));
    }
}
