//! Metrics of the process, under the names that all client libraries of Prometheus use
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). They are read from
//! Linux's `/proc` at each scrape, and missing on other systems.

use std::{fmt, fs};

use nix::{
    sys::resource::{Resource, UsageWho, getrlimit, getrusage},
    unistd::{SysconfVar, sysconf},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

#[derive(Debug)]
pub(super) struct Process {
    /// When the process started, in seconds since 1970. This value is made at the start.
    started: f64,
}

impl Process {
    pub(super) fn new() -> Self {
        Self { started: jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0 }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
            None => Ok(()),
        };
        gauge("process_start_time_seconds", "When the process began", Some(self.started))?;
        gauge("process_open_fds", "Open files and sockets", open_files())?;
        gauge("process_max_fds", "Most open files and sockets", most_files())?;
        gauge("process_resident_memory_bytes", "Memory in use", resident_bytes())?;
        let Some(seconds) = cpu_seconds() else { return Ok(()) };
        let cpu = ConstCounter::new(seconds);
        let descriptor = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time, in user and system mode",
            None,
            cpu.metric_type(),
        )?;
        cpu.encode(descriptor)
    }
}

fn open_files() -> Option<f64> {
    // Without the descriptor that reading the folder takes.
    fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as f64)
}

fn most_files() -> Option<f64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft as f64)
}

fn resident_bytes() -> Option<f64> {
    let pages: f64 =
        fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page_bytes as f64)
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    Some(seconds.iter().sum())
}
