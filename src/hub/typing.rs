//! Bounds who is told to type in a chat at the same time.

use std::time::{Duration, Instant};

use crate::model::UserId;

/// People of a chat who are told to type at the same time: a client shows no more, and in a large chat
/// each one more is a frame to all.
const TYPISTS: usize = 5;

/// How long somebody types after they were told to: clients repeat it every few seconds.
const LASTS: Duration = Duration::from_secs(5);

/// Those who type in a chat.
#[derive(Debug, Default)]
pub(super) struct Typists(Vec<(UserId, Instant)>);

impl Typists {
    /// Whether the others are to be told that this user types, or stopped.
    pub(super) fn admit(&mut self, user_id: &UserId, typing: bool, now: Instant) -> bool {
        self.0.retain(|(_, at)| now.saturating_duration_since(*at) < LASTS);
        let known = self.0.iter().position(|(typist, _)| typist == user_id);
        match (known, typing) {
            (Some(index), true) => self.0[index].1 = now,
            (Some(index), false) => drop(self.0.swap_remove(index)),
            (None, true) if self.0.len() < TYPISTS => self.0.push((user_id.clone(), now)),
            // Their end is told even if they were not known: they may have begun long ago.
            (None, false) if self.0.len() < TYPISTS => {}
            (None, _) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixth_waits_until_one_of_five_stops() {
        let mut typists = Typists::default();
        let user = |number: usize| UserId::parse(&format!("user{number}")).expect("valid");
        let now = Instant::now();
        for number in 0..5 {
            assert!(typists.admit(&user(number), true, now));
        }
        assert!(!typists.admit(&user(5), true, now));
        assert!(!typists.admit(&user(5), false, now), "nobody knows that they began");
        assert!(typists.admit(&user(0), true, now), "one of the five goes on");
        assert!(typists.admit(&user(0), false, now));
        assert!(typists.admit(&user(5), true, now));
        assert!(!typists.admit(&user(0), true, now));
        assert!(typists.admit(&user(0), true, now + LASTS), "all five have fallen silent");
    }
}
