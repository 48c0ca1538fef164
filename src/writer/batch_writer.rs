//! A batch writer: a queue, and a task that writes it in batches.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

use super::{
    publish::{Acknowledgement, Batch, Publisher},
    shares::{Place, Shares},
};
use crate::{
    error::Error,
    metrics::Metrics,
    model::{ChatId, Epoch},
    outbox::Outbox,
    store::{GroupHead, MemberState, Store, StoreError},
};

/// Maximum items of a batch. More gain little (100 rows: 87,000 per second, 500: 103,000), and each
/// item waits for the whole batch.
const BATCH: usize = 256;

/// Maximum bytes of a batch, see [`BatchItem::size`]: bounds the wait when messages are large.
const BATCH_BYTES: usize = 256 * 1024;

/// Length of the queue; further items are refused at once, because they would wait for seconds.
const QUEUE: usize = 2_048;

/// Lock time-outs of a batch before all of it is refused. A chat that stays locked is identified
/// earlier.
const LOCK_WAITS: u32 = 3;

/// Statement time-outs of a batch before the cause is not taken for a single chat.
const SLOW: u32 = 2;

/// A write that can be batched.
pub(super) trait BatchItem: Sized + Send + Sync + 'static {
    /// Unique within a batch: a second item with the same key waits for the next one.
    type Key: Eq + Hash + Send;
    /// The database's result for one item.
    type Outcome: Send;
    /// The caller's result.
    type Done: Send + 'static;

    /// Maximum items of one chat in a batch.
    const SHARE_OF_CHAT: usize = BATCH;

    /// Least time between the starts of two batches: those that come meanwhile are written together.
    const PAUSE: Duration = Duration::ZERO;

    fn chat_id(&self) -> ChatId;

    fn key(&self) -> Self::Key;

    /// The bytes of its large fields.
    fn size(&self) -> usize;

    /// Writes a batch in one transaction.
    fn write(
        store: &Store,
        batch: &[Self],
    ) -> impl Future<Output = Result<Written<Self::Outcome>, StoreError>> + Send;

    /// Adds an outcome's publications to `batch`, and returns the caller's result.
    fn conclude(
        outcome: Self::Outcome,
        batch: &mut Batch,
        span: &Span,
        metrics: &Metrics,
    ) -> Result<Self::Done, Error>;

    /// Called before a batch of `size` items is written.
    fn observe(_metrics: &Metrics, _size: usize) {}

    /// Called when Redis has the item.
    fn published(_done: &Self::Done, _span: &Span) {}
}

/// What a batch became.
pub(super) struct Written<O> {
    /// One per item, in order.
    pub(super) outcomes: Vec<O>,
    /// The current states of members whose counters moved.
    pub(super) states: Vec<MemberState>,
    /// Where groups stand of which no state tells it.
    pub(super) heads: Vec<GroupHead>,
    /// A transaction belongs to one epoch.
    pub(super) epoch: Epoch,
}

struct Job<W: BatchItem> {
    item: W,
    responder: Responder<W>,
}

/// A waiting caller, and its span.
pub(super) struct Responder<W: BatchItem> {
    reply: oneshot::Sender<Result<W::Done, Error>>,
    pub(super) span: Span,
}

impl<W: BatchItem> Responder<W> {
    pub(super) fn answer(self, answer: Result<W::Done, Error>) {
        // The caller may have left; the write stays done.
        let _ = self.reply.send(answer);
    }
}

/// The sending end of a batch writer's queue. Cheap to clone.
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

    /// Writes an item; returns once it is durable and published, or Redis is too slow.
    pub(super) async fn write(&self, item: W) -> Result<W::Done, Error> {
        let (reply, outcome) = oneshot::channel();
        let job = Job { item, responder: Responder { reply, span: Span::current() } };
        self.0.try_send(job).map_err(|_| Error::Unavailable(None))?;
        // If the batch writer died, the outcome is unknown, and a retry is safe.
        outcome.await.map_err(|_| Error::Unavailable(None))?
    }
}

pub(super) struct BatchWriter<W: BatchItem> {
    store: Store,
    waiting: mpsc::Receiver<Job<W>>,
    /// Items left out of a batch because of their key: the next batch begins with them, in order.
    carried: VecDeque<Job<W>>,
    /// Chats that were locked at the last attempt; items for them are refused without a wait.
    held: BTreeSet<ChatId>,
    /// When the next batch may begin, see [`BatchItem::PAUSE`].
    paused_until: Option<Instant>,
    publisher: Publisher<W>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl<W: BatchItem> BatchWriter<W> {
    /// Starts a batch writer. After `stop` it writes what waits and ends.
    pub(super) fn start(
        store: &Store,
        outbox: &Outbox,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> BatchSender<W> {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let writer = Self {
            store: store.clone(),
            waiting,
            carried: VecDeque::new(),
            held: BTreeSet::new(),
            paused_until: None,
            publisher: Publisher::start(outbox, tasks),
            metrics: Arc::clone(metrics),
            stop: stop.clone(),
        };
        tasks.spawn(writer.run());
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

    /// Takes the waiting items, without a wait for more.
    async fn next_batch(&mut self) -> Option<Vec<Job<W>>> {
        if self.carried.is_empty() {
            let first = tokio::select! {
                biased;
                job = self.waiting.recv() => job?,
                () = self.stop.cancelled() => return None,
            };
            self.carried.push_back(first);
        }
        if let Some(until) = self.paused_until.take() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.stop.cancelled() => {}
            }
        }
        if !W::PAUSE.is_zero() {
            self.paused_until = Some(Instant::now() + W::PAUSE);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut shares = Shares::new(W::SHARE_OF_CHAT);
        let mut left_out = VecDeque::new();
        // Left-out items are bounded too, because they no longer count in the queue. They are
        // skipped, so that one chat's items do not delay those of others.
        while batch.len() < BATCH && left_out.len() < QUEUE && bytes < BATCH_BYTES {
            let next = self.carried.pop_front().or_else(|| self.waiting.try_recv().ok());
            let Some(job) = next else { break };
            match shares.place(job.item.key(), job.item.chat_id()) {
                Place::InBatch => {
                    bytes += job.item.size();
                    batch.push(job);
                }
                Place::Later => left_out.push_back(job),
                Place::Refused => job.responder.answer(Err(Error::Unavailable(None))),
            }
        }
        left_out.append(&mut self.carried);
        self.carried = left_out;
        Some(batch)
    }

    /// Refuses items for chats that were locked for too long and still are.
    async fn refuse_held(&mut self, batch: Vec<Job<W>>) -> Vec<Job<W>> {
        if !batch.iter().any(|job| self.held.contains(&job.item.chat_id())) {
            return batch;
        }
        // Checks all held chats, so that none is remembered for ever.
        let held: Vec<ChatId> = self.held.iter().copied().collect();
        if let Ok(held) = self.store.list_held(&held).await {
            self.held = held.into_iter().collect();
        }
        let (held, free): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|job| self.held.contains(&job.item.chat_id()));
        refuse(held, &Error::Unavailable(None));
        free
    }

    /// Writes a batch. One bad row or chat does not fail the others: a batch with a row that
    /// Postgres refuses is halved until the row stands alone, a batch with locked chats is split
    /// into locked and free ones, and a slow batch is split by chat.
    async fn write(&mut self, batch: Vec<Job<W>>) {
        let mut slow = 0;
        // Each part with its count of lock time-outs. A stack, so that the order within a chat is
        // kept.
        let mut parts = vec![(batch, 0)];
        while let Some((part, waited)) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let (items, responders): (Vec<_>, Vec<_>) =
                part.into_iter().map(|job| (job.item, job.responder)).unzip();
            let began = Instant::now();
            let error = match W::write(&self.store, &items).await {
                Ok(written) => {
                    self.acknowledge(written, began, responders);
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
                        // Tried again after the free ones are written.
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
                        // No single chat is the cause, so the other parts would time out too.
                        parts.drain(..).for_each(|(jobs, _)| refuse(jobs, &error));
                    }
                }
            }
        }
    }

    /// Refuses items for locked chats, and remembers these chats.
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
        written: Written<W::Outcome>,
        began: Instant,
        responders: Vec<Responder<W>>,
    ) {
        let Written { outcomes, states, heads, epoch } = written;
        let mut batch = Batch::new(outcomes.len(), epoch, states, heads);
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
