//! The task that owns the connection for subscriptions and keeps every wanted channel subscribed.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use fred::{
    error::{Error, ErrorKind},
    interfaces::{EventInterface, PubsubInterface},
    types::{Message, config::Server},
};
use futures_util::future::try_join_all;
use tokio::sync::{
    Notify,
    broadcast::{Receiver, error::RecvError},
    mpsc, oneshot, watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    Channel, Event, RedisClient, RedisUnavailable,
    connection::{Live, Settings},
};
use crate::beat;

/// Unanswered pings after which the connection is replaced, about 2 s: to subscribe everything again
/// costs more than to wait, and `hearing` is false after the first one already.
const FAILURES_TO_GIVE_UP: u32 = 4;
/// Pause between two checks of whether the connection is up. A check sends nothing.
const CONNECT_POLL: Duration = Duration::from_millis(20);
/// Channels that are subscribed with one acknowledgement. Redis takes this many in a few milliseconds,
/// far within the command time-out.
const CHANNELS_AN_ACK: usize = 2_000;
/// Channels in one SUBSCRIBE, and SSUBSCRIBEs in flight at once.
const CHANNELS_A_COMMAND: usize = 200;
/// Beats, 30 s, within which every sharded subscription is repeated once: 330
/// commands a second for 10,000 channels, some hundredths of a core.
const REPEAT_TICKS: u64 = 150;

/// A request of [`super::Broker`] to the task.
#[derive(Debug)]
pub(super) enum Request {
    Subscribe(Channel, oneshot::Sender<Result<(), RedisUnavailable>>),
    Unsubscribe(Channel),
}

pub(super) struct Listener {
    settings: Settings,
    prefix: Arc<str>,
    sharded: bool,
    live: Live,
    /// The channels to be subscribed, whatever the state of the connection.
    wanted: HashSet<Channel>,
    /// All of `wanted` is acknowledged on the present connection.
    current: bool,
    failures: u32,
    /// The present tick, modulo [`REPEAT_TICKS`]: chooses the subscriptions to repeat.
    repeat_tick: u64,
    /// A refusal of sharded subscriptions was logged, which happens once.
    refused: AtomicBool,
    hearing: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
    lost: Arc<Notify>,
    end: CancellationToken,
    /// Ends the delivery from the present connection.
    attended: CancellationToken,
}

impl Listener {
    pub(super) fn new(
        redis: &RedisClient,
        sharded: bool,
        hearing: watch::Sender<bool>,
        events: mpsc::Sender<Event>,
        end: CancellationToken,
    ) -> Self {
        let settings = redis.settings().clone();
        let live = Live::open(&settings);
        Self {
            settings,
            prefix: redis.channel_prefix().into(),
            sharded,
            live,
            wanted: HashSet::new(),
            current: false,
            failures: 0,
            repeat_tick: 0,
            refused: AtomicBool::new(false),
            hearing,
            events,
            lost: Arc::new(Notify::new()),
            attended: end.child_token(),
            end,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        let mut reconnects = self.attend();
        // With the pings' time-out, a dead connection is noticed within half a second, and from then on
        // changes are read from Postgres.
        let mut watch = beat::each(1);
        let mut requests = Vec::new();
        loop {
            let connecting = !self.current;
            let reopen = tokio::select! {
                () = self.end.cancelled() => return,
                n = inbox.recv_many(&mut requests, CHANNELS_AN_ACK) => {
                    if n == 0 {
                        return;
                    }
                    self.on_requests(&mut requests).await
                }
                // The next tick also notices a lag or an end of this channel.
                _ = reconnects.recv() => self.renew().await,
                _ = tokio::time::sleep(CONNECT_POLL), if connecting => self.renew().await,
                _ = watch.tick() => self.on_tick().await,
            };
            if reopen || self.live.is_over() {
                self.live = self.live.reopen(&self.settings);
                self.current = false;
                self.failures = 0;
                reconnects = self.attend();
            }
            self.tell_hearing();
        }
    }

    fn tell_hearing(&self) {
        let now = self.current && self.failures == 0;
        self.hearing.send_if_modified(|hearing| std::mem::replace(hearing, now) != now);
    }

    /// Starts to deliver from a new connection, before anything is subscribed on it.
    fn attend(&mut self) -> Receiver<Server> {
        self.attended.cancel();
        self.attended = self.end.child_token();
        let messages = self.live.client().message_rx();
        let delivery = Delivery {
            prefix: Arc::clone(&self.prefix),
            events: self.events.clone(),
            lost: Arc::clone(&self.lost),
            end: self.attended.clone(),
        };
        tokio::spawn(delivery.run(messages));
        self.live.client().reconnect_rx()
    }

    /// Subscribes and unsubscribes as requested, with one acknowledgement for all. Returns whether the
    /// connection must be replaced.
    async fn on_requests(&mut self, requests: &mut Vec<Request>) -> bool {
        let mut waiting = Vec::new();
        // Only the last request for a channel counts.
        let mut verdicts = HashMap::new();
        for request in requests.drain(..) {
            match request {
                Request::Subscribe(channel, done) => {
                    waiting.push(done);
                    self.wanted.insert(channel.clone());
                    verdicts.insert(channel, true);
                }
                Request::Unsubscribe(channel) => {
                    self.wanted.remove(&channel);
                    verdicts.insert(channel, false);
                }
            }
        }
        let current = self.current && self.live.is_connected();
        let outcome = if current {
            let pick = |wanted| {
                let chosen = verdicts.iter().filter(move |(_, verdict)| **verdict == wanted);
                chosen.map(|(channel, _)| channel.name(&self.prefix)).collect::<Vec<_>>()
            };
            self.say(&pick(true), &pick(false)).await
        } else {
            Err(RedisUnavailable)
        };
        for done in waiting {
            // The caller may have stopped waiting.
            let _ = done.send(outcome);
        }
        // Without a command, nothing has failed.
        current && self.judge(outcome)
    }

    /// Subscribes all wanted channels on a new connection, then reports the gap.
    async fn renew(&mut self) -> bool {
        if !self.live.is_connected() {
            self.current = false;
            return false;
        }
        if !self.live.take_reconnected() && self.current {
            return false;
        }
        self.current = false;
        self.tell_hearing();
        // Slots that move from here on are noticed by the next tick.
        self.live.take_moved();
        let names: Vec<String> = self.wanted.iter().map(|c| c.name(&self.prefix)).collect();
        let mut outcome = Ok(());
        for chunk in names.chunks(CHANNELS_AN_ACK) {
            outcome = self.say(chunk, &[]).await;
            if outcome.is_err() {
                break;
            }
        }
        self.current = outcome.is_ok();
        if self.current {
            self.lost.notify_one();
        }
        self.judge(outcome)
    }

    async fn on_tick(&mut self) -> bool {
        let moved = self.sharded && self.live.take_moved();
        if !self.current || self.live.take_reconnected() || moved {
            self.current = false;
            return self.renew().await;
        }
        // One late answer is no reason to subscribe again: the subscriptions still stand.
        let answered = if self.sharded {
            self.live.ping_all().await
        } else {
            self.live.ping_subscriptions().await
        };
        if answered {
            self.failures = 0;
            if self.sharded {
                return self.repeat_due().await;
            }
        } else if self.live.is_connected() {
            self.failures += 1;
        } else {
            self.current = false;
        }
        self.failures >= FAILURES_TO_GIVE_UP
    }

    /// Repeats the subscriptions that are due. A slot that moves loses its subscriptions, and fred does
    /// not pass on the server's notice. A repeated subscription that reaches the wrong server makes fred
    /// read the slots again, whereupon the next tick subscribes everything.
    async fn repeat_due(&mut self) -> bool {
        self.repeat_tick = (self.repeat_tick + 1) % REPEAT_TICKS;
        let due = self.wanted.iter().filter(|channel| {
            let mut hasher = DefaultHasher::new();
            channel.hash(&mut hasher);
            hasher.finish() % REPEAT_TICKS == self.repeat_tick
        });
        let names: Vec<String> = due.map(|channel| channel.name(&self.prefix)).collect();
        let outcome = self.say(&names, &[]).await;
        self.judge(outcome)
    }

    async fn say(
        &self,
        subscribe: &[String],
        unsubscribe: &[String],
    ) -> Result<(), RedisUnavailable> {
        if self.sharded {
            self.say_to_shards(subscribe, unsubscribe).await?;
        } else {
            self.say_to_one(subscribe, unsubscribe).await?;
        }
        if self.live.take_reconnected() { Err(RedisUnavailable) } else { Ok(()) }
    }

    /// Sends one channel a command, because fred waits for one answer a command; the answer of the slot's
    /// server is the acknowledgement. fred waits for no answer to SUNSUBSCRIBE, and would take a "moved"
    /// of a wrong server for the answer to the next command. So a channel to unsubscribe is subscribed
    /// first, by which fred learns its server.
    async fn say_to_shards(
        &self,
        subscribe: &[String],
        unsubscribe: &[String],
    ) -> Result<(), RedisUnavailable> {
        for names in [subscribe, unsubscribe] {
            for chunk in names.chunks(CHANNELS_A_COMMAND) {
                try_join_all(chunk.iter().map(|name| self.subscribe_on_shard(name))).await?;
            }
        }
        for name in unsubscribe {
            self.live.client().sunsubscribe(name.as_str()).await.map_err(|_| RedisUnavailable)?;
        }
        Ok(())
    }

    /// Tries twice, because a first answer from the wrong server tells fred the right one.
    async fn subscribe_on_shard(&self, name: &str) -> Result<(), RedisUnavailable> {
        let client = self.live.client();
        if client.ssubscribe(name).await.is_ok() {
            return Ok(());
        }
        client.ssubscribe(name).await.map_err(|error| self.refusal(&error))
    }

    /// Logs the first lasting refusal: a Redis before 7, or one whose ACL forbids it, would never deliver.
    fn refusal(&self, error: &Error) -> RedisUnavailable {
        let passing = [ErrorKind::Timeout, ErrorKind::IO, ErrorKind::Canceled];
        if !passing.contains(error.kind()) && !self.refused.swap(true, Relaxed) {
            tracing::warn!(error = %error.details(), "Redis refused a sharded subscription");
        }
        RedisUnavailable
    }

    /// Subscribes, then pings: fred returns from a classic (un)subscription once it is queued, and a ping
    /// behind it on the same connection is answered only after it was carried out.
    async fn say_to_one(
        &self,
        subscribe: &[String],
        unsubscribe: &[String],
    ) -> Result<(), RedisUnavailable> {
        let client = self.live.client();
        for chunk in subscribe.chunks(CHANNELS_A_COMMAND) {
            client.subscribe(chunk.to_vec()).await.map_err(|_| RedisUnavailable)?;
        }
        for chunk in unsubscribe.chunks(CHANNELS_A_COMMAND) {
            client.unsubscribe(chunk.to_vec()).await.map_err(|_| RedisUnavailable)?;
        }
        if self.live.ping_subscriptions().await { Ok(()) } else { Err(RedisUnavailable) }
    }

    /// Returns whether the connection must be replaced. Until then, [`Self::renew`] repeats failed
    /// commands on a connection that looks alive, because it is not current.
    fn judge(&mut self, outcome: Result<(), RedisUnavailable>) -> bool {
        if outcome.is_ok() {
            self.failures = 0;
            return false;
        }
        self.current = false;
        if !self.live.is_connected() {
            self.failures = 0;
            return false;
        }
        self.failures += 1;
        self.failures >= FAILURES_TO_GIVE_UP
    }
}

/// Carries messages from fred to the receiver of events. A task of its own, so that a slow receiver
/// cannot delay a subscription that it may itself be waiting for.
struct Delivery {
    prefix: Arc<str>,
    events: mpsc::Sender<Event>,
    lost: Arc<Notify>,
    end: CancellationToken,
}

impl Delivery {
    async fn run(self, mut messages: Receiver<Message>) {
        loop {
            let event = tokio::select! {
                () = self.end.cancelled() => return,
                () = self.lost.notified() => Some(Event::Lost),
                message = messages.recv() => match message {
                    Ok(message) => self.read(message),
                    Err(RecvError::Lagged(count)) => {
                        tracing::warn!(count, "publications arrived faster than they were received");
                        Some(Event::Lost)
                    }
                    // The connection was replaced, and this task with it.
                    Err(RecvError::Closed) => return,
                },
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return;
            }
        }
    }

    fn read(&self, message: Message) -> Option<Event> {
        let channel = Channel::parse(&message.channel, &self.prefix)?;
        let payload = message.value.into_bytes()?;
        Some(Event::Publication { channel, payload })
    }
}
