//! Which history the database's numbers belong to, as this replica knows it.
//!
//! A standby that is promoted without the last commits begins another history, and so does a restore:
//! the numbers of the one before mean nothing there. What is written says itself which one it is of,
//! since its own statement asks: a name that is remembered may be of the server before. Here is what
//! the others are held against.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::model::Epoch;

/// Epochs remembered that are not, or no longer, the present one: a replica that is stuck with an old
/// primary has one for all that it says.
const REMEMBERED: usize = 8;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    known: RwLock<Known>,
    /// Somebody spoke of a history that is not known: Postgres has to be asked.
    doubt: Notify,
}

#[derive(Debug)]
struct Known {
    current: Epoch,
    /// Was the present one once.
    over: Vec<Epoch>,
    /// Was spoken of, and Postgres asked since.
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

    /// Whether something is of the present history. The first that comes of an unknown one has Postgres
    /// asked; what is missed until then, the comparison finds.
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

    /// Whether this was the present history once and is not any more: what was written in it may be lost.
    pub fn is_over(&self, epoch: &str) -> bool {
        let known = self.read();
        *known.current != *epoch && known.over.iter().any(|other| **other == *epoch)
    }

    /// Postgres has said so. True: it is another one than before.
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

    /// Has everything compared with Postgres soon.
    pub fn doubt(&self) {
        self.shared.doubt.notify_one();
    }

    /// Returns once there is doubt.
    pub async fn doubted(&self) {
        self.shared.doubt.notified().await;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        // Nothing that is done under the lock leaves it half done.
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
        // A server that was thought to be dead is back.
        assert!(history.enter(&"one".into()));
        assert!(history.is_current("one") && history.is_over("two") && !history.is_over("one"));
    }
}
