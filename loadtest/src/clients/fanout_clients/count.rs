//! Counting what many sockets do.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

/// A counter for whose value one task can wait.
#[derive(Debug, Default)]
pub(super) struct Count {
    value: AtomicU64,
    awaited: AtomicU64,
    reached: Notify,
}

impl Count {
    pub(super) fn add(&self) {
        let value = self.value.fetch_add(1, Ordering::SeqCst) + 1;
        if value >= self.awaited.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.value.load(Ordering::SeqCst)
    }

    /// Waits for `value`; false after `limit`.
    pub(super) async fn reaches(&self, value: u64, limit: Duration) -> bool {
        self.awaited.store(value, Ordering::SeqCst);
        let waiting = async {
            while self.get() < value {
                self.reached.notified().await;
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_count_is_waited_for_and_not_for_ever() {
        let count = Count::default();
        assert!(!count.reaches(1, Duration::from_millis(10)).await);
        let (reached, ()) = tokio::join!(count.reaches(2, Duration::from_secs(10)), async {
            count.add();
            tokio::task::yield_now().await;
            count.add();
        });
        assert!(reached);
    }
}
