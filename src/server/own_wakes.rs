//! Keeps a connection's wake-ups of itself from the runtime.
//!
//! Within one connection hyper and the handler pass a request's body to each other and wake each other, hence
//! their own task, while it runs. The runtime takes that for new work: it queues the task again and calls an
//! idle thread for it, which finds nothing. At everyday rates that cost an eighth of the service's time.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Polls in a row: a request with a body takes three. Beyond that other tasks have their turn.
const POLLS: usize = 4;

/// Not being polled: a wake-up is for the runtime.
const WAITING: u8 = 0;
/// Being polled.
const POLLED: u8 = 1;
/// Woken while it was being polled.
const AGAIN: u8 = 2;

/// Where a future's wake-ups go.
#[derive(Default)]
struct OwnWakes {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for OwnWakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.compare_exchange(POLLED, AGAIN, SeqCst, SeqCst) == Err(WAITING) {
            self.task.wake();
        }
    }
}

/// Runs a future, and polls it again at once where it was woken while it was being polled.
pub(super) async fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let wakes = Arc::new(OwnWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    poll_fn(|task| {
        wakes.task.register(task.waker());
        for _ in 0..POLLS {
            wakes.state.store(POLLED, SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            let was = wakes.state.swap(WAITING, SeqCst);
            if polled.is_ready() || was == POLLED {
                return polled;
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::atomic::AtomicUsize};

    use tokio::sync::Notify;

    use super::*;

    /// Counts the wake-ups of a task.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn only_what_comes_from_elsewhere_wakes_the_task() {
        let (counted, news) = (Arc::new(Counted::default()), Notify::new());
        let (own, polls) = (POLLS - 1, Cell::new(0));
        let mut waiting = pin!(news.notified());
        let mut future = pin!(at_once(poll_fn(|task| {
            polls.set(polls.get() + 1);
            if polls.get() <= own {
                task.waker().wake_by_ref();
            }
            waiting.as_mut().poll(task)
        })));
        let waker = Waker::from(Arc::clone(&counted));
        let mut task = Context::from_waker(&waker);
        assert!(future.as_mut().poll(&mut task).is_pending());
        assert_eq!(counted.0.load(SeqCst), 0, "it woke itself only");
        news.notify_one();
        assert_eq!(counted.0.load(SeqCst), 1);
        assert!(future.as_mut().poll(&mut task).is_ready());
        assert_eq!(polls.get(), own + 2);
    }

    #[test]
    fn a_future_that_always_wakes_itself_lets_others_run() {
        let (counted, polls) = (Arc::new(Counted::default()), Cell::new(0));
        let mut future = pin!(at_once(poll_fn(|task| {
            polls.set(polls.get() + 1);
            task.waker().wake_by_ref();
            Poll::<()>::Pending
        })));
        let waker = Waker::from(Arc::clone(&counted));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!((polls.get(), counted.0.load(SeqCst)), (POLLS, 1));
    }
}
