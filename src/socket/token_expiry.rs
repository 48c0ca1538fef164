//! The end of a socket's token, and the notice before it.

use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, End, Flow};
use crate::{
    model::Time,
    protocol::{Close, ServerFrame},
};

/// How long before a token's expiry the client is told, at most: enough for an application that has
/// to wake up first.
const NOTICE: Duration = Duration::from_secs(60);

/// Divisor of a token's lifetime that bounds the notice of short tokens: without it a token of one
/// minute would be announced as soon as it is issued.
const NOTICE_PART: u32 = 3;

/// Minimum pause between two notices: an application that sends the same token again would be asked
/// without end.
const PAUSE: Duration = Duration::from_secs(5);

pub(super) struct TokenExpiry {
    /// Seconds since 1970.
    expires_at: i64,
    /// How long a token is accepted after its expiry.
    leeway: Duration,
    /// How long before the expiry the client is told.
    notice: Duration,
    told: bool,
    /// When the client was last told, for any token.
    last_notice: Option<Instant>,
    /// Cached result of [`Self::due`].
    due: Option<Instant>,
}

/// What a deadline asks for.
enum Expiry {
    NotYet,
    /// The client has to be told, with the seconds that are left.
    Notice {
        expires_in: i64,
    },
    Expired,
}

impl TokenExpiry {
    pub(super) fn new(issued_at: Option<Time>, expires_at: i64, leeway: Duration) -> Self {
        let notice = notice(issued_at, expires_at);
        Self { expires_at, leeway, notice, told: false, last_notice: None, due: None }
    }

    /// Takes a newer token's times.
    pub(super) fn renew(&mut self, issued_at: Option<Time>, expires_at: i64) {
        let last_notice = self.last_notice;
        *self = Self { last_notice, ..Self::new(issued_at, expires_at, self.leeway) };
    }

    pub(super) fn expires_at(&self) -> Time {
        Time(jiff::Timestamp::from_second(self.expires_at).unwrap_or(jiff::Timestamp::MAX))
    }

    /// The next deadline: the notice, then the expiry.
    pub(super) fn due(&mut self) -> Instant {
        if let Some(due) = self.due {
            return due;
        }
        let end = seconds_until(self.end());
        let wait = if self.told {
            end
        } else {
            let notice = seconds_until(self.expires_at).saturating_sub(self.notice);
            notice.max(self.pause()).min(end)
        };
        // At most a day: a distant expiry overflows an Instant, and the clock may be set.
        *self.due.insert(Instant::now() + wait.min(Duration::from_secs(86_400)))
    }

    /// Computes the deadline anew: a token expires by the wall clock, which may have been set.
    pub(super) fn recheck(&mut self) {
        self.due = None;
    }

    /// What to do at a deadline.
    fn on_due(&mut self) -> Expiry {
        self.due = None;
        if seconds_until(self.end()).is_zero() {
            return Expiry::Expired;
        }
        let left = seconds_until(self.expires_at);
        if self.told || left > self.notice || !self.pause().is_zero() {
            return Expiry::NotYet;
        }
        self.told = true;
        self.last_notice = Some(Instant::now());
        // Rounded up, so that 59.999 s is sent as 60.
        Expiry::Notice { expires_in: left.as_millis().div_ceil(1_000).try_into().unwrap_or(0) }
    }

    /// `exp` plus the leeway, in seconds since 1970.
    fn end(&self) -> i64 {
        self.expires_at.saturating_add(self.leeway.as_secs().cast_signed())
    }

    /// The time left until the client may be told again.
    fn pause(&self) -> Duration {
        self.last_notice.map_or(Duration::ZERO, |at| PAUSE.saturating_sub(at.elapsed()))
    }
}

/// How long before a token's expiry the client is told. Without `iat` its lifetime counts from now.
fn notice(issued_at: Option<Time>, expires_at: i64) -> Duration {
    let life = match issued_at {
        Some(Time(at)) => expires_at.saturating_sub(at.as_second()),
        None => i64::try_from(seconds_until(expires_at).as_secs()).unwrap_or(i64::MAX),
    };
    let life = Duration::from_secs(u64::try_from(life).unwrap_or(0));
    NOTICE.min(life / NOTICE_PART)
}

fn seconds_until(moment: i64) -> Duration {
    let now = jiff::Timestamp::now().as_millisecond();
    let left = moment.saturating_mul(1_000).saturating_sub(now);
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

impl Connection {
    pub(super) fn on_expiry(&mut self) -> Flow {
        match self.token_expiry.on_due() {
            Expiry::NotYet => {}
            Expiry::Notice { expires_in } => {
                self.out.push(ServerFrame::TokenExpiring { expires_in }.encode());
            }
            Expiry::Expired => return Err(End::Close(Close::TokenExpired)),
        }
        Ok(())
    }
}
