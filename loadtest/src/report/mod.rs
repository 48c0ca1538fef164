//! The result of a run, as text, JSON and HTML.

pub(crate) mod counters;
pub(crate) mod delivery_log;
mod html;
pub(crate) mod limits;
pub(crate) mod meter;
mod plot;
mod text;
pub(crate) mod usage;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::{error::Error, report::meter::Latency};

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub scenario: &'static str,
    /// The command line.
    pub command: String,
    pub version: &'static str,
    /// The commit of the checkout in which the run was started, if any.
    pub commit: Option<String>,
    /// RFC 3339.
    pub began_at: String,
    pub machine: Machine,
    /// The separately measured phases of the run.
    pub phases: Vec<Phase>,
    /// Figures that are specific to the scenario.
    pub figures: Vec<Figure>,
    #[serde(flatten)]
    pub counts: Counts,
    /// Descriptions of exceeded limits.
    pub exceeded: Vec<String>,
}

/// Totals at the end of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Counts {
    /// Answers 429, each retried.
    pub rate_limited: u64,
    /// Answers 5xx and broken connections, each retried.
    pub failed: u64,
    /// Messages whose outcome stayed unknown.
    pub abandoned: u64,
    /// Gaps that the service detected and filled.
    pub catchups: u64,
    /// Sockets reopened after an unexpected end.
    pub reconnects: u64,
    /// Counts by kind.
    pub violations: BTreeMap<String, u64>,
    pub first_violations: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub cores: usize,
    pub memory_mib: u64,
    pub system: String,
}

/// A phase of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Phase {
    pub name: &'static str,
    /// The counted operation: messages, deliveries, requests, sockets.
    pub unit: &'static str,
    pub count: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// Latencies in ms. Limits apply to the first one.
    #[serde(serialize_with = "as_map")]
    pub latencies: Vec<(&'static str, Latency)>,
    /// By the processes' names, children included.
    pub cpu_seconds_per_1000: BTreeMap<String, f64>,
    pub memory_mib: BTreeMap<String, Memory>,
    /// The first latency's distribution: up to this share (in %), at most this long (in ms).
    pub curve: Vec<(f64, f64)>,
    pub timeline: Vec<Second>,
    #[serde(skip)]
    pub exceeded: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    pub before: f64,
    pub max: f64,
    pub after: f64,
}

/// The figures of about one second.
#[derive(Debug, Serialize)]
pub(crate) struct Second {
    /// Since the phase began, in seconds.
    pub at: f64,
    pub per_second: f64,
    /// The first latency's.
    pub latency: Latency,
    /// Cores in use, by the processes' names.
    pub cores: BTreeMap<String, f64>,
    pub memory_mib: BTreeMap<String, f64>,
}

/// A value with its bounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    /// `None` if it could not be measured.
    pub value: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Figure {
    pub(crate) const NONE: Self = Self { name: "", unit: "", value: None, min: None, max: None };

    pub(crate) fn new(name: &'static str, unit: &'static str, value: Option<f64>) -> Self {
        Self { name, unit, value, ..Self::NONE }
    }

    pub(crate) fn at_most(self, max: Option<f64>) -> Self {
        Self { max, ..self }
    }

    pub(crate) fn at_least(self, min: Option<f64>) -> Self {
        Self { min, ..self }
    }

    /// Describes the violation if the value is outside its bounds.
    pub(crate) fn excess(&self) -> Option<String> {
        let Self { name, value, min, max, .. } = self;
        if min.is_none() && max.is_none() {
            return None;
        }
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return Some(format!("{name} has a limit, and could not be measured"));
        };
        match (min, max) {
            (Some(min), _) if value < *min => {
                Some(format!("{name} is {value:.3}, and should be {min} or more"))
            }
            (_, Some(max)) if value > *max => {
                Some(format!("{name} is {value:.3}, and should be {max} or less"))
            }
            _ => None,
        }
    }
}

impl Report {
    /// True if no guarantee was broken and no limit exceeded. A run without operations proves nothing, and
    /// is false.
    pub(crate) fn is_right(&self) -> bool {
        let done = self.phases.iter().all(|phase| phase.count > 0);
        done && self.counts.violations.is_empty() && self.exceeded.is_empty()
    }

    pub(crate) fn to_json(&self) -> Result<String, Error> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    pub(crate) fn to_html(&self) -> String {
        html::page(self)
    }
}

impl Machine {
    pub(crate) fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let total = read("/proc/meminfo");
        let total = total.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib: Option<u64> = total.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib.unwrap_or(0) / 1024,
            system: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim()
            ),
        }
    }
}

fn as_map<S: Serializer>(
    latencies: &[(&'static str, Latency)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(latencies.iter().map(|(name, latency)| (name, latency)))
}

#[cfg(test)]
impl Phase {
    /// A phase to judge and to draw.
    pub(crate) fn sample() -> Self {
        let latency =
            Latency { count: 9, mean: 2.0, p50: 2.0, p90: 3.0, p99: 4.0, p999: 4.5, max: 5.0 };
        let by_name = |value| BTreeMap::from([("service".to_owned(), value)]);
        let second = |at| Second {
            at,
            per_second: 300.0,
            latency,
            cores: by_name(0.5),
            memory_mib: by_name(40.0),
        };
        Self {
            name: "send",
            unit: "messages",
            count: 900,
            seconds: 3.0,
            per_second: 300.0,
            latencies: vec![("POST to socket", latency)],
            cpu_seconds_per_1000: by_name(0.1),
            memory_mib: BTreeMap::new(),
            curve: vec![(50.0, 2.0), (99.0, 4.0), (100.0, 5.0)],
            timeline: [1.0, 2.0, 3.0].map(second).into(),
            exceeded: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(phases: Vec<Phase>) -> Report {
        Report {
            scenario: "send",
            command: "loadtest <send>".to_owned(),
            version: "0",
            commit: None,
            began_at: "2026-01-01T00:00:00Z".to_owned(),
            machine: Machine::this(),
            phases,
            figures: vec![Figure::new("ratio to pgbench", "", Some(1.5)).at_least(Some(1.2))],
            counts: counters::Counters::new(indicatif::ProgressBar::hidden()).counts(),
            exceeded: Vec::new(),
        }
    }

    #[test]
    fn figures_are_held_to_their_bounds() {
        let figure = |value| Figure::new("x", "", value).at_least(Some(1.0)).at_most(Some(2.0));
        assert_eq!(figure(Some(1.5)).excess(), None);
        assert!(figure(Some(0.5)).excess().is_some());
        assert!(figure(Some(2.5)).excess().is_some());
        assert!(figure(None).excess().is_some());
        assert!(figure(Some(f64::NAN)).excess().is_some());
        assert_eq!(Figure::new("x", "", None).excess(), None);
    }

    #[test]
    fn a_run_is_right_that_did_something_within_its_limits() {
        assert!(report(vec![Phase::sample()]).is_right());
        assert!(!report(vec![Phase { count: 0, ..Phase::sample() }]).is_right());
        let mut exceeded = report(vec![Phase::sample()]);
        exceeded.exceeded.push("p99".to_owned());
        assert!(!exceeded.is_right());
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_takes_no_markup() {
        let page = report(vec![Phase::sample()]).to_html();
        assert!(page.contains("<svg") && page.contains("ratio to pgbench"));
        assert!(page.contains("loadtest &lt;send&gt;") && !page.contains("<send>"));
        assert!(!page.contains("src=") && !page.contains("href="), "self-contained");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn programs_find_the_same_in_json() {
        let json = report(vec![Phase::sample()]).to_json().unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["phases"][0]["latencies"]["POST to socket"]["p99"], 4.0);
        assert_eq!(json["violations"], serde_json::json!({}));
        assert_eq!(json["figures"][0]["min"], 1.2);
    }
}
