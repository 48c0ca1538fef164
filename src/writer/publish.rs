//! From a lane's commits to Redis, and then to those who wait.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::TaskTracker;

use super::lane::{Asker, Work};
use crate::{
    broker::Channel,
    model::ChatId,
    outbox::{ACK_WAIT, Commit, Outbox},
    store::ChatState,
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

/// A batch on its way to Redis.
struct Committed<W: Work> {
    at: Instant,
    commit: Commit,
    acknowledgements: Vec<Acknowledgement<W>>,
}

/// Who is told what once Redis has it.
pub(super) struct Acknowledgement<W: Work> {
    pub(super) asker: Asker<W>,
    pub(super) done: W::Done,
}

impl<W: Work> Acknowledgement<W> {
    fn send(self) {
        self.asker.answer(Ok(self.done));
    }
}

/// Takes a lane's commits.
pub(super) struct Publisher<W: Work>(mpsc::Sender<Committed<W>>);

impl<W: Work> Publisher<W> {
    /// Ends when it is dropped, and all that it took is published.
    pub(super) fn start(outbox: &Outbox, tasks: &TaskTracker) -> Self {
        let (commits, to_publish) = mpsc::channel(PUBLISH_QUEUE);
        tasks.spawn(publish_in_order(outbox.clone(), to_publish));
        Self(commits)
    }

    /// Of what was just committed.
    pub(super) fn publish(&self, batch: Batch, acknowledgements: Vec<Acknowledgement<W>>) {
        if batch.states.is_empty() {
            acknowledgements.into_iter().for_each(Acknowledgement::send);
            return;
        }
        let committed =
            Committed { at: Instant::now(), commit: batch.into_commit(), acknowledgements };
        if let Err(refused) = self.0.try_send(committed) {
            let Committed { acknowledgements, .. } = refused.into_inner();
            acknowledgements.into_iter().for_each(Acknowledgement::send);
        }
    }
}

/// Publishes a lane's commits in order, so that a chat's changes arrive in order: all that came while
/// Redis took those before them at once. So a slow one is waited for twice at most, and not once for
/// each commit before.
async fn publish_in_order<W: Work>(outbox: Outbox, mut commits: mpsc::Receiver<Committed<W>>) {
    while let Some(Committed { at, mut commit, mut acknowledgements }) = commits.recv().await {
        while commit.publications.len() < PUBLISHED_AT_ONCE
            && let Ok(mut next) = commits.try_recv()
        {
            commit.append(next.commit);
            acknowledgements.append(&mut next.acknowledgements);
        }
        let publishing = outbox.publish(commit);
        tokio::pin!(publishing);
        let outcome = tokio::time::timeout_at(at + ACK_WAIT, &mut publishing).await;
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
