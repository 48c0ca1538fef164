//! Limits, all local to a replica: a token bucket per user and class of request, one per address
//! before anybody's token is looked at, and places for sockets and for requests under way.

mod concurrency;

use std::{hash::Hash, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter, clock::DefaultClock,
    middleware::StateInformationMiddleware, state::keyed::DefaultKeyedStateStore,
};

use self::concurrency::ConcurrencyLimit;
pub use self::concurrency::Permit;
use crate::{
    config::{LimitConfig, Switch},
    error::Error,
    metrics::{ClassLabels, Metrics},
    model::UserId,
    net::client_prefix,
};

/// When a client without a place for its socket may try again: others leave by and by.
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// When a user whose requests under way are too many may try again: answers take milliseconds, unless
/// nobody takes them.
const REQUEST_WAIT: Duration = Duration::from_secs(1);

/// How many seconds' worth of requests may come at once.
const BURST_SECONDS: u32 = 10;

/// Kinds of requests that share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Sends,
    Reads,
    Rooms,
    Searches,
    Connects,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Sends => "sends",
            Self::Reads => "reads",
            Self::Rooms => "rooms",
            Self::Searches => "searches",
            Self::Connects => "connects",
        }
    }
}

/// What an answer says of the bucket it was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub limit: u32,
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
}

type Buckets<K> =
    RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

#[derive(Debug)]
struct Limit<K: Clone + Eq + Hash> {
    buckets: Buckets<K>,
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl<K: Clone + Eq + Hash> Limit<K> {
    fn new(per_second: u32) -> Self {
        Self::with_burst((per_second, per_second.saturating_mul(BURST_SECONDS)))
    }

    fn with_burst((per_second, burst): (u32, u32)) -> Self {
        let [per_second, burst] =
            [per_second, burst].map(|number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            buckets: RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>(),
            per_second,
            burst,
        }
    }

    fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// Takes one from a bucket; the error is how long to wait for the next.
    fn take(&self, key: &K) -> Result<Allowance, Duration> {
        match self.buckets.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let missing = self.burst().saturating_sub(remaining);
                let reset = f64::from(missing) / f64::from(self.per_second.get());
                let reset = Duration::from_secs_f64(reset);
                Ok(Allowance { limit: self.burst(), remaining, reset })
            }
            Err(refused) => {
                Err(refused.wait_time_from(governor::clock::Clock::now(&DefaultClock::default())))
            }
        }
    }

    /// What a refusal says of its bucket.
    fn spent(&self, retry_after: Duration) -> Allowance {
        let refill = Duration::from_secs(self.burst().into()) / self.per_second.get();
        // All but what is there of the next one already.
        let one = Duration::from_secs(1) / self.per_second.get();
        let reset = refill.saturating_sub(one) + retry_after;
        Allowance { limit: self.burst(), remaining: 0, reset }
    }

    /// Forgets the buckets that are full again; without this, one stays for everybody ever seen.
    fn forget_idle(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

/// How many `typing` a second of one socket, and how many at once: each is told to others, and
/// clients say it every few seconds.
const TYPINGS: (u32, u32) = (5, 10);

/// How many refused frames a second of one user's sockets, and how many at once: whoever goes on through
/// these does not listen, and each refusal costs as much as what it refuses, or a look into the
/// database. Not of one socket, as the next one would begin anew.
const REFUSALS: (u32, u32) = (1, 100);

/// One socket's own buckets.
#[derive(Debug)]
pub struct SocketLimits {
    commands: DefaultDirectRateLimiter,
    typings: DefaultDirectRateLimiter,
}

impl SocketLimits {
    fn new(rate_commands: u32) -> Self {
        let limiter = |(rate, burst): (u32, u32)| {
            let part = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(part(rate)).allow_burst(part(burst)))
        };
        let commands = (rate_commands, rate_commands.saturating_mul(BURST_SECONDS));
        Self { commands: limiter(commands), typings: limiter(TYPINGS) }
    }

    /// Any command, and any of WebSocket's own pings and pongs.
    pub fn check_command(&self) -> Result<(), Error> {
        Self::check(&self.commands)
    }

    /// A `typing`, on top.
    pub fn check_typing(&self) -> Result<(), Error> {
        Self::check(&self.typings)
    }

    fn check(limiter: &DefaultDirectRateLimiter) -> Result<(), Error> {
        limiter.check().map_err(|refused| {
            let now = governor::clock::Clock::now(&DefaultClock::default());
            Error::RateLimited { retry_after: refused.wait_time_from(now) }
        })
    }
}

/// All buckets of a replica; `None` inside where limits are off.
#[derive(Debug)]
pub struct Limits {
    on: Option<On>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct On {
    users: [Limit<UserId>; 5],
    refusals: Limit<UserId>,
    addresses: Limit<IpAddr>,
    /// Of sockets, those that have not said who they are included.
    sockets: Arc<ConcurrencyLimit<IpAddr>>,
    requests: Arc<ConcurrencyLimit<UserId>>,
    rate_commands: u32,
    subscriptions: usize,
}

/// What refusals are counted by.
const REFUSED: [&str; 8] =
    ["sends", "reads", "rooms", "searches", "connects", "addresses", "sockets", "requests"];

impl Limits {
    pub fn new(config: &LimitConfig, metrics: Arc<Metrics>) -> Self {
        // There from the start: a rate over a series that begins with its first refusal misses it.
        for class in REFUSED {
            drop(metrics.rate_limited.get_or_create(&ClassLabels { class }));
        }
        let users = [
            config.rate_sends,
            config.rate_reads,
            config.rate_rooms,
            config.rate_searches,
            config.rate_connects,
        ];
        let on = (config.rate_limits == Switch::On).then(|| On {
            users: users.map(Limit::new),
            refusals: Limit::with_burst(REFUSALS),
            addresses: Limit::new(config.rate_addresses),
            sockets: Arc::new(ConcurrencyLimit::new(config.sockets_per_address, config.sockets)),
            requests: Arc::new(ConcurrencyLimit::new(config.requests_per_user, usize::MAX)),
            rate_commands: config.rate_commands,
            subscriptions: config.subscriptions_per_socket,
        });
        Self { on, metrics }
    }

    fn refuse(&self, class: &'static str, retry_after: Duration) -> Error {
        self.metrics.rate_limited.get_or_create(&ClassLabels { class }).inc();
        Error::RateLimited { retry_after }
    }

    /// Takes one from the bucket of an address, before it is known who asks.
    pub fn check_address(&self, address: IpAddr) -> Result<(), (Error, Allowance)> {
        let Some(on) = &self.on else { return Ok(()) };
        match on.addresses.take(&client_prefix(address)) {
            Ok(_) => Ok(()),
            Err(wait) => Err((self.refuse("addresses", wait), on.addresses.spent(wait))),
        }
    }

    /// A new socket's place; `None` where limits are off.
    pub fn take_socket_permit(&self, address: IpAddr) -> Result<Option<Permit<IpAddr>>, Error> {
        let Some(on) = &self.on else { return Ok(None) };
        let place = on.sockets.take(client_prefix(address));
        place.map(Some).ok_or_else(|| self.refuse("sockets", PLACE_WAIT))
    }

    /// The place of a request under way, to be kept until its answer is taken; `None` where limits are
    /// off.
    pub fn take_request_permit(&self, user: &UserId) -> Result<Option<Permit<UserId>>, Error> {
        let Some(on) = &self.on else { return Ok(None) };
        let place = on.requests.take(user.clone());
        place.map(Some).ok_or_else(|| self.refuse("requests", REQUEST_WAIT))
    }

    /// Whether a socket that follows so many chats may follow one more.
    pub fn may_follow(&self, following: usize) -> bool {
        self.on.as_ref().is_none_or(|on| following < on.subscriptions)
    }

    /// Takes one from the user's bucket; `None` where limits are off.
    pub fn check(&self, user: &UserId, class: Class) -> Result<Option<Allowance>, Error> {
        let Some(on) = &self.on else { return Ok(None) };
        let allowance = on.users[class as usize].take(user);
        allowance.map(Some).map_err(|wait| self.refuse(class.name(), wait))
    }

    /// Counts a frame that was refused, for whatever the client did wrong; false: so many of this user's
    /// were that the socket is to be closed.
    pub fn take_refusal(&self, user: &UserId) -> bool {
        self.on.as_ref().is_none_or(|on| on.refusals.take(user).is_ok())
    }

    /// A new socket's buckets; `None` where limits are off.
    pub fn socket(&self) -> Option<SocketLimits> {
        self.on.as_ref().map(|on| SocketLimits::new(on.rate_commands))
    }

    /// What a refusal says of its bucket.
    pub fn spent(&self, class: Class, retry_after: Duration) -> Option<Allowance> {
        self.on.as_ref().map(|on| on.users[class as usize].spent(retry_after))
    }

    /// Forgets the buckets that are full again.
    pub fn forget_idle(&self) {
        if let Some(on) = &self.on {
            on.users.iter().for_each(Limit::forget_idle);
            on.refusals.forget_idle();
            on.addresses.forget_idle();
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        limits: LimitConfig,
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).expect("a valid id")
    }

    #[test]
    fn a_burst_passes_then_the_user_waits_and_others_do_not() {
        let config = Cli::parse_from(["t", "--rate-sends", "1"]).limits;
        let limits = Limits::new(&config, Arc::default());
        for left in (0..BURST_SECONDS).rev() {
            let allowance = limits.check(&user("a"), Class::Sends).expect("within the burst");
            assert_eq!(allowance.map(|a| a.remaining), Some(left));
        }
        match limits.check(&user("a"), Class::Sends) {
            Err(Error::RateLimited { retry_after }) => {
                assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(1));
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
        assert!(limits.check(&user("b"), Class::Sends).is_ok());
        assert!(limits.check(&user("a"), Class::Reads).is_ok());
    }

    #[test]
    fn off_means_off() {
        let config = Cli::parse_from(["t", "--rate-limits", "off", "--rate-sends", "1"]).limits;
        let limits = Limits::new(&config, Arc::default());
        assert!((0..100).all(|_| limits.check(&user("a"), Class::Sends).is_ok()));
    }
}
