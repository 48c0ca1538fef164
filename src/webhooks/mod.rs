//! Webhooks: events that are POSTed to the host application's own server.
//!
//! Events are stored in the transactions that cause them. A worker on every replica takes chats
//! whose first event is due and sends one event per chat at a time: at least once, in order within
//! a chat. A failed event is retried with growing pauses until it is too old; then it becomes a
//! dead letter, and the next event follows. A message of a group is one event for each of its
//! members, but one row for all ([`group`]).

mod group;
mod webhook_sender;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::webhook_sender::WebhookSender;
use crate::{
    config::{ConfigError, WebhookConfig},
    error::chain,
    metrics::{Metrics, WebhookOutcome},
    model::{Message, Report, Time, UserId},
    presence::Presence,
    store::{Event, Lane, Notice, Settled, Store, StoreError, Waiting},
};

/// How often the worker looks for due events: short compared with the seconds that an event waits
/// anyway.
const LOOK: Duration = Duration::from_millis(500);

/// The lease of a lane beyond the time-out of an attempt: time to store the result, even if
/// Postgres is slow. A replica that dies delays its chats by as much.
const LEASE_GRACE: Duration = Duration::from_secs(15);

/// Pause between two attempts to store a result; without a stored result the event is sent twice.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// The pause after the first failure; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: the delay of the first events after a receiver's long outage.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The worker's dependencies.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub presence: Presence,
    pub metrics: Arc<Metrics>,
}

/// Starts the worker if webhooks are configured. After `stop` it takes no more events and finishes
/// those in flight; `abort` cancels them.
pub fn start(
    config: &WebhookConfig,
    parts: Parts,
    tasks: &TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
) -> Result<(), ConfigError> {
    let Some(url) = &config.webhook_url else { return Ok(()) };
    let webhook_sender = WebhookSender::new(url.clone(), config)?;
    let worker = Arc::new(Worker { webhook_sender, config: config.clone(), parts, stop });
    tasks.spawn(async move { abort.run_until_cancelled(worker.run()).await });
    Ok(())
}

struct Worker {
    webhook_sender: WebhookSender,
    config: WebhookConfig,
    parts: Parts,
    stop: CancellationToken,
}

impl Worker {
    async fn run(self: Arc<Self>) {
        let mut in_flight = JoinSet::new();
        loop {
            let free = self.config.webhook_concurrency.saturating_sub(in_flight.len());
            if free > 0
                && let Err(error) = self.begin(free, &mut in_flight).await
            {
                tracing::warn!(error = chain(&error), "looking for webhooks failed");
            }
            let pause = tokio::time::sleep(LOOK.mul_f64(rand::random_range(0.8..1.2)));
            tokio::select! {
                () = self.stop.cancelled() => break,
                // A finished attempt may make the next event of its chat due.
                Some(_) = in_flight.join_next() => while in_flight.try_join_next().is_some() {},
                () = pause => {}
            }
        }
        while in_flight.join_next().await.is_some() {}
    }

    /// Returns for how long a lane is taken.
    fn lease(&self) -> Duration {
        self.config.webhook_timeout + LEASE_GRACE
    }

    /// Takes up to `limit` chats and starts to send the first event of each.
    async fn begin(
        self: &Arc<Self>,
        limit: usize,
        in_flight: &mut JoinSet<()>,
    ) -> Result<(), StoreError> {
        let lease = self.lease();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let lanes = self.parts.store.take_webhook_lanes(limit, lease).await?;
        if lanes.is_empty() {
            return Ok(());
        }
        let expiry = Instant::now() + lease;
        let taken = self.parts.store.list_webhooks(&lanes).await?;
        let online = self.online(&taken).await;
        for (lane, waiting) in taken {
            let here = waiting.as_ref().is_some_and(|it| is_for(it, &online));
            let worker = Arc::clone(self);
            in_flight.spawn(async move { worker.attempt(lane, waiting, here, expiry).await });
        }
        Ok(())
    }

    /// Returns the recipients who are online and need no webhook. Without Redis, users on other
    /// replicas count as offline.
    async fn online(&self, taken: &[(Lane, Option<Waiting>)]) -> HashSet<UserId> {
        let recipients = taken.iter().filter_map(|(_, waiting)| match &waiting.as_ref()?.event {
            Event::Message(notice) => Some(notice.recipient_id.clone()),
            _ => None,
        });
        let recipients: Vec<UserId> = recipients.collect();
        if recipients.is_empty() {
            return HashSet::new();
        }
        self.parts.presence.online(&recipients).await
    }

    /// Sends an event, unless it is not needed any more, and stores the result.
    async fn attempt(&self, lane: Lane, waiting: Option<Waiting>, here: bool, expiry: Instant) {
        let Some(waiting) = waiting.filter(|waiting| waiting.due) else {
            return self.settle(&lane, Settled::Nothing, expiry).await;
        };
        if let Event::Group(fanout) = &waiting.event {
            return self.tell_members(&lane, &waiting, fanout, expiry).await;
        }
        let count = |outcome| self.parts.metrics.count_webhook(outcome);
        let Some(body) = body(&waiting).filter(|_| !here) else {
            count(WebhookOutcome::Skipped);
            return self.settle(&lane, Settled::Done(&waiting), expiry).await;
        };
        let event_id = waiting.event_id;
        let Err(failure) = self.webhook_sender.post(event_id, body).await else {
            count(WebhookOutcome::Delivered);
            return self.settle(&lane, Settled::Done(&waiting), expiry).await;
        };
        let reason = failure.to_string();
        if waiting.age >= self.config.webhook_max_age {
            count(WebhookOutcome::Dead);
            tracing::warn!(%event_id, reason, "a webhook is given up");
            self.settle(&lane, Settled::Dead(&waiting, &reason), expiry).await;
        } else {
            count(WebhookOutcome::Failed);
            tracing::debug!(%event_id, reason, attempts = waiting.attempts, "a webhook failed");
            let pause = pause_after(waiting.attempts);
            self.settle(&lane, Settled::Retry(&waiting, pause, &reason), expiry).await;
        }
    }

    /// Stores the result of an attempt, with retries while the lease lasts. After that another
    /// replica sends the event again.
    async fn settle(&self, lane: &Lane, settled: Settled<'_>, expiry: Instant) {
        while let Err(error) = self.parts.store.settle_webhook(lane, settled).await {
            if Instant::now() + SETTLE_PAUSE >= expiry {
                tracing::warn!(
                    error = chain(&error),
                    "what became of a webhook could not be noted"
                );
                return;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }
}

fn is_for(waiting: &Waiting, users: &HashSet<UserId>) -> bool {
    matches!(&waiting.event, Event::Message(notice) if users.contains(&notice.recipient_id))
}

/// Returns the pause after `failures` earlier failures; with jitter, so that events that failed
/// together are not retried together.
fn pause_after(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(LONGEST_PAUSE).mul_f64(rand::random_range(0.8..1.2))
}

/// The body of a webhook: the three members that Standard Webhooks requires.
#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// When the event happened.
    timestamp: Time,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Message {
        recipient_id: &'a UserId,
        room_name: &'a str,
        /// Of a group.
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        message: &'a Message,
        unread_count: i64,
        total_unread: i64,
    },
    Report(&'a Report),
}

/// Builds the body for an event; `None` if its subject no longer exists.
fn body(waiting: &Waiting) -> Option<Vec<u8>> {
    match &waiting.event {
        Event::Group(_) | Event::Void => None,
        Event::Report(report) => encode("report.created", waiting.created_at, Data::Report(report)),
        Event::Message(notice) => message_body(waiting.created_at, notice),
    }
}

fn message_body(created_at: Time, notice: &Notice) -> Option<Vec<u8>> {
    let data = Data::Message {
        recipient_id: &notice.recipient_id,
        room_name: &notice.room_name,
        title: notice.title.as_deref(),
        message: &notice.message,
        unread_count: notice.unread_count,
        total_unread: notice.total_unread,
    };
    encode("message.created", created_at, data)
}

fn encode(kind: &'static str, timestamp: Time, data: Data<'_>) -> Option<Vec<u8>> {
    // Plain structs can't fail to serialize.
    serde_json::to_vec(&Envelope { kind, timestamp, data }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes_and_are_spread() {
        let within = |failures, seconds: f64| {
            let pause = pause_after(failures).as_secs_f64();
            assert!((seconds * 0.79..seconds * 1.21).contains(&pause), "{failures}: {pause}");
        };
        for (failures, seconds) in [(0, 1.0), (1, 2.0), (5, 32.0), (9, 512.0), (10, 600.0)] {
            within(failures, seconds);
        }
        within(u32::MAX, 600.0);
        let some: HashSet<_> = (0..10).map(|_| pause_after(3)).collect();
        assert!(some.len() > 1);
    }
}
