//! Closed loop: a client sends its next message after the acknowledgement of the one before.

use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    clients::{baseline, paired_chats::PairedChats},
    context::{Context, Findings, Plan},
    error::Error,
    report::Figure,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Direct chats; the second member listens on the replica after the first one's.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    chats: u32,

    /// Senders; each sends its next message after the acknowledgement of the one before.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,

    /// Duration of the sends.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Length of a message's text, in bytes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4000))]
    bytes: u16,

    /// Also measure single-row commits of pgbench with 32 clients (`local` only).
    #[arg(long)]
    baseline: bool,

    /// Lowest ratio of messages to pgbench's rows; needs --baseline.
    #[arg(long, value_name = "N", requires = "baseline", help_heading = "Limits")]
    min_pgbench_ratio: Option<f64>,
}

/// Longest that pgbench runs; its rate is steady well before.
const PGBENCH: Duration = Duration::from_secs(10);

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let Options { chats, clients, bytes, .. } = *options;
    let span = Duration::from_secs(options.seconds);
    let mut findings = Findings::default();
    let pgbench = match options.baseline {
        true => {
            context.counters.say("measuring single-row commits with pgbench");
            baseline::pgbench(baseline::stores(context.target)?, bytes, span.min(PGBENCH)).await?
        }
        false => None,
    };

    let paired = PairedChats::open(context, chats).await?;
    let text = "x".repeat(bytes.into());
    let end = Instant::now() + span;
    let mut senders = JoinSet::new();
    for client in 0..clients as usize {
        // Clients take the chats in turn, and share them if there are fewer chats.
        let outlets: Vec<_> = (client..chats.max(clients) as usize)
            .step_by(clients as usize)
            .map(|turn| paired.outlet(turn))
            .collect();
        let (text, id) = (text.clone(), context.id.clone());
        senders.spawn(async move {
            for (count, outlet) in outlets.iter().cycle().enumerate() {
                if Instant::now() >= end {
                    return;
                }
                outlet.send(&text, &format!("{id}-{client}-{count}"), Instant::now()).await;
            }
        });
    }
    let work = async {
        senders.join_all().await;
        paired.settle().await;
    };
    let plan = Plan::messages("send", Some(span), &context.common.limits);
    let ((), phase) = context.measure(plan, work).await?;
    paired.judge(context).await?;
    if options.baseline {
        let ratio = pgbench.map(|rows| phase.per_second / rows);
        let figure = Figure::new("pgbench with 32 clients", "rows/s", pgbench);
        findings.figures.push(figure);
        let figure = Figure::new("messages for each row of pgbench", "", ratio);
        findings.figures.push(figure.at_least(options.min_pgbench_ratio));
    }
    findings.phases.push(phase);
    Ok(findings)
}
