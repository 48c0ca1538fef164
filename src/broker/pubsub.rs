//! Publications between replicas: one connection a replica listens on all its channels.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use fred::{interfaces::PubsubInterface, types::Value};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Away, Channel, Event, Link,
    listener::{Listener, Request},
};

/// Events that wait for their one taker; then fred's own buffer fills, and what overflows that is
/// admitted as lost.
const EVENT_CAPACITY: usize = 4_096;

/// Publications of one pipeline: one time-out covers all of it, and a thousand take some 10 ms.
const A_PIPELINE: usize = 1_000;

/// Subscribes and publishes. Cheap to clone; the last clone dropped ends it.
#[derive(Clone)]
pub struct Broker {
    link: Link,
    requests: mpsc::UnboundedSender<Request>,
    end: CancellationToken,
    _guard: Arc<DropGuard>,
}

impl Broker {
    /// Opens the connection for subscriptions beside `link`, on which it publishes. The receiver
    /// is the only one there is; while nobody takes from it, publications wait, then get lost, and
    /// [`Event::Lost`] says so. Must be called within a Tokio runtime.
    pub fn connect(link: &Link) -> (Self, mpsc::Receiver<Event>) {
        let (events, taker) = mpsc::channel(EVENT_CAPACITY);
        let (requests, inbox) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        tokio::spawn(Listener::new(link, events, end.clone()).run(inbox));
        let _guard = Arc::new(end.clone().drop_guard());
        (Self { link: link.clone(), requests, end, _guard }, taker)
    }

    /// Listens to `channel`. `Ok` once Redis has acknowledged it: what is published from then on
    /// arrives. Also after `Err` it stays wanted: once Redis is back it is subscribed, and
    /// [`Event::Lost`] follows.
    pub async fn subscribe(&self, channel: &Channel) -> Result<(), Away> {
        let (done, outcome) = oneshot::channel();
        let request = Request::Subscribe(channel.clone(), done);
        self.requests.send(request).map_err(|_| Away)?;
        outcome.await.unwrap_or(Err(Away))
    }

    /// No longer listens to `channel`; something of it may still arrive.
    pub fn unsubscribe(&self, channel: &Channel) {
        // Nobody to tell: then nothing is listened to any more.
        let _ = self.requests.send(Request::Unsubscribe(channel.clone()));
    }

    /// Publishes to every replica, in this order, a thousand a round trip. `Ok`: Redis has taken all of
    /// it, which says nothing about who got it.
    pub async fn publish(&self, publications: &[(Channel, Bytes)]) -> Result<(), Away> {
        for part in publications.chunks(A_PIPELINE) {
            let pipeline = self.link.pipeline()?;
            for (channel, payload) in part {
                let name = channel.name(self.link.prefix());
                // In a pipeline this only queues.
                let _queued: Value =
                    pipeline.publish(name, payload.clone()).await.map_err(|_| Away)?;
            }
            let results = self.link.send(&pipeline, part.len()).await?;
            if results.iter().any(Result::is_err) {
                return Err(Away);
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
