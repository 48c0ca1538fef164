//! A very large group in which one writes: the time until a message is with everybody who is online.

use std::time::{Duration, Instant};

use clap::Args;

use crate::{
    clients::{
        chats::Person, fanout_clients::FanoutClients, paired_chats::SETTLE, recount::check_counters,
    },
    context::{Context, Findings, Metric, Plan},
    error::Error,
    report::{Figure, delivery_log::Violation},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Members of the group. They are added by a thousand a call, or found from an earlier run.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    members: u32,

    /// Sockets of members who are online, spread over all replicas; each needs a file descriptor at both
    /// ends.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    online: u32,

    /// Messages of the owner, each once the one before is with all.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,

    /// Pause between two messages, in ms.
    #[arg(long, default_value_t = 500)]
    pause: u64,

    /// Length of a message's text, in bytes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4000))]
    bytes: u16,

    /// Members, spread over all of them, whose counters are recounted at the end.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    checked: u32,

    /// Longest time until a message is with all, in ms.
    #[arg(long, value_name = "MS", help_heading = "Limits")]
    max_all: Option<f64>,
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let Options { members, online, .. } = *options;
    context.counters.say(&format!("adding {members} members"));
    let began = Instant::now();
    let clients = FanoutClients::gather_group(context, members).await?;
    let gathered = began.elapsed().as_secs_f64();
    context.counters.say(&format!("opening {online} sockets"));
    clients.fill(online).await?;
    let plan = Plan {
        unit: "deliveries",
        counted: Metric::Arrived,
        ..Plan::messages("channel", None, &context.common.limits)
    };
    let (took, phase) = context.measure(plan, send(context, &clients, options)).await?;
    clients.judge(SETTLE).await?;
    let people = clients.people();
    let step = people.len().div_ceil(options.checked as usize);
    let sample: Vec<Person> = people.iter().step_by(step).cloned().collect();
    let checked = check_counters(context, &clients.chats[0], &sample, SETTLE).await?;
    let worst = took.last().map(|took| took.as_secs_f64() * 1e3);
    let middle = took.get(took.len() / 2).map(|took| took.as_secs_f64() * 1e3);
    let figures = vec![
        Figure::new("a message is with all after, median", "ms", middle),
        Figure::new("a message is with all after, worst", "ms", worst).at_most(options.max_all),
        Figure::new("time to make or find the group", "s", Some(gathered)),
        Figure::new("members whose counters were recounted", "", Some(checked as f64)),
    ];
    Ok(Findings { phases: vec![phase], figures })
}

/// Sends message by message; returns how long each took to be with all, ascending.
async fn send(
    context: &Context<'_>,
    clients: &FanoutClients<'_>,
    options: &Options,
) -> Vec<Duration> {
    let speaker = clients.speaker();
    let mut took = Vec::new();
    for number in 0..options.messages as usize {
        let expected = clients.delivered() + u64::from(options.online);
        let due = Instant::now();
        if !speaker.send(number, due, options.bytes).await {
            continue;
        }
        if !clients.delivers(expected, SETTLE).await {
            let (found, expected) = (clients.delivered().cast_signed(), expected.cast_signed());
            let what = "the number of deliveries";
            context.counters.violation(&Violation::Count { chat: 0, what, found, expected });
            break;
        }
        took.push(due.elapsed());
        tokio::time::sleep(Duration::from_millis(options.pause)).await;
    }
    took.sort_unstable();
    took
}
