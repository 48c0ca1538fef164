//! Limits, all local to a replica: a token bucket per user and class of request, one per address that is
//! checked before the token, and concurrency limits of sockets and of requests in flight.

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

/// `Retry-After` of a refused socket: sockets close slowly.
const SOCKET_WAIT: Duration = Duration::from_secs(5);

/// `Retry-After` of a user with too many requests in flight: a response takes milliseconds, unless its
/// client does not read it.
const REQUEST_WAIT: Duration = Duration::from_secs(1);

/// Most uploads that pass through a replica at once, of one user and of all: each one is a connection, a file and
/// some 300 KiB of memory.
const UPLOADS: (usize, usize) = (4, 256);

/// Size of a bucket, in seconds of its rate.
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

/// The state of a bucket, for the headers of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub limit: u32,
    pub remaining: u32,
    /// How long until the bucket is full again.
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

    /// Takes a token from a bucket. The error is the time until the next one.
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

    /// The state of a bucket that refused, for the headers of the refusal.
    fn spent(&self, retry_after: Duration) -> Allowance {
        let refill = Duration::from_secs(self.burst().into()) / self.per_second.get();
        // The next token is partly refilled already.
        let one = Duration::from_secs(1) / self.per_second.get();
        let reset = refill.saturating_sub(one) + retry_after;
        Allowance { limit: self.burst(), remaining: 0, reset }
    }

    /// Drops the buckets that are full again; otherwise one would stay for every user ever seen.
    fn forget_idle(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

/// Rate (a second) and burst of one socket's `typing`: each is published, and clients send one every few
/// seconds.
const TYPINGS: (u32, u32) = (5, 10);

/// Rate (a second) and burst of refused frames of one user's sockets: a client that exceeds it ignores
/// errors, and a refusal costs as much as the command, or a query. Per user, because a limit per socket
/// would restart with the next socket.
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

    /// Counts a command, or a ping or pong of WebSocket itself.
    pub fn check_command(&self) -> Result<(), Error> {
        Self::check(&self.commands)
    }

    /// Counts a `typing`, in addition to [`Self::check_command`].
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

/// All limits of a replica.
#[derive(Debug)]
pub struct Limits {
    /// `None` if limits are off.
    on: Option<On>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct On {
    users: [Limit<UserId>; 5],
    refusals: Limit<UserId>,
    addresses: Limit<IpAddr>,
    /// Includes sockets that are not authenticated yet.
    sockets: Arc<ConcurrencyLimit<IpAddr>>,
    requests: Arc<ConcurrencyLimit<UserId>>,
    uploads: Arc<ConcurrencyLimit<UserId>>,
    rate_commands: u32,
    subscriptions: usize,
}

/// The values of the metric's label `class`.
const REFUSED: [&str; 9] = [
    "sends",
    "reads",
    "rooms",
    "searches",
    "connects",
    "addresses",
    "sockets",
    "requests",
    "uploads",
];

impl Limits {
    pub fn new(config: &LimitConfig, metrics: Arc<Metrics>) -> Self {
        // A series that began with its first refusal would hide it from `rate()`.
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
            uploads: Arc::new(ConcurrencyLimit::new(UPLOADS.0, UPLOADS.1)),
            rate_commands: config.rate_commands,
            subscriptions: config.subscriptions_per_socket,
        });
        Self { on, metrics }
    }

    fn refuse(&self, class: &'static str, retry_after: Duration) -> Error {
        self.metrics.rate_limited.get_or_create(&ClassLabels { class }).inc();
        Error::RateLimited { retry_after }
    }

    /// Takes a token from the bucket of an address, before the request is authenticated.
    pub fn check_address(&self, address: IpAddr) -> Result<(), (Error, Allowance)> {
        let Some(on) = &self.on else { return Ok(()) };
        match on.addresses.take(&client_prefix(address)) {
            Ok(_) => Ok(()),
            Err(wait) => Err((self.refuse("addresses", wait), on.addresses.spent(wait))),
        }
    }

    /// Takes a permit for a new socket; `None` if limits are off.
    pub fn take_socket_permit(&self, address: IpAddr) -> Result<Option<Permit<IpAddr>>, Error> {
        let Some(on) = &self.on else { return Ok(None) };
        let permit = on.sockets.take(client_prefix(address));
        permit.map(Some).ok_or_else(|| self.refuse("sockets", SOCKET_WAIT))
    }

    /// Takes a permit for a request, to be held until its response is sent; `None` if limits are off.
    pub fn take_request_permit(&self, user: &UserId) -> Result<Option<Permit<UserId>>, Error> {
        let Some(on) = &self.on else { return Ok(None) };
        let permit = on.requests.take(user.clone());
        permit.map(Some).ok_or_else(|| self.refuse("requests", REQUEST_WAIT))
    }

    /// Takes a permit for an upload, to be held until its last byte; `None` if limits are off.
    pub fn take_upload_permit(&self, user: &UserId) -> Result<Option<Permit<UserId>>, Error> {
        let Some(on) = &self.on else { return Ok(None) };
        let permit = on.uploads.take(user.clone());
        permit.map(Some).ok_or_else(|| self.refuse("uploads", REQUEST_WAIT))
    }

    /// Whether a socket with `following` subscriptions may add one.
    pub fn may_follow(&self, following: usize) -> bool {
        self.on.as_ref().is_none_or(|on| following < on.subscriptions)
    }

    /// Takes a token from the user's bucket; `None` if limits are off.
    pub fn check(&self, user: &UserId, class: Class) -> Result<Option<Allowance>, Error> {
        let Some(on) = &self.on else { return Ok(None) };
        let allowance = on.users[class as usize].take(user);
        allowance.map(Some).map_err(|wait| self.refuse(class.name(), wait))
    }

    /// Counts a refused frame. Returns false once the user's refusal budget is spent: the socket is to be
    /// closed.
    pub fn take_refusal(&self, user: &UserId) -> bool {
        self.on.as_ref().is_none_or(|on| on.refusals.take(user).is_ok())
    }

    /// Makes the buckets of a new socket; `None` if limits are off.
    pub fn socket(&self) -> Option<SocketLimits> {
        self.on.as_ref().map(|on| SocketLimits::new(on.rate_commands))
    }

    /// The state of a user's bucket that refused, for the headers of the refusal.
    pub fn spent(&self, class: Class, retry_after: Duration) -> Option<Allowance> {
        self.on.as_ref().map(|on| on.users[class as usize].spent(retry_after))
    }

    /// Drops the buckets that are full again.
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
