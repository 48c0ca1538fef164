//! Uploads large attachments through the replicas: bytes a second, and memory that must not grow with them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use tokio::task::JoinSet;

use crate::{
    clients::chats::PairChat,
    context::{Context, Findings, Metric, Plan},
    error::Error,
    report::{
        Figure,
        counters::{Counters, add},
        delivery_log::Violation,
    },
    rest::Rest,
};

/// Pause before the retry of a failed upload.
const RETRY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Uploads at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,

    /// Size of a file, in MiB; the service takes 100 by default.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    mib: u32,

    /// Duration of the uploads.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Maximum growth of the service's resident memory, in MiB.
    #[arg(long, value_name = "MIB", help_heading = "Limits")]
    max_growth: Option<f64>,
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let span = Duration::from_secs(options.seconds);
    let plan = Plan {
        name: "uploads",
        unit: "files",
        counted: Metric::Answered,
        latencies: &[("upload", Metric::Answered)],
        span: Some(span),
        limits: context.common.limits.clone(),
    };
    let chats = context.chats(options.clients).await?;
    // Of no known type, so that nothing but its size matters.
    let file = Bytes::from(vec![0xa5; (options.mib as usize) << 20]);
    let end = Instant::now() + span;
    let mut uploading = JoinSet::new();
    for chat in chats {
        let (rest, counters) = (context.rest.clone(), Arc::clone(&context.counters));
        uploading.spawn(upload_until(rest, counters, chat, file.clone(), end));
    }
    let (_, phase) = context.measure(plan, uploading.join_all()).await?;
    let mib_per_second = phase.per_second * f64::from(options.mib);
    let memory = phase.memory_mib.get("service").copied();
    let grown = memory.map(|memory| memory.max - memory.before);
    let figures = vec![
        Figure::new("throughput", "MiB/s", Some(mib_per_second)),
        Figure::new("peak memory of all replicas", "MiB", memory.map(|memory| memory.max)),
        Figure::new("growth of memory", "MiB", grown).at_most(options.max_growth),
    ];
    Ok(Findings { phases: vec![phase], figures })
}

/// Uploads one file after the other; none is sent, so they go a day later.
async fn upload_until(
    rest: Rest,
    counters: Arc<Counters>,
    chat: PairChat,
    file: Bytes,
    end: Instant,
) {
    while Instant::now() < end {
        let (began, sender) = (Instant::now(), &chat.sender);
        match rest.upload(&sender.urls[0], &sender.token, chat.chat_id, &file).await {
            Ok(204) => counters.answered.record(began.elapsed()),
            Ok(status @ (429 | 500..)) => {
                add(&counters.failed);
                counters.note(&format!("an upload was answered {status}"));
                tokio::time::sleep(RETRY).await;
            }
            Ok(status) => {
                let (call, user) = ("PUT /uploads/{link}/", sender.user.clone());
                let what = format!("answered {status}");
                counters.violation(&Violation::Answer { call, user, what });
                return;
            }
            Err(error) => {
                add(&counters.failed);
                counters.note(&format!("an upload: {error}"));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
