//! From a commit to Redis: at once by whoever committed, else by the sweeper.
//!
//! A transaction leaves a row that names the chats it touched. The row is deleted when Redis has all
//! of it: the publications, and the counters of both members. What a crash or a fault of Redis leaves
//! behind is found by the sweeper of any replica, which publishes where those chats stand.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{Away, Broker, Channel, Link},
    error::chain,
    metrics::Metrics,
    model::{ChatId, UserId},
    protocol::Publication,
    store::{ChatState, Store, StoreError, Unpublished},
    unread::{Counter, CounterChange, Unread},
};

/// How long an acknowledgement waits for Redis: much longer than a healthy one takes even on a
/// crowded machine (0.2 ms in rest), so that a read begun after it counts
/// it on any replica. A Redis that is frozen costs this once: then its breaker is open.
pub const ACK_WAIT: Duration = Duration::from_millis(200);

/// How often the sweeper looks; with the half second a row rests first, what a crash or a cut of one
/// replica from Redis left behind is out within a second.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Rows a sweep takes.
const SWEEP_ROWS: i64 = 500;

/// Chats published at once: a row of a busy moment names hundreds, and all of a pipeline must fit
/// into one command's time-out.
const SWEEP_CHATS: usize = 500;

/// How long finished rows are gathered, so that deleting them costs a statement a batch and not a
/// message; well under the half second after which a sweeper would take them.
const FORGET_INTERVAL: Duration = Duration::from_millis(100);

/// What one transaction changed, ready for Redis.
#[derive(Debug, Default)]
pub struct Commit {
    pub outbox_ids: Vec<i64>,
    pub publications: Vec<(Channel, Bytes)>,
    pub counters: Vec<(UserId, CounterChange)>,
}

impl Commit {
    /// Adds a later one.
    pub fn append(&mut self, mut later: Self) {
        self.outbox_ids.append(&mut later.outbox_ids);
        self.publications.append(&mut later.publications);
        self.counters.append(&mut later.counters);
    }

    /// Adds where a chat stands now: both counters, and a word to both inboxes.
    pub fn add_state(&mut self, state: &ChatState) {
        let room = Publication::Room { chat_id: state.chat_id, ev: state.last_ev }.encode();
        for (user, counter) in counters(state) {
            self.publications.push((Channel::User(user.clone()), room.clone()));
            self.counters.push((user, CounterChange::Set(counter)));
        }
    }

    /// Adds the end of a chat.
    pub fn add_deleted(&mut self, chat_id: ChatId, members: &[UserId]) {
        self.publications.push((Channel::Chat(chat_id), Publication::Deleted.encode()));
        let room = Publication::Room { chat_id, ev: i64::MAX }.encode();
        for user in members {
            self.counters.push((user.clone(), CounterChange::Gone { chat_id }));
            self.publications.push((Channel::User(user.clone()), room.clone()));
        }
    }

    pub fn publish(&mut self, channel: Channel, publication: &Publication) {
        self.publications.push((channel, publication.encode()));
    }
}

/// Both members' counters of a chat.
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
    link: Link,
    broker: Broker,
    unread: Unread,
    finished: mpsc::UnboundedSender<i64>,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Starts the sweeper and the task that deletes finished rows.
    pub fn start(
        store: Store,
        link: Link,
        broker: Broker,
        unread: Unread,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (finished, finished_rows) = mpsc::unbounded_channel();
        tasks.spawn(forget(store.clone(), finished_rows, stop.clone()));
        let outbox = Self { store, link, broker, unread, finished, tasks: tasks.clone(), metrics };
        let sweeper = outbox.clone();
        tasks.spawn(async move { stop.run_until_cancelled(sweeper.sweep_for_ever()).await });
        outbox
    }

    /// Gives everything of a commit to Redis. On an error the sweeper does it later.
    pub async fn publish(&self, commit: Commit) -> Result<(), Away> {
        // Counters first: they are on their way before anybody can hear of the change.
        let (counted, published) = tokio::join!(
            self.unread.write(&commit.counters),
            self.broker.publish(&commit.publications)
        );
        counted.and(published)?;
        for id in commit.outbox_ids {
            // The receiver ends last; without it the row is swept.
            let _ = self.finished.send(id);
        }
        Ok(())
    }

    /// As [`Outbox::publish`], but waits [`ACK_WAIT`] at most; the rest goes on by itself.
    pub async fn publish_soon(&self, commit: Commit) {
        let outbox = self.clone();
        let publishing = self.tasks.spawn(async move { outbox.publish(commit).await });
        // Late or failed, the sweeper sees to it: neither is the caller's concern.
        let _ = tokio::time::timeout(ACK_WAIT, publishing).await;
    }

    /// Publishes what their committers could not, for ever.
    async fn sweep_for_ever(self) {
        // A line for an outage, not for each look of it.
        let mut failing = false;
        loop {
            // Spread, so that replicas started together do not sweep together.
            tokio::time::sleep(SWEEP_INTERVAL.mul_f64(rand::random_range(0.8..1.2))).await;
            while self.link.is_up() {
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

    /// True where there may be more.
    async fn sweep(&self) -> Result<bool, StoreError> {
        let rows = self.store.take_unpublished(SWEEP_ROWS).await?;
        let mut parts = slices(&rows);
        while let Some(part) = parts.pop() {
            let commit = self.commit_of(part).await?;
            if self.publish(commit).await.is_ok() {
                self.metrics.outbox_swept.inc_by(part.len() as u64);
            } else if !self.link.is_up() {
                return Ok(false);
            } else if let (first @ [_, ..], second @ [_, ..]) = part.split_at(part.len() / 2) {
                // One key that Redis refuses (of a slot that a cluster's servers disagree about) must
                // not hold up all the others.
                parts.extend([second, first]);
            }
        }
        Ok(i64::try_from(rows.len()) == Ok(SWEEP_ROWS))
    }

    /// Where the chats of these rows stand now; each once, however many rows name it.
    pub async fn commit_of(&self, rows: &[Unpublished]) -> Result<Commit, StoreError> {
        let mut chats: Vec<ChatId> = rows.iter().flat_map(|row| row.chats.clone()).collect();
        chats.sort_unstable();
        chats.dedup();
        let states = self.store.get_states(&chats).await?;
        let mut commit = Commit {
            outbox_ids: rows.iter().map(|row| row.outbox_id).collect(),
            ..Commit::default()
        };
        for state in &states {
            let head = Publication::Head { ev: state.last_ev };
            commit.publish(Channel::Chat(state.chat_id), &head);
            commit.add_state(state);
        }
        for row in rows.iter().filter(|row| !row.users.is_empty()) {
            for chat_id in &row.chats {
                commit.add_deleted(*chat_id, &row.users);
            }
        }
        Ok(commit)
    }
}

/// Runs of rows that name some [`SWEEP_CHATS`] chats each, the first one last.
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

/// Deletes finished rows, until told to stop and nothing is left.
async fn forget(store: Store, mut finished: mpsc::UnboundedReceiver<i64>, stop: CancellationToken) {
    let mut ids = Vec::new();
    loop {
        let open = tokio::select! {
            count = finished.recv_many(&mut ids, 10_000) => count > 0,
            () = stop.cancelled() => false,
        };
        if open {
            // A moment to gather more; ends at once when the replica does.
            let _ = tokio::time::timeout(FORGET_INTERVAL, stop.cancelled()).await;
        }
        while let Ok(id) = finished.try_recv() {
            ids.push(id);
        }
        if !ids.is_empty()
            && let Err(error) = store.delete_outbox(&ids).await
        {
            // They are swept, which publishes them once more and harms nobody.
            tracing::warn!(error = chain(&error), rows = ids.len(), "outbox rows stay until swept");
        }
        ids.clear();
        if !open {
            return;
        }
    }
}
