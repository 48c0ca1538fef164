//! Sends with retries until the outcome is known, and open loops.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use beseda_protocol::{
    model::{ChatId, Mentions},
    rest::NewMessage,
};
use reqwest::Url;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    report::{
        counters::{Counters, add},
        delivery_log::Violation,
    },
    rest::{Rest, Retry, Sent},
};

/// Longest time of retries before the outcome counts as unknown: longer than the replacement of a
/// replica.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The context of a send.
#[derive(Debug, Clone)]
pub(crate) struct Post<'a> {
    pub chat: u32,
    pub chat_id: ChatId,
    /// The replicas: the sender's own first, then the fallbacks.
    pub urls: &'a [Url],
    pub token: &'a str,
    pub text: &'a str,
    pub mentions: Option<Mentions>,
    pub client_msg_id: &'a str,
    /// The due time, from which latency counts.
    pub due: Instant,
}

/// Sends one message with retries under the same id, and returns the acknowledged `seq`. `None` if the
/// outcome stays unknown.
pub(crate) async fn send(rest: &Rest, counters: &Counters, post: Post<'_>) -> Option<i64> {
    let give_up = Instant::now() + GIVE_UP;
    let mut failures = 0;
    let message = NewMessage {
        text: post.text.to_owned(),
        mentions: post.mentions,
        client_msg_id: Some(post.client_msg_id.to_owned()),
        ..NewMessage::default()
    };
    loop {
        let url = &post.urls[failures % post.urls.len()];
        match rest.send(url, post.token, post.chat_id, &message).await {
            Sent::Acknowledged { seq } => {
                counters.answered.record(post.due.elapsed());
                return Some(seq);
            }
            Sent::Again { after, why } => {
                add(match why {
                    Retry::RateLimited => &counters.rate_limited,
                    Retry::Failed => &counters.failed,
                });
                failures += usize::from(why == Retry::Failed);
                if Instant::now() >= give_up {
                    add(&counters.abandoned);
                    return None;
                }
                tokio::time::sleep(after).await;
            }
            Sent::Refused { status, body } => {
                let what = format!("a send was refused with {status}: {body}");
                counters.violation(&Violation::Unexpected { chat: post.chat, what });
                return None;
            }
        }
    }
}

/// Starts `each` at every moment of `due`, independent of earlier ones, until `due` ends or `stop`
/// resolves, and waits for all that were started.
///
/// At most `at_once` run together. One that must wait still gets its due time, so that the wait counts as
/// latency (no coordinated omission).
pub(crate) async fn open_loop<F>(
    mut due: mpsc::UnboundedReceiver<Instant>,
    stop: impl Future<Output = ()>,
    at_once: usize,
    mut each: impl FnMut(usize, Instant) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    let mut stop = pin!(stop);
    let mut stopped = false;
    let mut number = 0;
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((permit, due.recv().await?))
        };
        let (permit, due) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => break,
            },
            () = &mut stop, if !stopped => {
                // Those that are due by now still start.
                stopped = true;
                due.close();
                continue;
            }
        };
        let work = each(number, due);
        number += 1;
        running.spawn(async move {
            work.await;
            drop(permit);
        });
        while running.try_join_next().is_some() {}
    }
    running.join_all().await;
}

/// Yields moments at a fixed rate for `span`, each when it comes. It has its own thread: the runtime's
/// timers round up to a millisecond, much in comparison with the measured latencies.
pub(crate) fn pace(rate: f64, span: Duration) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let began = Instant::now();
        for number in 0_u32.. {
            let at = Duration::from_secs_f64(f64::from(number) / rate);
            if at >= span {
                return;
            }
            thread::sleep(at.saturating_sub(began.elapsed()));
            if sender.send(began + at).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::meter::{Latency, Meter};

    async fn measure(at_once: usize) -> Latency {
        let meter = Arc::new(Meter::new());
        let due = pace(100.0, Duration::from_millis(500));
        open_loop(due, std::future::pending(), at_once, |_, due| {
            let meter = Arc::clone(&meter);
            async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                meter.record(due.elapsed());
            }
        })
        .await;
        Latency::of(&meter.take())
    }

    #[tokio::test]
    async fn a_slow_answer_delays_no_other() {
        let latency = measure(50).await;
        assert_eq!(latency.count, 50);
        assert!((30.0..300.0).contains(&latency.p50), "{latency}");
    }

    #[tokio::test]
    async fn what_is_under_way_when_it_stops_is_waited_for() {
        let meter = Arc::new(Meter::new());
        let stop = tokio::time::sleep(Duration::from_millis(100));
        open_loop(pace(100.0, Duration::from_secs(3_600)), stop, 1, |_, due| {
            let meter = Arc::clone(&meter);
            async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                meter.record(due.elapsed());
            }
        })
        .await;
        assert!((10..50).contains(&meter.count()), "{} were due", meter.count());
    }

    /// 50 calls of 30 ms, one after the other, take 1.5 s; all are due within 0.5 s.
    #[tokio::test]
    async fn what_had_to_wait_has_waited() {
        let latency = measure(1).await;
        assert_eq!(latency.count, 50, "none is left out");
        assert!(latency.max >= 990.0 && latency.p50 > 300.0, "{latency}");
    }
}
