//! A steady stream for hours with reconnecting sockets: no losses, no growth of memory.

use std::time::{Duration, Instant};

use clap::Args;

use super::latency::Flow;
use crate::{
    clients::paired_chats::PairedChats,
    context::{Context, Findings, Plan},
    error::Error,
    report::{Figure, Phase},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    flow: Flow,

    /// Duration of the sends; a leak shows within one or two hours.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(4..))]
    seconds: u64,

    /// Sockets cut per second; their readers resume.
    #[arg(long, default_value_t = 1.0, value_parser = super::latency::rate)]
    cuts: f64,

    /// Maximum growth of the service's memory after the first quarter, in MiB an hour.
    #[arg(long, value_name = "MIB", help_heading = "Limits")]
    max_growth: Option<f64>,
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let span = Duration::from_secs(options.seconds);
    let chats = PairedChats::open(context, options.flow.chats).await?;
    let began = Instant::now();
    let cutting = async {
        let mut every = tokio::time::interval(Duration::from_secs_f64(1.0 / options.cuts));
        // No cuts after `span`, so that the last messages can arrive.
        while began.elapsed() < span {
            every.tick().await;
            chats.cut_one();
        }
    };
    let work = async {
        tokio::join!(
            options.flow.send(context, &chats, "soak", span, std::future::pending()),
            cutting
        );
    };
    let plan = Plan::messages("soak", Some(span), &context.common.limits);
    let ((), phase) = context.measure(plan, work).await?;
    chats.judge(context).await?;
    let growth = Figure::new("growth of the service's memory", "MiB/hour", growth(&phase));
    Ok(Findings { phases: vec![phase], figures: vec![growth.at_most(options.max_growth)] })
}

/// Growth an hour, from the mean of the second quarter, when caches are full, to that of the last one.
/// `None` if the service's memory was not measured.
fn growth(phase: &Phase) -> Option<f64> {
    let memory: Vec<(f64, f64)> = phase
        .timeline
        .iter()
        .filter_map(|second| Some((second.at, *second.memory_mib.get("service")?)))
        .collect();
    let quarter = memory.len() / 4;
    let (second, last) = (memory.get(quarter..2 * quarter)?, memory.get(memory.len() - quarter..)?);
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |sum, at| (sum.0 + at.0, sum.1 + at.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    let ((from, before), (to, after)) = (mean(second), mean(last));
    let growth = (after - before) / (to - from) * 3_600.0;
    growth.is_finite().then_some(growth)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::{Second, meter::Meter};

    #[test]
    fn growth_leaves_out_the_beginning() {
        let latency = Meter::new().tick();
        // Quickly to 100 MiB within the first quarter, then 1 MiB a minute.
        let memory = |at: u32| if at < 100 { f64::from(at) } else { 100.0 + f64::from(at) / 60.0 };
        let second = |at: u32| Second {
            at: f64::from(at),
            per_second: 1.0,
            latency,
            cores: BTreeMap::new(),
            memory_mib: BTreeMap::from([("service".to_owned(), memory(at))]),
        };
        let mut phase = Phase { timeline: (0..400).map(second).collect(), ..Phase::sample() };
        assert!((growth(&phase).unwrap() - 60.0).abs() < 1.0, "{:?}", growth(&phase));
        phase.timeline.truncate(2);
        assert_eq!(growth(&phase), None, "too short to tell");
    }
}
