//! Rows of the outbox that were published, and are deleted together.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    error::chain,
    store::{Noted, Store, StoreError},
};

/// How long finished rows are collected, so that their deletion costs one statement per batch, not
/// per message; well below the half second after which a sweeper would take them.
const FORGET_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum finished rows deleted by one statement, which takes some 10 ms.
const FORGET_ROWS: usize = 2_000;

/// Published rows that are still to be deleted. They are kept until then, so that a slow deletion
/// is retried and the sweeper does not publish them again. Bounded by the rows of the outbox.
#[derive(Debug, Default)]
pub(super) struct Finished {
    rows: Mutex<BTreeSet<Noted>>,
    more: Notify,
    /// There are as many as one statement deletes: after an outage each sweep reads those that are left
    /// of the sweeps before.
    full: Notify,
}

impl Finished {
    pub(super) fn rows(&self) -> MutexGuard<'_, BTreeSet<Noted>> {
        // A panic leaves the set consistent.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, noted: Vec<Noted>) {
        if !noted.is_empty() {
            let mut rows = self.rows();
            rows.extend(noted);
            if rows.len() >= FORGET_ROWS {
                self.full.notify_one();
            }
            drop(rows);
            self.more.notify_one();
        }
    }

    /// Returns rows of one epoch, at most as many as one statement deletes.
    fn of_one_history(&self) -> Vec<Noted> {
        let rows = self.rows();
        let Some(first) = rows.first() else { return Vec::new() };
        rows.iter().take_while(|row| row.epoch == first.epoch).take(FORGET_ROWS).cloned().collect()
    }

    fn remove(&self, noted: &[Noted]) {
        let mut rows = self.rows();
        for row in noted {
            rows.remove(row);
        }
    }
}

/// Deletes finished rows; after `stop` it finishes the rest and returns.
pub(super) async fn forget(store: Store, finished: Arc<Finished>, stop: CancellationToken) {
    loop {
        let open = stop.run_until_cancelled(finished.more.notified()).await.is_some();
        if open {
            // Collects more rows; ends at once when the replica stops.
            let enough = stop.run_until_cancelled(finished.full.notified());
            let _ = tokio::time::timeout(FORGET_INTERVAL, enough).await;
        }
        loop {
            // Of one epoch, because another one has other rows with the same ids.
            let rows = finished.of_one_history();
            let Some(Noted { epoch, .. }) = rows.first() else { break };
            let ids: Vec<i64> = rows.iter().map(|row| row.outbox_id).collect();
            match store.delete_outbox(epoch, &ids).await {
                Ok(()) => finished.remove(&rows),
                // Postgres was busy: try again later.
                Err(StoreError::Slow(_) | StoreError::Locked(_)) if open => {
                    tracing::warn!(
                        rows = ids.len(),
                        "deleting outbox rows took too long; once more"
                    );
                    finished.more.notify_one();
                    break;
                }
                Err(error) => {
                    // Remaining rows are swept, which publishes them again; that is harmless.
                    tracing::warn!(
                        error = chain(&error),
                        rows = ids.len(),
                        "outbox rows stay until swept"
                    );
                    finished.rows().clear();
                    break;
                }
            }
        }
        if !open {
            return;
        }
    }
}
