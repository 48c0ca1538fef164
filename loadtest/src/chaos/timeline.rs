//! The times of faults, and the delays of deliveries meanwhile.

use std::{collections::BTreeMap, sync::Mutex};

use beseda_protocol::model::MessageId;
use serde::Serialize;

use super::{
    faults::Kind,
    findings::{lock, now_micros},
};

/// Time after its end for which a fault still counts as active, in microseconds: gaps must be filled
/// by then.
const AFTERMATH: i64 = 3_000_000;

#[derive(Debug, Clone, Copy)]
struct Span {
    kind: Kind,
    from: i64,
    /// `None` while active.
    to: Option<i64>,
}

/// A delivery to a socket that was, or should have been, open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub message_id: MessageId,
    /// The message's time by Postgres, just before the commit.
    pub committed: i64,
    pub arrived: i64,
}

#[derive(Debug, Default)]
pub(super) struct Timeline {
    spans: Mutex<Vec<Span>>,
    arrivals: Mutex<Vec<Arrival>>,
}

/// Delays of deliveries, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Delays {
    pub deliveries: usize,
    /// Time from the commit to the socket.
    pub p99: f64,
    pub worst: f64,
    /// Time from the acknowledgement to the socket; zero if the message came first.
    pub worst_after_ack: f64,
    /// Time from the fault's end, or from the commit if that was later.
    pub worst_after_fault: f64,
}

impl Timeline {
    pub(super) fn begin(&self, kind: Kind) -> usize {
        let mut spans = lock(&self.spans);
        spans.push(Span { kind, from: now_micros(), to: None });
        spans.len() - 1
    }

    pub(super) fn end(&self, span: usize) {
        lock(&self.spans)[span].to = Some(now_micros());
    }

    /// Returns the end of the last fault; `None` while one is active.
    pub(super) fn quiet_since(&self) -> Option<i64> {
        let spans = lock(&self.spans);
        spans.iter().try_fold(0, |latest, span| span.to.map(|to| to.max(latest)))
    }

    /// Returns the faults active at this moment.
    pub(super) fn now(&self) -> String {
        let (spans, now) = (lock(&self.spans), now_micros());
        let active = spans.iter().filter(|span| span.touches(now, now));
        let names: Vec<String> = active
            .map(|span| {
                let since = (now - span.from) / 1_000;
                let ended = span.to.map(|to| format!(", over for {} ms", (now - to) / 1_000));
                format!("{} for {since} ms{}", span.kind, ended.unwrap_or_default())
            })
            .collect();
        if names.is_empty() { "no fault".to_owned() } else { names.join(", ") }
    }

    /// True if no fault could affect what happened between two moments.
    pub(super) fn is_quiet(&self, from: i64, to: i64) -> bool {
        !lock(&self.spans).iter().any(|span| span.touches(from, to))
    }

    pub(super) fn arrived(&self, arrival: Arrival) {
        lock(&self.arrivals).push(arrival);
    }

    pub(super) fn count(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for span in lock(&self.spans).iter() {
            *count.entry(span.kind.to_string()).or_default() += 1;
        }
        count
    }

    /// Lists deliveries that took longer than `limit` microseconds from the commit, or from the end of the
    /// last fault that affected them.
    pub(super) fn overdue(&self, limit: i64) -> Vec<(Arrival, i64)> {
        let (spans, arrivals) = (lock(&self.spans), lock(&self.arrivals));
        let late = arrivals.iter().filter_map(|arrival| {
            let &Arrival { committed, arrived, .. } = arrival;
            if arrived - committed <= limit {
                return None;
            }
            let met = spans.iter().filter(|span| span.touches(committed, arrived));
            // An active fault excuses the delay.
            let over = met.map(|span| span.to.unwrap_or(arrived)).max().unwrap_or(committed);
            let took = arrived - over.clamp(committed, arrived);
            (took > limit).then_some((*arrival, took))
        });
        late.collect()
    }

    /// Groups delays by the faults active between commit and arrival; a message counts for each of these.
    /// `acknowledged` has the time of each message's acknowledgement.
    pub(super) fn delays(
        &self,
        acknowledged: impl Fn(&MessageId) -> Option<i64>,
    ) -> BTreeMap<String, Delays> {
        let (spans, arrivals) = (lock(&self.spans), lock(&self.arrivals));
        let mut groups: BTreeMap<String, Vec<(i64, i64, i64)>> = BTreeMap::new();
        for Arrival { message_id, committed, arrived } in arrivals.iter().copied() {
            let met: Vec<&Span> =
                spans.iter().filter(|span| span.touches(committed, arrived)).collect();
            let whole = arrived - committed;
            let after_ack =
                acknowledged(&message_id).map_or(0, |at| (arrived - at.max(committed)).max(0));
            if met.is_empty() {
                groups.entry("none".to_owned()).or_default().push((whole, after_ack, whole));
            }
            for span in met {
                // The fault is still active, or began after the arrival.
                let after = match span.to {
                    Some(to) if to < arrived => arrived - committed.max(to),
                    _ => 0,
                };
                let group = groups.entry(span.kind.to_string()).or_default();
                group.push((whole, after_ack, after));
            }
        }
        groups.into_iter().map(|(kind, delays)| (kind, Delays::of(delays))).collect()
    }
}

impl Span {
    fn touches(&self, from: i64, to: i64) -> bool {
        self.from <= to && self.to.is_none_or(|end| from <= end + AFTERMATH)
    }
}

impl Delays {
    fn of(mut delays: Vec<(i64, i64, i64)>) -> Self {
        let millis = |micros: i64| micros as f64 / 1e3;
        delays.sort_unstable();
        let worst = |pick: fn(&(i64, i64, i64)) -> i64| {
            millis(delays.iter().map(pick).max().unwrap_or_default())
        };
        Self {
            deliveries: delays.len(),
            p99: millis(delays.get(delays.len() * 99 / 100).map_or(0, |(whole, ..)| *whole)),
            worst: worst(|(whole, ..)| *whole),
            worst_after_ack: worst(|(_, after_ack, _)| *after_ack),
            worst_after_fault: worst(|(.., after)| *after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_counts_for_the_faults_it_met() {
        let timeline = Timeline::default();
        let span = |kind, from, to| Span { kind, from, to };
        *lock(&timeline.spans) = vec![
            span(Kind::RedisCut, 1_000_000, Some(2_000_000)),
            span(Kind::ReplicaKill, 9_000_000, Some(9_500_000)),
        ];
        let arrive = |committed, arrived| {
            timeline.arrived(Arrival { message_id: MessageId::nil(), committed, arrived });
        };
        arrive(500_000, 600_000);
        arrive(1_500_000, 2_300_000);
        arrive(6_000_000, 6_010_000);
        let delays = timeline.delays(|_| Some(1_600_000));
        assert_eq!(delays["none"].deliveries, 2);
        let cut = delays["redis-cut"];
        assert_eq!((cut.deliveries, cut.worst, cut.worst_after_fault), (1, 800.0, 300.0));
        assert_eq!(cut.worst_after_ack, 700.0);
        assert!(!delays.contains_key("replica-kill"));
        assert_eq!(timeline.quiet_since(), Some(9_500_000));
        assert!(timeline.overdue(300_000).is_empty());
        assert_eq!(timeline.overdue(299_999).len(), 1);
    }
}
