//! All sockets are cut at once, come back and resume, while sends go on.

use std::{
    future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use clap::Args;

use super::latency::rate;
use crate::{
    crowd::Crowd,
    error::Error,
    limits::Limits,
    report::Figure,
    run::{Findings, Plan, Run, Which},
    send::{open_loop, pace},
    talk::SETTLE,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Sockets; both ends of them need a file each.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    sockets: u32,

    /// Rooms that they follow.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,

    /// Messages a second, before, during and after.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,

    /// Seconds of sends before the storm.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    quiet: u64,

    /// Longest that it may take until all are in step again, in seconds.
    #[arg(long, value_name = "S", help_heading = "Limits")]
    max_sync: Option<f64>,

    /// Slowest send meanwhile, in ms.
    #[arg(long, value_name = "MS", help_heading = "Limits")]
    max_send: Option<f64>,
}

/// Length of the texts, in bytes.
const BYTES: u16 = 100;

/// Most sends under way at once; one beyond these waits, and its wait counts.
const AT_ONCE: usize = 1_000;

/// How long a storm is watched at most.
const GIVE_UP: Duration = Duration::from_secs(120);

pub(super) async fn run(run: &Run<'_>, options: &Options) -> Result<Findings, Error> {
    let quiet = Duration::from_secs(options.quiet);
    run.tally.say(&format!("opening {} rooms and {} sockets", options.rooms, options.sockets));
    let crowd = Crowd::gather(run, options.rooms).await?;
    crowd.fill(options.sockets).await?;
    let plan = |name, limits| Plan {
        latencies: &[("POST", Which::Answered), ("POST to socket", Which::Arrived)],
        ..Plan::messages(name, None, limits)
    };
    let number = AtomicUsize::new(0);
    let speak = |_, due| {
        let (speaker, number) = (crowd.speaker(), number.fetch_add(1, Ordering::Relaxed));
        async move {
            speaker.send(number, due, BYTES).await;
        }
    };
    let sends = open_loop(pace(options.rate, quiet), future::pending(), AT_ONCE, speak);
    let ((), before) = run.measure(plan("before", &run.common.limits), sends).await?;
    let mut took = None;
    let breaking = async { took = crowd.storm(GIVE_UP).await };
    let sends = open_loop(pace(options.rate, GIVE_UP), breaking, AT_ONCE, speak);
    let ((), storm) = run.measure(plan("storm", &Limits::default()), sends).await?;
    crowd.judge(SETTLE).await?;
    let seconds = took.map(|took| took.as_secs_f64());
    let slowest = storm.latencies.first().map(|(_, latency)| latency.max);
    let synced = Figure::new("all in step again after", "s", seconds).at_most(options.max_sync);
    let slowest = Figure::new("slowest send meanwhile", "ms", slowest).at_most(options.max_send);
    Ok(Findings { phases: vec![before, storm], figures: vec![synced, slowest] })
}
