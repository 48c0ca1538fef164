//! A client that sends one message after another.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use reqwest::Url;

use crate::{
    ledger::{Ledger, Violation},
    rest::{Rest, Retry, Sent},
    run::Tally,
};

/// How long one message is tried for, before its outcome stays unknown: longer than a replica needs
/// to be replaced.
const GIVE_UP: Duration = Duration::from_secs(30);

/// A room as a sender sees it.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    pub room: u32,
    /// The room's endpoint on each replica, the sender's own first.
    pub endpoints: Vec<Url>,
    pub token: String,
    pub ledger: Arc<Ledger>,
}

pub(crate) struct Sender {
    pub number: u32,
    /// Unique to the run, since rooms are used again.
    pub run_id: String,
    pub rest: Rest,
    /// The rooms it sends to, in turn; at least one.
    pub outlets: Vec<Outlet>,
    pub text: String,
    pub interval: Option<Duration>,
    pub tally: Arc<Tally>,
}

impl Sender {
    /// Sends until `end`.
    pub(crate) async fn run(self, end: Instant) {
        // With a rate, spread over the first interval, and latency counts from the moment at which
        // a message was due: one that had to wait for a slow answer has waited too.
        let mut due = Instant::now()
            + self.interval.map_or(Duration::ZERO, |i| i.mul_f64(rand::random_range(0.0..1.0)));
        for count in 0.. {
            let Some(interval) = self.interval else {
                if Instant::now() >= end {
                    return;
                }
                self.send(count, Instant::now()).await;
                continue;
            };
            if due >= end {
                return;
            }
            tokio::time::sleep_until(due.into()).await;
            self.send(count, due).await;
            due += interval;
        }
    }

    /// Sends one message, with retries under the same id until it is acknowledged.
    async fn send(&self, count: usize, due: Instant) {
        let outlet = &self.outlets[count % self.outlets.len()];
        let id = format!("{}-{}-{count}", self.run_id, self.number);
        outlet.ledger.sending(&id, due);
        let give_up = Instant::now() + GIVE_UP;
        let mut failures = 0;
        loop {
            let endpoint = &outlet.endpoints[failures % outlet.endpoints.len()];
            match self.rest.send(endpoint, &outlet.token, &self.text, &id).await {
                Sent::Acknowledged { seq } => {
                    match outlet.ledger.acknowledged(&id, seq, Instant::now()) {
                        Ok(took) => self.tally.on_acknowledgement(took),
                        Err(violation) => self.tally.violation(violation),
                    }
                    return;
                }
                Sent::Again { after, why } => {
                    let counter = match why {
                        Retry::RateLimited => &self.tally.rate_limited,
                        Retry::Failed => &self.tally.failed,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                    failures += usize::from(why == Retry::Failed);
                    if Instant::now() >= give_up {
                        self.tally.abandoned.fetch_add(1, Ordering::Relaxed);
                        return outlet.ledger.abandoned(&id);
                    }
                    tokio::time::sleep(after).await;
                }
                Sent::Refused { status, body } => {
                    let what = format!("a send was refused with {status}: {body}");
                    let room = outlet.room;
                    return self.tally.violation(Violation::Unexpected { room, what });
                }
            }
        }
    }
}
