//! What a run must not exceed, or fall short of.

use clap::Args;

use crate::report::{Figure, Phase};

/// Each holds for every stretch of a scenario that it has a figure for.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Highest p99, in ms: from the moment a message was due to a socket, or a request to its answer.
    #[arg(long, value_name = "MS")]
    pub max_p99: Option<f64>,

    /// Slowest single one of these, in ms.
    #[arg(long, value_name = "MS")]
    pub max_latency: Option<f64>,

    /// Fewest operations a second.
    #[arg(long, value_name = "N")]
    pub min_rate: Option<f64>,

    /// Most CPU seconds of the service for 1,000 operations.
    #[arg(long, value_name = "S")]
    pub max_cpu_service: Option<f64>,

    /// The same for Postgres.
    #[arg(long, value_name = "S")]
    pub max_cpu_postgres: Option<f64>,

    /// The same for Redis.
    #[arg(long, value_name = "S")]
    pub max_cpu_redis: Option<f64>,

    /// Most resident memory of the service, all replicas together, in MiB.
    #[arg(long, value_name = "MIB")]
    pub max_memory_service: Option<f64>,
}

impl Limits {
    /// What a phase did not keep to, in words. A limit on what was not seen is not kept.
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
