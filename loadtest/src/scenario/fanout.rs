//! Fan-out: one chat with very many sockets, message by message, then in bursts.

use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    clients::{fanout_clients::FanoutClients, paired_chats::SETTLE},
    context::{Context, Findings, Metric, Plan},
    error::Error,
    report::{Phase, delivery_log::Violation, limits::Limits},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Sockets of the chat, spread over its members and all replicas.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    sockets: u32,

    /// Members of the chat; more than two: a group.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    members: u32,

    /// Duration of each of the two phases.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Messages of a burst.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..))]
    burst: u32,

    /// Messages a second of the first phase. Default: the next one once all sockets have the one before.
    #[arg(long, value_parser = super::latency::rate)]
    rate: Option<f64>,

    /// Length of a message's text, in bytes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4000))]
    bytes: u16,

    /// As --max-cpu-service, which applies to the first phase, for the bursts.
    #[arg(long, value_name = "S", help_heading = "Limits")]
    max_cpu_service_bursts: Option<f64>,
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let clients = match options.members {
        2 => FanoutClients::gather(context, 1).await?,
        members => FanoutClients::gather_group(context, members).await?,
    };
    context.counters.say(&format!("opening {} sockets of one chat", options.sockets));
    clients.fill(options.sockets).await?;
    let mut next = 0;
    let alone = phase(context, options, &clients, "message by message", 1, &mut next).await?;
    let bursts = phase(context, options, &clients, "bursts", options.burst, &mut next).await?;
    clients.judge(SETTLE).await?;
    Ok(Findings { phases: vec![alone, bursts], figures: Vec::new() })
}

/// Sends `burst` messages at once, and the next ones once every socket has these.
async fn phase(
    context: &Context<'_>,
    options: &Options,
    clients: &FanoutClients<'_>,
    name: &'static str,
    burst: u32,
    next: &mut usize,
) -> Result<Phase, Error> {
    let span = Duration::from_secs(options.seconds);
    let common = &context.common.limits;
    let limits = match burst {
        1 => common.clone(),
        _ => Limits { max_cpu_service: options.max_cpu_service_bursts, ..common.clone() },
    };
    let plan = Plan {
        unit: "deliveries",
        counted: Metric::Arrived,
        ..Plan::messages(name, Some(span), &limits)
    };
    let end = Instant::now() + span;
    let pause = options.rate.filter(|_| burst == 1).map(|rate| Duration::from_secs_f64(1.0 / rate));
    let mut due = Instant::now();
    let work = async {
        while due < end {
            tokio::time::sleep_until(due.into()).await;
            let before = clients.delivered();
            let mut sends = JoinSet::new();
            for number in *next..*next + burst as usize {
                let (speaker, bytes) = (clients.speaker(), options.bytes);
                sends.spawn(async move { speaker.send(number, due, bytes).await });
            }
            *next += burst as usize;
            let sent =
                sends.join_all().await.into_iter().filter(|acknowledged| *acknowledged).count();
            let expected = before + sent as u64 * u64::from(options.sockets);
            if !clients.delivers(expected, SETTLE).await {
                let (found, expected) = (clients.delivered().cast_signed(), expected.cast_signed());
                let what = "the number of deliveries";
                context.counters.violation(&Violation::Count { chat: 0, what, found, expected });
                return;
            }
            due = pause.map_or_else(Instant::now, |pause| (due + pause).max(Instant::now()));
        }
    };
    let ((), phase) = context.measure(plan, work).await?;
    Ok(phase)
}
