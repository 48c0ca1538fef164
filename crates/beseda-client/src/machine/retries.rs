//! Attempts at one thing, one after another.

use std::time::Duration;

use super::connection::backoff;
use crate::Error;

#[derive(Debug, Clone, Default)]
pub(super) struct Retries {
    attempts: u32,
    failures: u32,
}

impl Retries {
    /// How long to wait before the next attempt; `None`: this was the last of `most`. Without a connection
    /// one waits, however long that takes.
    pub(super) fn pause(
        &mut self,
        error: &Error,
        is_live: bool,
        most: u32,
        random: fn() -> f64,
    ) -> Option<Duration> {
        // A token that ran out says nothing of what is sent with it.
        if error.is_unauthenticated() || (error.is_temporary() && !is_live) {
            self.attempts = 0;
        } else {
            self.attempts += 1;
            if !error.is_temporary() || self.attempts >= most {
                *self = Self::default();
                return None;
            }
        }
        let pause = error.retry_after.unwrap_or_else(|| backoff(self.failures, random));
        self.failures += 1;
        Some(pause)
    }
}
