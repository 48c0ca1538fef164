use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::protocol::{AddressedFrame, ResetReason};

const CHAT: ChatId = ChatId::nil();

fn event(ev: i64) -> Publication {
    event_of("one", ev)
}

fn event_of(epoch: &str, ev: i64) -> Publication {
    let frame = AddressedFrame::to_all(Bytes::from(ev.to_string()));
    Publication::Event { epoch: epoch.into(), ev, micros: 0, trace: None, frame }
}

fn fill(epoch: &str, after_ev: i64, head_ev: i64) -> Fill {
    let frames = (after_ev + 1..=head_ev).map(|ev| (ev, AddressedFrame::to_all(Bytes::new())));
    Fill { epoch: epoch.into(), after_ev, frames: frames.collect(), head_ev, whole: true }
}

/// Notes a head in the tests' first epoch; returns the hub's cursor and a gap to fill.
fn note_head(hub: &Hub, head_ev: i64) -> (i64, Option<Gap>) {
    hub.note_head(CHAT, head_ev, &"one".into()).expect("the same history")
}

fn gap_start(hub: &Hub) -> Option<i64> {
    hub.gap_start(Gap(CHAT)).map(|(after, _)| after)
}

fn hub() -> (Hub, Queue, Inbox) {
    let hub = Hub::new(Arc::default());
    let (queue, inbox) = queue();
    hub.add_subscriber(CHAT, &queue);
    (hub, queue, inbox)
}

/// Returns the numbers that a subscriber received; a fill counts as all that it covers.
fn given(inbox: &mut Inbox) -> Vec<i64> {
    let mut numbers = Vec::new();
    for delivery in inbox.take().now_or_never().into_iter().flatten() {
        match &*delivery {
            Delivery::Event { ev, .. } => numbers.push(*ev),
            Delivery::Catchup { fill, .. } => numbers.extend(fill.frames.iter().map(|(ev, _)| ev)),
            _ => {}
        }
    }
    numbers
}

#[test]
fn the_next_goes_out_an_older_is_dropped_a_gap_is_claimed_once() {
    let (hub, _queue, mut inbox) = hub();
    assert_eq!(note_head(&hub, 5), (5, None));
    assert_eq!(hub.receive(CHAT, event(6)), Received::Taken);
    assert_eq!(hub.receive(CHAT, event(6)), Received::Taken);
    assert_eq!(hub.receive(CHAT, event(4)), Received::Taken);
    assert_eq!(given(&mut inbox), [6]);
    assert_eq!(hub.receive(CHAT, event(8)), Received::Gap(Gap(CHAT)));
    assert_eq!(hub.receive(CHAT, event(9)), Received::Taken, "the gap is being filled");
    assert_eq!(gap_start(&hub), Some(6));
    assert_eq!(hub.receive(CHAT, event(7)), Received::Taken);
    assert_eq!(given(&mut inbox), [7, 8, 9]);
    assert_eq!(gap_start(&hub), None, "the gap has closed");
    assert_eq!(hub.receive(CHAT, event(12)), Received::Gap(Gap(CHAT)), "and the next gap is free");
}

#[test]
fn what_comes_before_the_first_read_is_kept() {
    let (hub, _queue, mut inbox) = hub();
    assert_eq!(hub.receive(CHAT, event(4)), Received::Taken);
    assert_eq!(hub.receive(CHAT, event(5)), Received::Taken);
    assert_eq!(note_head(&hub, 4), (5, None));
    assert_eq!(given(&mut inbox), [5]);
}

#[test]
fn a_slower_first_reader_learns_that_it_has_to_read_again() {
    let (hub, _queue, _inbox) = hub();
    let (second, _other) = queue();
    hub.add_subscriber(CHAT, &second);
    assert_eq!(note_head(&hub, 10), (10, None));
    hub.receive(CHAT, event(10));
    assert_eq!(note_head(&hub, 9), (10, None), "10 was dropped for both of them");
}

#[test]
fn a_full_queue_marks_its_socket_only() {
    let (hub, _queue, mut slow) = hub();
    let (second, mut quick) = queue();
    hub.add_subscriber(CHAT, &second);
    note_head(&hub, 0);
    for ev in 1..=QUEUE as i64 + 10 {
        hub.receive(CHAT, event(ev));
        assert_eq!(given(&mut quick), [ev]);
    }
    assert!(slow.take_behind());
    assert!(!slow.take_behind());
    assert!(!quick.take_behind());
    assert_eq!(given(&mut slow).len(), QUEUE);
}

#[test]
fn an_idle_chat_is_forgotten_and_a_followed_one_is_not() {
    let (hub, queue, _inbox) = hub();
    let forgotten = Mutex::new(Vec::new());
    let forget = || {
        hub.forget_idle(Instant::now(), |chat_id| {
            forgotten.lock().expect("not poisoned").push(chat_id);
        });
    };
    forget();
    assert_eq!(hub.size(), (1, 1));
    hub.remove_subscriber(CHAT, &queue);
    forget();
    assert_eq!(hub.size(), (0, 0));
    assert_eq!(*forgotten.lock().expect("not poisoned"), [CHAT]);
}

#[test]
fn what_another_history_says_is_heard_only_once_that_is_read() {
    let (hub, _queue, mut inbox) = hub();
    assert_eq!(note_head(&hub, 4), (4, None));
    for foreign in [
        event_of("two", 5),
        event_of("two", 77),
        Publication::Head { epoch: "two".into(), ev: 77 },
        Publication::Deleted { epoch: "two".into() },
    ] {
        assert_eq!(hub.receive(CHAT, foreign), Received::Foreign);
    }
    assert_eq!(hub.note_head(CHAT, 3, &"two".into()), None);
    assert!(!hub.fill(Gap(CHAT), fill("two", 4, 9)));
    assert_eq!((given(&mut inbox), hub.size()), (vec![], (1, 1)));
    assert_eq!(hub.receive(CHAT, event(5)), Received::Taken);
    assert_eq!(given(&mut inbox), [5]);
    // A comparison finds that Postgres is in the new epoch.
    assert_eq!(hub.compare(CHAT, 5, 3, &"two".into()), None);
    assert!(matches!(
        inbox.take().now_or_never().expect("told")[..],
        [ref told] if matches!(&**told, Delivery::Reset { head_ev: 3, epoch, .. } if **epoch == *"two")
    ));
    assert_eq!(hub.receive(CHAT, event(6)), Received::Foreign, "its epoch is over");
    assert_eq!(hub.receive(CHAT, event_of("two", 4)), Received::Taken);
    assert_eq!(given(&mut inbox), [4]);
}

#[test]
fn what_comes_before_the_first_read_counts_in_the_history_that_was_read() {
    let (hub, _queue, mut inbox) = hub();
    for publication in [event(5), event(77), event_of("two", 4)] {
        assert_eq!(hub.receive(CHAT, publication), Received::Taken);
    }
    assert_eq!(hub.note_head(CHAT, 3, &"two".into()), Some((4, None)));
    assert_eq!(given(&mut inbox), [4]);
}

/// How often an inbox was told that the chat moved.
fn told(inbox: &mut Inbox) -> usize {
    let deliveries = inbox.take().now_or_never().unwrap_or_default();
    assert!(deliveries.iter().all(|one| matches!(**one, Delivery::ChatMoved { chat_id: CHAT })));
    deliveries.len()
}

#[test]
fn an_inbox_is_told_once_until_it_reads() {
    let hub = Hub::new(Arc::default());
    let (queue, mut inbox) = queue();
    let (_, flag) = hub.add_follower(CHAT, &queue);
    let renew = || flag.store(false, std::sync::atomic::Ordering::Release);
    // Only inboxes follow: nothing is kept, and no gap is filled.
    for ev in [1, 2, 7] {
        assert_eq!(hub.receive(CHAT, event(ev)), Received::Taken);
    }
    assert_eq!(told(&mut inbox), 1);
    renew();
    assert_eq!(hub.receive(CHAT, event(5)), Received::Taken);
    assert_eq!(told(&mut inbox), 0, "whoever has read 7 has read 5");
    hub.receive(CHAT, Publication::Head { epoch: "one".into(), ev: 8 });
    assert_eq!(told(&mut inbox), 1);
    renew();
    hub.receive(CHAT, Publication::Deleted { epoch: "one".into() });
    assert_eq!(told(&mut inbox), 1);
    renew();
    // A subscriber that reads more than was published.
    let (second, _other) = self::queue();
    hub.add_subscriber(CHAT, &second);
    assert_eq!(note_head(&hub, 12), (12, None));
    assert_eq!(told(&mut inbox), 1);
    renew();
    assert_eq!(hub.compare(CHAT, 12, 3, &"two".into()), None);
    assert_eq!(told(&mut inbox), 1, "another history");
}

#[test]
fn a_followed_chat_stays_without_its_subscribers_and_forgets_their_position() {
    let (hub, queue, mut inbox) = hub();
    let (second, mut following) = self::queue();
    let (_, flag) = hub.add_follower(CHAT, &second);
    assert_eq!(note_head(&hub, 3), (3, None));
    assert_eq!(told(&mut following), 1);
    flag.store(false, std::sync::atomic::Ordering::Release);
    hub.remove_subscriber(CHAT, &queue);
    hub.forget_idle(Instant::now(), |_| unreachable!("it is followed"));
    assert_eq!((hub.size(), hub.cursors(None)), ((1, 0), vec![]));
    assert_eq!(hub.receive(CHAT, event(9)), Received::Taken);
    assert_eq!(told(&mut following), 1);
    // Who comes next begins where the chat is, not with a gap.
    hub.add_subscriber(CHAT, &queue);
    assert_eq!(note_head(&hub, 9), (9, None));
    assert_eq!(hub.receive(CHAT, event(10)), Received::Taken);
    assert_eq!(given(&mut inbox), [10]);
    hub.remove_subscriber(CHAT, &queue);
    hub.remove_follower(CHAT, &flag);
    let forgotten = std::cell::Cell::new(0);
    hub.forget_idle(Instant::now(), |_| forgotten.set(forgotten.get() + 1));
    assert_eq!((hub.size(), forgotten.get()), ((0, 0), 1));
}

#[test]
fn a_fill_that_comes_after_the_last_subscriber_moves_nothing() {
    let (hub, queue, _inbox) = hub();
    let (second, _following) = self::queue();
    hub.add_follower(CHAT, &second);
    note_head(&hub, 3);
    assert_eq!(hub.receive(CHAT, event(5)), Received::Gap(Gap(CHAT)));
    hub.remove_subscriber(CHAT, &queue);
    hub.forget(CHAT, || unreachable!("it is followed"));
    assert!(!hub.fill(Gap(CHAT), fill("one", 3, 5)));
    assert_eq!((gap_start(&hub), hub.cursors(None)), (None, vec![]));
    hub.reset(Gap(CHAT), 7, &"one".into(), ResetReason::TooFar);
    assert_eq!((hub.compare(CHAT, 3, 7, &"one".into()), hub.cursors(None)), (None, vec![]));
}

proptest! {
    /// However publications are lost, doubled and swapped: once the gaps are filled, a subscriber has
    /// every number once, in order.
    #[test]
    fn every_number_once_in_order(
        arrivals in prop::collection::vec((1i64..60, any::<bool>()), 0..200)
    ) {
        let (hub, _queue, mut inbox) = hub();
        note_head(&hub, 0);
        let mut numbers = Vec::new();
        let mut fill_up_to = |head: i64| {
            if let Some(after) = gap_start(&hub) {
                hub.fill(Gap(CHAT), fill("one", after, head));
                gap_start(&hub);
            }
            numbers.extend(given(&mut inbox));
        };
        let mut committed = 0;
        for (ev, fill_now) in arrivals {
            committed = committed.max(ev);
            hub.receive(CHAT, event(ev));
            if fill_now {
                fill_up_to(committed);
            }
        }
        fill_up_to(committed);
        prop_assert_eq!(numbers, (1..=committed).collect::<Vec<_>>());
    }
}
