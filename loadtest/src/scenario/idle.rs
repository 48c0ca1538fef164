//! Idle sockets: memory of the service per socket.

use std::time::{Duration, Instant};

use clap::Args;

use crate::{
    clients::{fanout_clients::FanoutClients, paired_chats::SETTLE},
    context::{Context, Findings, Metric, Plan},
    error::Error,
    report::{Figure, usage::Sample},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Sockets at the first sample; each needs a file descriptor at both ends.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    from: u32,

    /// Sockets at the second sample; memory per socket is the slope between the two.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(2..))]
    to: u32,

    /// Chats that the sockets follow.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    chats: u32,

    /// Idle seconds before each sample.
    #[arg(long, default_value_t = 5)]
    quiet: u64,

    /// Messages to each chat before the first sample, and again before the last one, which shows the
    /// memory that a burst leaves behind.
    #[arg(long, default_value_t = 5)]
    burst: u32,

    /// Maximum resident memory of the service per socket, in KiB.
    #[arg(long, value_name = "KIB", help_heading = "Limits")]
    max_socket: Option<f64>,

    /// Maximum growth of that by the burst, in KiB.
    #[arg(long, value_name = "KIB", help_heading = "Limits")]
    max_growth: Option<f64>,
}

/// Length of the texts of the burst, in bytes.
const BYTES: u16 = 100;

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let Options { from, to, chats, burst, .. } = *options;
    if from >= to {
        return Err(Error::Usage("--from must be less than --to"));
    }
    service_memory(context)?;
    context.counters.say(&format!("opening {chats} chats"));
    let clients = FanoutClients::gather(context, chats).await?;
    let plan = Plan {
        name: "opening",
        unit: "sockets",
        counted: Metric::Synced,
        latencies: &[("in step", Metric::Synced)],
        span: None,
        limits: context.common.limits.clone(),
    };
    let messages = (chats * burst) as usize;
    let say = async |first: usize| {
        for number in first..first + messages {
            clients.speaker().send(number, Instant::now(), BYTES).await;
        }
        clients.judge(SETTLE).await
    };
    let opening = async {
        clients.fill(from).await?;
        // The first messages allocate memory that belongs to no socket.
        say(0).await?;
        let first = quiet(context, options).await?;
        clients.fill(to).await?;
        let second = quiet(context, options).await?;
        Ok::<_, Error>((first, second))
    };
    let (looks, phase) = context.measure(plan, opening).await?;
    let (first, second) = looks?;
    say(messages).await?;
    let third = quiet(context, options).await?;

    let each = |bytes: f64, sockets: u32| Some(bytes / 1024.0 / f64::from(sockets));
    let grown = |before: u64, after: u64| after as f64 - before as f64;
    let slope = Figure::new("memory for a socket", "KiB", each(grown(first, second), to - from));
    let after =
        Figure::new("more after a burst, for a socket", "KiB", each(grown(second, third), to));
    let figures = vec![slope.at_most(options.max_socket), after.at_most(options.max_growth)];
    Ok(Findings { phases: vec![phase], figures })
}

/// Samples the service's memory after an idle time.
async fn quiet(context: &Context<'_>, options: &Options) -> Result<u64, Error> {
    tokio::time::sleep(Duration::from_secs(options.quiet)).await;
    service_memory(context)
}

fn service_memory(context: &Context<'_>) -> Result<u64, Error> {
    let memory = Sample::take(&context.target.processes)?.memory("service");
    memory.ok_or(Error::Usage("say which the service's processes are: --pid service=PID, for each"))
}
