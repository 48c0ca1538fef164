//! The comparison of two programs under the same scenario: what an operation costs each of them.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use crate::report::{Phase, Report, meter::Latency};

/// The program to compare with.
#[derive(Debug, Clone)]
pub(crate) struct Opponent {
    pub program: PathBuf,
    pub name: String,
}

impl FromStr for Opponent {
    type Err = Infallible;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let (program, name) = match raw.split_once('=') {
            Some((program, name)) => (PathBuf::from(program), Some(name.to_owned())),
            None => (PathBuf::from(raw), None),
        };
        let of_file = || program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.unwrap_or_else(of_file);
        Ok(Self { program, name })
    }
}

/// The reports of some rounds; in each, both programs ran one after the other.
#[derive(Debug)]
pub(crate) struct Comparison {
    other: String,
    rounds: Vec<(Report, Report)>,
}

/// What the processes of an installation are called in a report, the driver left out.
const BACK_END: [&str; 3] = ["service", "postgres", "redis"];

impl Comparison {
    pub(crate) fn new(other: String) -> Self {
        Self { other, rounds: Vec::new() }
    }

    pub(crate) fn add(&mut self, ours: Report, theirs: Report) {
        self.rounds.push((ours, theirs));
    }

    /// True if every run of our program was right. The other one need not keep our promises.
    pub(crate) fn is_right(&self) -> bool {
        self.rounds.iter().all(|(ours, _)| ours.is_right())
    }

    /// One value a round of each program.
    fn values(&self, of: impl Fn(&Report) -> Option<f64>) -> [Vec<f64>; 2] {
        let of = |report: &Report| of(report).unwrap_or(f64::NAN);
        let ours = self.rounds.iter().map(|(ours, _)| of(ours)).collect();
        [ours, self.rounds.iter().map(|(_, theirs)| of(theirs)).collect()]
    }

    fn phase(&self, f: &mut fmt::Formatter<'_>, number: usize, phase: &Phase) -> fmt::Result {
        let of = |figure: &dyn Fn(&Phase) -> f64| {
            self.values(|report| report.phases.get(number).map(figure))
        };
        self.head(f, phase.name)?;
        row(f, &format!("{} a second", phase.unit), 0, &of(&|phase| phase.per_second))?;
        for process in BACK_END {
            row(f, &format!("CPU s per 1,000: {process}"), 4, &of(&|phase| cpu(phase, process)))?;
        }
        row(f, "CPU s per 1,000: all three", 4, &of(&back_end))?;
        for (position, (name, _)) in phase.latencies.iter().enumerate() {
            let quantile = |of_latency: fn(&Latency) -> f64| {
                of(&|phase| {
                    phase.latencies.get(position).map_or(f64::NAN, |(_, all)| of_latency(all))
                })
            };
            row(f, &format!("{name}, p50 ms"), 2, &quantile(|latency| latency.p50))?;
            row(f, &format!("{name}, p99 ms"), 2, &quantile(|latency| latency.p99))?;
        }
        writeln!(f)
    }

    fn head(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        writeln!(f, "| {name} | this | {} | ratio | lowest to highest |", self.other)?;
        writeln!(f, "|---|---|---|---|---|")
    }
}

fn cpu(phase: &Phase, process: &str) -> f64 {
    phase.cpu_seconds_per_1000.get(process).copied().unwrap_or(f64::NAN)
}

fn back_end(phase: &Phase) -> f64 {
    BACK_END.iter().map(|process| cpu(phase, process)).sum()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// A row: both medians, the median of the rounds' ratios, and the lowest and highest of these, since only
/// a round's two runs saw the same machine.
fn row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    digits: usize,
    [ours, theirs]: &[Vec<f64>; 2],
) -> fmt::Result {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let (least, most) =
        ratios.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), ratio| {
            (low.min(*ratio), high.max(*ratio))
        });
    let (ours, theirs, ratio) = (median(ours), median(theirs), median(&ratios));
    writeln!(
        f,
        "| {name} | {ours:.digits$} | {theirs:.digits$} | {ratio:.2} | {least:.2} to {most:.2} |"
    )
}

/// Markdown tables: one a phase, and one of the scenario's figures.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, _)) = self.rounds.first() else { return Ok(()) };
        for (number, phase) in first.phases.iter().enumerate() {
            self.phase(f, number, phase)?;
        }
        if !first.figures.is_empty() {
            self.head(f, "figures")?;
            for (number, figure) in first.figures.iter().enumerate() {
                let name = format!("{} {}", figure.name, figure.unit);
                let values = self.values(|report| report.figures.get(number)?.value);
                row(f, name.trim_end(), 2, &values)?;
            }
            writeln!(f)?;
        }
        writeln!(f, "{} rounds; medians", self.rounds.len())?;
        for (ours, theirs) in &self.rounds {
            for (name, report) in [("this", ours), (self.other.as_str(), theirs)] {
                for (kind, count) in &report.counts.violations {
                    writeln!(f, "VIOLATIONS of {name}, {kind}: {count}")?;
                }
            }
            for line in ours.counts.first_violations.iter().chain(&ours.exceeded) {
                writeln!(f, "  {line}")?;
            }
        }
        let verdict = if self.is_right() { "violations of this: none" } else { "FAILED" };
        write!(f, "{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_after_its_file_or_as_said() {
        let named: Opponent = "builds/beseda-1=before".parse().unwrap();
        assert_eq!((named.program, named.name.as_str()), ("builds/beseda-1".into(), "before"));
        let named: Opponent = "builds/server.js".parse().unwrap();
        assert_eq!((named.program, named.name.as_str()), ("builds/server.js".into(), "server"));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
    }
}
