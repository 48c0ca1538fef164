//! What was written and is not yet acknowledged. No I/O.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A message on its way. It keeps its id through every attempt, so it is stored once.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) client_msg_id: String,
    pub(super) text: String,
}

/// Sends one after another, so that messages arrive in the order in which they were written.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Pending>,
    /// The first one was sent, and waits for its answer.
    under_way: bool,
    /// Not to be tried before.
    not_before: Option<Instant>,
    /// Of this process alone, so that no two messages ever have the same id.
    prefix: String,
    written: u64,
}

impl Outbox {
    pub(super) fn new() -> Self {
        let prefix = format!("cli-{:016x}-", rand::random::<u64>());
        Self { queue: VecDeque::new(), under_way: false, not_before: None, prefix, written: 0 }
    }

    pub(super) fn push(&mut self, text: String) {
        self.written += 1;
        let client_msg_id = format!("{}{}", self.prefix, self.written);
        self.queue.push_back(Pending { client_msg_id, text });
    }

    /// How many are not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What is to be sent at this moment, if anything is; it is under way from now on.
    pub(super) fn start_next(&mut self, now: Instant) -> Option<&Pending> {
        if self.under_way || self.not_before.is_some_and(|moment| moment > now) {
            return None;
        }
        let next = self.queue.front()?;
        (self.under_way, self.not_before) = (true, None);
        Some(next)
    }

    /// When there will be something to be sent that must wait now.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.queue.is_empty())
    }

    /// It is stored, or never will be: an answer, or its echo, which may come first.
    pub(super) fn settle(&mut self, client_msg_id: &str) -> Option<Pending> {
        if self.queue.front()?.client_msg_id != client_msg_id {
            return None;
        }
        self.under_way = false;
        self.queue.pop_front()
    }

    /// To be tried again after a while.
    pub(super) fn put_off(&mut self, client_msg_id: &str, pause: Duration, now: Instant) {
        if self.queue.front().is_some_and(|first| first.client_msg_id == client_msg_id) {
            (self.under_way, self.not_before) = (false, Some(now + pause));
        }
    }

    /// Nobody knows what became of the one under way: it is sent again.
    pub(super) fn connection_lost(&mut self) {
        self.under_way = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_another_each_under_its_own_id_however_often() {
        let now = Instant::now();
        let mut outbox = Outbox::new();
        outbox.push("one".to_owned());
        outbox.push("two".to_owned());
        let first = outbox.start_next(now).unwrap().client_msg_id.clone();
        assert!(outbox.start_next(now).is_none(), "the second one waits for the first");
        outbox.connection_lost();
        let again = outbox.start_next(now).unwrap();
        assert_eq!((&again.client_msg_id, again.text.as_str()), (&first, "one"));
        outbox.put_off(&first, Duration::from_secs(2), now);
        assert!(outbox.start_next(now).is_none());
        let later = outbox.waits_until().unwrap();
        assert_eq!(later, now + Duration::from_secs(2));
        assert_eq!(outbox.start_next(later).unwrap().text, "one");
        assert!(outbox.settle(&first).is_some());
        assert!(outbox.settle(&first).is_none(), "its echo and its answer settle it once");
        let second = outbox.start_next(later).unwrap();
        assert_eq!(second.text, "two");
        assert!(second.client_msg_id != first && second.client_msg_id.chars().count() <= 64);
        let second = second.client_msg_id.clone();
        assert!(outbox.settle(&second).is_some() && outbox.is_empty());
    }
}
