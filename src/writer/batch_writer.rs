//! One writer with its own connection.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

use super::publish::{Acknowledgement, Batch, Publisher};
use crate::{
    error::Error,
    metrics::Metrics,
    model::ChatId,
    outbox::Outbox,
    store::{Store, StoreError},
};

/// Most of a batch: the gain is flat past it (100 rows: 87,000 a second, 500: 103,000), and all of a
/// batch wait for all of it.
const BATCH: usize = 256;

/// Most bytes of a batch, see [`BatchItem::size`]: bounds the wait when messages are large.
const BATCH_BYTES: usize = 256 * 1024;

/// What may wait for a lane; one more is refused at once, because it would wait for seconds.
const QUEUE: usize = 2_048;

/// What may wait of one key: a script that changes thousands of messages of one chat, of which each batch
/// takes one, must not take all the chat in the queue.
const QUEUE_OF_ONE: usize = 256;

/// How often a batch waits for locks in vain before all of it is refused. A chat that is held by the same
/// one all the time is found out before.
const LOCK_WAITS: u32 = 3;

/// Of a batch: how often it may run into the statement's time-out until that is not one chat's fault.
const SLOW: u32 = 2;

/// What a lane writes, many at once.
pub(super) trait BatchItem: Sized + Send + Sync + 'static {
    /// No two of a batch have the same one: what comes second waits for the next batch.
    type Key: Eq + Hash + Send;
    /// What the database says of one.
    type Outcome: Send;
    /// What whoever wanted it written is told.
    type Done: Send + 'static;

    fn chat_id(&self) -> ChatId;

    fn key(&self) -> Self::Key;

    /// Bytes of what may be large in it.
    fn size(&self) -> usize;

    /// Writes a batch in one transaction. An outcome each, in order.
    fn write(
        store: &Store,
        batch: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Outcome>, StoreError>> + Send;

    /// Adds an outcome to what `batch` has for Redis, and makes the answer of it.
    fn conclude(
        outcome: Self::Outcome,
        batch: &mut Batch,
        span: &Span,
        metrics: &Metrics,
    ) -> Result<Self::Done, Error>;

    /// A batch of so many is about to be written.
    fn observe(_metrics: &Metrics, _size: usize) {}

    /// Redis has it.
    fn published(_done: &Self::Done, _span: &Span) {}
}

struct Job<W: BatchItem> {
    item: W,
    responder: Responder<W>,
}

/// Who waits for an answer, and the span that it is a part of.
pub(super) struct Responder<W: BatchItem> {
    reply: oneshot::Sender<Result<W::Done, Error>>,
    pub(super) span: Span,
}

impl<W: BatchItem> Responder<W> {
    pub(super) fn answer(self, answer: Result<W::Done, Error>) {
        // Nobody may be left to take it; what was done is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// Where a lane takes what is to be written. Cheap to clone.
pub(super) struct BatchSender<W: BatchItem>(mpsc::Sender<Job<W>>);

impl<W: BatchItem> Clone for BatchSender<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: BatchItem> std::fmt::Debug for BatchSender<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchSender").field("queued", &self.queued()).finish()
    }
}

impl<W: BatchItem> BatchSender<W> {
    pub(super) fn queued(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }

    /// Returns once it is durable, and Redis has it or is too slow.
    pub(super) async fn write(&self, item: W) -> Result<W::Done, Error> {
        let (reply, outcome) = oneshot::channel();
        let job = Job { item, responder: Responder { reply, span: Span::current() } };
        self.0.try_send(job).map_err(|_| Error::Unavailable(None))?;
        // A lane that died answers nobody: the outcome is unknown, and the retry is safe.
        outcome.await.map_err(|_| Error::Unavailable(None))?
    }
}

pub(super) struct BatchWriter<W: BatchItem> {
    store: Store,
    waiting: mpsc::Receiver<Job<W>>,
    /// What had to be left out of a batch because of its key: first in the next one, in order.
    carried: VecDeque<Job<W>>,
    /// Chats that could not be had when they were last asked for: nobody waits for them any more.
    held: BTreeSet<ChatId>,
    publisher: Publisher<W>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl<W: BatchItem> BatchWriter<W> {
    /// Starts one. After `stop` it finishes what waits and ends.
    pub(super) fn start(
        store: &Store,
        outbox: &Outbox,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> BatchSender<W> {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let lane = Self {
            store: store.clone(),
            waiting,
            carried: VecDeque::new(),
            held: BTreeSet::new(),
            publisher: Publisher::start(outbox, tasks),
            metrics: Arc::clone(metrics),
            stop: stop.clone(),
        };
        tasks.spawn(lane.run());
        BatchSender(jobs)
    }

    async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            let batch = self.refuse_held(batch).await;
            if batch.is_empty() {
                continue;
            }
            W::observe(&self.metrics, batch.len());
            self.write(batch).await;
        }
    }

    /// All that waits, without waiting for more.
    async fn next_batch(&mut self) -> Option<Vec<Job<W>>> {
        if self.carried.is_empty() {
            let first = tokio::select! {
                biased;
                job = self.waiting.recv() => job?,
                () = self.stop.cancelled() => return None,
            };
            self.carried.push_back(first);
        }
        let (mut batch, mut keys, mut bytes) = (Vec::new(), HashMap::new(), 0);
        let mut left_out = VecDeque::new();
        // What is left out is bounded, too: it is out of the queue, where more may come. But one chat's
        // changes must not keep those of others behind them.
        while batch.len() < BATCH && left_out.len() < QUEUE && bytes < BATCH_BYTES {
            let next = self.carried.pop_front().or_else(|| self.waiting.try_recv().ok());
            let Some(job) = next else { break };
            let of_one = keys.entry(job.item.key()).or_insert(0);
            *of_one += 1;
            match *of_one {
                1 => {
                    bytes += job.item.size();
                    batch.push(job);
                }
                ..=QUEUE_OF_ONE => left_out.push_back(job),
                _ => job.responder.answer(Err(Error::Unavailable(None))),
            }
        }
        left_out.append(&mut self.carried);
        self.carried = left_out;
        Some(batch)
    }

    /// Refuses at once what is for chats that were held for too long, and still are.
    async fn refuse_held(&mut self, batch: Vec<Job<W>>) -> Vec<Job<W>> {
        if !batch.iter().any(|job| self.held.contains(&job.item.chat_id())) {
            return batch;
        }
        // Of all of them, so that none is remembered for ever.
        let held: Vec<ChatId> = self.held.iter().copied().collect();
        if let Ok(held) = self.store.list_held(&held).await {
            self.held = held.into_iter().collect();
        }
        let (held, free): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|job| self.held.contains(&job.item.chat_id()));
        refuse(held, &Error::Unavailable(None));
        free
    }

    /// Writes a batch. What one row or one chat is to blame for does not fail the others: a batch with a
    /// row that Postgres refuses is halved until the culprit stands alone, one that could not have all
    /// its chats' locks is split by which can be had, one that took too long by chat.
    async fn write(&mut self, batch: Vec<Job<W>>) {
        let mut slow = 0;
        // With how often locks were waited for in vain. Last in, first out: order within a chat is kept.
        let mut parts = vec![(batch, 0)];
        while let Some((part, waited)) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let (items, responders): (Vec<_>, Vec<_>) =
                part.into_iter().map(|job| (job.item, job.responder)).unzip();
            let began = Instant::now();
            let error = match W::write(&self.store, &items).await {
                Ok(outcomes) => {
                    self.acknowledge(outcomes, began, responders);
                    continue;
                }
                Err(error) => error,
            };
            let jobs =
                items.into_iter().zip(responders).map(|(item, responder)| Job { item, responder });
            let mut jobs: Vec<Job<W>> = jobs.collect();
            let chats: BTreeSet<ChatId> = jobs.iter().map(|job| job.item.chat_id()).collect();
            match error {
                StoreError::Data(_) if jobs.len() > 1 => {
                    let rest = jobs.split_off(jobs.len() / 2);
                    parts.extend([(rest, waited), (jobs, waited)]);
                }
                StoreError::Locked(_) if chats.len() > 1 && waited < LOCK_WAITS => {
                    let chats: Vec<ChatId> = chats.into_iter().collect();
                    let held = self.store.list_held(&chats).await.unwrap_or_default();
                    let (of_held, of_free): (Vec<_>, Vec<_>) =
                        jobs.into_iter().partition(|job| held.contains(&job.item.chat_id()));
                    if waited == 0 {
                        // Once more, when those that can be had are written.
                        parts.push((of_held, 1));
                    } else {
                        self.give_up(held, of_held, &error.into());
                    }
                    parts.push((of_free, waited + 1));
                }
                StoreError::Locked(_) if chats.len() == 1 => {
                    self.give_up(chats, jobs, &error.into());
                }
                StoreError::Slow(_) if chats.len() > 1 && slow < SLOW => {
                    slow += 1;
                    let mut by_chat: BTreeMap<ChatId, Vec<Job<W>>> = BTreeMap::new();
                    for job in jobs {
                        by_chat.entry(job.item.chat_id()).or_default().push(job);
                    }
                    parts.extend(by_chat.into_values().map(|jobs| (jobs, waited)));
                }
                error => {
                    slow += u32::from(matches!(error, StoreError::Slow(_)));
                    let error = Error::from(error);
                    refuse(jobs, &error);
                    if slow > SLOW {
                        // Not one chat's fault: all would wait as long.
                        parts.drain(..).for_each(|(jobs, _)| refuse(jobs, &error));
                    }
                }
            }
        }
    }

    /// Refuses what is for chats that somebody holds, and remembers these.
    fn give_up(
        &mut self,
        held: impl IntoIterator<Item = ChatId>,
        jobs: Vec<Job<W>>,
        error: &Error,
    ) {
        self.held.extend(held);
        refuse(jobs, error);
    }

    fn acknowledge(
        &self,
        outcomes: Vec<W::Outcome>,
        began: Instant,
        responders: Vec<Responder<W>>,
    ) {
        let mut batch = Batch::new(outcomes.len());
        let mut acknowledgements = Vec::new();
        for (outcome, responder) in outcomes.into_iter().zip(responders) {
            match W::conclude(outcome, &mut batch, &responder.span, &self.metrics) {
                Ok(done) => acknowledgements.push(Acknowledgement { responder, done }),
                Err(error) => responder.answer(Err(error)),
            }
        }
        self.publisher.publish(batch, began, acknowledgements);
    }
}

fn refuse<W: BatchItem>(jobs: Vec<Job<W>>, error: &Error) {
    for job in jobs {
        job.responder.answer(Err(error.clone()));
    }
}
