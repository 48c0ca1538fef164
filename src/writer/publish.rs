//! Publishes a batch writer's commits to Redis, then answers the callers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::TaskTracker;

use super::batch_writer::{BatchItem, Responder};
use crate::{
    broker::Channel,
    error::Error,
    model::{ChatId, ChatKind, Epoch, UserId},
    outbox::{ACK_WAIT, Commit, Outbox},
    protocol::{Frame, Publication},
    store::{GroupHead, MemberState, Noted},
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
    epoch: Epoch,
    commit: Commit,
    /// Encoded events, with their chats and numbers.
    events: Vec<(ChatId, i64, Bytes)>,
    /// Chats in which an item had its way.
    chats: BTreeSet<ChatId>,
    /// The current states of members.
    states: BTreeMap<(ChatId, UserId), MemberState>,
}

impl Batch {
    pub(super) fn new(
        size: usize,
        epoch: Epoch,
        states: Vec<MemberState>,
        heads: Vec<GroupHead>,
    ) -> Self {
        let mut batch = Self {
            size,
            epoch,
            commit: Commit::default(),
            events: Vec::new(),
            chats: BTreeSet::new(),
            states: BTreeMap::new(),
        };
        states.iter().for_each(|state| batch.add_state(state));
        heads.into_iter().for_each(|head| batch.commit.copies.add_head(head));
        batch
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Adds an event to a chat's channel.
    pub(super) fn publish(&mut self, chat_id: ChatId, ev: i64, event: Bytes) {
        self.events.push((chat_id, ev, event));
    }

    /// Adds a reader's new marker in a chat without receipts to their own channel.
    pub(super) fn tell_own_read(&mut self, state: &MemberState, frame: Frame) {
        let MemberState { chat_id, user_id, last_ev, .. } = state;
        let epoch = Epoch::clone(&self.epoch);
        let read = Publication::OwnRead { epoch, chat_id: *chat_id, frame };
        self.commit.publish(Channel::User(user_id.clone()), &read);
        self.commit.tell_inbox(&self.epoch, *chat_id, *last_ev, user_id);
    }

    /// Notes a member's current state.
    pub(super) fn add_state(&mut self, state: &MemberState) {
        let known = self.states.entry((state.chat_id, state.user_id.clone()));
        let known = known.or_insert_with(|| state.clone());
        if known.version() < state.version() {
            known.clone_from(state);
        }
    }

    /// Notes that an item had its way in a chat, and its row of the outbox.
    pub(super) fn note(&mut self, chat_id: ChatId, noted: Option<Noted>) {
        self.chats.insert(chat_id);
        if let Some(noted) = noted
            && self.commit.noted.last() != Some(&noted)
        {
            self.commit.noted.push(noted);
        }
    }

    fn into_commit(mut self) -> Commit {
        // A chat's changes in their order. Of those that share a revision the last one has its state.
        self.events.reverse();
        self.events.sort_by_key(|(chat_id, ev, _)| (*chat_id, *ev));
        self.events.dedup_by_key(|(chat_id, ev, _)| (*chat_id, *ev));
        let events = self.events.into_iter();
        let events = events.map(|(chat_id, _, event)| (Channel::Chat(chat_id), event));
        self.commit.publications.extend(events);
        for state in self.states.values().filter(|state| self.chats.contains(&state.chat_id)) {
            match state.kind {
                ChatKind::Direct => self.commit.add_state(state),
                // The chat's channel tells the inboxes.
                ChatKind::Group => self.commit.copies.add_state(state),
            }
        }
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
        // Nothing was written.
        if acknowledgements.is_empty() {
            return;
        }
        let (at, epoch) = (Instant::now(), Epoch::clone(&batch.epoch));
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
