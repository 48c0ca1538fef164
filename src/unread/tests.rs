use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::*;
use crate::broker::testing::*;

fn counter(chat: u128, ev: i64) -> Counter {
    let chat_id = Uuid::from_u128(chat);
    let room_name = format!("room{chat}");
    Counter { chat_id, room_name, ev, unread: ev, last_seq: ev, read_seq: 0, activity: ev }
}

async fn set(unread: &Unread, user: &UserId, counter: Counter) {
    let change = (user.clone(), CounterChange::Set(counter));
    unread.write(&[change]).await.expect("Redis is there");
}

async fn gone(unread: &Unread, user: &UserId, chat: u128) {
    let change = CounterChange::Gone { chat_id: Uuid::from_u128(chat) };
    unread.write(&[(user.clone(), change)]).await.expect("Redis is there");
}

async fn fill(unread: &Unread, user: &UserId, truth: Vec<Counter>) -> Vec<Counter> {
    let Ok(counters) = unread.read_or_fill(user, async || Ok::<_, Away>(truth)).await else {
        unreachable!("load does not fail")
    };
    counters
}

async fn copy(unread: &Unread, user: &UserId) -> Option<Vec<Counter>> {
    let mut copy = unread.read(user).await.expect("Redis is there")?;
    copy.sort_by_key(|counter| counter.chat_id);
    Some(copy)
}

#[test]
fn a_counter_survives_its_text_and_other_fields_are_none() {
    let counter = Counter {
        chat_id: Uuid::from_u128(9),
        room_name: "a|b-_".to_owned(),
        ev: i64::MAX,
        unread: 0,
        last_seq: 3,
        read_seq: 2,
        activity: -1,
    };
    let chat = counter.chat_id.to_string();
    assert_eq!(Counter::decode(&chat, &counter.encode()), Some(counter));
    assert_eq!(Counter::decode(&chat, "gone|1700000000"), None);
    assert_eq!(Counter::decode("complete", "1"), None);
}

#[tokio::test]
async fn late_double_and_reordered_writes_do_no_harm() {
    let (_redis, link) = redis().await;
    let (unread, alice) = (Unread::new(link), user("alice"));
    set(&unread, &alice, counter(1, 5)).await;
    assert_eq!(copy(&unread, &alice).await, None, "incomplete");
    fill(&unread, &alice, vec![counter(1, 5), counter(2, 7)]).await;
    for ev in [6, 7, 10, 9] {
        set(&unread, &alice, counter(2, ev)).await;
    }
    assert_eq!(copy(&unread, &alice).await, Some(vec![counter(1, 5), counter(2, 10)]));
    gone(&unread, &alice, 1).await;
    set(&unread, &alice, counter(1, 1_000)).await;
    assert_eq!(copy(&unread, &alice).await, Some(vec![counter(2, 10)]));
    // The database went back in time: nothing that is higher there stands in the way.
    unread.set_epoch("after a restore");
    assert_eq!(copy(&unread, &alice).await, None);
    fill(&unread, &alice, vec![counter(1, 1), counter(2, 1)]).await;
    assert_eq!(copy(&unread, &alice).await, Some(vec![counter(1, 1), counter(2, 1)]));
}

#[tokio::test]
async fn a_fill_keeps_what_was_written_meanwhile_and_stores_nothing_over_a_flush() {
    let (_redis, link) = redis().await;
    let (here, there) = (Unread::new(link.clone()), Unread::new(link.clone()));
    let alice = user("alice");
    let load = async || {
        set(&there, &alice, counter(1, 2)).await;
        gone(&there, &alice, 2).await;
        Ok::<_, Away>(vec![counter(1, 1), counter(2, 1)])
    };
    assert!(here.read_or_fill(&alice, load).await.is_ok());
    assert_eq!(copy(&here, &alice).await, Some(vec![counter(1, 2)]));

    command(&link, "FLUSHALL").await;
    let load = async || {
        set(&there, &alice, counter(1, 3)).await;
        command(&link, "FLUSHALL").await;
        Ok::<_, Away>(vec![counter(1, 2)])
    };
    assert!(here.read_or_fill(&alice, load).await.is_ok());
    assert_eq!(copy(&here, &alice).await, None);

    // Even if another replica has begun to fill since.
    let load = async || {
        set(&there, &alice, counter(1, 4)).await;
        command(&link, "FLUSHALL").await;
        assert!(matches!(there.begin_fill(&alice).await, Ok(Some(_))));
        Ok::<_, Away>(vec![counter(1, 3)])
    };
    assert!(here.read_or_fill(&alice, load).await.is_ok());
    assert_eq!(copy(&here, &alice).await, None);
}

#[tokio::test]
async fn many_readers_load_once_and_none_waits_for_a_frozen_redis() {
    let (redis, link) = redis().await;
    let (unread, alice) = (Unread::new(link), user("alice"));
    let loads = AtomicUsize::new(0);
    let read = || {
        unread.read_or_fill(&alice, async || {
            loads.fetch_add(1, SeqCst);
            sleep(Duration::from_millis(30)).await;
            Ok::<_, Away>(vec![counter(1, 1)])
        })
    };
    let all = futures_util::future::join_all((0..50).map(|_| read())).await;
    assert!(all.into_iter().all(|counters| counters == Ok(vec![counter(1, 1)])));
    assert_eq!(loads.load(SeqCst), 1);

    redis.pause().expect("it runs");
    assert!(read().await.is_ok());
    let begin = Instant::now();
    assert!(read().await.is_ok());
    assert!(begin.elapsed() < Duration::from_millis(150), "{:?}", begin.elapsed());
    redis.resume().expect("it runs");
}
