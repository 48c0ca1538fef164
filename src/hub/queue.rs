//! The queue between the hub and one socket.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use super::Delivery;

/// Length of a socket's queue. It is small, because a socket so far behind is better served from
/// Postgres at its own speed.
pub const QUEUE: usize = 256;

/// Creates a socket's queue. Unlike the channels of libraries, which allocate 800 bytes in advance,
/// it takes no memory while the socket idles.
pub fn queue() -> (Queue, Inbox) {
    let shared = Arc::<Mutex<Waiting>>::default();
    (Queue(Arc::clone(&shared)), Inbox(shared))
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: Vec<Arc<Delivery>>,
    /// Whether a delivery did not fit, so that the socket must catch up from Postgres.
    behind: bool,
    reader: Option<Waker>,
}

/// The hub's end. All recipients share a delivery.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Mutex<Waiting>>);

/// The socket's end.
#[derive(Debug)]
pub struct Inbox(Arc<Mutex<Waiting>>);

fn lock(shared: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // Nothing under the lock can panic halfway.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Adds a delivery. Never waits, because one slow socket must not delay the others.
    pub(super) fn push(&self, delivery: &Arc<Delivery>) {
        let mut waiting = lock(&self.0);
        if waiting.deliveries.len() >= QUEUE {
            // Best-effort deliveries are dropped without a need to catch up.
            let dispensable =
                matches!(**delivery, Delivery::Typing { .. } | Delivery::Presence { .. });
            waiting.behind |= !dispensable;
            return;
        }
        waiting.deliveries.push(Arc::clone(delivery));
        let reader = waiting.reader.take();
        // Released first, because the woken task takes the lock.
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Inbox {
    /// Waits for deliveries and takes all of them. Cancel-safe.
    pub async fn take(&mut self) -> Vec<Arc<Delivery>> {
        std::future::poll_fn(|context| {
            let mut waiting = lock(&self.0);
            if waiting.deliveries.is_empty() {
                match &mut waiting.reader {
                    Some(reader) => reader.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            Poll::Ready(std::mem::take(&mut waiting.deliveries))
        })
        .await
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.0).deliveries.is_empty()
    }

    /// Returns true once after an overflow.
    pub fn take_behind(&self) -> bool {
        std::mem::take(&mut lock(&self.0).behind)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken_and_takes_all_there_is() {
        let (queue, mut inbox) = queue();
        assert!(inbox.take().now_or_never().is_none());
        let taking = tokio::spawn(async move { (inbox.take().await.len(), inbox) });
        tokio::task::yield_now().await;
        let delivery = Arc::new(Delivery::Inbox);
        queue.push(&delivery);
        queue.push(&delivery);
        let woken = tokio::time::timeout(std::time::Duration::from_secs(10), taking).await;
        let (count, mut inbox) = woken.expect("woken").expect("no panic");
        assert_eq!((count, inbox.is_empty()), (2, true));
        assert!(inbox.take().now_or_never().is_none());
    }

    #[test]
    fn what_does_not_fit_is_told_once_unless_it_is_dispensable() {
        let (queue, inbox) = queue();
        let typing = Delivery::Typing {
            chat_id: crate::model::ChatId::nil(),
            user_id: crate::model::UserId::parse("alice").expect("valid"),
            frame: bytes::Bytes::new(),
        };
        (0..QUEUE).for_each(|_| queue.push(&Arc::new(Delivery::Inbox)));
        queue.push(&Arc::new(typing));
        assert!(!inbox.take_behind());
        queue.push(&Arc::new(Delivery::Inbox));
        assert!(inbox.take_behind() && !inbox.take_behind());
    }
}
