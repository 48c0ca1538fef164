//! Readers in a closed loop.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    clients::chats::Person,
    context::{Context, Metric, Plan},
    error::Error,
    report::{
        Phase,
        counters::{Counters, add},
        delivery_log::Violation,
    },
    rest::Rest,
};

/// Pause before the retry of a failed read.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct Readers {
    /// Readers in a closed loop.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,

    /// Duration of the reads.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
}

/// A client that reads until the deadline.
#[derive(Clone)]
pub(crate) struct Reader {
    rest: Rest,
    counters: Arc<Counters>,
    call: &'static str,
    end: Instant,
}

impl Reader {
    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// Returns a user's client for their own replica.
    pub(crate) fn at(&self, person: &Person) -> beseda_client::Rest {
        self.rest.at(&person.urls[0], &person.token)
    }

    /// Makes a measured read; `None` if it failed, which is counted.
    pub(crate) async fn measured<T>(
        &self,
        asking: impl Future<Output = Result<T, beseda_client::Error>>,
    ) -> Option<T> {
        let began = Instant::now();
        match asking.await {
            Ok(answer) => {
                self.counters.answered.record(began.elapsed());
                Some(answer)
            }
            Err(error) => {
                add(&self.counters.failed);
                self.counters.note(&format!("{}: {error}", self.call));
                tokio::time::sleep(error.retry_after.unwrap_or(RETRY)).await;
                None
            }
        }
    }

    /// Reports an answer that is not right.
    pub(crate) fn check(&self, person: &Person, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            let (call, user) = (self.call, person.user.clone());
            self.counters.violation(&Violation::Answer { call, user, what: what() });
        }
    }
}

/// Measures readers, numbered from 0, which call `read`.
pub(crate) async fn measure<F>(
    context: &Context<'_>,
    call: &'static str,
    readers: &Readers,
    read: impl Fn(usize, Reader) -> F,
) -> Result<Phase, Error>
where
    F: Future<Output = ()> + Send + 'static,
{
    let span = Duration::from_secs(readers.seconds);
    let plan = Plan {
        name: call,
        unit: "requests",
        counted: Metric::Answered,
        latencies: &[("request", Metric::Answered)],
        span: Some(span),
        limits: context.common.limits.clone(),
    };
    let end = Instant::now() + span;
    let mut reading = JoinSet::new();
    for number in 0..readers.clients as usize {
        let (rest, counters) = (context.rest.clone(), Arc::clone(&context.counters));
        reading.spawn(read(number, Reader { rest, counters, call, end }));
    }
    let (_, phase) = context.measure(plan, reading.join_all()).await?;
    Ok(phase)
}
