//! Publications between replicas. One connection carries all subscriptions of a replica; with sharded
//! channels, one connection to each master does.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{interfaces::PubsubInterface, types::Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Channel, Event, RedisClient, RedisUnavailable, Script, Work,
    listener::{Listener, Request},
    script::KEYS_A_PIPELINE,
};

/// Events that wait for their receiver. Beyond it fred's own buffer fills, and its overflow is reported
/// as [`Event::Lost`].
const EVENT_CAPACITY: usize = 4_096;

/// Publishes a batch: KEYS are channels, which in a cluster choose the server; ARGV has the word `publish` and
/// a payload for each. One command, because a command costs a replica several times what it costs Redis.
const PUBLISH: &str = r"
for i = 1, #KEYS do redis.call('PUBLISH', KEYS[i], ARGV[2 * i]) end
return 1";

/// Subscribes and publishes. Cheap to clone; dropping the last clone ends it.
#[derive(Clone)]
pub struct Broker {
    redis: RedisClient,
    channel_prefix: Arc<str>,
    publish: Arc<Script>,
    sharded: bool,
    requests: mpsc::UnboundedSender<Request>,
    hearing: watch::Receiver<bool>,
    end: CancellationToken,
    _guard: Arc<DropGuard>,
}

impl Broker {
    /// Opens the connection for subscriptions; publications go through `redis`. While nobody reads the
    /// receiver, publications wait; then they are lost, and [`Event::Lost`] reports it. `sharded`, for a
    /// cluster only: a channel exists on the shard of its slot, not on all servers. All replicas must
    /// agree on it. Must be called within a Tokio runtime.
    pub fn connect(redis: &RedisClient, sharded: bool) -> (Self, mpsc::Receiver<Event>) {
        let (events, taker) = mpsc::channel(EVENT_CAPACITY);
        let (requests, inbox) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        let (tell_hearing, hearing) = watch::channel(false);
        let listener = Listener::new(redis, sharded, tell_hearing, events, end.clone());
        tokio::spawn(listener.run(inbox));
        let _guard = Arc::new(end.clone().drop_guard());
        let publish = Arc::new(Script::new(PUBLISH));
        let (redis, channel_prefix) = (redis.clone(), redis.channel_prefix().into());
        let broker =
            Self { redis, channel_prefix, publish, sharded, requests, hearing, end, _guard };
        (broker, taker)
    }

    /// Watches whether publications arrive reliably: all wanted channels are subscribed, and the last
    /// ping on that connection was answered.
    pub fn subscribe_hearing(&self) -> watch::Receiver<bool> {
        self.hearing.clone()
    }

    /// Waits until publications arrive reliably, `limit` at most.
    pub async fn wait(&self, limit: Duration) {
        let mut hearing = self.hearing.clone();
        // Beyond the limit a comparison finds what was published meanwhile.
        let _ = tokio::time::timeout(limit, hearing.wait_for(|hearing| *hearing)).await;
    }

    /// Subscribes to `channel`. Returns once Redis has acknowledged it; later publications arrive. After
    /// an `Err` the channel stays wanted: it is subscribed when Redis is back, and [`Event::Lost`]
    /// follows.
    pub async fn subscribe(&self, channel: &Channel) -> Result<(), RedisUnavailable> {
        let (done, outcome) = oneshot::channel();
        let request = Request::Subscribe(channel.clone(), done);
        self.requests.send(request).map_err(|_| RedisUnavailable)?;
        outcome.await.unwrap_or(Err(RedisUnavailable))
    }

    /// Unsubscribes from `channel`. Publications on their way may still arrive.
    pub fn unsubscribe(&self, channel: &Channel) {
        // An error means that the listener has ended, and all subscriptions with it.
        let _ = self.requests.send(Request::Unsubscribe(channel.clone()));
    }

    /// Publishes to every replica, in this order. `Ok` means that Redis accepted all of it, not that
    /// every replica received it.
    pub async fn publish(&self, publications: &[(Channel, Bytes)]) -> Result<(), RedisUnavailable> {
        let work = Work { script: &self.publish, args: Vec::new(), keys: Vec::new() };
        self.publish_after(work, publications).await
    }

    /// Does this work, then publishes. The script publishes for keys whose arguments are the word `publish`
    /// and a payload, so one server is asked once for both, and never publishes what comes after a write
    /// that failed.
    pub(crate) async fn publish_after(
        &self,
        mut work: Work<'_>,
        publications: &[(Channel, Bytes)],
    ) -> Result<(), RedisUnavailable> {
        let prefix = &*self.channel_prefix;
        let named = publications
            .iter()
            .map(|(channel, payload)| (channel.name(prefix), Value::from(payload.clone())));
        if self.sharded {
            let (named, calls): (Vec<_>, _) = (named.collect(), self.redis.together(work));
            let (called, published) =
                tokio::join!(self.redis.run(&calls), self.publish_to_shards(&named));
            called?;
            return published;
        }
        let said = named.map(|(channel, payload)| (channel, vec!["publish".into(), payload]));
        work.keys.extend(said);
        self.redis.run(&self.redis.together(work)).await.map(drop)
    }

    /// Publishes without a script: while a slot migrates, a script with the channel as its key is
    /// redirected to the new server, but the subscribers are still on the old one.
    async fn publish_to_shards(
        &self,
        publications: &[(String, Value)],
    ) -> Result<(), RedisUnavailable> {
        for chunk in publications.chunks(KEYS_A_PIPELINE) {
            let pipeline = self.redis.pipeline()?;
            for (channel, payload) in chunk {
                // In a pipeline this only queues.
                let queued = pipeline.spublish::<(), _, _>(channel.as_str(), payload.clone());
                queued.await.map_err(|_| RedisUnavailable)?;
            }
            if self.redis.send(&pipeline, chunk.len()).await?.iter().any(Result::is_err) {
                return Err(RedisUnavailable);
            }
        }
        Ok(())
    }

    /// Ends all subscriptions at once.
    pub fn shutdown(&self) {
        self.end.cancel();
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("redis", &self.redis).finish_non_exhaustive()
    }
}
