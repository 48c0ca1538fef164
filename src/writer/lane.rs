//! One writer with its own connection.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

use crate::{
    broker::Channel,
    error::Error,
    metrics::Metrics,
    model::ChatId,
    outbox::{ACK_WAIT, Commit, Outbox},
    store::{ChatState, Store, StoreError},
};

/// Most of a batch: the gain is flat past it (100 rows: 87,000 a second, 500: 103,000), and all of a
/// batch wait for all of it.
const BATCH: usize = 256;

/// Most bytes of a batch, see [`Work::size`]: bounds the wait when messages are large.
const BATCH_BYTES: usize = 256 * 1024;

/// What may wait for a lane; one more is refused at once, because it would wait for seconds.
const QUEUE: usize = 2_048;

/// Commits that may wait for Redis in a lane; past it acknowledgements no longer wait, and the
/// sweeper publishes.
const PUBLISH_QUEUE: usize = 64;

/// What a lane writes, many at once.
pub(super) trait Work: Sized + Send + Sync + 'static {
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

/// What a committed batch has for Redis.
pub(super) struct Batch {
    pub(super) size: usize,
    commit: Commit,
    /// Where each chat stands now.
    states: BTreeMap<ChatId, ChatState>,
}

impl Batch {
    pub(super) fn publish(&mut self, channel: Channel, publication: Bytes) {
        self.commit.publications.push((channel, publication));
    }

    /// A chat stands there now, as this row of the outbox says.
    pub(super) fn note(&mut self, state: ChatState, outbox_id: Option<i64>) {
        self.states.insert(state.chat_id, state);
        if let Some(id) = outbox_id
            && self.commit.outbox_ids.last() != Some(&id)
        {
            self.commit.outbox_ids.push(id);
        }
    }

    fn into_commit(mut self) -> Commit {
        self.states.values().for_each(|state| self.commit.add_state(state));
        self.commit
    }
}

struct Job<W: Work> {
    work: W,
    asker: Asker<W>,
}

/// Who waits for an answer, and the span that it is a part of.
struct Asker<W: Work> {
    reply: oneshot::Sender<Result<W::Done, Error>>,
    span: Span,
}

impl<W: Work> Asker<W> {
    fn answer(self, answer: Result<W::Done, Error>) {
        // Nobody may be left to take it; what was done is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// Where a lane takes what is to be written. Cheap to clone.
pub(super) struct Entrance<W: Work>(mpsc::Sender<Job<W>>);

impl<W: Work> Clone for Entrance<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Work> std::fmt::Debug for Entrance<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance").field("queued", &self.queued()).finish()
    }
}

impl<W: Work> Entrance<W> {
    pub(super) fn queued(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }

    /// Returns once it is durable, and Redis has it or is too slow.
    pub(super) async fn write(&self, work: W) -> Result<W::Done, Error> {
        let (reply, outcome) = oneshot::channel();
        let job = Job { work, asker: Asker { reply, span: Span::current() } };
        self.0.try_send(job).map_err(|_| Error::Unavailable(None))?;
        // A lane that died answers nobody: the outcome is unknown, and the retry is safe.
        outcome.await.map_err(|_| Error::Unavailable(None))?
    }
}

pub(super) struct Lane<W: Work> {
    store: Store,
    waiting: mpsc::Receiver<Job<W>>,
    /// What had to be left out of a batch because of its key: first in the next one, in order.
    carried: VecDeque<Job<W>>,
    commits: mpsc::Sender<(Commit, Vec<Acknowledgement<W>>)>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// Who is told what once Redis has it.
struct Acknowledgement<W: Work> {
    asker: Asker<W>,
    done: W::Done,
}

impl<W: Work> Acknowledgement<W> {
    fn send(self) {
        self.asker.answer(Ok(self.done));
    }
}

impl<W: Work> Lane<W> {
    /// Starts one. After `stop` it finishes what waits and ends.
    pub(super) fn start(
        store: &Store,
        outbox: &Outbox,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Entrance<W> {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let (commits, to_publish) = mpsc::channel(PUBLISH_QUEUE);
        let lane = Self {
            store: store.clone(),
            waiting,
            carried: VecDeque::new(),
            commits,
            metrics: Arc::clone(metrics),
            stop: stop.clone(),
        };
        tasks.spawn(publish_in_order(outbox.clone(), to_publish));
        tasks.spawn(lane.run());
        Entrance(jobs)
    }

    async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
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
        let (mut batch, mut keys, mut bytes) = (Vec::new(), HashSet::new(), 0);
        let mut left_out = VecDeque::new();
        // What is left out is bounded, too: it is out of the queue, where more may come. But one chat's
        // changes must not keep those of others behind them.
        while batch.len() < BATCH && left_out.len() < QUEUE && bytes < BATCH_BYTES {
            let next = self.carried.pop_front().or_else(|| self.waiting.try_recv().ok());
            let Some(job) = next else { break };
            if keys.insert(job.work.key()) {
                bytes += job.work.size();
                batch.push(job);
            } else {
                left_out.push_back(job);
            }
        }
        left_out.append(&mut self.carried);
        self.carried = left_out;
        Some(batch)
    }

    async fn write(&self, batch: Vec<Job<W>>) {
        // A batch with a row that Postgres refuses is split until the culprit stands alone; one that
        // could not have all its chats' locks is split by chat.
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let (works, askers): (Vec<_>, Vec<_>) =
                part.into_iter().map(|job| (job.work, job.asker)).unzip();
            match W::write(&self.store, &works).await {
                Ok(outcomes) => self.acknowledge(outcomes, askers).await,
                // Last in, first out: order within a chat is kept.
                Err(StoreError::Data(_)) if works.len() > 1 => {
                    let mut jobs = rejoin(works, askers);
                    let rest = jobs.split_off(jobs.len() / 2);
                    parts.extend([rest, jobs]);
                }
                // The chat that somebody else holds is waited for once more, and no other one with it.
                Err(StoreError::Locked(_)) if in_several_chats(&works) => {
                    let mut chats: BTreeMap<ChatId, Vec<Job<W>>> = BTreeMap::new();
                    for job in rejoin(works, askers) {
                        chats.entry(job.work.chat_id()).or_default().push(job);
                    }
                    parts.extend(chats.into_values());
                }
                Err(error) => {
                    let error = Error::from(error);
                    for asker in askers {
                        asker.answer(Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn acknowledge(&self, outcomes: Vec<W::Outcome>, askers: Vec<Asker<W>>) {
        let mut batch =
            Batch { size: outcomes.len(), commit: Commit::default(), states: BTreeMap::new() };
        let mut acknowledgements = Vec::new();
        for (outcome, asker) in outcomes.into_iter().zip(askers) {
            match W::conclude(outcome, &mut batch, &asker.span, &self.metrics) {
                Ok(done) => acknowledgements.push(Acknowledgement { asker, done }),
                Err(error) => asker.answer(Err(error)),
            }
        }
        if batch.states.is_empty() {
            acknowledgements.into_iter().for_each(Acknowledgement::send);
            return;
        }
        let commit = batch.into_commit();
        if let Err(refused) = self.commits.try_send((commit, acknowledgements)) {
            let (_, acknowledgements) = refused.into_inner();
            acknowledgements.into_iter().for_each(Acknowledgement::send);
        }
    }
}

/// Publishes a lane's commits one after another, so that a chat's changes arrive in order.
async fn publish_in_order<W: Work>(
    outbox: Outbox,
    mut commits: mpsc::Receiver<(Commit, Vec<Acknowledgement<W>>)>,
) {
    while let Some((commit, acknowledgements)) = commits.recv().await {
        let publishing = outbox.publish(commit);
        tokio::pin!(publishing);
        let outcome = tokio::time::timeout(ACK_WAIT, &mut publishing).await;
        for acknowledgement in acknowledgements {
            if matches!(outcome, Ok(Ok(()))) {
                W::published(&acknowledgement.done, &acknowledgement.asker.span);
            }
            acknowledgement.send();
        }
        if outcome.is_err() {
            // The commands have their own time-outs; what fails is swept.
            let _ = publishing.await;
        }
    }
}

fn rejoin<W: Work>(works: Vec<W>, askers: Vec<Asker<W>>) -> Vec<Job<W>> {
    works.into_iter().zip(askers).map(|(work, asker)| Job { work, asker }).collect()
}

fn in_several_chats<W: Work>(works: &[W]) -> bool {
    works.iter().any(|work| work.chat_id() != works[0].chat_id())
}
