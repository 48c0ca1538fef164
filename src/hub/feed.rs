//! Feeds the hub: with publications from Redis, and with gaps and lost heads from Postgres.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Fill, Gap, Hub, Queue, Received};
use crate::{
    admission_cache::AdmissionCache,
    broker::{Broker, Channel, Event, RedisClient, RedisUnavailable},
    error::chain,
    history::History,
    metrics::Metrics,
    model::{ChatId, Epoch, Time, UserId},
    presence::Presence,
    protocol::{AddressedFrame, MAX_REPLAY, Publication, ResetReason},
    store::{Store, StoreError},
};

/// How long a gap waits for a late publication (those of two replicas may arrive swapped).
const STRAGGLER_WAIT: Duration = Duration::from_millis(50);

/// Changes read by one statement.
const CHANGES_PAGE: i64 = 500;

/// Pause before a gap is read again.
const RETRY: Duration = Duration::from_millis(500);

/// How long a subscription waits for Redis to acknowledge it, and a socket that is being opened
/// with it. Beyond that, missed changes are found by a comparison once the acknowledgement comes.
pub(super) const SUBSCRIBE_WAIT: Duration = Duration::from_millis(250);

/// The dependencies of a feed.
#[derive(Debug)]
pub struct Sources {
    pub store: Store,
    pub redis: RedisClient,
    pub broker: Broker,
    /// Updated when the epoch changes.
    pub history: History,
    /// Told of erasures and revocations.
    pub admissions: AdmissionCache,
    /// Asked who of those is online whom a gap tells of.
    pub presence: Presence,
    pub events: mpsc::Receiver<Event>,
}

/// The entry to the hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hub: Hub,
    pub(super) store: Store,
    pub(super) redis: RedisClient,
    pub(super) broker: Broker,
    pub(super) history: History,
    pub(super) admissions: AdmissionCache,
    presence: Presence,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A subscription to a chat; dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    feed: Feed,
    chat_id: ChatId,
    queue: Queue,
}

impl Subscription {
    pub fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    /// Ends the subscription and drops the chat at once unless others subscribe: the user is no
    /// member, so nothing may stay behind.
    pub fn abandon(self) {
        let (feed, chat_id) = (self.feed.clone(), self.chat_id);
        drop(self);
        feed.shared.hub.forget(chat_id, || feed.shared.broker.unsubscribe(&Channel::Chat(chat_id)));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.shared.hub.remove_subscriber(self.chat_id, &self.queue);
    }
}

/// Registers a socket for its user until dropped.
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
    /// Starts the tasks that feed the hub.
    pub fn start(
        sources: Sources,
        compare_interval: Duration,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let Sources { store, redis, broker, history, admissions, presence, events } = sources;
        let shared = Arc::new(Shared {
            hub: Hub::new(Arc::clone(&metrics)),
            store,
            redis,
            broker,
            history,
            admissions,
            presence,
            metrics,
            tasks: tasks.clone(),
            stop: stop.clone(),
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

    /// Subscribes to a chat. Every later commit arrives through `queue` or is found by the
    /// comparison; the caller then reads Postgres and calls [`Feed::note_head`].
    pub async fn subscribe_chat(&self, chat_id: ChatId, queue: &Queue) -> Subscription {
        let subscribed = self.shared.hub.add_subscriber(chat_id, queue);
        let subscription = Subscription { feed: self.clone(), chat_id, queue: queue.clone() };
        let subscribing = subscribed.get_or_try_init(|| self.subscribe(Channel::Chat(chat_id)));
        // Longer than one subscription waits, so that none is cut short; other sockets of this chat
        // wait for the same one. Without Redis the comparison delivers, until the broker can
        // subscribe.
        let _ = tokio::time::timeout(SUBSCRIBE_WAIT * 2, subscribing).await;
        subscription
    }

    /// Subscribes to a channel and waits for Redis's acknowledgement. If it comes late,
    /// publications were missed until then, and a comparison follows.
    pub(super) async fn subscribe(&self, channel: Channel) -> Result<(), RedisUnavailable> {
        let broker = self.shared.broker.clone();
        let mut subscribing = Box::pin(async move { broker.subscribe(&channel).await });
        if let Ok(outcome) = tokio::time::timeout(SUBSCRIBE_WAIT, &mut subscribing).await {
            return outcome;
        }
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            // On `RedisUnavailable` the broker reports the loss once it has reconnected.
            if let Some(Ok(())) = shared.stop.run_until_cancelled(subscribing).await {
                shared.metrics.resyncs.inc();
                shared.history.doubt();
            }
        });
        Err(RedisUnavailable)
    }

    /// Notes that a subscriber has read the chat at `head_ev`. Returns the hub's cursor: if it is
    /// beyond `head_ev`, the subscriber must read again. `None`: hub and subscriber are in
    /// different epochs, and the subscriber must read again until they agree.
    pub fn note_head(&self, chat_id: ChatId, head_ev: i64, epoch: &Epoch) -> Option<i64> {
        let Some((cursor, gap)) = self.shared.hub.note_head(chat_id, head_ev, epoch) else {
            self.shared.history.doubt();
            return None;
        };
        if let Some(gap) = gap {
            self.fill_gap(gap);
        }
        Some(cursor)
    }

    /// Registers a socket for its user; with `inbox` it also receives which chats change.
    pub async fn attach(&self, user_id: &UserId, queue: &Queue, inbox: bool) -> Attached {
        self.shared.hub.add_user(user_id, queue, inbox);
        let attached =
            Attached { feed: self.clone(), user_id: user_id.clone(), queue: queue.clone() };
        if inbox {
            self.hear_user(user_id).await;
        }
        attached
    }

    /// Subscribes to the channel of a user with a socket here.
    pub async fn hear_user(&self, user_id: &UserId) {
        // A late or failed subscription is covered by the comparison.
        let _ = self.subscribe(Channel::User(user_id.clone())).await;
    }

    async fn receive(self, mut events: mpsc::Receiver<Event>) {
        // Without Redis the broker subscribes once it has reconnected.
        let _ = self.shared.broker.subscribe(&Channel::All).await;
        while let Some(event) = events.recv().await {
            match event {
                Event::Lost => {
                    self.shared.metrics.resyncs.inc();
                    self.shared.history.doubt();
                }
                Event::Publication { channel, payload } => {
                    self.shared.metrics.publications_received.inc();
                    // A publication of a newer version is covered by the comparison.
                    let Some(publication) = Publication::decode(&payload) else { continue };
                    self.dispatch(&channel, publication);
                }
            }
        }
    }

    fn dispatch(&self, channel: &Channel, publication: Publication) {
        // A replica that stood still during a failover may publish commits that were lost.
        if publication.epoch().is_some_and(|epoch| !self.shared.history.is_current(epoch)) {
            return;
        }
        if let Publication::Event { micros, .. } = &publication {
            let lag = jiff::Timestamp::now().as_microsecond() - micros;
            self.shared.metrics.publication_lag.observe(lag.max(0) as f64 / 1e6);
        }
        match channel {
            Channel::Chat(chat_id) => self.receive_in_chat(*chat_id, publication),
            Channel::User(user_id) => self.shared.hub.receive_for_user(user_id, publication),
            Channel::All => match &publication {
                Publication::Erased { user_id, .. } => {
                    self.shared.admissions.forget(user_id);
                    self.shared.hub.close_user(user_id);
                }
                Publication::Revoked { user_id, micros, .. } => {
                    self.shared.admissions.forget(user_id);
                    if let Ok(at) = jiff::Timestamp::from_microsecond(*micros) {
                        self.shared.hub.revoke_user(user_id, Time(at));
                    }
                }
                _ => {}
            },
        }
    }

    fn receive_in_chat(&self, chat_id: ChatId, publication: Publication) {
        match self.shared.hub.receive(chat_id, publication) {
            Received::Taken => {}
            Received::Gap(gap) => self.fill_gap(gap),
            // A deleted chat has no further publications.
            Received::Ended => self.shared.broker.unsubscribe(&Channel::Chat(chat_id)),
            // The publication is of the current epoch, so the chat is not.
            Received::Foreign => self.shared.history.doubt(),
        }
    }

    /// Ends a chat that Postgres does not have, and tells its sockets.
    pub(super) fn end(&self, chat_id: ChatId, epoch: &Epoch) {
        self.shared.hub.end(chat_id, epoch);
        self.shared.broker.unsubscribe(&Channel::Chat(chat_id));
    }

    /// Fills a claimed gap in the background, after a wait for the late publication.
    pub(super) fn fill_gap(&self, gap: Gap) {
        let feed = self.clone();
        let stop = self.shared.stop.clone();
        self.shared.tasks.spawn(async move {
            stop.run_until_cancelled(async {
                let mut pause = STRAGGLER_WAIT;
                loop {
                    tokio::time::sleep(pause).await;
                    let Some((after_ev, epoch)) = feed.shared.hub.gap_start(gap) else { return };
                    pause = match feed.read_gap(gap, after_ev, &epoch).await {
                        Ok(ControlFlow::Continue(true)) => Duration::ZERO,
                        // The epochs differ: the comparison finds out which one is over.
                        Ok(ControlFlow::Continue(false)) => RETRY,
                        Ok(ControlFlow::Break(())) => return,
                        Err(error) => {
                            tracing::warn!(error = chain(&error), "reading a gap failed");
                            RETRY
                        }
                    };
                }
            })
            .await;
        });
    }

    /// Reads one page of a gap. Continues with whether the cursor moved; breaks if the chat was
    /// deleted.
    async fn read_gap(
        &self,
        gap: Gap,
        after_ev: i64,
        epoch: &Epoch,
    ) -> Result<ControlFlow<(), bool>, StoreError> {
        let Gap(chat_id) = gap;
        let shared = &self.shared;
        let changes = shared.store.get_changes(chat_id, None, after_ev, CHANGES_PAGE).await?;
        let Some(mut changes) = changes else {
            // A missing row carries no epoch, so the head is read with it.
            let (found_in, heads) = shared.store.get_heads(&[chat_id]).await?;
            if found_in != *epoch || heads.iter().any(|(_, head)| head.is_some()) {
                shared.history.doubt();
                return Ok(ControlFlow::Continue(false));
            }
            self.end(chat_id, epoch);
            return Ok(ControlFlow::Break(()));
        };
        if *changes.head.epoch != **epoch {
            shared.history.doubt();
            return Ok(ControlFlow::Continue(false));
        }
        let head_ev = changes.head.ev;
        // By numbers, which cost no look: no replica has missed so many publications of one chat otherwise.
        if head_ev - after_ev > MAX_REPLAY {
            shared.hub.reset(gap, head_ev, epoch, ResetReason::TooFar);
            return Ok(ControlFlow::Continue(true));
        }
        let receipts = changes.head.receipts;
        shared.presence.show(&mut changes.changes, receipts).await;
        let frames = changes
            .changes
            .iter()
            .map(|change| (change.ev(), AddressedFrame::of(chat_id, change, receipts)))
            .collect();
        let epoch = Epoch::clone(epoch);
        let (head_ev, whole) = if changes.more { (changes.up_to, false) } else { (head_ev, true) };
        let moved = shared.hub.fill(gap, Fill { epoch, after_ev, frames, head_ev, whole });
        Ok(ControlFlow::Continue(moved))
    }
}
