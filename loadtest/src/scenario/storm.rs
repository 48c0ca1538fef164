//! Reconnection storm: all sockets are cut at once and resume during sends.

use std::{
    future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
};

use super::latency::rate;
use crate::{
    clients::{
        fanout_clients::{FanoutClients, Speaker},
        paired_chats::SETTLE,
        send::{open_loop, pace},
    },
    context::{Context, Findings, Metric, Plan},
    error::Error,
    report::{Figure, limits::Limits},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Sockets; each needs a file descriptor at both ends.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    sockets: u32,

    /// Chats that these are subscribed to.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    chats: u32,

    /// Messages a second before, during and after the storm.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,

    /// Seconds of sends before the storm.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    quiet: u64,

    /// Longest time until all are in step again, in seconds.
    #[arg(long, value_name = "S", help_heading = "Limits")]
    max_sync: Option<f64>,

    /// Slowest send during the storm, in ms.
    #[arg(long, value_name = "MS", help_heading = "Limits")]
    max_send: Option<f64>,
}

/// Length of the texts, in bytes.
const BYTES: u16 = 100;

/// Maximum number of sends in flight; the wait of others counts as latency.
const AT_ONCE: usize = 1_000;

/// Time-out of a storm.
const GIVE_UP: Duration = Duration::from_secs(120);

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let quiet = Duration::from_secs(options.quiet);
    context
        .counters
        .say(&format!("opening {} chats and {} sockets", options.chats, options.sockets));
    let clients = FanoutClients::gather(context, options.chats).await?;
    clients.fill(options.sockets).await?;
    let plan = |name, limits| Plan {
        latencies: &[("POST", Metric::Answered), ("POST to socket", Metric::Arrived)],
        ..Plan::messages(name, None, limits)
    };
    let voice = Voice::new(clients.speaker_apart()?)?;
    let sends = voice.speak(pace(options.rate, quiet), future::pending());
    let ((), before) = context.measure(plan("before", &context.common.limits), sends).await?;
    let storm = async {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let sends = pin!(voice.speak(pace(options.rate, GIVE_UP), stopped));
        let breaking = async {
            let took = clients.storm(GIVE_UP).await;
            let _ = stop.send(());
            took
        };
        tokio::join!(breaking, sends).0
    };
    let (took, storm) = context.measure(plan("storm", &Limits::default()), storm).await?;
    clients.judge(SETTLE).await?;
    let seconds = took.map(|took| took.as_secs_f64());
    let slowest = storm.latencies.first().map(|(_, latency)| latency.max);
    let synced = Figure::new("all in step again after", "s", seconds).at_most(options.max_sync);
    let slowest = Figure::new("slowest send meanwhile", "ms", slowest).at_most(options.max_send);
    Ok(Findings { phases: vec![before, storm], figures: vec![synced, slowest] })
}

/// Sends from a runtime with a thread of its own: thousands of resuming sockets delay the other tasks of
/// this program, which must not count as latency of the service.
struct Voice {
    /// `None` in `drop` only.
    runtime: Option<Runtime>,
    speaker: Speaker,
    said: Arc<AtomicUsize>,
}

impl Voice {
    fn new(speaker: Speaker) -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Error::Io("no thread for the sends", error))?;
        Ok(Self { runtime: Some(runtime), speaker, said: Arc::default() })
    }

    /// Sends at each moment of `due` until `stop`, and waits for the answers.
    async fn speak(
        &self,
        due: mpsc::UnboundedReceiver<Instant>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        let (speaker, said) = (self.speaker.clone(), Arc::clone(&self.said));
        let sending = open_loop(due, stop, AT_ONCE, move |_, due| {
            let (speaker, number) = (speaker.clone(), said.fetch_add(1, Ordering::Relaxed));
            async move {
                speaker.send(number, due, BYTES).await;
            }
        });
        if let Some(runtime) = &self.runtime {
            // The panic was already printed.
            let _ = runtime.spawn(sending).await;
        }
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        // Dropping a runtime blocks, which is forbidden within another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
