//! Rate limits: a token bucket per user and class of request, local to a replica.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter, clock::DefaultClock,
    middleware::StateInformationMiddleware, state::keyed::DefaultKeyedStateStore,
};

use crate::{
    config::{LimitConfig, Switch},
    error::Error,
    metrics::{ClassLabels, Metrics},
    model::UserId,
};

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

type Buckets =
    RateLimiter<UserId, DefaultKeyedStateStore<UserId>, DefaultClock, StateInformationMiddleware>;

#[derive(Debug)]
struct Limit {
    buckets: Buckets,
    per_second: NonZeroU32,
}

impl Limit {
    fn new(per_second: u32) -> Self {
        let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            buckets: RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>(),
            per_second,
        }
    }
}

/// Commands a second of one socket, and how many may come at once: many times what a person or an
/// eager program sends.
const COMMANDS: (u32, u32) = (50, 500);

/// The same for `typing`, each of which is told to others: clients say it every few seconds.
const TYPINGS: (u32, u32) = (5, 10);

/// One socket's own buckets.
#[derive(Debug)]
pub struct SocketLimits {
    commands: DefaultDirectRateLimiter,
    typings: DefaultDirectRateLimiter,
}

impl SocketLimits {
    fn new() -> Self {
        let limiter = |(rate, burst): (u32, u32)| {
            let part = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(part(rate)).allow_burst(part(burst)))
        };
        Self { commands: limiter(COMMANDS), typings: limiter(TYPINGS) }
    }

    /// Any command.
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
    all: Option<[Limit; 5]>,
    metrics: Arc<Metrics>,
}

impl Limits {
    pub fn new(config: &LimitConfig, metrics: Arc<Metrics>) -> Self {
        let all = (config.rate_limits == Switch::On).then(|| {
            [
                config.rate_sends,
                config.rate_reads,
                config.rate_rooms,
                config.rate_searches,
                config.rate_connects,
            ]
            .map(Limit::new)
        });
        Self { all, metrics }
    }

    /// Takes one from the user's bucket; `None` where limits are off.
    pub fn check(&self, user: &UserId, class: Class) -> Result<Option<Allowance>, Error> {
        let Some(all) = &self.all else { return Ok(None) };
        let limit = &all[class as usize];
        let burst = limit.per_second.get().saturating_mul(BURST_SECONDS);
        match limit.buckets.check_key(user) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let missing = burst.saturating_sub(remaining);
                Ok(Some(Allowance {
                    limit: burst,
                    remaining,
                    reset: Duration::from_secs_f64(
                        f64::from(missing) / f64::from(limit.per_second.get()),
                    ),
                }))
            }
            Err(refused) => {
                self.metrics.rate_limited.get_or_create(&ClassLabels { class: class.name() }).inc();
                let retry_after =
                    refused.wait_time_from(governor::clock::Clock::now(&DefaultClock::default()));
                Err(Error::RateLimited { retry_after })
            }
        }
    }

    /// A new socket's buckets; `None` where limits are off.
    pub fn socket(&self) -> Option<SocketLimits> {
        self.all.is_some().then(SocketLimits::new)
    }

    /// What a refusal says of its bucket.
    pub fn spent(&self, class: Class, retry_after: Duration) -> Option<Allowance> {
        let limit = &self.all.as_ref()?[class as usize];
        Some(Allowance {
            limit: limit.per_second.get().saturating_mul(BURST_SECONDS),
            remaining: 0,
            reset: retry_after,
        })
    }

    /// Forgets the buckets that are full again; without this, one stays for every user ever seen.
    pub fn forget_idle(&self) {
        for limit in self.all.iter().flatten() {
            limit.buckets.retain_recent();
            limit.buckets.shrink_to_fit();
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
