//! What feeds the hub: publications from Redis, gaps and lost heads from Postgres.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Fill, Gap, Hub, Queue};
use crate::{
    broker::{Broker, Channel, Event, Link},
    metrics::Metrics,
    model::{ChatId, UserId},
    people::People,
    protocol::{MAX_REPLAY, Publication, ResetReason, change_frame},
    store::{Store, StoreError},
    unread::Unread,
};

/// How long a gap waits for the publication that is merely late (two replicas' publications can
/// swap on their way).
const STRAGGLER_WAIT: Duration = Duration::from_millis(50);

/// How often heads are compared while Redis is away: then the comparison *is* the delivery.
const COMPARE_WITHOUT_REDIS: Duration = Duration::from_millis(500);

/// Chats a comparison asks for at once: 2 ms of Postgres a thousand.
const COMPARE_CHUNK: usize = 1_000;

/// How long a chat stays subscribed after its last follower left: people reload pages.
const LINGER: Duration = Duration::from_secs(5);

/// Changes read at once.
const CHANGES_PAGE: i64 = 500;

/// Pause before Postgres is asked again for a gap.
const RETRY: Duration = Duration::from_millis(500);

/// How long following waits for Redis to acknowledge the subscription. Past it the comparison of
/// heads covers what is missed.
const SUBSCRIBE_WAIT: Duration = Duration::from_millis(250);

/// Where a hub's news come from.
#[derive(Debug)]
pub struct Sources {
    pub store: Store,
    pub link: Link,
    pub broker: Broker,
    /// To be told when the database's history is another one.
    pub unread: Unread,
    /// To be told of erasures.
    pub people: People,
    pub events: mpsc::Receiver<Event>,
}

/// The way into the hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hub: Hub,
    store: Store,
    link: Link,
    broker: Broker,
    unread: Unread,
    people: People,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Asks for a comparison at once.
    resync: Notify,
    /// The database's history, as last seen.
    epoch: Mutex<Option<Arc<str>>>,
}

/// Keeps a chat followed; dropping it ends that.
#[derive(Debug)]
pub struct Following {
    feed: Feed,
    chat_id: ChatId,
    queue: Queue,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.feed.shared.hub.remove_follower(self.chat_id, &self.queue);
    }
}

/// Keeps a user's inbox followed; dropping it ends that.
#[derive(Debug)]
pub struct Attached {
    feed: Feed,
    user_id: UserId,
    queue: Queue,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let shared = &self.feed.shared;
        shared.hub.remove_user(&self.user_id, &self.queue, || {
            shared.broker.unsubscribe(&Channel::User(self.user_id.clone()));
        });
    }
}

impl Feed {
    /// Starts the tasks that feed a hub.
    pub fn start(
        sources: Sources,
        compare_interval: Duration,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let Sources { store, link, broker, unread, people, events } = sources;
        let shared = Arc::new(Shared {
            hub: Hub::new(Arc::clone(&metrics)),
            store,
            link,
            broker,
            unread,
            people,
            metrics,
            tasks: tasks.clone(),
            stop: stop.clone(),
            resync: Notify::new(),
            epoch: Mutex::default(),
        });
        let feed = Self { shared };
        let (receiving, comparing) = (feed.clone(), feed.clone());
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.run_until_cancelled(receiving.receive(events)).await });
        tasks.spawn(
            async move { stop.run_until_cancelled(comparing.compare(compare_interval)).await },
        );
        feed
    }

    pub fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// Follows a chat. When this returns, whatever commits from now on comes through `queue` or is
    /// found by the comparison; read Postgres after it, then call [`Feed::note_head`].
    pub async fn follow(&self, chat_id: ChatId, queue: &Queue) -> Following {
        let subscribed = self.shared.hub.add_follower(chat_id, queue);
        let following = Following { feed: self.clone(), chat_id, queue: queue.clone() };
        let channel = Channel::Chat(chat_id);
        let subscribing = subscribed.get_or_try_init(|| self.shared.broker.subscribe(&channel));
        // Redis away: the broker subscribes when it is back, and the comparison delivers until then.
        let _ = tokio::time::timeout(SUBSCRIBE_WAIT, subscribing).await;
        following
    }

    /// A follower has read the chat at `head_ev`.
    pub fn note_head(&self, chat_id: ChatId, head_ev: i64) {
        if let Some(gap) = self.shared.hub.note_head(chat_id, head_ev) {
            self.fill_gap(gap);
        }
    }

    /// Follows a user's inbox.
    pub async fn attach(&self, user_id: &UserId, queue: &Queue) -> Attached {
        self.shared.hub.add_user(user_id, queue);
        let attached =
            Attached { feed: self.clone(), user_id: user_id.clone(), queue: queue.clone() };
        let channel = Channel::User(user_id.clone());
        let subscribing = self.shared.broker.subscribe(&channel);
        let _ = tokio::time::timeout(SUBSCRIBE_WAIT, subscribing).await;
        attached
    }

    async fn receive(self, mut events: mpsc::Receiver<Event>) {
        // Redis away: the broker remembers the wish.
        let _ = self.shared.broker.subscribe(&Channel::All).await;
        while let Some(event) = events.recv().await {
            match event {
                Event::Lost => {
                    self.shared.metrics.resyncs.inc();
                    self.shared.resync.notify_one();
                    self.shared.hub.poke_inboxes();
                }
                Event::Publication { channel, payload } => {
                    self.shared.metrics.publications_received.inc();
                    // Of a newer version: the comparison of heads covers it.
                    let Some(publication) = Publication::decode(&payload) else { continue };
                    self.dispatch(&channel, publication);
                }
            }
        }
    }

    fn dispatch(&self, channel: &Channel, publication: Publication) {
        if let Publication::Event { micros, .. } = &publication {
            let lag = jiff::Timestamp::now().as_microsecond() - micros;
            self.shared.metrics.publication_lag.observe(lag.max(0) as f64 / 1e6);
        }
        match channel {
            Channel::Chat(chat_id) if publication == Publication::Deleted => self.end(*chat_id),
            Channel::Chat(chat_id) => {
                if let Some(gap) = self.shared.hub.receive(*chat_id, publication) {
                    self.fill_gap(gap);
                }
            }
            Channel::User(user_id) => self.shared.hub.receive_for_user(user_id, &publication),
            Channel::All => {
                if let Publication::Erased { user_id } = &publication {
                    self.shared.people.forget(user_id);
                    self.shared.hub.close_user(user_id);
                }
            }
        }
    }

    /// A chat is gone: its sockets are told, and nothing will be published in it any more.
    fn end(&self, chat_id: ChatId) {
        self.shared.hub.receive(chat_id, Publication::Deleted);
        self.shared.broker.unsubscribe(&Channel::Chat(chat_id));
    }

    /// Fills a claimed gap in the background, once the straggler had its moment.
    fn fill_gap(&self, gap: Gap) {
        let feed = self.clone();
        let stop = self.shared.stop.clone();
        self.shared.tasks.spawn(async move {
            stop.run_until_cancelled(async {
                let mut pause = STRAGGLER_WAIT;
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(after_ev) = feed.shared.hub.gap_start(gap) else { return };
                    pause = match feed.read_gap(gap, after_ev).await {
                        Ok(ControlFlow::Continue(())) => Duration::ZERO,
                        Ok(ControlFlow::Break(())) => return,
                        Err(error) => {
                            tracing::warn!(%error, "reading a gap failed");
                            RETRY
                        }
                    };
                }
            })
            .await;
        });
    }

    /// Reads what is missing, in pages; each page moves the cursor. Break: the chat is gone.
    async fn read_gap(&self, gap: Gap, after_ev: i64) -> Result<ControlFlow<()>, StoreError> {
        let Gap(chat_id) = gap;
        let shared = &self.shared;
        let Some(changes) = shared.store.get_changes(chat_id, None, after_ev, CHANGES_PAGE).await?
        else {
            self.end(chat_id);
            return Ok(ControlFlow::Break(()));
        };
        let head_ev = changes.head.ev;
        if head_ev < after_ev || head_ev - after_ev > MAX_REPLAY {
            let reason =
                if head_ev < after_ev { ResetReason::UnknownPosition } else { ResetReason::TooFar };
            shared.hub.reset(gap, head_ev, &changes.head.epoch.into(), reason);
            return Ok(ControlFlow::Continue(()));
        }
        let reached = match changes.changes.last() {
            Some(last) if changes.more => last.ev(),
            _ => head_ev,
        };
        let frames = changes
            .changes
            .iter()
            .map(|change| (change.ev(), change_frame(chat_id, change)))
            .collect();
        shared.hub.fill(gap, Fill { frames, head_ev: reached });
        Ok(ControlFlow::Continue(()))
    }

    /// Compares the heads of followed chats with Postgres, for ever: this alone finds a *last*
    /// publication that was lost, and a Redis that was split off.
    async fn compare(self, interval: Duration) {
        // The history that followers begin in: learned at the first comparison only, a change before
        // it would go unseen.
        if let Ok(epoch) = self.shared.store.get_epoch().await {
            self.set_epoch(epoch.into());
        }
        let mut redis = self.shared.link.subscribe_state();
        loop {
            let connected = *redis.borrow_and_update();
            let pause = if connected { interval } else { COMPARE_WITHOUT_REDIS.min(interval) };
            // Jitter, so that replicas do not ask all at once.
            let pause = pause.mul_f64(rand::random_range(0.8..1.2));
            let asked = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = self.shared.resync.notified() => true,
                // It went: what was published last may be lost, and what comes next will be.
                Ok(()) = redis.changed() => true,
            };
            let skip_confirmed = connected && !asked;
            let since = skip_confirmed.then(|| Instant::now().checked_sub(pause)).flatten();
            let compared = async {
                self.compare_heads(since).await?;
                self.close_erased().await
            };
            if let Err(error) = compared.await {
                tracing::warn!(%error, "comparing with Postgres failed");
            }
            if !self.shared.link.is_up() {
                self.shared.hub.poke_inboxes();
            }
            if let Some(before) = Instant::now().checked_sub(LINGER) {
                let broker = &self.shared.broker;
                self.shared
                    .hub
                    .forget_idle(before, |chat_id| broker.unsubscribe(&Channel::Chat(chat_id)));
            }
        }
    }

    /// Closes the sockets of people whose erasure was not heard of.
    async fn close_erased(&self) -> Result<(), StoreError> {
        for chunk in self.shared.hub.attached_users().chunks(COMPARE_CHUNK) {
            for user_id in self.shared.store.list_erased(chunk).await? {
                self.shared.people.forget(&user_id);
                self.shared.hub.close_user(&user_id);
            }
        }
        Ok(())
    }

    /// Compares all chats but those confirmed after `since`.
    async fn compare_heads(&self, since: Option<Instant>) -> Result<(), StoreError> {
        let known = self.epoch();
        for chunk in self.shared.hub.cursors(since).chunks(COMPARE_CHUNK) {
            let ids: Vec<ChatId> = chunk.iter().map(|(chat_id, _)| *chat_id).collect();
            let (epoch, heads) = self.shared.store.get_heads(&ids).await?;
            let epoch: Arc<str> = epoch.unwrap_or_default().into();
            match &known {
                Some(known) if *known != epoch => return self.reset_all(epoch).await,
                Some(_) => {}
                None => self.set_epoch(Arc::clone(&epoch)),
            }
            for ((chat_id, seen), (_, head)) in chunk.iter().zip(heads) {
                self.compare_head(*chat_id, *seen, head, &epoch);
            }
        }
        Ok(())
    }

    fn compare_head(&self, chat_id: ChatId, seen: i64, head: Option<i64>, epoch: &Arc<str>) {
        match head {
            None => self.end(chat_id),
            // Only a database that went back in time can be behind what was given out.
            Some(head) if head < seen => {
                let reason = ResetReason::UnknownPosition;
                self.shared.hub.reset(Gap(chat_id), head, epoch, reason);
            }
            Some(head) => {
                if let Some(gap) = self.shared.hub.compare(chat_id, seen, head) {
                    self.fill_gap(gap);
                }
            }
        }
    }

    /// The database's history is another one: every position is void.
    async fn reset_all(&self, epoch: Arc<str>) -> Result<(), StoreError> {
        tracing::warn!(%epoch, "the database's history changed: all positions are void");
        for chunk in self.shared.hub.cursors(None).chunks(COMPARE_CHUNK) {
            let ids: Vec<ChatId> = chunk.iter().map(|(chat_id, _)| *chat_id).collect();
            for (chat_id, head) in self.shared.store.get_heads(&ids).await?.1 {
                let Some(head) = head else {
                    self.end(chat_id);
                    continue;
                };
                self.shared.hub.reset(Gap(chat_id), head, &epoch, ResetReason::UnknownPosition);
            }
        }
        // Only now: a failure on the way must make all of it happen again.
        self.set_epoch(epoch);
        Ok(())
    }

    fn epoch(&self) -> Option<Arc<str>> {
        self.shared.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_epoch(&self, epoch: Arc<str>) {
        // Counters of another history would win by their higher `ev`.
        self.shared.unread.set_epoch(&epoch);
        *self.shared.epoch.lock().unwrap_or_else(PoisonError::into_inner) = Some(epoch);
    }
}
