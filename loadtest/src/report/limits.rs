//! Limits that a run must keep.

use clap::Args;

use crate::report::{Figure, Phase};

/// Each limit applies to every phase that has its figure.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Highest p99 in ms, from the due time to the arrival of a message or the answer to a request.
    #[arg(long, value_name = "MS")]
    pub max_p99: Option<f64>,

    /// Highest single latency, in ms.
    #[arg(long, value_name = "MS")]
    pub max_latency: Option<f64>,

    /// Lowest rate of operations a second.
    #[arg(long, value_name = "N")]
    pub min_rate: Option<f64>,

    /// Maximum CPU seconds of the service per 1,000 operations.
    #[arg(long, value_name = "S")]
    pub max_cpu_service: Option<f64>,

    /// The same for Postgres.
    #[arg(long, value_name = "S")]
    pub max_cpu_postgres: Option<f64>,

    /// The same for Redis.
    #[arg(long, value_name = "S")]
    pub max_cpu_redis: Option<f64>,

    /// Maximum resident memory of all replicas together, in MiB.
    #[arg(long, value_name = "MIB")]
    pub max_memory_service: Option<f64>,
}

impl Limits {
    /// Describes the limits that a phase exceeded. A limit on an unmeasured figure counts as exceeded.
    pub(crate) fn judge(&self, phase: &Phase) -> Vec<String> {
        let latency = phase.latencies.first().map(|(_, latency)| latency);
        let cpu = |name: &str| phase.cpu_seconds_per_1000.get(name).copied();
        let memory = phase.memory_mib.get("service").map(|memory| memory.max);
        let at_most =
            |name, limit, found| Figure { name, value: found, max: limit, ..Figure::NONE };
        let figures = [
            at_most("p99", self.max_p99, latency.map(|latency| latency.p99)),
            at_most("slowest", self.max_latency, latency.map(|latency| latency.max)),
            Figure {
                name: "rate",
                value: Some(phase.per_second),
                min: self.min_rate,
                ..Figure::NONE
            },
            at_most("CPU of the service", self.max_cpu_service, cpu("service")),
            at_most("CPU of Postgres", self.max_cpu_postgres, cpu("postgres")),
            at_most("CPU of Redis", self.max_cpu_redis, cpu("redis")),
            at_most("memory of the service", self.max_memory_service, memory),
        ];
        let excesses = figures.iter().filter_map(Figure::excess);
        excesses.map(|excess| format!("{}: {excess}", phase.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_for_what_was_measured_and_for_what_should_have_been() {
        let mut phase = Phase::sample();
        let limits = Limits { max_p99: Some(50.0), min_rate: Some(100.0), ..Limits::default() };
        assert_eq!(limits.judge(&phase), Vec::<String>::new());
        phase.latencies[0].1.p99 = 50.1;
        phase.per_second = 99.0;
        assert_eq!(limits.judge(&phase).len(), 2, "{:?}", limits.judge(&phase));
        let unseen = Limits { max_cpu_redis: Some(1.0), ..Limits::default() };
        assert_eq!(unseen.judge(&phase).len(), 1, "no such process was measured");
    }
}
