//! What the hub has for one socket.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use super::Delivery;

/// What a socket's queue holds: small, because a socket that is this far behind is better served
/// from Postgres at its own pace.
pub const QUEUE: usize = 256;

/// A socket's queue. The channels that come as a library keep room for what may come, 800 bytes of
/// it, which idle sockets have for nothing; here is nothing while nothing waits.
pub fn queue() -> (Queue, Inbox) {
    let shared = Arc::<Mutex<Waiting>>::default();
    (Queue(Arc::clone(&shared)), Inbox(shared))
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: Vec<Arc<Delivery>>,
    /// Something did not fit: the socket must catch up from Postgres.
    behind: bool,
    reader: Option<Waker>,
}

/// The hub's end. Each delivery is shared by all who get it.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Mutex<Waiting>>);

/// The socket's end.
#[derive(Debug)]
pub struct Inbox(Arc<Mutex<Waiting>>);

fn lock(shared: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // Nothing that is done under the lock leaves it half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Never waits: one slow reader must not delay the others.
    pub(super) fn push(&self, delivery: &Arc<Delivery>) {
        let mut waiting = lock(&self.0);
        if waiting.deliveries.len() >= QUEUE {
            // Best effort is nothing to catch up with.
            let dispensable =
                matches!(**delivery, Delivery::Typing { .. } | Delivery::Presence { .. });
            waiting.behind |= !dispensable;
            return;
        }
        waiting.deliveries.push(Arc::clone(delivery));
        let reader = waiting.reader.take();
        // Whoever is woken wants the lock.
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Inbox {
    /// Waits for deliveries, and takes all there are. Cancelled, it has taken none.
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

    /// True once after something did not fit.
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
