//! Readers, each of whom asks again once answered.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use reqwest::Url;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::{
    error::Error,
    ledger::Violation,
    report::Phase,
    rest::Rest,
    rooms::Person,
    run::{Plan, Run, Which},
    tally::{Tally, add},
};

/// Pause before a read that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct Readers {
    /// Readers, each of whom asks again once answered.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,

    /// How long to read.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
}

/// Somebody who reads until the time is over.
#[derive(Clone)]
pub(crate) struct Reader {
    rest: Rest,
    tally: Arc<Tally>,
    call: &'static str,
    end: Instant,
}

impl Reader {
    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// A measured read; `None` where it failed, which is counted.
    pub(crate) async fn get<T: DeserializeOwned>(&self, url: &Url, token: &str) -> Option<T> {
        let began = Instant::now();
        match self.rest.get(self.call, url.clone(), token).await {
            Ok(answer) => {
                self.tally.answered.record(began.elapsed());
                Some(answer)
            }
            Err(error) => {
                add(&self.tally.failed);
                self.tally.note(&crate::error::chain(&error));
                tokio::time::sleep(RETRY).await;
                None
            }
        }
    }

    /// Says what is wrong with an answer, where anything is.
    pub(crate) fn check(&self, person: &Person, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            let (call, user) = (self.call, person.user.clone());
            self.tally.violation(&Violation::Answer { call, user, what: what() });
        }
    }
}

/// Measures readers, numbered from 0, each of whom reads as `read` says.
pub(crate) async fn measure<F>(
    run: &Run<'_>,
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
        counted: Which::Answered,
        latencies: &[("request", Which::Answered)],
        span: Some(span),
        limits: run.common.limits.clone(),
    };
    let end = Instant::now() + span;
    let mut reading = JoinSet::new();
    for number in 0..readers.clients as usize {
        let (rest, tally) = (run.rest.clone(), Arc::clone(&run.tally));
        reading.spawn(read(number, Reader { rest, tally, call, end }));
    }
    let (_, phase) = run.measure(plan, reading.join_all()).await?;
    Ok(phase)
}
