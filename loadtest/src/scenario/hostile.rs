//! Measures the effect of hostile clients: well-behaved sends, first alone, then beside thousands of
//! misbehaving sockets and one user's flood.

use std::{
    future,
    process::Stdio,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
};

use super::latency::Flow;
use crate::{
    attack::Told,
    clients::paired_chats::PairedChats,
    context::{Context, Findings, Metric, Plan},
    error::Error,
    report::{Figure, Phase, usage::Sample},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Hostile sockets, which reconnect for ever; each needs a file descriptor at both ends.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    sockets: u32,

    /// Their source addresses, 127.0.1.1 and so on, if the service is on a loopback address.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..))]
    addresses: u8,

    /// Messages a second that one hostile user tries to send: ten times the limit.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    flood: u32,

    /// Chats of well-behaved users.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    chats: u32,

    /// Messages a second of the well-behaved users together; the limit of each is 10.
    #[arg(long, default_value_t = 100.0, value_parser = super::latency::rate)]
    rate: f64,

    /// Seconds of each phase: without and with the attack.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Highest ratio of well-behaved p99 with the attack to that without.
    #[arg(long, value_name = "N", default_value_t = 2.0, help_heading = "Limits")]
    max_ratio: f64,

    /// Maximum memory of the service per hostile socket, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 32.0, help_heading = "Limits")]
    max_socket: f64,
}

/// Length of the texts, in bytes.
const BYTES: u16 = 100;

/// Maximum number of requests in flight; the wait of others counts as latency.
const AT_ONCE: u32 = 1_000;

/// Time-out for all hostile sockets to connect: the service limits the rate of new connections.
const COMING: Duration = Duration::from_secs(120);

/// Time for the service to notice the end of the attack.
const AFTERMATH: Duration = Duration::from_secs(5);

/// The attackers' process, killed on drop.
struct Attack {
    told: watch::Receiver<Told>,
    _process: Child,
}

impl Attack {
    fn start(context: &Context<'_>, options: &Options) -> Result<Self, Error> {
        let program = std::env::current_exe()
            .map_err(|error| Error::Io("this program does not know where it is", error))?;
        // At the lowest priority: see `attack`.
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program).arg("attack");
        for url in &context.target.urls {
            command.arg("--url").arg(url.as_str());
        }
        command
            .args(["--prefix", &context.common.prefix])
            .args(["--sockets", &options.sockets.to_string()])
            .args(["--addresses", &options.addresses.to_string()])
            .args(["--flood", &options.flood.to_string()])
            .env("BESEDA_JWT_HS256_SECRET", context.target.secret.expose())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process =
            command.spawn().map_err(|error| Error::Io("cannot run the attackers", error))?;
        let (telling, told) = watch::channel(Told::default());
        if let Some(output) = process.stdout.take() {
            let mut lines = BufReader::new(output).lines();
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Ok(told) = serde_json::from_str(&line) {
                        telling.send_replace(told);
                    }
                }
            });
        }
        Ok(Self { told, _process: process })
    }

    fn told(&self) -> Told {
        *self.told.borrow()
    }

    /// Returns once all have connected.
    async fn stands(&mut self, sockets: u32) -> Result<(), Error> {
        let coming = self.told.wait_for(|told| told.came >= u64::from(sockets));
        match tokio::time::timeout(COMING, coming).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::Usage(
                "the hostile sockets did not connect in time: is the limit of open files too low?",
            )),
        }
    }
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let span = Duration::from_secs(options.seconds);
    let flow = Flow { chats: options.chats, rate: options.rate, bytes: BYTES, at_once: AT_ONCE };
    let chats = PairedChats::open(context, flow.chats).await?;
    let plan = |name| Plan {
        latencies: &[("POST", Metric::Answered), ("POST to socket", Metric::Arrived)],
        ..Plan::messages(name, Some(span), &context.common.limits)
    };
    // Warm up: connections are open and caches filled.
    flow.send(context, &chats, "warm", Duration::from_secs(3), future::pending()).await;
    let sending = flow.send(context, &chats, "quiet", span, future::pending());
    let ((), quiet) = context.measure(plan("quiet"), sending).await?;

    context.counters.say(&format!("{} hostile sockets connect", options.sockets));
    let before = service_memory(context)?;
    let began = Instant::now();
    let mut attack = Attack::start(context, options)?;
    attack.stands(options.sockets).await?;
    let took = began.elapsed();
    let sending = flow.send(context, &chats, "attack", span, future::pending());
    let ((), attacked) = context.measure(plan("attack"), sending).await?;
    let told = attack.told();
    drop(attack);
    chats.judge(context).await?;
    tokio::time::sleep(AFTERMATH).await;
    let after = service_memory(context)?;

    let most = attacked.memory_mib.get("service").map(|memory| memory.max);
    let sockets = f64::from(options.sockets);
    let each = before.zip(most).map(|(before, most)| (most - before).max(0.0) * 1024.0 / sockets);
    let ratio = Some(p99(&attacked) / p99(&quiet));
    Ok(Findings {
        figures: vec![
            Figure::new("p99 of well-behaved sends, attack to quiet", "", ratio)
                .at_most(Some(options.max_ratio)),
            Figure::new("memory for a hostile socket", "KiB", each)
                .at_most(Some(options.max_socket)),
            Figure::new("memory before the attack", "MiB", before),
            Figure::new("memory during it, at most", "MiB", most),
            Figure::new("memory after it", "MiB", after),
            Figure::new("until all hostile sockets had come", "s", Some(took.as_secs_f64())),
            Figure::new("hostile sockets open at its end", "", Some(told.open as f64)),
            Figure::new("hostile connections in all", "", Some(told.connections as f64)),
            Figure::new("messages of the flood taken", "", Some(told.flood_sent as f64)),
            // A flood without refusals was none.
            Figure::new("messages of the flood refused", "", Some(told.flood_refused as f64))
                .at_least(Some(1.0)),
        ],
        phases: vec![quiet, attacked],
    })
}

/// The p99 from a send's due time to its answer.
fn p99(phase: &Phase) -> f64 {
    phase.latencies.first().map_or(f64::NAN, |(_, latency)| latency.p99)
}

/// Memory in MiB; `None` if the service's processes are not known.
fn service_memory(context: &Context<'_>) -> Result<Option<f64>, Error> {
    let memory = Sample::take(&context.target.processes)?.memory("service");
    Ok(memory.map(|bytes| bytes as f64 / f64::from(1 << 20)))
}
