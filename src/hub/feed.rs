//! What feeds the hub: publications from Redis, gaps and lost heads from Postgres.

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
    protocol::{MAX_REPLAY, Publication, ResetReason, change_frame},
    store::{Store, StoreError},
};

/// How long a gap waits for the publication that is merely late (two replicas' publications can
/// swap on their way).
const STRAGGLER_WAIT: Duration = Duration::from_millis(50);

/// Changes read at once.
const CHANGES_PAGE: i64 = 500;

/// Pause before Postgres is asked again for a gap.
const RETRY: Duration = Duration::from_millis(500);

/// How long following waits for Redis to acknowledge the subscription: a socket that is being opened
/// waits with it. Past it, what was missed is compared as soon as the acknowledgement comes.
const SUBSCRIBE_WAIT: Duration = Duration::from_millis(250);

/// Where a hub's news come from.
#[derive(Debug)]
pub struct Sources {
    pub store: Store,
    pub link: RedisClient,
    pub broker: Broker,
    /// To be told when it is another one.
    pub history: History,
    /// To be told of erasures.
    pub admissions: AdmissionCache,
    pub events: mpsc::Receiver<Event>,
}

/// The way into the hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hub: Hub,
    pub(super) store: Store,
    pub(super) link: RedisClient,
    pub(super) broker: Broker,
    pub(super) history: History,
    pub(super) admissions: AdmissionCache,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Keeps a chat followed; dropping it ends that.
#[derive(Debug)]
pub struct Following {
    feed: Feed,
    chat_id: ChatId,
    queue: Queue,
}

impl Following {
    pub fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    /// Ends it as if it had never been: of a chat that is none to its follower nothing stays behind,
    /// unless others follow it.
    pub fn abandon(self) {
        let (feed, chat_id) = (self.feed.clone(), self.chat_id);
        drop(self);
        feed.shared.hub.forget(chat_id, || feed.shared.broker.unsubscribe(&Channel::Chat(chat_id)));
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.feed.shared.hub.remove_follower(self.chat_id, &self.queue);
    }
}

/// Keeps a socket counted as its user's; dropping it ends that.
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
        let Sources { store, link, broker, history, admissions, events } = sources;
        let shared = Arc::new(Shared {
            hub: Hub::new(Arc::clone(&metrics)),
            store,
            link,
            broker,
            history,
            admissions,
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

    /// Follows a chat. When this returns, whatever commits from now on comes through `queue` or is
    /// found by the comparison; read Postgres after it, then call [`Feed::note_head`].
    pub async fn follow(&self, chat_id: ChatId, queue: &Queue) -> Following {
        let subscribed = self.shared.hub.add_follower(chat_id, queue);
        let following = Following { feed: self.clone(), chat_id, queue: queue.clone() };
        let subscribing = subscribed.get_or_try_init(|| self.subscribe(Channel::Chat(chat_id)));
        // Longer than one subscription waits, so that it is not cut short; others of this chat wait for
        // the same one. Redis away: the broker subscribes when it is back, and the comparison delivers
        // until then.
        let _ = tokio::time::timeout(SUBSCRIBE_WAIT * 2, subscribing).await;
        following
    }

    /// Has Redis acknowledge that a channel is listened to. `Err`: not in time. What is published until
    /// it does is not heard, so that all is compared then.
    async fn subscribe(&self, channel: Channel) -> Result<(), RedisUnavailable> {
        let broker = self.shared.broker.clone();
        let mut subscribing = Box::pin(async move { broker.subscribe(&channel).await });
        if let Ok(outcome) = tokio::time::timeout(SUBSCRIBE_WAIT, &mut subscribing).await {
            return outcome;
        }
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            // RedisUnavailable: the broker admits the loss when it is back.
            if let Some(Ok(())) = shared.stop.run_until_cancelled(subscribing).await {
                shared.metrics.resyncs.inc();
                shared.history.doubt();
            }
        });
        Err(RedisUnavailable)
    }

    /// A follower has read the chat at `head_ev`. Gives up to where the hub has given the chat out:
    /// past `head_ev`, the follower has to read once more. `None`: one of the two is in a history that is
    /// gone, and the follower has to read again until they agree.
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

    /// Counts a socket as the user's; `inbox`: it also wants to hear which chats move.
    pub async fn attach(&self, user_id: &UserId, queue: &Queue, inbox: bool) -> Attached {
        self.shared.hub.add_user(user_id, queue, inbox);
        let attached =
            Attached { feed: self.clone(), user_id: user_id.clone(), queue: queue.clone() };
        if inbox {
            // Late or not at all: the comparison covers it.
            let _ = self.subscribe(Channel::User(user_id.clone())).await;
        }
        attached
    }

    async fn receive(self, mut events: mpsc::Receiver<Event>) {
        // Redis away: the broker remembers the wish.
        let _ = self.shared.broker.subscribe(&Channel::All).await;
        while let Some(event) = events.recv().await {
            match event {
                Event::Lost => {
                    self.shared.metrics.resyncs.inc();
                    self.shared.history.doubt();
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
        // A replica that stood still while a standby took over says late what was lost.
        if publication.epoch().is_some_and(|epoch| !self.shared.history.is_current(epoch)) {
            return;
        }
        if let Publication::Event { micros, .. } = &publication {
            let lag = jiff::Timestamp::now().as_microsecond() - micros;
            self.shared.metrics.publication_lag.observe(lag.max(0) as f64 / 1e6);
        }
        match channel {
            Channel::Chat(chat_id) => self.receive_in_chat(*chat_id, publication),
            Channel::User(user_id) => self.shared.hub.receive_for_user(user_id, &publication),
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
            // Nothing will be published in it any more.
            Received::Ended => self.shared.broker.unsubscribe(&Channel::Chat(chat_id)),
            // It is of the present one, so that the chat is not.
            Received::Foreign => self.shared.history.doubt(),
        }
    }

    /// Postgres has no such chat: its sockets are told.
    pub(super) fn end(&self, chat_id: ChatId, epoch: &Epoch) {
        self.shared.hub.end(chat_id, epoch);
        self.shared.broker.unsubscribe(&Channel::Chat(chat_id));
    }

    /// Fills a claimed gap in the background, once the straggler had its moment.
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
                        // Of another history: the comparison finds out which of the two is gone.
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

    /// Reads what is missing, in pages; each page moves the cursor, or says that it did not. Break:
    /// the chat is gone.
    async fn read_gap(
        &self,
        gap: Gap,
        after_ev: i64,
        epoch: &Epoch,
    ) -> Result<ControlFlow<(), bool>, StoreError> {
        let Gap(chat_id) = gap;
        let shared = &self.shared;
        let Some(changes) = shared.store.get_changes(chat_id, None, after_ev, CHANGES_PAGE).await?
        else {
            // Asked once more, since what is not there does not say in which history.
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
        if head_ev - after_ev > MAX_REPLAY {
            shared.hub.reset(gap, head_ev, epoch, ResetReason::TooFar);
            return Ok(ControlFlow::Continue(true));
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
        let epoch = Epoch::clone(epoch);
        let moved = shared.hub.fill(gap, Fill { epoch, after_ev, frames, head_ev: reached });
        Ok(ControlFlow::Continue(moved))
    }
}
