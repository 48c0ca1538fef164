//! One room with very many sockets: message by message, then in bursts.

use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    crowd::Crowd,
    error::Error,
    ledger::Violation,
    limits::Limits,
    report::Phase,
    run::{Findings, Plan, Run, Which},
    talk::SETTLE,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Sockets of the room, dealt out over its two people and all replicas.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    sockets: u32,

    /// How long to send in each of the two ways.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Messages of a burst.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..))]
    burst: u32,

    /// Length of a message's text, in bytes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4000))]
    bytes: u16,

    /// As --max-cpu-service, for the bursts; that one is for message by message.
    #[arg(long, value_name = "S", help_heading = "Limits")]
    max_cpu_service_bursts: Option<f64>,
}

pub(super) async fn run(run: &Run<'_>, options: &Options) -> Result<Findings, Error> {
    let crowd = Crowd::gather(run, 1).await?;
    run.tally.say(&format!("opening {} sockets of one room", options.sockets));
    crowd.fill(options.sockets).await?;
    let mut next = 0;
    let alone = phase(run, options, &crowd, "message by message", 1, &mut next).await?;
    let bursts = phase(run, options, &crowd, "bursts", options.burst, &mut next).await?;
    crowd.judge(SETTLE).await?;
    Ok(Findings { phases: vec![alone, bursts], figures: Vec::new() })
}

/// Sends `burst` messages at once, and again once every socket has them.
async fn phase(
    run: &Run<'_>,
    options: &Options,
    crowd: &Crowd<'_>,
    name: &'static str,
    burst: u32,
    next: &mut usize,
) -> Result<Phase, Error> {
    let span = Duration::from_secs(options.seconds);
    let common = &run.common.limits;
    let limits = match burst {
        1 => common.clone(),
        _ => Limits { max_cpu_service: options.max_cpu_service_bursts, ..common.clone() },
    };
    let plan = Plan {
        unit: "deliveries",
        counted: Which::Arrived,
        ..Plan::messages(name, Some(span), &limits)
    };
    let end = Instant::now() + span;
    let work = async {
        while Instant::now() < end {
            let before = crowd.delivered();
            let mut sends = JoinSet::new();
            for number in *next..*next + burst as usize {
                let (speaker, bytes) = (crowd.speaker(), options.bytes);
                sends.spawn(async move { speaker.send(number, Instant::now(), bytes).await });
            }
            *next += burst as usize;
            let sent =
                sends.join_all().await.into_iter().filter(|acknowledged| *acknowledged).count();
            let expected = before + sent as u64 * u64::from(options.sockets);
            if !crowd.delivers(expected, SETTLE).await {
                let (found, expected) = (crowd.delivered().cast_signed(), expected.cast_signed());
                let what = "the number of deliveries";
                run.tally.violation(&Violation::Count { room: 0, what, found, expected });
                return;
            }
        }
    };
    let ((), phase) = run.measure(plan, work).await?;
    Ok(phase)
}
