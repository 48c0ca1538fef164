//! The result of a chaos run, as text and JSON.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{context::SimContext, findings::Kind, timeline::Delays};

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    seed: u64,
    seconds: f64,
    replicas: usize,
    figures: BTreeMap<&'static str, u64>,
    /// Counts by kind.
    faults: BTreeMap<String, usize>,
    /// Delays by the kind of active fault; `none` without one.
    delays_ms: BTreeMap<String, Delays>,
    /// Time from the end of the last fault to quiescence.
    settled_ms: u64,
    violations: BTreeMap<Kind, u64>,
    first_violations: Vec<String>,
    #[serde(skip)]
    ordered: Vec<(&'static str, u64)>,
}

impl Report {
    pub(super) fn of(
        context: &SimContext,
        seed: u64,
        seconds: f64,
        settled: std::time::Duration,
    ) -> Self {
        let acknowledged = context.history.acknowledgements();
        let (violations, first_violations) = context.findings.all();
        let ordered = context.figures.all();
        Self {
            seed,
            seconds,
            replicas: context.replicas.len(),
            figures: ordered.iter().copied().collect(),
            faults: context.timeline.count(),
            delays_ms: context.timeline.delays(|id| acknowledged.get(id).copied()),
            settled_ms: u64::try_from(settled.as_millis()).unwrap_or(u64::MAX),
            violations,
            first_violations,
            ordered,
        }
    }

    /// True if no guarantee was broken. A run without sends proves nothing, and is false.
    pub(crate) fn is_right(&self) -> bool {
        let sent = self.figures.values().next().is_some()
            && self.delays_ms.values().any(|delays| delays.deliveries > 0);
        self.violations.is_empty() && sent
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, seconds, replicas, settled_ms, .. } = self;
        writeln!(f, "seed {seed}, {seconds:.0} s, {replicas} replicas\n")?;
        for (what, count) in &self.ordered {
            writeln!(f, "{count:9}  {what}")?;
        }
        writeln!(
            f,
            "\n{:16}{:>7}{:>12}{:>10}{:>10}{:>12}{:>14}",
            "", "", "", "p99", "worst", "since", "since fault's"
        )?;
        writeln!(
            f,
            "{:16}{:>7}{:>12}{:>10}{:>10}{:>12}{:>14}",
            "fault", "times", "deliveries", "ms", "ms", "ack, ms", "end, ms"
        )?;
        for (kind, delays) in &self.delays_ms {
            let times = self.faults.get(kind).map_or("-".to_owned(), ToString::to_string);
            let Delays { deliveries, p99, worst, worst_after_ack, worst_after_fault } = delays;
            writeln!(
                f,
                "{kind:16}{times:>7}{deliveries:>12}{p99:>10.0}{worst:>10.0}{worst_after_ack:>12.0}{worst_after_fault:>14.0}"
            )?;
        }
        writeln!(f, "\nat rest {settled_ms} ms after the last fault")?;
        if self.violations.is_empty() {
            return write!(f, "violations: none");
        }
        for (kind, count) in &self.violations {
            writeln!(f, "VIOLATIONS {kind:?}: {count}")?;
        }
        write!(f, "{}", self.first_violations.join("\n"))
    }
}
