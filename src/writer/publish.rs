//! Publishes a batch writer's commits to Redis, then answers the callers.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::TaskTracker;

use super::batch_writer::{BatchItem, Responder};
use crate::{
    broker::Channel,
    error::Error,
    model::{ChatId, Epoch},
    outbox::{ACK_WAIT, Commit, Outbox},
    store::{ChatState, Noted},
};

/// Maximum commits of a batch writer that wait for Redis; beyond it callers are answered at once,
/// and the sweeper publishes.
const PUBLISH_QUEUE: usize = 64;

/// Publications per pipeline, beyond which no further commit is added: a pipeline must fit into the
/// time-out of one command.
const PUBLISHED_AT_ONCE: usize = 2_048;

/// The publications and counters of a committed batch.
pub(super) struct Batch {
    pub(super) size: usize,
    commit: Commit,
    /// The current state of each chat.
    states: BTreeMap<ChatId, ChatState>,
}

impl Batch {
    pub(super) fn new(size: usize) -> Self {
        Self { size, commit: Commit::default(), states: BTreeMap::new() }
    }

    pub(super) fn publish(&mut self, channel: Channel, publication: Bytes) {
        self.commit.publications.push((channel, publication));
    }

    /// Notes a chat's current state and its row of the outbox.
    pub(super) fn note(&mut self, state: ChatState, noted: Option<Noted>) {
        self.states.insert(state.chat_id, state);
        if let Some(noted) = noted
            && self.commit.noted.last() != Some(&noted)
        {
            self.commit.noted.push(noted);
        }
    }

    fn into_commit(mut self) -> Commit {
        self.states.values().for_each(|state| self.commit.add_state(state));
        self.commit
    }
}

/// A batch on its way to Redis.
struct Committed<W: BatchItem> {
    /// When the statement began.
    began: Instant,
    at: Instant,
    /// A statement belongs to one epoch.
    epoch: Epoch,
    commit: Commit,
    acknowledgements: Vec<Acknowledgement<W>>,
}

/// A caller and its result, to be answered once Redis has the commit.
pub(super) struct Acknowledgement<W: BatchItem> {
    pub(super) responder: Responder<W>,
    pub(super) done: W::Done,
}

impl<W: BatchItem> Acknowledgement<W> {
    /// Answers the caller. `stands`: the epoch of the commit is still valid. Otherwise the outcome
    /// is unknown, and a retry is safe: it stores the message if it is missing.
    fn send(self, stands: bool) {
        self.responder.answer(if stands { Ok(self.done) } else { Err(Error::Unavailable(None)) });
    }
}

/// The queue of a batch writer's commits.
pub(super) struct Publisher<W: BatchItem> {
    commits: mpsc::Sender<Committed<W>>,
    outbox: Outbox,
    tasks: TaskTracker,
}

/// The age of a statement beyond which its success is confirmed with Postgres first: longer than an
/// undisturbed statement, shorter than any failover.
const LATE: Duration = Duration::from_secs(1);

impl<W: BatchItem> Publisher<W> {
    /// Starts the task, which ends when the publisher was dropped and all commits are published.
    pub(super) fn start(outbox: &Outbox, tasks: &TaskTracker) -> Self {
        let (commits, to_publish) = mpsc::channel(PUBLISH_QUEUE);
        tasks.spawn(publish_in_order(outbox.clone(), to_publish));
        Self { commits, outbox: outbox.clone(), tasks: tasks.clone() }
    }

    /// Queues a batch that was just committed by a statement that began at `began`.
    pub(super) fn publish(
        &self,
        batch: Batch,
        began: Instant,
        acknowledgements: Vec<Acknowledgement<W>>,
    ) {
        // Nothing was written, so there are no acknowledgements.
        let Some(state) = batch.states.values().next() else { return };
        let (at, epoch) = (Instant::now(), Epoch::clone(&state.epoch));
        let committed =
            Committed { began, at, epoch, commit: batch.into_commit(), acknowledgements };
        if let Err(refused) = self.commits.try_send(committed) {
            // The sweeper publishes it. A commit of a lost epoch is not acknowledged here either.
            let Committed { began, epoch, acknowledgements, .. } = refused.into_inner();
            let outbox = self.outbox.clone();
            self.tasks.spawn(async move {
                let stands = outbox.stands(&epoch, began.elapsed() > LATE).await;
                acknowledgements.into_iter().for_each(|one| one.send(stands));
            });
        }
    }
}

/// Publishes commits in order, so that a chat's changes arrive in order. Commits that came during a
/// publication are published together, so that a commit waits for a slow Redis at most twice, not
/// once per earlier commit.
async fn publish_in_order<W: BatchItem>(outbox: Outbox, mut commits: mpsc::Receiver<Committed<W>>) {
    while let Some(Committed { began, at, epoch, mut commit, acknowledgements }) =
        commits.recv().await
    {
        let mut told = vec![(began, epoch, acknowledgements)];
        while commit.publications.len() < PUBLISHED_AT_ONCE
            && let Ok(next) = commits.try_recv()
        {
            commit.append(next.commit);
            told.push((next.began, next.epoch, next.acknowledgements));
        }
        let publishing = outbox.publish(commit);
        tokio::pin!(publishing);
        let outcome = tokio::time::timeout_at(at + ACK_WAIT, &mut publishing).await;
        for (began, epoch, acknowledgements) in told {
            let stands = outbox.stands(&epoch, began.elapsed() > LATE).await;
            for acknowledgement in acknowledgements {
                if matches!(outcome, Ok(Ok(()))) {
                    W::published(&acknowledgement.done, &acknowledgement.responder.span);
                }
                acknowledgement.send(stands);
            }
        }
        if outcome.is_err() {
            // The commands have their own time-outs; the sweeper repeats failed ones.
            let _ = publishing.await;
        }
    }
}
