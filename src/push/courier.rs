//! The courier: takes lanes of devices, looks what each ought to show, and sends the difference.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    LOOK_BEATS,
    content::{Content, What},
    senders::{Answer, Senders},
    settler::Settler,
};
use crate::{
    beat,
    config::PushConfig,
    error::chain,
    metrics::{Metrics, PushResult},
    store::{PushMark, PushNews, PushOutcome, PushWork, Store, StoreError},
};

/// Time between the begins of two pushes that were looked up together. Fifty at once, encrypted and sent, would keep
/// both cores of a small machine from those who write for 20 ms.
const SPACING: Duration = Duration::from_millis(1);

/// The pause after the first failure; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: the delay of the first pushes after a provider's long outage.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The longest pause that a provider is granted.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// How long a silent push is worth delivering.
const SILENT_LIFE: Duration = Duration::from_secs(24 * 3_600);

pub(super) struct Courier {
    pub(super) config: PushConfig,
    pub(super) senders: Senders,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) settler: Settler,
    pub(super) lease: Duration,
}

impl Courier {
    /// Serves lanes until `stop`, then finishes those in flight. `due` says that some may be due.
    pub(super) async fn run(self: Arc<Self>, due: Arc<Notify>, stop: CancellationToken) {
        let mut in_flight = JoinSet::new();
        let mut beat = beat::each(LOOK_BEATS);
        // Whether more may be due than there was room for.
        let mut more = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = beat.tick() => {}
                () = due.notified() => {}
                Some(_) = in_flight.join_next(), if more => {}
            }
            while in_flight.try_join_next().is_some() {}
            let free = self.config.push_concurrency.saturating_sub(in_flight.len());
            if free > 0 {
                match self.begin(free, &mut in_flight).await {
                    Ok(taken) => more = taken == free,
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "looking for pushes failed");
                    }
                }
            }
        }
        while in_flight.join_next().await.is_some() {}
    }

    /// Takes up to `limit` lanes, and starts to serve them. Returns how many.
    async fn begin(
        self: &Arc<Self>,
        limit: usize,
        in_flight: &mut JoinSet<()>,
    ) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let lanes = self.store.take_push_lanes(limit, self.lease).await?;
        if lanes.is_empty() {
            return Ok(0);
        }
        for (place, work) in (0..).zip(self.store.list_pushes(&lanes).await?) {
            let courier = Arc::clone(self);
            in_flight.spawn(async move {
                tokio::time::sleep(SPACING * place).await;
                courier.serve(work).await;
            });
        }
        Ok(lanes.len())
    }

    /// Sends a device what it lacks, one push after the other, and ends the turn of its lane.
    async fn serve(&self, work: PushWork) {
        let mut badge_told = work.told_badge;
        let steps = work.marks.iter().filter_map(|mark| Some((mark, self.step(&work, mark)?)));
        let mut steps: VecDeque<_> = steps.collect();
        while let Some((mark, step)) = steps.pop_front() {
            let outcome = match step {
                Step::Settle(outcome) => {
                    self.metrics.count_push(work.platform, PushResult::Skipped);
                    outcome
                }
                Step::Send { what, life, given_up, done } => {
                    if let (Some(news), 0) = (&mark.news, work.attempts) {
                        self.metrics.observe_push(news.created_at.0.as_microsecond());
                    }
                    let outcome = self.send(&work, what, life, given_up, done).await;
                    if let PushOutcome::Told { .. } | PushOutcome::Withdrawn { .. } = outcome {
                        badge_told = work.badge;
                    }
                    outcome
                }
            };
            let is_over = matches!(outcome, PushOutcome::Retry { .. } | PushOutcome::Gone { .. });
            // A badge that rises comes with the message that it rises for.
            let is_last = is_over || steps.is_empty() && work.badge >= badge_told;
            if !self.settler.settle(&work.lane, outcome, is_last).await || is_last {
                return;
            }
        }
        let outcome = if work.badge < badge_told {
            let done = PushOutcome::Badge(work.badge);
            self.send(&work, What::Badge, SILENT_LIFE, done.clone(), done).await
        } else {
            PushOutcome::End
        };
        self.settler.settle(&work.lane, outcome, true).await;
    }

    /// Returns what has to be done about a chat; `None`: nothing.
    fn step(&self, work: &PushWork, mark: &PushMark) -> Option<Step> {
        let chat_id = mark.chat_id;
        if let Some(news) = &mark.news {
            let (seq, max_age) = (news.seq, self.config.push_max_age);
            if news.age < max_age {
                return Some(Step::Send {
                    what: What::message(chat_id, news, work.preview),
                    life: max_age - news.age,
                    given_up: dead(mark, news, ""),
                    done: PushOutcome::Told { chat_id, seq, badge: work.badge },
                });
            }
            if work.attempts > 0 {
                return Some(Step::Settle(dead(
                    mark,
                    news,
                    "it was too old when it could be sent",
                )));
            }
        }
        let up_to = mark.want_seq.max(mark.told_seq)?;
        if mark.told_seq.is_some() && !mark.still {
            let done = PushOutcome::Withdrawn { chat_id, seq: up_to, badge: work.badge };
            let what = What::Read { chat_id };
            return Some(Step::Send { what, life: SILENT_LIFE, given_up: done.clone(), done });
        }
        mark.want_seq.map(|seq| Step::Settle(PushOutcome::Void { chat_id, seq }))
    }

    /// Sends a push, and returns what becomes of it: `done`, `given_up`, or the end of the turn.
    async fn send(
        &self,
        work: &PushWork,
        what: What,
        life: Duration,
        given_up: PushOutcome,
        done: PushOutcome,
    ) -> PushOutcome {
        let count = |result| self.metrics.count_push(work.platform, result);
        let content = Content { what, badge: work.badge };
        let answer = self.senders.send(work.platform, &work.address, &content, life).await;
        let (after, reason) = match answer {
            Answer::Accepted => {
                count(PushResult::Accepted);
                return done;
            }
            Answer::Gone => {
                count(PushResult::Gone);
                return PushOutcome::Gone { key: work.address.key.clone() };
            }
            Answer::Refused(reason) => {
                count(PushResult::Dead);
                return with_reason(given_up, reason);
            }
            Answer::Unauthorized(reason) => {
                count(PushResult::Unauthorized);
                (None, reason)
            }
            Answer::Later { after, reason } => {
                count(PushResult::Failed);
                (after, reason)
            }
        };
        // A message is given up by its own age: one that was just written is worth more than one attempt.
        let is_message = matches!(given_up, PushOutcome::Dead { .. });
        if !is_message && work.failing_for >= self.config.push_max_age {
            count(PushResult::Dead);
            return given_up;
        }
        // The provider may be a server of a user's choice.
        let asked = after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        let asked = asked.mul_f64(rand::random_range(1.0..1.2));
        PushOutcome::Retry { pause: asked.max(pause_after(work.attempts)), reason }
    }
}

/// What has to be done about a chat.
enum Step {
    /// Nothing has to be sent.
    Settle(PushOutcome),
    Send {
        what: What,
        /// How long its provider keeps it for a device that is away.
        life: Duration,
        given_up: PushOutcome,
        done: PushOutcome,
    },
}

fn dead(mark: &PushMark, news: &PushNews, reason: &str) -> PushOutcome {
    let seq = mark.want_seq.unwrap_or(news.seq);
    PushOutcome::Dead { chat_id: mark.chat_id, seq, reason: reason.to_owned() }
}

/// What is given up silently has no reason.
fn with_reason(given_up: PushOutcome, why: String) -> PushOutcome {
    match given_up {
        PushOutcome::Dead { chat_id, seq, .. } => PushOutcome::Dead { chat_id, seq, reason: why },
        other => other,
    }
}

/// Returns the pause after `failures` earlier failures; with jitter, so that pushes that failed together are not
/// retried together.
fn pause_after(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(LONGEST_PAUSE).mul_f64(rand::random_range(0.8..1.2))
}
