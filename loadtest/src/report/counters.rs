//! Counters and violations, shared by all tasks of a run.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use indicatif::ProgressBar;

use crate::{
    progress::say,
    report::{Counts, delivery_log::Violation, meter::Meter},
};

/// Number of violations and notes that are printed; more are only counted.
const SPELLED_OUT: usize = 20;

#[derive(Debug)]
pub(crate) struct Counters {
    /// Time from a request's due time to its answer.
    pub answered: Meter,
    /// Time from a message's due time to its arrival on a socket.
    pub arrived: Meter,
    /// Time from a socket's due time until it was in step.
    pub synced: Meter,
    pub rate_limited: AtomicU64,
    pub failed: AtomicU64,
    pub abandoned: AtomicU64,
    pub catchups: AtomicU64,
    pub reconnects: AtomicU64,
    violations: Mutex<Violations>,
    pub bar: ProgressBar,
}

#[derive(Debug, Default)]
struct Violations {
    by_kind: BTreeMap<&'static str, u64>,
    spelled_out: Vec<String>,
    notes: usize,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn new(bar: ProgressBar) -> Self {
        Self {
            answered: Meter::new(),
            arrived: Meter::new(),
            synced: Meter::new(),
            rate_limited: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            catchups: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            violations: Mutex::default(),
            bar,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Violations> {
        // Poisoning is ignored: a panic leaves a counter off by one at worst.
        self.violations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn violation(&self, violation: &Violation) {
        let mut violations = self.lock();
        *violations.by_kind.entry(violation.kind()).or_default() += 1;
        if violations.spelled_out.len() < SPELLED_OUT {
            violations.spelled_out.push(violation.to_string());
            self.say(&format!("violation: {violation}"));
        }
    }

    /// Records an event that is no violation but may explain one.
    pub(crate) fn note(&self, line: &str) {
        let mut violations = self.lock();
        violations.notes += 1;
        if violations.notes <= SPELLED_OUT {
            self.say(line);
        }
    }

    /// Prints a line above the progress bar.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    pub(crate) fn violations(&self) -> u64 {
        self.lock().by_kind.values().sum()
    }

    pub(crate) fn counts(&self) -> Counts {
        let violations = self.lock();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            rate_limited: count(&self.rate_limited),
            failed: count(&self.failed),
            abandoned: count(&self.abandoned),
            catchups: count(&self.catchups),
            reconnects: count(&self.reconnects),
            violations: violations
                .by_kind
                .iter()
                .map(|(kind, n)| ((*kind).to_owned(), *n))
                .collect(),
            first_violations: violations.spelled_out.clone(),
        }
    }
}
