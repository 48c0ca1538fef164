//! From a lane's commits to Redis, and then to those who wait.

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

/// Commits that may wait for Redis in a lane; past it acknowledgements no longer wait, and the
/// sweeper publishes.
const PUBLISH_QUEUE: usize = 64;

/// Publications past which no further commit goes to Redis with those before it: all of a pipeline must
/// fit into one command's time-out.
const PUBLISHED_AT_ONCE: usize = 2_048;

/// What a committed batch has for Redis.
pub(super) struct Batch {
    pub(super) size: usize,
    commit: Commit,
    /// Where each chat stands now.
    states: BTreeMap<ChatId, ChatState>,
}

impl Batch {
    pub(super) fn new(size: usize) -> Self {
        Self { size, commit: Commit::default(), states: BTreeMap::new() }
    }

    pub(super) fn publish(&mut self, channel: Channel, publication: Bytes) {
        self.commit.publications.push((channel, publication));
    }

    /// A chat stands there now, as this row of the outbox says.
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
    /// When its statement began.
    began: Instant,
    at: Instant,
    /// One statement is of one history.
    epoch: Epoch,
    commit: Commit,
    acknowledgements: Vec<Acknowledgement<W>>,
}

/// Who is told what once Redis has it.
pub(super) struct Acknowledgement<W: BatchItem> {
    pub(super) responder: Responder<W>,
    pub(super) done: W::Done,
}

impl<W: BatchItem> Acknowledgement<W> {
    /// `stands`: the history that it was committed in goes on. Else nobody can say what became of it: the
    /// retry is safe, and stores it where it is missing.
    fn send(self, stands: bool) {
        self.responder.answer(if stands { Ok(self.done) } else { Err(Error::Unavailable(None)) });
    }
}

/// Takes a lane's commits.
pub(super) struct Publisher<W: BatchItem>(mpsc::Sender<Committed<W>>);

/// How old a statement may be until its success is told unasked: longer than one takes that nothing holds
/// up, and shorter than it takes anybody to find a primary dead and to promote another one.
const LATE: Duration = Duration::from_secs(1);

impl<W: BatchItem> Publisher<W> {
    /// Ends when it is dropped, and all that it took is published.
    pub(super) fn start(outbox: &Outbox, tasks: &TaskTracker) -> Self {
        let (commits, to_publish) = mpsc::channel(PUBLISH_QUEUE);
        tasks.spawn(publish_in_order(outbox.clone(), to_publish));
        Self(commits)
    }

    /// Of what was just committed, by a statement that was begun then.
    pub(super) fn publish(
        &self,
        batch: Batch,
        began: Instant,
        acknowledgements: Vec<Acknowledgement<W>>,
    ) {
        // Nothing was written, and nobody is told that it was.
        let Some(state) = batch.states.values().next() else { return };
        let (at, epoch) = (Instant::now(), Epoch::clone(&state.epoch));
        let committed =
            Committed { began, at, epoch, commit: batch.into_commit(), acknowledgements };
        if let Err(refused) = self.0.try_send(committed) {
            let Committed { acknowledgements, .. } = refused.into_inner();
            acknowledgements.into_iter().for_each(|one| one.send(true));
        }
    }
}

/// Publishes a lane's commits in order, so that a chat's changes arrive in order: all that came while
/// Redis took those before them at once. So a slow one is waited for twice at most, and not once for
/// each commit before.
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
            // The commands have their own time-outs; what fails is swept.
            let _ = publishing.await;
        }
    }
}
