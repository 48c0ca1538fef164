//! Publishes commits to Redis: at once by the committing replica, otherwise by a sweeper.
//!
//! A transaction leaves a row that names the chats it changed. The row is deleted once Redis has
//! the publications and the counters of both members. After a crash or a fault of Redis the sweeper
//! of any replica finds the row and publishes the current state of its chats.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{Broker, Channel, RedisClient, RedisUnavailable},
    error::chain,
    history::History,
    metrics::Metrics,
    model::{ChatId, Epoch, UserId},
    protocol::Publication,
    store::{ChatState, Noted, Store, StoreError, Unpublished},
    unread::{Change, Counter, CounterChange, Unread},
};

/// How long an acknowledgement waits for Redis, so that a read after it sees the new counter on any
/// replica. A healthy Redis is much faster even under load (0.2 ms at rest). A frozen Redis costs
/// this wait once, then its breaker is open.
pub const ACK_WAIT: Duration = Duration::from_millis(200);

/// Interval of the sweeper. A row becomes due after half a second, so that commits of a crashed or
/// cut-off replica are published within a second.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum rows per sweep.
const SWEEP_ROWS: i64 = 500;

/// Chats published at once: a row may name hundreds of chats, and a whole pipeline must fit into
/// the time-out of one command.
const SWEEP_CHATS: usize = 500;

/// How long finished rows are collected, so that their deletion costs one statement per batch, not
/// per message; well below the half second after which a sweeper would take them.
const FORGET_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum finished rows deleted by one statement, which takes some 10 ms.
const FORGET_ROWS: usize = 2_000;

/// The changes of a transaction, ready for Redis.
#[derive(Debug, Default)]
pub struct Commit {
    pub noted: Vec<Noted>,
    pub publications: Vec<(Channel, Bytes)>,
    pub counters: Vec<Change>,
}

impl Commit {
    /// Appends a later commit.
    pub fn append(&mut self, mut later: Self) {
        self.noted.append(&mut later.noted);
        self.publications.append(&mut later.publications);
        self.counters.append(&mut later.counters);
    }

    /// Adds a chat's current state: both counters, and a publication to both inboxes.
    pub fn add_state(&mut self, state: &ChatState) {
        let ChatState { chat_id, last_ev: ev, epoch, .. } = state;
        let (chat_id, ev) = (*chat_id, *ev);
        let chat = Publication::ChatMoved { epoch: Epoch::clone(epoch), chat_id, ev }.encode();
        for (user, counter) in counters(state) {
            self.publications.push((Channel::User(user.clone()), chat.clone()));
            let (epoch, counter) = (Epoch::clone(epoch), CounterChange::Set(counter));
            self.counters.push(Change { user, epoch, counter });
        }
    }

    /// Adds the deletion of a chat.
    pub fn add_deleted(&mut self, epoch: &Epoch, chat_id: ChatId, members: &[UserId]) {
        let epoch = || Epoch::clone(epoch);
        self.publish(Channel::Chat(chat_id), &Publication::Deleted { epoch: epoch() });
        let chat = Publication::ChatMoved { epoch: epoch(), chat_id, ev: i64::MAX }.encode();
        for user in members {
            let counter = CounterChange::Gone { chat_id };
            self.counters.push(Change { user: user.clone(), epoch: epoch(), counter });
            self.publications.push((Channel::User(user.clone()), chat.clone()));
        }
    }

    pub fn publish(&mut self, channel: Channel, publication: &Publication) {
        self.publications.push((channel, publication.encode()));
    }
}

/// The counters of both members of a chat.
pub fn counters(state: &ChatState) -> [(UserId, Counter); 2] {
    let counter = |unread, read_seq| Counter {
        chat_id: state.chat_id,
        room_name: state.room_name.clone(),
        ev: state.last_ev,
        unread,
        last_seq: state.last_seq,
        read_seq,
        activity: state.activity.0.as_microsecond(),
    };
    [
        (state.user_lo.clone(), counter(state.lo_unread, state.lo_read)),
        (state.user_hi.clone(), counter(state.hi_unread, state.hi_read)),
    ]
}

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

/// Published rows that are still to be deleted. They are kept until then, so that a slow deletion
/// is retried and the sweeper does not publish them again. Bounded by the rows of the outbox.
#[derive(Debug, Default)]
struct Finished {
    rows: Mutex<BTreeSet<Noted>>,
    more: Notify,
}

impl Finished {
    fn rows(&self) -> MutexGuard<'_, BTreeSet<Noted>> {
        // A panic leaves the set consistent.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, noted: Vec<Noted>) {
        if !noted.is_empty() {
            self.rows().extend(noted);
            self.more.notify_one();
        }
    }

    /// Returns rows of one epoch, at most as many as one statement deletes.
    fn of_one_history(&self) -> Vec<Noted> {
        let rows = self.rows();
        let Some(first) = rows.first() else { return Vec::new() };
        rows.iter().take_while(|row| row.epoch == first.epoch).take(FORGET_ROWS).cloned().collect()
    }

    fn remove(&self, noted: &[Noted]) {
        let mut rows = self.rows();
        for row in noted {
            rows.remove(row);
        }
    }
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
        // Counters first, so that they are sent before any client can learn of the change.
        let (counted, published) = tokio::join!(
            self.unread.write(&commit.counters),
            self.broker.publish(&commit.publications)
        );
        counted.and(published)?;
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
        // One log line per outage, not per sweep.
        let mut failing = false;
        loop {
            // Jitter, so that replicas started together do not sweep together.
            tokio::time::sleep(SWEEP_INTERVAL.mul_f64(rand::random_range(0.8..1.2))).await;
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

    /// Reads the current state of the chats of these rows, each chat once. Each state carries the
    /// epoch in which it was read: if the epoch changed after the rows were read, theirs is
    /// ignored.
    pub async fn commit_of(&self, rows: &[Unpublished]) -> Result<Commit, StoreError> {
        let mut chats: Vec<ChatId> = rows.iter().flat_map(|row| row.chats.clone()).collect();
        chats.sort_unstable();
        chats.dedup();
        let states = self.store.get_states(&chats).await?;
        let mut commit = Commit {
            noted: rows.iter().map(|row| row.noted.clone()).collect(),
            ..Commit::default()
        };
        for state in &states {
            let head = Publication::Head { epoch: Epoch::clone(&state.epoch), ev: state.last_ev };
            commit.publish(Channel::Chat(state.chat_id), &head);
            commit.add_state(state);
        }
        for row in rows.iter().filter(|row| !row.users.is_empty()) {
            for chat_id in &row.chats {
                commit.add_deleted(&row.noted.epoch, *chat_id, &row.users);
            }
        }
        Ok(commit)
    }
}

/// Splits rows into runs of some [`SWEEP_CHATS`] chats, in reverse order.
fn slices(rows: &[Unpublished]) -> Vec<&[Unpublished]> {
    let mut parts = Vec::new();
    let (mut start, mut chats) = (0, 0);
    for (end, row) in rows.iter().enumerate() {
        chats += row.chats.len();
        if chats >= SWEEP_CHATS {
            parts.push(&rows[start..=end]);
            (start, chats) = (end + 1, 0);
        }
    }
    if start < rows.len() {
        parts.push(&rows[start..]);
    }
    parts.reverse();
    parts
}

/// Deletes finished rows; after `stop` it finishes the rest and returns.
async fn forget(store: Store, finished: Arc<Finished>, stop: CancellationToken) {
    loop {
        let open = stop.run_until_cancelled(finished.more.notified()).await.is_some();
        if open {
            // Collects more rows; ends at once when the replica stops.
            let _ = tokio::time::timeout(FORGET_INTERVAL, stop.cancelled()).await;
        }
        loop {
            // Of one epoch, because another one has other rows with the same ids.
            let rows = finished.of_one_history();
            let Some(Noted { epoch, .. }) = rows.first() else { break };
            let ids: Vec<i64> = rows.iter().map(|row| row.outbox_id).collect();
            match store.delete_outbox(epoch, &ids).await {
                Ok(()) => finished.remove(&rows),
                // Postgres was busy: try again later.
                Err(StoreError::Slow(_) | StoreError::Locked(_)) if open => {
                    tracing::warn!(
                        rows = ids.len(),
                        "deleting outbox rows took too long; once more"
                    );
                    finished.more.notify_one();
                    break;
                }
                Err(error) => {
                    // Remaining rows are swept, which publishes them again; that is harmless.
                    tracing::warn!(
                        error = chain(&error),
                        rows = ids.len(),
                        "outbox rows stay until swept"
                    );
                    finished.rows().clear();
                    break;
                }
            }
        }
        if !open {
            return;
        }
    }
}
