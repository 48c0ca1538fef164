//! The result, for people and for programs.

use std::{collections::BTreeMap, fmt};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::Error;

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latency {
    /// Of a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: histogram.max() as f64 / 1e3 }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, max } = self;
        write!(f, "p50 {p50:8.1}   p90 {p90:8.1}   p99 {p99:8.1}   max {max:8.1} ms")
    }
}

/// What came of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub seconds: f64,
    /// Acknowledged, so durable.
    pub messages: u64,
    /// On the other member's socket.
    pub arrived: u64,
    pub per_second: f64,
    pub post_ms: Latency,
    pub post_to_socket_ms: Latency,
    /// By the processes' names, children included.
    pub cpu_seconds_per_1000: BTreeMap<String, f64>,
    /// Answers 429, each tried again.
    pub rate_limited: u64,
    /// Answers 5xx and broken connections, each tried again.
    pub failed: u64,
    /// Messages whose outcome stayed unknown.
    pub abandoned: u64,
    /// Gaps that the service found and filled by itself.
    pub catchups: u64,
    pub reconnects: u64,
    /// By kind.
    pub violations: BTreeMap<String, u64>,
    pub first_violations: Vec<String>,
}

impl Report {
    /// Whether everything is as promised. A run in which nothing was sent promises nothing.
    pub(crate) fn is_right(&self) -> bool {
        self.violations.is_empty() && self.messages > 0
    }

    pub(crate) fn to_json(&self) -> Result<String, Error> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, arrived, seconds, per_second, .. } = self;
        writeln!(
            f,
            "messages         {messages} acknowledged, {arrived} arrived in {seconds:.1} s"
        )?;
        writeln!(f, "throughput       {per_second:.0} messages/s")?;
        writeln!(f, "POST             {}", self.post_ms)?;
        writeln!(f, "POST to socket   {}", self.post_to_socket_ms)?;
        for (name, seconds) in &self.cpu_seconds_per_1000 {
            writeln!(f, "CPU {name:12} {seconds:.3} s per 1,000 messages")?;
        }
        for (what, count) in [
            ("answered 429, retried", self.rate_limited),
            ("failed, retried", self.failed),
            ("outcome unknown", self.abandoned),
            ("gaps the service filled", self.catchups),
            ("sockets reopened", self.reconnects),
        ] {
            if count > 0 {
                writeln!(f, "{what}: {count}")?;
            }
        }
        if self.violations.is_empty() {
            return write!(f, "violations       none");
        }
        for (kind, count) in &self.violations {
            writeln!(f, "VIOLATIONS       {kind}: {count}")?;
        }
        write!(f, "{}", self.first_violations.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_milliseconds() {
        let mut histogram = Histogram::<u64>::new_with_max(60_000_000, 3).unwrap();
        (1..=100).for_each(|ms| histogram.record(ms * 1_000).unwrap());
        let latency = Latency::of(&histogram);
        assert!((latency.p50 - 50.0).abs() < 0.1, "{latency}");
        assert!((latency.p99 - 99.0).abs() < 0.1, "{latency}");
        assert!((latency.max - 100.0).abs() < 0.1, "{latency}");
    }
}
