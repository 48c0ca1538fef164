//! Records sends, acknowledgements and arrivals of a chat, and finds violations. No I/O.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A broken guarantee.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("chat {chat}: {id} (seq {seq}) was acknowledged and never arrived")]
    Lost { chat: u32, id: String, seq: i64 },
    #[error("chat {chat}: {id} came twice, the second time as seq {seq}, ev {ev}")]
    Doubled { chat: u32, id: String, seq: i64, ev: i64 },
    #[error("chat {chat}: after seq {after_seq}, ev {after_ev} came seq {seq}, ev {ev}")]
    OutOfOrder { chat: u32, after_seq: i64, after_ev: i64, seq: i64, ev: i64 },
    #[error("chat {chat}: {id} was acknowledged as seq {acknowledged} and arrived as seq {seen}")]
    Mismatch { chat: u32, id: String, acknowledged: i64, seen: i64 },
    #[error("chat {chat}: {what}")]
    Unexpected { chat: u32, what: String },
    #[error("chat {chat}: {what} is {found} and should be {expected}")]
    Count { chat: u32, what: &'static str, found: i64, expected: i64 },
    #[error("{call} gave {user} a wrong answer: {what}")]
    Answer { call: &'static str, user: String, what: String },
}

impl Violation {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Doubled { .. } => "doubled",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::Mismatch { .. } => "mismatched",
            Self::Unexpected { .. } => "unexpected",
            Self::Count { .. } => "miscounted",
            Self::Answer { .. } => "wrong_answer",
        }
    }
}

/// A message that is not yet both acknowledged and arrived.
#[derive(Debug)]
struct Open {
    /// The due time.
    due: Instant,
    acknowledged: Option<i64>,
    seen: Option<i64>,
}

#[derive(Debug)]
struct State {
    open: HashMap<String, Open>,
    /// Messages both acknowledged and arrived.
    done: HashSet<String>,
    seq: i64,
    ev: i64,
}

/// The log of one chat.
#[derive(Debug)]
pub(crate) struct DeliveryLog {
    chat: u32,
    first_seq: i64,
    state: Mutex<State>,
}

impl DeliveryLog {
    /// Starts at the chat's current position.
    pub(crate) fn new(chat: u32, seq: i64, ev: i64) -> Self {
        let state = State { open: HashMap::new(), done: HashSet::new(), seq, ev };
        Self { chat, first_seq: seq, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Poisoning is ignored: a panic leaves one violation too many at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a message before its send.
    pub(crate) fn sending(&self, id: &str, due: Instant) {
        let open = Open { due, acknowledged: None, seen: None };
        self.state().open.insert(id.to_owned(), open);
    }

    /// Records an acknowledgement.
    pub(crate) fn acknowledged(&self, id: &str, seq: i64) -> Result<(), Violation> {
        let mut state = self.state();
        // An arrival alone does not remove the entry, so it exists.
        let Some(open) = state.open.get_mut(id) else { return Ok(()) };
        open.acknowledged = Some(seq);
        let seen = open.seen;
        self.close(&mut state, id, Some(seq), seen)
    }

    /// Records an arrival on the other member's socket. Returns its latency.
    pub(crate) fn arrived(
        &self,
        id: &str,
        seq: i64,
        ev: i64,
        now: Instant,
    ) -> Result<Duration, Violation> {
        let mut state = self.state();
        let chat = self.chat;
        let (after_seq, after_ev) = (state.seq, state.ev);
        let Some(open) = state.open.get_mut(id) else {
            if state.done.contains(id) {
                return Err(Violation::Doubled { chat, id: id.to_owned(), seq, ev });
            }
            let what = format!("{id:?} (seq {seq}) is nothing that was sent");
            return Err(Violation::Unexpected { chat, what });
        };
        if open.seen.is_some() {
            return Err(Violation::Doubled { chat, id: id.to_owned(), seq, ev });
        }
        open.seen = Some(seq);
        let (took, acknowledged) = (now.saturating_duration_since(open.due), open.acknowledged);
        (state.seq, state.ev) = (seq, ev);
        self.close(&mut state, id, acknowledged, Some(seq))?;
        if seq != after_seq + 1 || ev != after_ev + 1 {
            return Err(Violation::OutOfOrder { chat, after_seq, after_ev, seq, ev });
        }
        Ok(took)
    }

    /// Removes a message that was acknowledged and has arrived.
    fn close(
        &self,
        state: &mut State,
        id: &str,
        acknowledged: Option<i64>,
        seen: Option<i64>,
    ) -> Result<(), Violation> {
        let (Some(acknowledged), Some(seen)) = (acknowledged, seen) else { return Ok(()) };
        state.open.remove(id);
        state.done.insert(id.to_owned());
        if acknowledged == seen {
            return Ok(());
        }
        Err(Violation::Mismatch { chat: self.chat, id: id.to_owned(), acknowledged, seen })
    }

    /// Records an unknown outcome: the message may arrive or not.
    pub(crate) fn abandoned(&self, id: &str) {
        let mut state = self.state();
        if let Some(open) = state.open.get_mut(id) {
            let seen = open.seen;
            open.acknowledged = seen;
            if seen.is_some() {
                state.open.remove(id);
                state.done.insert(id.to_owned());
            }
        }
    }

    /// Returns the position from which a socket must resume.
    pub(crate) fn position(&self) -> i64 {
        self.state().ev
    }

    /// Counts the arrivals.
    pub(crate) fn arrivals(&self) -> i64 {
        self.state().seq - self.first_seq
    }

    /// True if an acknowledged message has not arrived.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state().open.values().any(|open| open.acknowledged.is_some() && open.seen.is_none())
    }

    /// Lists messages acknowledged and not arrived; at the end of a run these are lost.
    pub(crate) fn lost(&self) -> Vec<Violation> {
        let state = self.state();
        let lost = state.open.iter().filter(|(_, open)| open.seen.is_none());
        lost.filter_map(|(id, open)| {
            Some(Violation::Lost { chat: self.chat, id: id.clone(), seq: open.acknowledged? })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(sent: &[&str]) -> (DeliveryLog, Instant) {
        let (log, now) = (DeliveryLog::new(1, 10, 20), Instant::now());
        sent.iter().for_each(|id| log.sending(id, now));
        (log, now)
    }

    fn kind<T>(result: Result<T, Violation>) -> &'static str {
        result.map_or_else(|violation| violation.kind(), |_| "fine")
    }

    #[test]
    fn an_arrival_may_come_before_its_acknowledgement() {
        let (log, now) = log(&["a", "b"]);
        assert_eq!(kind(log.arrived("a", 11, 21, now)), "fine");
        assert_eq!(kind(log.acknowledged("a", 11)), "fine");
        assert_eq!(kind(log.acknowledged("b", 12)), "fine");
        assert!(log.is_waiting());
        assert_eq!(kind(log.arrived("b", 12, 22, now)), "fine");
        assert!(!log.is_waiting() && log.lost().is_empty());
        assert_eq!((log.arrivals(), log.position()), (2, 22));
    }

    #[test]
    fn what_was_acknowledged_and_never_came_is_lost() {
        let (log, _) = log(&["a", "b", "c"]);
        assert_eq!(kind(log.acknowledged("a", 11)), "fine");
        log.abandoned("b");
        assert_eq!(log.lost().len(), 1, "b is unknown, c is not answered yet");
        assert_eq!(log.lost()[0].kind(), "lost");
    }

    #[test]
    fn holes_twins_and_strangers_are_seen() {
        let (log, now) = log(&["a", "b", "c", "d"]);
        assert_eq!(kind(log.arrived("a", 11, 21, now)), "fine");
        assert_eq!(kind(log.arrived("a", 12, 22, now)), "doubled");
        assert_eq!(kind(log.acknowledged("a", 11)), "fine");
        assert_eq!(kind(log.arrived("a", 11, 21, now)), "doubled");
        assert_eq!(kind(log.arrived("c", 13, 22, now)), "out_of_order");
        assert_eq!(kind(log.arrived("b", 12, 23, now)), "out_of_order");
        assert_eq!(kind(log.acknowledged("b", 14)), "mismatched");
        assert_eq!(kind(log.arrived("x", 13, 24, now)), "unexpected");
    }
}
