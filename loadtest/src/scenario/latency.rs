//! Open loop: messages at a fixed rate, independent of the answers.

use std::{
    future::{self, Future},
    sync::Arc,
    time::Duration,
};

use clap::Args;

use crate::{
    clients::{
        baseline,
        paired_chats::PairedChats,
        send::{open_loop, pace},
    },
    context::{Context, Findings, Plan},
    error::Error,
    report::{Figure, Phase},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub flow: Flow,

    /// Duration of the sends.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// First measure a bare INSERT and PUBLISH at the same rate (`local` only).
    #[arg(long)]
    baseline: bool,

    /// Highest ratio of the p99 to that of the bare pair; needs --baseline.
    #[arg(long, value_name = "N", requires = "baseline", help_heading = "Limits")]
    max_pair_ratio: Option<f64>,
}

/// A steady stream of messages.
#[derive(Debug, Args)]
pub(crate) struct Flow {
    /// Direct chats; the second member listens on the replica after the first one's.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub chats: u32,

    /// Messages a second.
    #[arg(long, default_value_t = 500.0, value_parser = rate)]
    pub rate: f64,

    /// Length of a message's text, in bytes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub bytes: u16,

    /// Maximum number of requests in flight; the wait of others counts as latency.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub at_once: u32,
}

/// Above the rate of any machine, below that of the pacing thread.
const HIGHEST_RATE: f64 = 200_000.0;

pub(super) fn rate(raw: &str) -> Result<f64, String> {
    let rate: f64 = raw.parse().map_err(|_| "must be a number".to_owned())?;
    let is_right = rate > 0.0 && rate <= HIGHEST_RATE;
    is_right.then_some(rate).ok_or(format!("must be more than 0 and at most {HIGHEST_RATE}"))
}

impl Flow {
    /// Sends for `span`, or until `stop` has come, and waits for what was sent. `name` is unique in a
    /// run: by it its messages differ from others'.
    pub(super) async fn send(
        &self,
        context: &Context<'_>,
        chats: &PairedChats,
        name: &str,
        span: Duration,
        stop: impl Future<Output = ()>,
    ) {
        let text: Arc<str> = "x".repeat(self.bytes.into()).into();
        let due = pace(self.rate, span);
        open_loop(due, stop, self.at_once as usize, |number, due| {
            let (outlet, text) = (chats.outlet(number), Arc::clone(&text));
            let id = format!("{}-{name}-{number}", context.id);
            async move { outlet.send(&text, &id, due).await }
        })
        .await;
        chats.settle().await;
    }
}

/// The first latency's p99.
fn p99(phase: &Phase) -> f64 {
    phase.latencies.first().map_or(f64::NAN, |(_, latency)| latency.p99)
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let Flow { chats, rate, bytes, .. } = options.flow;
    let span = Duration::from_secs(options.seconds);
    let mut findings = Findings::default();
    if options.baseline {
        let stores = baseline::stores(context.target)?;
        findings.phases.push(baseline::pairs(context, stores, rate, bytes, span).await?);
    }
    let chats = PairedChats::open(context, chats).await?;
    let plan = Plan::messages("latency", Some(span), &context.common.limits);
    let work = options.flow.send(context, &chats, "latency", span, future::pending());
    let ((), phase) = context.measure(plan, work).await?;
    chats.judge(context).await?;
    if let Some(bare) = findings.phases.first() {
        let ratio = Some(p99(&phase) / p99(bare));
        let figure = Figure::new("p99 for each p99 of the bare pair", "", ratio);
        findings.figures.push(figure.at_most(options.max_pair_ratio));
    }
    findings.phases.push(phase);
    Ok(findings)
}
