//! Latencies of the last second and of a whole phase.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest recorded latency, in microseconds: a minute.
const LONGEST_US: u64 = 60_000_000;

/// Significant digits: enough to distinguish a p99 of 12.3 ms from 12.4 ms.
const DIGITS: u8 = 3;

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    /// Summarizes a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max()),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, p999, max, .. } = self;
        write!(f, "p50 {p50:.1}   p90 {p90:.1}   p99 {p99:.1}   p99.9 {p999:.1}   max {max:.1} ms")
    }
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

pub(crate) fn histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_max(LONGEST_US, DIGITS);
    histogram.unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

/// Returns pairs of a percentile and its latency in milliseconds, with the tail in the same detail as
/// the rest.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    // Two steps for each halving of the distance to 100 %.
    let points =
        histogram.iter_quantiles(2).map(|at| (at.quantile() * 100.0, ms(at.value_iterated_to())));
    points.collect()
}

#[derive(Debug)]
struct Values {
    /// Since the last tick.
    recent: Histogram<u64>,
    /// Before that.
    earlier: Histogram<u64>,
}

/// A histogram into which many tasks record.
#[derive(Debug)]
pub(crate) struct Meter(Mutex<Values>);

impl Meter {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Values { recent: histogram(), earlier: histogram() }))
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        // Poisoning is ignored: a panic leaves a counter off by one at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.values().recent.saturating_record(micros);
    }

    /// Counts values since the last [`Meter::take`].
    pub(crate) fn count(&self) -> u64 {
        let values = self.values();
        values.recent.len() + values.earlier.len()
    }

    /// Summarizes the values since the last tick.
    pub(crate) fn tick(&self) -> Latency {
        let values = &mut *self.values();
        let latency = Latency::of(&values.recent);
        values.merge();
        latency
    }

    /// Returns all values, and resets the meter.
    pub(crate) fn take(&self) -> Histogram<u64> {
        let values = &mut *self.values();
        values.merge();
        std::mem::replace(&mut values.earlier, histogram())
    }
}

impl Values {
    fn merge(&mut self) {
        let merged = self.earlier.add(&self.recent);
        merged.unwrap_or_else(|_| unreachable!("both have the same bounds"));
        self.recent.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_milliseconds() {
        let meter = Meter::new();
        (1..=100).for_each(|ms| meter.record(Duration::from_millis(ms)));
        let latency = Latency::of(&meter.take());
        assert!((latency.p50 - 50.0).abs() < 0.1, "{latency}");
        assert!((latency.p99 - 99.0).abs() < 0.1, "{latency}");
        assert!((latency.max - 100.0).abs() < 0.1, "{latency}");
    }

    #[test]
    fn a_tick_shows_what_is_new_and_nothing_is_lost_by_it() {
        let meter = Meter::new();
        meter.record(Duration::from_millis(5));
        assert_eq!(meter.tick().count, 1);
        assert_eq!(meter.tick().count, 0);
        meter.record(Duration::from_secs(3_600));
        assert_eq!(meter.count(), 2);
        let all = meter.take();
        assert_eq!((all.len(), meter.count()), (2, 0));
        assert!(all.max() >= LONGEST_US, "what is longer counts as the longest");
    }

    #[test]
    fn the_curve_rises_to_the_slowest() {
        let meter = Meter::new();
        (1..=1_000).for_each(|ms| meter.record(Duration::from_millis(ms)));
        let curve = curve(&meter.take());
        assert!(curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{curve:?}");
        let (share, latency) = *curve.last().unwrap();
        assert!((share - 100.0).abs() < 0.01 && (latency - 1_000.0).abs() < 1.0);
    }
}
