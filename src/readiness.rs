//! Health checks and metrics that need Postgres. Callers have no token, so the number of statements
//! that they cause is bounded.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, time::timeout};

use crate::{
    metrics::Metrics,
    store::{Store, StoreError},
};

/// Checks of Postgres within one [`WINDOW`]: several balancers that check once a second each get a
/// fresh result; further callers get the last one.
const CHECKS: u32 = 8;

/// Maximum age of a result.
const WINDOW: Duration = Duration::from_secs(1);

/// How long a scrape waits for Postgres: Prometheus may give up after as little as 5 s.
const SCRAPE_WAIT: Duration = Duration::from_secs(2);

/// The state of Postgres as `/readyz` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Postgres {
    Up,
    WrongSchema,
    Away,
}

/// The last result, and the number of checks in its window.
#[derive(Debug)]
struct LastCheck {
    postgres: Postgres,
    at: Instant,
    window_began: Instant,
    checks: u32,
}

/// Checks Postgres once for all concurrent callers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    store: Store,
    /// Locked during a check, so that only one runs at a time.
    last: Arc<Mutex<Option<LastCheck>>>,
}

impl Readiness {
    pub fn new(store: Store) -> Self {
        Self { store, last: Arc::default() }
    }

    pub async fn postgres(&self) -> Postgres {
        let (Self { store, last }, called_at) = (self.clone(), Instant::now());
        // A task of its own: a caller that hangs up must not leave a statement behind each time.
        let checking = tokio::spawn(async move {
            let mut last = last.lock().await;
            let (window_began, checks) = match &*last {
                // Another caller's check ended while this one waited for the lock.
                Some(LastCheck { postgres, at, .. }) if *at >= called_at => return *postgres,
                Some(LastCheck { postgres, window_began, checks, .. })
                    if window_began.elapsed() < WINDOW =>
                {
                    if *checks >= CHECKS {
                        return *postgres;
                    }
                    (*window_began, checks + 1)
                }
                _ => (Instant::now(), 1),
            };
            let postgres = check(&store).await;
            *last = Some(LastCheck { postgres, at: Instant::now(), window_began, checks });
            postgres
        });
        // The task fails only by a panic, and nothing in it panics.
        checking.await.unwrap_or(Postgres::Away)
    }

    /// Sets the metrics that come from Postgres and its pools. While Postgres does not answer, the
    /// backlogs keep their last values, so that the other metrics can still be scraped.
    pub async fn measure(&self, metrics: &Metrics, with_webhooks: bool, with_push: bool) {
        let (in_use, open) = self.store.pool_usage();
        metrics.set_pool(in_use, open);
        let reading = timeout(SCRAPE_WAIT, self.read_backlogs(metrics, with_webhooks, with_push));
        let (_, is_up) = tokio::join!(reading, self.is_postgres_up());
        metrics.postgres_up.set(i64::from(is_up));
    }

    /// Whether Postgres answers, with any schema. The check opens its own connection, because the
    /// pool may be exhausted while Postgres is well.
    async fn is_postgres_up(&self) -> bool {
        let checking = timeout(SCRAPE_WAIT, self.store.check_schema());
        matches!(checking.await, Ok(Ok(()) | Err(StoreError::Schema(_))))
    }

    async fn read_backlogs(&self, metrics: &Metrics, with_webhooks: bool, with_push: bool) {
        if let Ok((rows, oldest)) = self.store.get_backlog().await {
            metrics.outbox_rows.set(rows);
            metrics.outbox_oldest.set(oldest);
        }
        if let Ok(backlog) = self.store.get_attachment_backlog().await {
            metrics.attachment_removals.set(backlog.removals);
            metrics.attachment_removals_oldest.set(backlog.oldest_removal);
            metrics.attachment_scans.set(backlog.scans);
            metrics.attachment_scans_oldest.set(backlog.oldest_scan);
        }
        if with_webhooks && let Ok(backlog) = self.store.get_webhook_backlog().await {
            metrics.webhook_rows.set(backlog.waiting);
            metrics.webhook_oldest.set(backlog.oldest);
            metrics.webhook_dead_rows.set(backlog.dead);
        }
        if with_push && let Ok(backlog) = self.store.get_push_backlog().await {
            metrics.push_lanes.set(backlog.waiting);
            metrics.push_oldest.set(backlog.oldest);
            metrics.push_dead_rows.set(backlog.dead);
        }
    }
}

async fn check(store: &Store) -> Postgres {
    match store.check_schema().await {
        Ok(()) => Postgres::Up,
        Err(StoreError::Schema(reason)) => {
            tracing::warn!(reason, "not ready");
            Postgres::WrongSchema
        }
        Err(_) => Postgres::Away,
    }
}
