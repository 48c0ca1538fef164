//! The task that owns the connection for subscriptions, and keeps on it what should be there.

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
use tokio::{
    sync::{
        Notify,
        broadcast::{Receiver, error::RecvError},
        mpsc, oneshot, watch,
    },
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Channel, Event, RedisClient, RedisUnavailable,
    connection::{Live, Settings},
};

/// Pause between two pings on the connection: with their time-out, a dead one is noticed within half
/// a second, and from then on what it does not bring is read from Postgres.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Unanswered pings after which the connection is replaced, some 2 s: saying everything again costs
/// more than a moment's patience, and the first one is enough for others not to rely on us.
const FAILURES_TO_GIVE_UP: u32 = 4;
/// Pause between two looks at whether a connection has come about: asks nothing of Redis.
const CONNECT_POLL: Duration = Duration::from_millis(20);
/// Channels subscribed before an acknowledgement is waited for: Redis takes this many in a few
/// milliseconds, far within the command time-out.
const CHANNELS_AN_ACK: usize = 2_000;
/// Channels in one SUBSCRIBE; of SSUBSCRIBEs, so many are on their way at once.
const CHANNELS_A_COMMAND: usize = 200;
/// Ticks of [`WATCH_INTERVAL`], 30 s, in which every sharded subscription has its turn to be said
/// again: 330 commands a second for 10,000 channels, some hundredths of a core.
const TURNS: u64 = 150;

/// What [`super::Broker`] asks of the task.
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
    /// What should be subscribed, whatever the connection is going through.
    wanted: HashSet<Channel>,
    /// All of `wanted` is acknowledged on the connection there is.
    current: bool,
    failures: u32,
    /// Whose turn it is to be said again.
    turn: u64,
    /// A server that takes no such subscriptions was written down once.
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
        link: &RedisClient,
        sharded: bool,
        hearing: watch::Sender<bool>,
        events: mpsc::Sender<Event>,
        end: CancellationToken,
    ) -> Self {
        let settings = link.settings().clone();
        let live = Live::open(&settings);
        Self {
            settings,
            prefix: link.channel_prefix().into(),
            sharded,
            live,
            wanted: HashSet::new(),
            current: false,
            failures: 0,
            turn: 0,
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
        let mut watch = interval(WATCH_INTERVAL);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                // Its lagging or closing is told by the next tick too.
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

    /// Takes in what arrives on a fresh connection, before anything is subscribed on it.
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

    /// Subscribes and unsubscribes what is asked for, with one acknowledgement for all. Answers
    /// whether the connection must be replaced.
    async fn on_requests(&mut self, requests: &mut Vec<Request>) -> bool {
        let mut waiting = Vec::new();
        // Only the last word on a channel counts.
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
            // Who no longer waits needs no answer.
            let _ = done.send(outcome);
        }
        // Where nothing was said, nothing failed.
        current && self.judge(outcome)
    }

    /// Puts everything that should be subscribed onto a new connection, then admits the gap.
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
        // What moves from here on is found after it.
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
        // One late answer is no reason to say everything again: what was subscribed still is.
        let answered = if self.sharded {
            self.live.ping_all().await
        } else {
            self.live.ping_subscriptions().await
        };
        if answered {
            self.failures = 0;
            if self.sharded {
                return self.say_again().await;
            }
        } else if self.live.is_connected() {
            self.failures += 1;
        } else {
            self.current = false;
        }
        self.failures >= FAILURES_TO_GIVE_UP
    }

    /// A slot that moves takes its subscriptions along to nowhere, and fred keeps the server's word
    /// of that to itself. So each is said again in its turn. Saying one to a server that has it no
    /// more makes fred read anew who has what, and then the next tick says all of them again.
    async fn say_again(&mut self) -> bool {
        self.turn = (self.turn + 1) % TURNS;
        let due = self.wanted.iter().filter(|channel| {
            let mut hasher = DefaultHasher::new();
            channel.hash(&mut hasher);
            hasher.finish() % TURNS == self.turn
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

    /// With sharded publications fred waits for a subscription's answer, which is the
    /// acknowledgement, of the server that has the slot; but for one answer a command, so there is
    /// one channel in each. It waits for none after SUNSUBSCRIBE, and would take what a server
    /// answers that does not have the slot ("moved") for the next command's: so what is to go is
    /// subscribed first, by which fred knows where.
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

    /// Twice where need be: a first answer from the wrong server tells fred which one is right.
    async fn subscribe_on_shard(&self, name: &str) -> Result<(), RedisUnavailable> {
        let client = self.live.client();
        if client.ssubscribe(name).await.is_ok() {
            return Ok(());
        }
        client.ssubscribe(name).await.map_err(|error| self.refusal(&error))
    }

    /// A Redis before 7, or one whose ACL forbids it, would be silent for ever otherwise.
    fn refusal(&self, error: &Error) -> RedisUnavailable {
        let passing = [ErrorKind::Timeout, ErrorKind::IO, ErrorKind::Canceled];
        if !passing.contains(error.kind()) && !self.refused.swap(true, Relaxed) {
            tracing::warn!(error = %error.details(), "Redis refused a sharded subscription");
        }
        RedisUnavailable
    }

    /// fred returns from a classic (un)subscription once it is queued. A ping behind it on the same
    /// connection is answered only after it was carried out, if it *was* the same connection.
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

    /// Whether the connection must be replaced after this. Until then, what was said in vain on a
    /// connection that looks alive is said again ([`Self::renew`], since it is not current).
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

/// Carries messages from fred to the one who takes events. Apart from [`Listener`], so that a slow
/// taker cannot delay a subscription that it may itself be waiting for.
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
                        tracing::warn!(count, "publications came faster than they were taken");
                        Some(Event::Lost)
                    }
                    // Its connection was replaced, and with it this task.
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
