//! Publishes commits to Redis: at once by the committing replica, otherwise by a sweeper.
//!
//! A transaction leaves a row that names the chats and the members it changed. The row is deleted once
//! Redis has the publications and the members' counters. After a crash or a fault of Redis the sweeper
//! of any replica finds the row and publishes the current state of its chats.

mod changes;
mod commit;
mod finished;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::commit::Commit;
use self::finished::{Finished, forget};
use crate::{
    beat,
    broker::{Broker, RedisClient, RedisUnavailable},
    error::chain,
    history::History,
    metrics::Metrics,
    model::{ChatId, Epoch, UserId},
    store::{Store, StoreError, Unpublished},
    unread::Unread,
};

/// How long an acknowledgement waits for Redis, so that a read after it sees the new counter on any
/// replica. A healthy Redis is much faster even under load (0.2 ms at rest). A frozen Redis costs
/// this wait once, then its breaker is open.
pub const ACK_WAIT: Duration = Duration::from_millis(200);

/// Beats from one sweep to the next, 0.4 s. A row becomes due after half a second, so that commits of a
/// crashed or cut-off replica are published within a second.
const SWEEP_BEATS: u32 = 2;

/// Maximum rows per sweep.
const SWEEP_ROWS: i64 = 500;

/// Chats and members published at once: a row may name hundreds, and a whole pipeline must fit into the
/// time-out of one command.
const SWEEP_NAMES: usize = 500;

/// Publishes commits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    store: Store,
    redis: RedisClient,
    broker: Broker,
    unread: Unread,
    finished: Arc<Finished>,
    history: History,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Starts the sweeper and the task that deletes finished rows.
    pub fn start(
        store: Store,
        redis: RedisClient,
        broker: Broker,
        unread: Unread,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let finished = Arc::new(Finished::default());
        tasks.spawn(forget(store.clone(), Arc::clone(&finished), stop.clone()));
        let tasks = tasks.clone();
        let history = unread.history().clone();
        let outbox = Self { store, redis, broker, unread, finished, history, tasks, metrics };
        let sweeper = outbox.clone();
        outbox.tasks.spawn(async move { stop.run_until_cancelled(sweeper.sweep_for_ever()).await });
        outbox
    }

    /// Publishes a commit to Redis. After an error the sweeper does it later.
    pub async fn publish(&self, commit: Commit) -> Result<(), RedisUnavailable> {
        // Counters first, so that they are there before any client can learn of the change.
        let counters = self.unread.writes(&commit.copies);
        self.broker.publish_after(counters, &commit.publications).await?;
        self.finished.add(commit.noted);
        Ok(())
    }

    /// Publishes like [`Outbox::publish`], but returns after [`ACK_WAIT`] at most; the rest
    /// continues in the background.
    pub async fn publish_soon(&self, commit: Commit) {
        let outbox = self.clone();
        let publishing = self.tasks.spawn(async move { outbox.publish(commit).await });
        // If it is late or fails, the sweeper publishes it; neither concerns the caller.
        let _ = tokio::time::timeout(ACK_WAIT, publishing).await;
    }

    /// Whether commits of this epoch are still valid, as far as this replica knows. It asks
    /// Postgres if the commit was late, because the replica may have stood still while a standby
    /// took over.
    pub async fn stands(&self, epoch: &Epoch, is_late: bool) -> bool {
        if is_late {
            let now = self.store.get_epoch().await;
            return now.is_ok_and(|now| {
                // Notes an unknown epoch.
                self.history.is_current(&now);
                now == *epoch
            });
        }
        // An unknown epoch may be the next one; `is_current` requests a comparison.
        self.history.is_current(epoch) || !self.history.is_over(epoch)
    }

    /// Publishes commits that their replicas could not, for ever.
    async fn sweep_for_ever(self) {
        let mut beat = beat::each(SWEEP_BEATS);
        // One log line per outage, not per sweep.
        let mut failing = false;
        loop {
            beat.tick().await;
            while self.redis.is_up() {
                let swept = self.sweep().await;
                match &swept {
                    Err(error) if !failing => {
                        let error = chain(error);
                        tracing::warn!(error, "sweeping the outbox fails; it is tried again");
                    }
                    Err(error) => {
                        tracing::debug!(error = chain(error), "sweeping the outbox fails still");
                    }
                    Ok(_) if failing => tracing::info!("the outbox is swept again"),
                    Ok(_) => {}
                }
                failing = swept.is_err();
                if !matches!(swept, Ok(true)) {
                    break;
                }
            }
        }
    }

    /// Sweeps once; true if there may be more rows.
    async fn sweep(&self) -> Result<bool, StoreError> {
        let mut rows = self.store.take_unpublished(SWEEP_ROWS).await?;
        let more = i64::try_from(rows.len()) == Ok(SWEEP_ROWS);
        {
            let finished = self.finished.rows();
            rows.retain(|row| !finished.contains(&row.noted));
        }
        let mut parts = slices(&rows);
        while let Some(part) = parts.pop() {
            let commit = self.commit_of(part).await?;
            if self.publish(commit).await.is_ok() {
                self.metrics.outbox_swept.inc_by(part.len() as u64);
            } else if !self.redis.is_up() {
                return Ok(false);
            } else if let (first @ [_, ..], second @ [_, ..]) = part.split_at(part.len() / 2) {
                // Halved, so that one key that Redis refuses (of a slot that a cluster's servers
                // disagree about) does not block all others.
                parts.extend([second, first]);
            }
        }
        Ok(more)
    }

    /// Reads the current state of the chats and members of these rows, each once. Each state carries
    /// the epoch in which it was read: if the epoch changed after the rows were read, theirs is
    /// ignored.
    pub async fn commit_of(&self, rows: &[Unpublished]) -> Result<Commit, StoreError> {
        let mut commit = Commit {
            noted: rows.iter().map(|row| row.noted.clone()).collect(),
            ..Commit::default()
        };
        let chats: BTreeSet<ChatId> = rows.iter().flat_map(|row| &row.chats).copied().collect();
        let chats: Vec<ChatId> = chats.into_iter().collect();
        let states = self.store.get_states(&chats).await?;
        states.iter().for_each(|state| commit.add_chat(state));
        for row in rows {
            let is_there = |chat_id| states.iter().any(|state| state.chat_id() == chat_id);
            for chat_id in row.chats.iter().copied().filter(|chat_id| !is_there(*chat_id)) {
                commit.add_deleted(&row.noted.epoch, chat_id, &[]);
            }
        }
        let members: BTreeSet<(ChatId, UserId)> =
            rows.iter().flat_map(|row| row.members.iter().cloned()).collect();
        let members: Vec<(ChatId, UserId)> = members.into_iter().collect();
        // Rows of one sweep belong to one epoch.
        if let Some(row) = rows.first() {
            self.add_members(&mut commit, &members, Some(&row.noted.epoch)).await?;
        }
        Ok(commit)
    }

    /// Adds the current states of these members. Those who have none are out of a chat that is gone.
    async fn add_members(
        &self,
        commit: &mut Commit,
        members: &[(ChatId, UserId)],
        epoch: Option<&Epoch>,
    ) -> Result<(), StoreError> {
        if members.is_empty() {
            return Ok(());
        }
        let states = self.store.get_member_states(members).await?;
        states.iter().for_each(|state| commit.add_state(state));
        let found: BTreeSet<(ChatId, &UserId)> =
            states.iter().map(|state| (state.chat_id, &state.user_id)).collect();
        for (chat_id, user_id) in members {
            if let Some(epoch) = epoch
                && !found.contains(&(*chat_id, user_id))
            {
                commit.add_gone(epoch, *chat_id, user_id);
            }
        }
        Ok(())
    }
}

/// Splits rows into runs of some [`SWEEP_NAMES`] chats and members, in reverse order.
fn slices(rows: &[Unpublished]) -> Vec<&[Unpublished]> {
    let mut parts = Vec::new();
    let (mut start, mut names) = (0, 0);
    for (end, row) in rows.iter().enumerate() {
        names += row.chats.len() + row.members.len();
        if names >= SWEEP_NAMES {
            parts.push(&rows[start..=end]);
            (start, names) = (end + 1, 0);
        }
    }
    if start < rows.len() {
        parts.push(&rows[start..]);
    }
    parts.reverse();
    parts
}
