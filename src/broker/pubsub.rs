//! Publications between replicas: one connection a replica listens on all its channels; where they
//! are sharded, one to each master.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use fred::{interfaces::PubsubInterface, types::Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Channel, Event, RedisClient, RedisUnavailable, Script,
    listener::{Listener, Request},
    script::CALLS_A_PIPELINE,
};

/// Events that wait for their one taker; then fred's own buffer fills, and what overflows that is
/// admitted as lost.
const EVENT_CAPACITY: usize = 4_096;

/// `KEYS` channels, which in a cluster choose the server, ARGV a payload for each. A command costs us
/// several times what it costs Redis; so a batch is one.
const PUBLISH: &str = r"
for i = 1, #KEYS do redis.call('PUBLISH', KEYS[i], ARGV[i]) end
return 1";

/// Subscribes and publishes. Cheap to clone; the last clone dropped ends it.
#[derive(Clone)]
pub struct Broker {
    link: RedisClient,
    channel_prefix: Arc<str>,
    publish: Arc<Script>,
    sharded: bool,
    requests: mpsc::UnboundedSender<Request>,
    hearing: watch::Receiver<bool>,
    end: CancellationToken,
    _guard: Arc<DropGuard>,
}

impl Broker {
    /// Opens the connection for subscriptions beside `link`, on which it publishes. The receiver
    /// is the only one there is; while nobody takes from it, publications wait, then get lost, and
    /// [`Event::Lost`] says so. `sharded`, for a cluster only: each channel lives on the shard of
    /// its slot, and not on all servers. All replicas must agree on it. Must be called within a Tokio
    /// runtime.
    pub fn connect(link: &RedisClient, sharded: bool) -> (Self, mpsc::Receiver<Event>) {
        let (events, taker) = mpsc::channel(EVENT_CAPACITY);
        let (requests, inbox) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        let (tell_hearing, hearing) = watch::channel(false);
        let listener = Listener::new(link, sharded, tell_hearing, events, end.clone());
        tokio::spawn(listener.run(inbox));
        let _guard = Arc::new(end.clone().drop_guard());
        let publish = Arc::new(Script::new(PUBLISH));
        let (link, channel_prefix) = (link.clone(), link.channel_prefix().into());
        let broker =
            Self { link, channel_prefix, publish, sharded, requests, hearing, end, _guard };
        (broker, taker)
    }

    /// Tells whether publications can be relied on to arrive: all that is wanted is subscribed, and
    /// the last ping on that connection was answered.
    pub fn subscribe_hearing(&self) -> watch::Receiver<bool> {
        self.hearing.clone()
    }

    /// Listens to `channel`. `Ok` once Redis has acknowledged it: what is published from then on
    /// arrives. Also after `Err` it stays wanted: once Redis is back it is subscribed, and
    /// [`Event::Lost`] follows.
    pub async fn subscribe(&self, channel: &Channel) -> Result<(), RedisUnavailable> {
        let (done, outcome) = oneshot::channel();
        let request = Request::Subscribe(channel.clone(), done);
        self.requests.send(request).map_err(|_| RedisUnavailable)?;
        outcome.await.unwrap_or(Err(RedisUnavailable))
    }

    /// No longer listens to `channel`; something of it may still arrive.
    pub fn unsubscribe(&self, channel: &Channel) {
        // Nobody to tell: then nothing is listened to any more.
        let _ = self.requests.send(Request::Unsubscribe(channel.clone()));
    }

    /// Publishes to every replica, in this order. `Ok`: Redis has taken all of it, which says nothing
    /// about who got it.
    pub async fn publish(&self, publications: &[(Channel, Bytes)]) -> Result<(), RedisUnavailable> {
        let prefix = &*self.channel_prefix;
        let named = publications
            .iter()
            .map(|(channel, payload)| (channel.name(prefix), Value::from(payload.clone())));
        if self.sharded {
            return self.publish_to_shards(&named.collect::<Vec<_>>()).await;
        }
        let theirs = named.map(|(channel, payload)| (channel, vec![payload]));
        self.link.run_together(&self.publish, &[], theirs.collect()).await.map(drop)
    }

    /// Not by a script: while its slot is on the way to another server, a script with this channel
    /// for a key is sent on to there, as there is no such key here any more; but the subscribers
    /// still are here.
    async fn publish_to_shards(
        &self,
        publications: &[(String, Value)],
    ) -> Result<(), RedisUnavailable> {
        for chunk in publications.chunks(CALLS_A_PIPELINE) {
            let pipeline = self.link.pipeline()?;
            for (channel, payload) in chunk {
                // In a pipeline this only queues.
                let queued = pipeline.spublish::<(), _, _>(channel.as_str(), payload.clone());
                queued.await.map_err(|_| RedisUnavailable)?;
            }
            if self.link.send(&pipeline, chunk.len()).await?.iter().any(Result::is_err) {
                return Err(RedisUnavailable);
            }
        }
        Ok(())
    }

    /// Ends at once: nothing arrives any more.
    pub fn shutdown(&self) {
        self.end.cancel();
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("link", &self.link).finish_non_exhaustive()
    }
}
