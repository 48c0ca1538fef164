//! Group commit: a chat always goes to the same lane of a replica, and a lane writes all that waits
//! in one round trip. Under no load a batch is one message; under load throughput rises and latency
//! stays. New messages have lanes of their own, and all else that changes a chat has one.

mod batch_writer;
mod mutations;
mod publish;
mod sends;

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::batch_writer::{BatchSender, BatchWriter};
use crate::{
    error::Error,
    metrics::Metrics,
    model::Message,
    outbox::Outbox,
    store::{Draft, Mutated, Mutation, Store},
};

/// A message now durable.
#[derive(Debug, Clone)]
pub struct Sent {
    pub message: Message,
    /// The same as JSON: of a new message the bytes that are published.
    pub json: Bytes,
    /// An earlier send with the same `client_msg_id` had written it.
    pub replayed: bool,
}

/// The sender to the lanes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer {
    sends: Vec<BatchSender<Draft>>,
    mutations: BatchSender<Mutation>,
}

impl Writer {
    /// Starts the lanes. After `stop` they finish what waits and end.
    pub fn start(
        store: &Store,
        outbox: &Outbox,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            sends: (0..store.writers())
                .map(|_| BatchWriter::start(store, outbox, metrics, tasks, stop))
                .collect(),
            mutations: BatchWriter::start(store, outbox, metrics, tasks, stop),
        }
    }

    /// Sends and mutations that wait for a lane.
    pub fn queued(&self) -> usize {
        self.sends.iter().map(BatchSender::queued).sum::<usize>() + self.mutations.queued()
    }

    /// Writes one message; returns once it is durable, and Redis has it or is too slow.
    pub async fn send(&self, draft: Draft) -> Result<Sent, Error> {
        // The random end of the id; its start is a clock.
        let lane = usize::from(draft.chat_id.as_bytes()[15]) % self.sends.len();
        self.sends[lane].write(draft).await
    }

    /// Makes one change; returns as [`Self::send`] does.
    pub async fn mutate(&self, mutation: Mutation) -> Result<Mutated, Error> {
        self.mutations.write(mutation).await
    }
}
