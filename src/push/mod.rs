//! Push: devices are told of what their users have not read, and of the badge.
//!
//! Rows of the outbox, when they are deleted, leave the chats that have changed in a queue. A walker on every replica
//! looks through a chat's members once its messages have been unread for long enough, and makes the lanes of their
//! devices due. A courier takes lanes, looks what each device ought to show, as things are then, and sends the
//! difference: one push at a time to a device, none twice once its acknowledgement is stored. `sql/V13__push.sql` has
//! the queues.

mod apns;
mod content;
mod courier;
mod fcm;
mod keys;
mod senders;
mod settler;
mod test;
mod web_push;

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{courier::Courier, settler::settle_for_ever};
pub use self::{
    senders::Senders,
    test::{PushTest, TestError, test},
};
use crate::{
    beat,
    broker::RedisClient,
    config::PushConfig,
    error::chain,
    metrics::Metrics,
    store::{Store, StoreError},
};

/// Beats from one look to the next, 0.4 s: short compared with the seconds that a message waits anyway.
const LOOK_BEATS: u32 = 2;

/// Pause between two steps through a large chat, so that those who write meanwhile are not kept from Postgres.
const STEP_PAUSE: Duration = Duration::from_millis(50);

/// Chats walked by one statement: some 10 ms for small ones. Deletions from the outbox that name one of them wait for
/// it.
const WALKED: i64 = 64;

/// The lease of a lane beyond the time-out of an attempt: time to store the result, even if Postgres is slow. A
/// replica that dies delays its devices by as much.
const LEASE_GRACE: Duration = Duration::from_secs(15);

/// The dependencies of walker and courier.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub redis: RedisClient,
    pub metrics: Arc<Metrics>,
}

/// Starts walker and courier if a platform is set up. After `stop` they take nothing more and finish what is in
/// flight; `abort` cancels it.
pub fn start(
    config: &PushConfig,
    senders: Senders,
    parts: Parts,
    tasks: &TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    if config.platforms().is_empty() {
        return;
    }
    let due = Arc::new(Notify::new());
    let walker = Walker {
        config: config.clone(),
        store: parts.store.clone(),
        redis: parts.redis,
        due: Arc::clone(&due),
    };
    let stopped = stop.clone();
    tasks.spawn(async move { stopped.run_until_cancelled(walker.run()).await });
    let (settler, settling) = settler::channel();
    let lease = config.push_timeout + LEASE_GRACE;
    tasks.spawn(settle_for_ever(parts.store.clone(), settling, lease));
    let Parts { store, metrics, .. } = parts;
    let courier =
        Arc::new(Courier { config: config.clone(), senders, store, metrics, settler, lease });
    tasks.spawn(async move { abort.run_until_cancelled(courier.run(due, stop)).await });
}

/// Decides which devices are looked at.
struct Walker {
    config: PushConfig,
    store: Store,
    redis: RedisClient,
    /// Tells the courier that lanes may be due.
    due: Arc<Notify>,
}

impl Walker {
    async fn run(self) {
        let mut beat = beat::each(LOOK_BEATS);
        let mut is_unfinished = false;
        loop {
            if is_unfinished {
                tokio::time::sleep(STEP_PAUSE).await;
            } else {
                beat.tick().await;
            }
            is_unfinished = self.walk().await.unwrap_or_else(|error| {
                tracing::warn!(error = chain(&error), "walking chats for push failed");
                false
            });
        }
    }

    /// Walks until no chat is due, or none but large ones. Returns whether there is one whose walk goes on.
    async fn walk(&self) -> Result<bool, StoreError> {
        if !self.redis.is_up() {
            // The outbox's rows stay until Redis is back, but pushes do not wait for it.
            self.store.note_push().await.unwrap_or_else(|error| {
                tracing::warn!(error = chain(&error), "noting changes for push failed");
            });
        }
        let (delay, max_age) = (self.config.push_delay, self.config.push_max_age);
        let platforms = self.config.platforms();
        loop {
            let walked = self.store.walk_push(WALKED, delay, max_age, &platforms).await?;
            if walked.chats > 0 {
                self.due.notify_one();
            }
            if walked.chats < WALKED {
                return Ok(walked.is_unfinished);
            }
        }
    }
}
