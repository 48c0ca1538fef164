//! What is to be done when.

use std::{collections::HashMap, hash::Hash, time::Instant};

#[derive(Debug)]
pub(super) struct Timers<T>(HashMap<T, Instant>);

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Copy + Eq + Hash> Timers<T> {
    /// In place of the moment that was set before.
    pub(super) fn set(&mut self, timer: T, at: Instant) {
        self.0.insert(timer, at);
    }

    /// Whether it was set.
    pub(super) fn cancel(&mut self, timer: T) -> bool {
        self.0.remove(&timer).is_some()
    }

    pub(super) fn cancel_those(&mut self, which: impl Fn(&T) -> bool) {
        self.0.retain(|timer, _| !which(timer));
    }

    pub(super) fn contains(&self, timer: T) -> bool {
        self.0.contains_key(&timer)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// The earliest one whose moment has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<T> {
        let (&timer, _) = self.0.iter().filter(|(_, at)| **at <= now).min_by_key(|(_, at)| **at)?;
        self.0.remove(&timer);
        Some(timer)
    }
}
