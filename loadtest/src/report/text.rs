//! The result on a terminal.

use std::fmt;

use super::{Figure, Phase, Report};

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, count, seconds, per_second, .. } = self;
        writeln!(f, "{name}: {count} {unit} in {seconds:.1} s, {per_second:.0} a second")?;
        for (name, latency) in &self.latencies {
            writeln!(f, "  {name:16} {latency}")?;
        }
        let cpu = self.cpu_seconds_per_1000.iter();
        let cpu: Vec<String> = cpu.map(|(name, used)| format!("{name} {used:.4}")).collect();
        writeln!(f, "  {:16} {}", "CPU s per 1,000", cpu.join("   "))?;
        let memory = self.memory_mib.iter();
        let memory: Vec<String> =
            memory.map(|(name, mib)| format!("{name} {:.0}", mib.max)).collect();
        writeln!(f, "  {:16} {}", "most MiB", memory.join("   "))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match self.value {
            Some(value) => write!(f, "{value:.3}")?,
            None => write!(f, "not measured")?,
        }
        let space = if self.unit.is_empty() { "" } else { " " };
        write!(f, "{space}{}", self.unit)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in &self.phases {
            write!(f, "{phase}")?;
        }
        for figure in &self.figures {
            writeln!(f, "{figure}")?;
        }
        for (what, count) in self.oddities() {
            writeln!(f, "{what}: {count}")?;
        }
        for (kind, count) in &self.counts.violations {
            writeln!(f, "VIOLATIONS, {kind}: {count}")?;
        }
        for line in self.counts.first_violations.iter().chain(&self.exceeded) {
            writeln!(f, "  {line}")?;
        }
        write!(f, "{}", self.verdict())
    }
}

impl Report {
    /// Lists events that are allowed but worth attention.
    pub(super) fn oddities(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = &self.counts;
        [
            ("answered 429, tried again", counts.rate_limited),
            ("failed, tried again", counts.failed),
            ("outcome unknown", counts.abandoned),
            ("gaps that the service filled", counts.catchups),
            ("sockets opened again", counts.reconnects),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }

    pub(super) fn verdict(&self) -> &'static str {
        match (self.counts.violations.is_empty(), self.exceeded.is_empty(), self.is_right()) {
            (true, true, true) => "violations: none",
            (true, true, false) => "FAILED: nothing was done",
            (true, false, _) => "FAILED: beyond a limit",
            (false, ..) => "FAILED: not as promised",
        }
    }
}
