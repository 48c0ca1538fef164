//! Group commit: a chat always belongs to the same batch writer of a replica, which writes
//! everything that waits in one round trip. Without load a batch is one message; under load
//! throughput rises while latency stays. Sends have several batch writers, mutations and annotations
//! have one each.

mod annotations;
mod batch_writer;
mod mutations;
mod publish;
mod sends;
mod shares;

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::batch_writer::{BatchSender, BatchWriter};
use crate::{
    error::Error,
    metrics::Metrics,
    model::Message,
    outbox::Outbox,
    store::{Annotated, Annotation, Draft, Mutated, Mutation, Store},
};

/// A durable message.
#[derive(Debug, Clone)]
pub struct Sent {
    pub message: Message,
    /// The message as JSON; for a new message a slice of the published bytes.
    pub json: Bytes,
    /// Whether an earlier send with the same `client_msg_id` had written it.
    pub replayed: bool,
}

/// The entry to the batch writers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer {
    sends: Vec<BatchSender<Draft>>,
    mutations: BatchSender<Mutation>,
    annotations: BatchSender<Annotation>,
}

impl Writer {
    /// Starts the batch writers. After `stop` they write what waits and end.
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
            annotations: BatchWriter::start(store, outbox, metrics, tasks, stop),
        }
    }

    /// The number of writes that wait.
    pub fn queued(&self) -> usize {
        let sends: usize = self.sends.iter().map(BatchSender::queued).sum();
        sends + self.mutations.queued() + self.annotations.queued()
    }

    /// Writes one message; returns once it is durable and published, or Redis is too slow.
    pub async fn send(&self, draft: Draft) -> Result<Sent, Error> {
        // The last byte of the id is random; the first ones are a clock.
        let writer = usize::from(draft.chat_id.as_bytes()[15]) % self.sends.len();
        self.sends[writer].write(draft).await
    }

    /// Applies one mutation; returns at the same point as [`Self::send`].
    pub async fn mutate(&self, mutation: Mutation) -> Result<Mutated, Error> {
        self.mutations.write(mutation).await
    }

    /// Sets one annotation; returns at the same point as [`Self::send`].
    pub async fn annotate(&self, annotation: Annotation) -> Result<Annotated, Error> {
        self.annotations.write(annotation).await
    }
}
