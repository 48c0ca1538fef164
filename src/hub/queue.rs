//! The queue between the hub and one socket.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::Delivery;

/// Length of a socket's queue. It is small, because a socket so far behind is better served from
/// Postgres at its own speed.
pub const QUEUE: usize = 256;

/// Creates a socket's queue. Unlike the channels of libraries, which allocate 800 bytes in advance,
/// it takes no memory while the socket idles.
pub fn queue() -> (Queue, Inbox) {
    let shared = Arc::<Shared>::default();
    (Queue(Arc::clone(&shared)), Inbox(shared))
}

/// A socket whose task waits, so that others may deliver in its place.
pub trait Recipient: Send + Sync {
    /// Delivers what is in the queue. False: the task has to go on with it.
    fn deliver(&self) -> bool;
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Unset before the socket is open.
    recipient: OnceLock<Weak<dyn Recipient>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.waiting.fmt(formatter)
    }
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: Vec<Arc<Delivery>>,
    /// Whether a delivery did not fit, so that the socket must catch up from Postgres.
    behind: bool,
    /// Whether somebody is about to deliver, or to wake the task. With deliveries that can be deferred, nobody is yet.
    told: bool,
    reader: Option<Waker>,
}

/// The hub's end. All recipients share a delivery.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Shared>);

/// The socket's end.
#[derive(Debug)]
pub struct Inbox(Arc<Shared>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under the lock can panic halfway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Adds a delivery and wakes the socket's task.
    pub(super) fn push(&self, delivery: &Arc<Delivery>) {
        if self.add(delivery) {
            self.wake();
        }
    }

    /// Adds a delivery. Never waits, because one slow socket must not delay the others. True: the socket's task
    /// waits, and the caller has to tell it, at once or, if the delivery can be deferred, in time.
    pub(super) fn add(&self, delivery: &Arc<Delivery>) -> bool {
        let mut waiting = self.0.lock();
        if waiting.deliveries.len() >= QUEUE {
            // Best-effort deliveries are dropped without a need to catch up.
            let dispensable =
                matches!(**delivery, Delivery::Typing { .. } | Delivery::Presence { .. });
            waiting.behind |= !dispensable;
            return false;
        }
        waiting.deliveries.push(Arc::clone(delivery));
        if waiting.reader.is_none() || waiting.told {
            return false;
        }
        waiting.told = !delivery.is_deferrable();
        // What was deferred before is told in time.
        waiting.told || waiting.deliveries.len() == 1
    }

    /// Names the one who can deliver while the task waits.
    pub fn set_recipient(&self, recipient: Weak<dyn Recipient>) {
        // A socket opens once.
        let _ = self.0.recipient.set(recipient);
    }

    fn wake(&self) {
        // Released first, because the woken task takes the lock.
        let reader = self.0.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Delivers in the place of the socket's task, or wakes it.
    fn deliver(&self) {
        let recipient = self.0.recipient.get().and_then(Weak::upgrade);
        if !recipient.is_some_and(|recipient| recipient.deliver()) {
            self.wake();
        }
    }
}

/// Sockets of one chat that are delivered to by one task, at most so many: some 0.3 ms of work, so that
/// it delays nobody, and other processors can take their part.
const ROUND: usize = 64;

/// The time in which all have what can be deferred: as short as nobody minds with a reaction, and less than the
/// pause between two batches of them. A thousand writes at once would keep those who send from the processors for
/// 10 ms and more.
const DEFERRAL: Duration = Duration::from_millis(200);

/// Sockets with something in their queues, none of which was told of it. To wake the task of each
/// costs more than to deliver, because each wakes with cold memory and asks for all it waits for.
#[derive(Debug)]
pub(super) struct Round(Vec<Queue>);

impl Round {
    /// Has these sockets delivered to; `deferrable`: in turn.
    pub(super) fn start(mut queues: Vec<Queue>, deferrable: bool) {
        if deferrable && queues.len() > ROUND {
            tokio::spawn(Self(queues).deliver_in_turn());
            return;
        }
        while queues.len() > 1 {
            let rest = queues.split_off(queues.len().min(ROUND));
            let mut round = Self(std::mem::replace(&mut queues, rest));
            tokio::spawn(async move { round.deliver(ROUND) });
        }
        queues.iter().for_each(Queue::wake);
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(queue) = self.0.last() else { return };
            queue.deliver();
            self.0.pop();
        }
    }

    async fn deliver_in_turn(mut self) {
        let rounds = u32::try_from(self.0.len().div_ceil(ROUND)).unwrap_or(u32::MAX);
        while !self.0.is_empty() {
            self.deliver(ROUND);
            tokio::time::sleep(DEFERRAL / rounds).await;
        }
    }
}

impl Drop for Round {
    /// After a panic, or where the runtime ends: the tasks themselves go on.
    fn drop(&mut self) {
        self.0.iter().for_each(Queue::wake);
    }
}

impl Inbox {
    /// Waits for deliveries and takes all of them. Cancel-safe.
    pub async fn take(&mut self) -> Vec<Arc<Delivery>> {
        std::future::poll_fn(|context| self.poll_take(context)).await
    }

    /// The same, to be polled.
    pub fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<Vec<Arc<Delivery>>> {
        let mut waiting = self.0.lock();
        if waiting.deliveries.is_empty() {
            match &mut waiting.reader {
                Some(reader) => reader.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        waiting.told = false;
        Poll::Ready(std::mem::take(&mut waiting.deliveries))
    }

    /// Takes all deliveries up to the first that does not fit; none after an overflow.
    pub fn take_while(&mut self, fits: impl Fn(&Delivery) -> bool) -> Vec<Arc<Delivery>> {
        let mut waiting = self.0.lock();
        if waiting.behind {
            return Vec::new();
        }
        let end = waiting.deliveries.iter().position(|delivery| !fits(delivery));
        match end {
            None => {
                waiting.told = false;
                std::mem::take(&mut waiting.deliveries)
            }
            Some(end) => waiting.deliveries.drain(..end).collect(),
        }
    }

    /// Puts deliveries back in front of the others.
    pub fn put_back(&mut self, deliveries: &[Arc<Delivery>]) {
        let mut waiting = self.0.lock();
        waiting.deliveries.splice(..0, deliveries.iter().cloned());
        waiting.told |= !waiting.deliveries.is_empty();
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().deliveries.is_empty()
    }

    /// Returns true once after an overflow.
    pub fn take_behind(&self) -> bool {
        std::mem::take(&mut self.0.lock().behind)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

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
        let woken = tokio::time::timeout(Duration::from_secs(10), taking).await;
        let (count, mut inbox) = woken.expect("woken").expect("no panic");
        assert_eq!((count, inbox.is_empty()), (2, true));
        assert!(inbox.take().now_or_never().is_none());
    }

    /// A socket whose deliveries are counted in its task's place, up to the second one.
    struct Counting(Mutex<Inbox>, Mutex<usize>);

    impl Recipient for Counting {
        fn deliver(&self) -> bool {
            let mut inbox = self.0.lock().expect("not poisoned");
            let mut count = self.1.lock().expect("not poisoned");
            if *count == 1 {
                return false;
            }
            *count += inbox.take_while(|_| true).len();
            true
        }
    }

    #[tokio::test]
    async fn who_waits_is_delivered_to_in_rounds_or_woken() {
        let sockets: Vec<_> = (0..ROUND + 2)
            .map(|_| {
                let (queue, inbox) = queue();
                let counting = Arc::new(Counting(Mutex::new(inbox), Mutex::default()));
                let weak = Arc::downgrade(&counting);
                queue.set_recipient(weak);
                (queue, counting)
            })
            .collect();
        let woken = Arc::<std::sync::atomic::AtomicUsize>::default();
        struct Waking(Arc<std::sync::atomic::AtomicUsize>);
        impl std::task::Wake for Waking {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let waker = Waker::from(Arc::new(Waking(Arc::clone(&woken))));
        let delivery = Arc::new(Delivery::Inbox);
        let wait = || {
            for (_, counting) in &sockets {
                let mut inbox = counting.0.lock().expect("not poisoned");
                assert!(inbox.poll_take(&mut Context::from_waker(&waker)).is_pending());
            }
        };
        wait();
        let push = || {
            let told = sockets.iter().filter(|(queue, _)| queue.add(&delivery));
            Round::start(told.map(|(queue, _)| queue.clone()).collect(), false);
        };
        let delivered = || -> usize {
            sockets.iter().map(|(_, counting)| *counting.1.lock().expect("not poisoned")).sum()
        };
        push();
        while delivered() < sockets.len() {
            tokio::task::yield_now().await;
        }
        assert_eq!(woken.load(std::sync::atomic::Ordering::Relaxed), 0);
        // Each refuses the second one: the tasks are woken, once however much follows.
        push();
        push();
        while woken.load(std::sync::atomic::Ordering::Relaxed) < sockets.len() {
            tokio::task::yield_now().await;
        }
        push();
        tokio::task::yield_now().await;
        assert_eq!(woken.load(std::sync::atomic::Ordering::Relaxed), sockets.len());
        assert_eq!(delivered(), sockets.len());
        let (_, counting) = &sockets[0];
        assert_eq!(counting.0.lock().expect("not poisoned").take_while(|_| true).len(), 3);
    }

    /// Notes what is delivered in its task's place, and when.
    struct Noting(Mutex<Inbox>, Mutex<Vec<(bool, Instant)>>);

    impl Recipient for Noting {
        fn deliver(&self) -> bool {
            let deliveries = self.0.lock().expect("not poisoned").take_while(|_| true);
            let noted =
                deliveries.iter().map(|delivery| (delivery.is_deferrable(), Instant::now()));
            self.1.lock().expect("not poisoned").extend(noted);
            true
        }
    }

    #[tokio::test]
    async fn what_can_be_deferred_comes_in_turn_and_keeps_nothing_else() {
        let sockets: Vec<_> = (0..3 * ROUND)
            .map(|_| {
                let (queue, mut inbox) = queue();
                assert!(inbox.take().now_or_never().is_none());
                let noting = Arc::new(Noting(Mutex::new(inbox), Mutex::default()));
                let weak = Arc::downgrade(&noting);
                queue.set_recipient(weak);
                (queue, noting)
            })
            .collect();
        let push = |delivery: Delivery| {
            let shared = Arc::new(delivery);
            let untold = sockets.iter().filter(|(queue, _)| queue.add(&shared));
            Round::start(untold.map(|(queue, _)| queue.clone()).collect(), shared.is_deferrable());
        };
        let noted =
            |socket: &(Queue, Arc<Noting>)| socket.1.1.lock().expect("not poisoned").clone();
        let have = |number: usize| sockets.iter().all(|socket| noted(socket).len() == number);
        let typing = || Delivery::Typing {
            chat_id: crate::model::ChatId::nil(),
            user_id: crate::model::UserId::parse("alice").expect("valid"),
            frame: bytes::Bytes::new(),
        };
        push(typing());
        while !have(1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let times = || sockets.iter().map(|socket| noted(socket)[0].1);
        let span = times().max().expect("sockets") - times().min().expect("sockets");
        assert!(span >= DEFERRAL / 2, "all at once, in {span:?}");
        // What cannot wait takes along, at once, what could.
        push(typing());
        push(typing());
        push(Delivery::Inbox);
        for _ in 0..sockets.len() {
            tokio::task::yield_now().await;
        }
        assert!(have(4), "it waits for what can be deferred");
        let order = noted(&sockets[0]).into_iter().map(|(deferrable, _)| deferrable);
        assert!(order.eq([true, true, true, false]));
        push(typing());
        while !have(5) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn who_was_left_by_a_round_that_panicked_is_woken() {
        struct Panicking;
        impl Recipient for Panicking {
            fn deliver(&self) -> bool {
                panic!("this panic is the test")
            }
        }
        let panicking = Arc::new(Panicking);
        let mut sockets: Vec<_> = (0..3).map(|_| queue()).collect();
        let weak = Arc::downgrade(&panicking);
        sockets[2].0.set_recipient(weak);
        let waiting: Vec<_> =
            sockets.iter_mut().map(|(_, inbox)| inbox.take().now_or_never()).collect();
        assert!(waiting.iter().all(Option::is_none));
        let queues: Vec<Queue> = sockets.iter().map(|(queue, _)| queue.clone()).collect();
        let takes: Vec<_> = sockets
            .into_iter()
            .map(|(_, mut inbox)| tokio::spawn(async move { inbox.take().await.len() }))
            .collect();
        tokio::task::yield_now().await;
        let delivery = Arc::new(Delivery::Inbox);
        assert!(queues.iter().all(|queue| queue.add(&delivery)));
        Round::start(queues, false);
        for take in takes {
            let woken = tokio::time::timeout(Duration::from_secs(10), take).await;
            assert_eq!(woken.expect("woken").expect("no panic"), 1);
        }
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
