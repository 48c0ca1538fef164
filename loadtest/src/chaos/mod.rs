//! `loadtest chaos`: injects faults into an installation of its own by a seeded schedule while clients
//! use it, then compares what the clients received with the database.
//!
//! Replicas are processes; each reaches Redis and Postgres through its own proxies. Clients choose a
//! random replica for every attempt, as behind a balancer without health checks.

mod audit;
mod cast;
mod change;
mod chat_churn;
mod check;
mod check_files;
mod check_groups;
mod context;
mod counters;
mod faults;
mod findings;
mod follower;
mod frame;
mod group_churn;
mod groups;
mod history;
mod list;
mod many;
mod membership;
mod model;
mod proxy;
mod push;
mod replica;
mod report;
mod socket;
mod stack;
mod stored;
mod subscriber;
mod timeline;
mod writers;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use beseda::{config::Secret, signals::Signals};
use clap::{Args, ValueEnum};

pub(crate) use self::report::Report;
use self::{
    cast::Cast,
    check::Judge,
    context::{Phase, SimContext},
    faults::Kind as Fault,
    findings::Kind,
    push::Devices,
    stack::Stack,
};
use crate::{error::Error, local, progress::say};

/// Pause between two checks of the replicas.
const LOOK: Duration = Duration::from_millis(200);

/// Pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The program under test. Default: `beseda` in the folder of this program.
    #[arg(long)]
    beseda: Option<PathBuf>,

    /// Seed of the schedule and of the clients' choices. Default: a random one, which is printed.
    #[arg(long)]
    seed: Option<u64>,

    /// Duration of the run; all faults are healed after it.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..))]
    seconds: u64,

    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: u8,

    /// Kinds of faults, comma-separated. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,

    /// Users who write, each in chats with three others.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(7..=100))]
    people: u8,

    /// Folder that keeps the data and the replicas' logs. Default: a temporary one, removed at the end.
    #[arg(long)]
    data: Option<PathBuf>,

    /// Also write the result as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs the schedule and returns the report.
pub(crate) async fn run(options: &Options) -> Result<Report, Error> {
    let mut signals = Signals::catch().map_err(|error| Error::Io("cannot catch signals", error))?;
    let program = local::program(options.beseda.as_deref())?;
    let folder = local::Folder::new(options.data.as_deref())?;
    tokio::select! {
        outcome = run_in(options, &program, folder.path()) => outcome,
        () = signals.next() => Err(Error::Interrupted),
    }
}

async fn run_in(options: &Options, program: &Path, data: &Path) -> Result<Report, Error> {
    let seed = options.seed.unwrap_or_else(rand::random);
    say(&format!("seed {seed}"));
    let secret = Secret::from(format!("{:064x}", rand::random::<u128>()));
    let count = usize::from(options.replicas);
    let stack = Arc::new(Stack::start(program, data, &secret, count).await?);
    let replicas = stack.replicas().map(|replica| replica.public).collect();
    let context = Arc::new(SimContext::new(seed, secret, replicas)?);
    let database = stack.database().await?;
    audit::install(&database).await?;
    push::install(&database).await?;

    let kinds = match options.faults.as_slice() {
        [] => Fault::value_variants(),
        kinds => kinds,
    };
    let span = Duration::from_secs(options.seconds);
    let plan = faults::plan(seed, span, kinds, count);
    let mut cast = Cast::gather(&context, &stack, usize::from(options.people)).await?;
    let devices = Devices::register(&context, &cast.people).await?;
    let breaking = faults::run(&context, &stack, plan);
    let busy = async {
        tokio::time::sleep(span).await;
        // The clients stop during the last fault: no later message may repair what it broke.
        context.enter(Phase::Settling);
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(breaking, busy) } => {}
        () = supervise(&context, &stack) => {}
    }
    let seconds = context.findings.seconds();
    say(&format!("{seconds:7.1} s: all is healed; looking at what is left"));
    let judge =
        Judge { context: &context, stack: &stack, people: &cast.people, inboxes: &cast.inboxes };
    let settled = judge.judge().await?;
    context.enter(Phase::Over);
    cast.end().await;
    devices.judge(&context, &stack).await?;
    for (number, replica) in stack.replicas().enumerate() {
        for panic in replica.panics() {
            context.findings.add(Kind::Crash, format!("replica {number}: {panic}"));
        }
    }
    let report = Report::of(&context, seed, seconds, settled);
    stack.stop().await;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?).map_err(Error::Output)?;
    }
    Ok(report)
}

/// Watches the replicas for ever: an unexpected end is reported, and the replica restarted.
async fn supervise(context: &SimContext, stack: &Stack) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut progress = tokio::time::interval(PROGRESS);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = progress.tick() => {
                let (_, sent) = context.figures.all()[0];
                let (at, violations) = (context.findings.seconds(), context.findings.count());
                say(&format!("{at:7.1} s: {sent} messages, {violations} violations"));
            }
        }
        for (number, replica) in stack.replicas().enumerate() {
            let Some(status) = replica.ended_by_itself() else { continue };
            let at = context.timeline.now();
            context.findings.add(Kind::Crash, format!("replica {number} ended: {status} ({at})"));
            if let Err(error) = replica.start().await {
                context.findings.add(Kind::Crash, error.to_string());
            }
        }
    }
}
