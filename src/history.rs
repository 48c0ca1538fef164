//! The database's current epoch, as this replica knows it.
//!
//! A standby promoted without the last commits begins another epoch, and so does a restore: numbers
//! of the previous epoch mean nothing there. Each write reads the epoch in its own statement,
//! because a remembered epoch may belong to the previous server. All other values are compared with
//! the epoch held here.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::model::Epoch;

/// Maximum remembered epochs other than the current one. A replica that is stuck with an old
/// primary sends only one.
const REMEMBERED: usize = 8;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    known: RwLock<Known>,
    /// Notified when an unknown epoch was seen, so that Postgres must be asked.
    doubt: Notify,
}

#[derive(Debug)]
struct Known {
    current: Epoch,
    /// Former current epochs.
    over: Vec<Epoch>,
    /// Epochs that were seen and already asked about.
    foreign: Vec<Epoch>,
}

fn remember(epochs: &mut Vec<Epoch>, epoch: Epoch) {
    epochs.truncate(REMEMBERED - 1);
    epochs.insert(0, epoch);
}

impl History {
    pub fn new(epoch: Epoch) -> Self {
        let known = Known { current: epoch, over: Vec::new(), foreign: Vec::new() };
        Self { shared: Arc::new(Shared { known: RwLock::new(known), doubt: Notify::new() }) }
    }

    pub fn current(&self) -> Epoch {
        Arc::clone(&self.read().current)
    }

    /// Whether an epoch is the current one. The first sight of an unknown epoch causes a comparison
    /// with Postgres, which also finds what was missed until then.
    pub fn is_current(&self, epoch: &str) -> bool {
        let known = self.read();
        if *known.current == *epoch {
            return true;
        }
        let seen = known.over.iter().chain(&known.foreign).any(|other| **other == *epoch);
        drop(known);
        if !seen {
            remember(&mut self.write().foreign, epoch.into());
            self.doubt();
        }
        false
    }

    /// Whether an epoch was current once and is not any more: its writes may be lost.
    pub fn is_over(&self, epoch: &str) -> bool {
        let known = self.read();
        *known.current != *epoch && known.over.iter().any(|other| **other == *epoch)
    }

    /// Sets the current epoch as read from Postgres; true if it changed.
    pub fn enter(&self, epoch: &Epoch) -> bool {
        let mut known = self.write();
        if known.current == *epoch {
            return false;
        }
        let before = std::mem::replace(&mut known.current, Arc::clone(epoch));
        known.over.retain(|other| other != epoch);
        known.foreign.clear();
        remember(&mut known.over, before);
        true
    }

    /// Requests a comparison with Postgres soon.
    pub fn doubt(&self) {
        self.shared.doubt.notify_one();
    }

    /// Returns once a comparison was requested.
    pub async fn doubted(&self) {
        self.shared.doubt.notified().await;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        // Nothing under the lock can panic halfway.
        self.shared.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.shared.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_doubted(history: &History) -> bool {
        history.doubted().now_or_never().is_some()
    }

    #[test]
    fn an_unknown_history_is_asked_about_once_and_one_that_is_over_never() {
        let history = History::new("one".into());
        assert!(history.is_current("one") && !is_doubted(&history));
        for asked in [true, false] {
            assert!(!history.is_current("two"));
            assert_eq!(is_doubted(&history), asked);
        }
        assert!(!history.is_over("two"), "it may be the next one");
        assert!(history.enter(&"two".into()) && !history.enter(&"two".into()));
        assert!(history.is_current("two") && history.is_over("one") && !history.is_over("two"));
        assert!(!history.is_current("one") && !is_doubted(&history));
        // The previous server is back.
        assert!(history.enter(&"one".into()));
        assert!(history.is_current("one") && history.is_over("two") && !history.is_over("one"));
    }
}
