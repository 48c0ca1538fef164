mod groups;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{
    broker::{Broker, Channel, Event, testing::*},
    model::{ChatKind, OwnFlags, Time},
};

fn state(chat: u128, version: i64, kind: ChatKind) -> MemberState {
    MemberState {
        chat_id: Uuid::from_u128(chat),
        user_id: user("alice"),
        kind,
        room_name: format!("chat{chat}"),
        last_seq: version,
        last_ev: version,
        activity: Time::from_micros(version).expect("a time"),
        gone: false,
        rev: 0,
        read_seq: 0,
        unread: version,
        mentions: 0,
        counted: version,
        recount_ev: 0,
        flags: OwnFlags::default(),
        epoch: history().current(),
    }
}

fn direct(chat: u128, version: i64) -> MemberState {
    state(chat, version, ChatKind::Direct)
}

fn counter(chat: u128, version: i64) -> Counter {
    Counter::from(&direct(chat, version))
}

fn history() -> History {
    History::new("one-00000001".into())
}

/// Enters an epoch, as a read of Postgres would.
fn enter(unread: &Unread, epoch: &str) {
    unread.shared.history.enter(&epoch.into());
}

async fn set(unread: &Unread, user: &UserId, counter: Counter) {
    set_in(unread, &unread.shared.history.current(), user, counter).await;
}

async fn set_in(unread: &Unread, epoch: &Epoch, user: &UserId, counter: Counter) {
    write(unread, epoch, user, CounterChange::Direct(counter)).await;
}

async fn gone(unread: &Unread, user: &UserId, chat: u128) {
    gone_in(unread, &unread.shared.history.current(), user, chat).await;
}

async fn gone_in(unread: &Unread, epoch: &Epoch, user: &UserId, chat: u128) {
    write(unread, epoch, user, CounterChange::Gone { chat_id: Uuid::from_u128(chat) }).await;
}

async fn write(unread: &Unread, epoch: &Epoch, user: &UserId, counter: CounterChange) {
    let mut copies = Copies::default();
    copies.add(user, epoch, counter);
    unread.write(&copies).await.expect("Redis is there");
}

async fn fill(unread: &Unread, user: &UserId, truth: Vec<MemberState>) -> Vec<Counter> {
    let epoch = unread.shared.history.current();
    let Ok(counters) =
        unread.read_or_fill(user, async || Ok::<_, RedisUnavailable>((epoch, truth))).await
    else {
        unreachable!("load does not fail")
    };
    counters.counters
}

async fn copy(unread: &Unread, user: &UserId) -> Option<Vec<Counter>> {
    let mut copy = unread.read(user).await.expect("Redis is there")?.counters;
    copy.sort_by_key(|counter| counter.chat_id);
    Some(copy)
}

#[test]
fn a_counter_survives_its_text_and_other_fields_are_none() {
    for flags in ["a", "mA", "nP", "aAP"] {
        let flags = OwnFlags::parse(flags).expect("valid");
        let counter = Counter {
            chat_id: Uuid::from_u128(9),
            room_name: "a|b-_".to_owned(),
            kind: ChatKind::Direct,
            version: i64::MAX,
            unread: 0,
            mentions: 5,
            last_seq: 3,
            read_seq: 2,
            activity: Time::from_micros(0).expect("a time"),
            flags,
        };
        let (chat, value) = CounterChange::Direct(counter.clone()).encode("head:");
        assert_eq!(Counter::decode(&chat, &value), Some(counter));
        assert_eq!(Counter::decode(&chat, "gone|1700000000"), None);
        assert_eq!(Counter::decode("complete", "1"), None);
    }
}

#[tokio::test]
async fn late_double_and_reordered_writes_do_no_harm() {
    let (_redis, client) = redis().await;
    let (unread, alice) = (Unread::new(client, history()), user("alice"));
    set(&unread, &alice, counter(1, 5)).await;
    assert_eq!(copy(&unread, &alice).await, None, "incomplete");
    fill(&unread, &alice, vec![direct(1, 5), direct(2, 7)]).await;
    for ev in [6, 7, 10, 9] {
        set(&unread, &alice, counter(2, ev)).await;
    }
    assert_eq!(copy(&unread, &alice).await, Some(vec![counter(1, 5), counter(2, 10)]));
    gone(&unread, &alice, 1).await;
    set(&unread, &alice, counter(1, 1_000)).await;
    assert_eq!(copy(&unread, &alice).await, Some(vec![counter(2, 10)]));
    // The database went back in time: a higher `ev` of the old epoch must not win.
    enter(&unread, "after a restore");
    assert_eq!(copy(&unread, &alice).await, None);
    fill(&unread, &alice, vec![direct(1, 1), direct(2, 1)]).await;
    assert_eq!(copy(&unread, &alice).await, Some(vec![counter(1, 1), counter(2, 1)]));
}

#[tokio::test]
async fn a_commit_is_published_with_its_counters_and_never_without() {
    let (_redis, client) = redis().await;
    let (broker, mut events) = Broker::connect(&client, false);
    let (unread, channel) = (Unread::new(client.clone(), history()), Channel::User(user("alice")));
    broker.wait(CEILING).await;
    broker.subscribe(&channel).await.expect("Redis is there");
    let copies = Copies::of(&[direct(1, 5)]);
    let publish = async |text: &'static str| {
        let publications = [(channel.clone(), Bytes::from_static(text.as_bytes()))];
        broker.publish_after(unread.writes(&copies), &publications).await
    };
    assert_eq!(publish("counted").await, Ok(()));
    command(&client, "SET test:unread:alice other").await;
    assert_eq!(publish("not counted").await, Err(RedisUnavailable));
    command(&client, "DEL test:unread:alice").await;
    assert_eq!(publish("counted again").await, Ok(()));
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let event = timeout(CEILING, events.recv()).await.expect("in time");
        match event.expect("the broker is there") {
            Event::Publication { payload, .. } => heard.push(payload),
            Event::Lost => {}
        }
    }
    assert_eq!(heard, ["counted", "counted again"]);
}

#[tokio::test]
async fn a_fill_keeps_what_was_written_meanwhile_and_stores_nothing_over_a_flush() {
    let (_redis, client) = redis().await;
    let (here, there) =
        (Unread::new(client.clone(), history()), Unread::new(client.clone(), history()));
    let alice = user("alice");
    let load = async || {
        set(&there, &alice, counter(1, 2)).await;
        gone(&there, &alice, 2).await;
        Ok::<_, RedisUnavailable>((history().current(), vec![direct(1, 1), direct(2, 1)]))
    };
    assert!(here.read_or_fill(&alice, load).await.is_ok());
    assert_eq!(copy(&here, &alice).await, Some(vec![counter(1, 2)]));

    command(&client, "FLUSHALL").await;
    let load = async || {
        set(&there, &alice, counter(1, 3)).await;
        command(&client, "FLUSHALL").await;
        Ok::<_, RedisUnavailable>((history().current(), vec![direct(1, 2)]))
    };
    assert!(here.read_or_fill(&alice, load).await.is_ok());
    assert_eq!(copy(&here, &alice).await, None);

    // Even if another replica has begun to fill since.
    let load = async || {
        set(&there, &alice, counter(1, 4)).await;
        command(&client, "FLUSHALL").await;
        assert!(matches!(there.begin_fill(&alice).await, Ok(Some(_))));
        Ok::<_, RedisUnavailable>((history().current(), vec![direct(1, 3)]))
    };
    assert!(here.read_or_fill(&alice, load).await.is_ok());
    assert_eq!(copy(&here, &alice).await, None);
}

/// Writes `count` tombstones of the greatest age.
async fn bury(client: &RedisClient, count: u128) {
    let chats = (0..count).map(|number| format!(" {} gone|0", Uuid::from_u128(1 << 64 | number)));
    let chats: String = chats.collect();
    command(client, &format!("HSET test:unread:alice{chats}")).await;
    command(client, &format!("HINCRBY test:unread:alice tombstones {count}")).await;
}

async fn fields(client: &RedisClient) -> i64 {
    command(client, "HLEN test:unread:alice").await.as_i64().expect("a number")
}

#[tokio::test]
async fn old_tombstones_go_and_young_ones_stay_where_they_are() {
    let (_redis, client) = redis().await;
    let (unread, alice) = (Unread::new(client.clone(), history()), user("alice"));
    let truth = || vec![direct(1, 5), direct(2, 5)];
    let copied = || vec![counter(1, 5), counter(2, 5)];
    fill(&unread, &alice, truth()).await;
    bury(&client, 20_000).await;
    gone(&unread, &alice, 3).await;
    assert_eq!(copy(&unread, &alice).await, None, "the tombstones make it too large");
    let mut reads = 0;
    while copy(&unread, &alice).await.is_none() {
        reads += 1;
        assert!(reads <= 30, "{} are left", fields(&client).await);
        fill(&unread, &alice, truth()).await;
    }
    assert!(fields(&client).await < 200);
    set(&unread, &alice, counter(3, 1_000)).await;
    assert_eq!(copy(&unread, &alice).await, Some(copied()), "nothing brings a deleted chat back");

    // Young ones must stay for an hour, during which Postgres counts.
    for chat in 1_000..1_100 {
        gone(&unread, &alice, chat).await;
    }
    for _ in 0..2 {
        assert_eq!(copy(&unread, &alice).await, None);
        fill(&unread, &alice, truth()).await;
    }
    // These chats may exist in the other epoch.
    enter(&unread, "after a restore");
    fill(&unread, &alice, truth()).await;
    assert_eq!(copy(&unread, &alice).await, Some(copied()));
    let young = 100;
    assert!(fields(&client).await < young);
}

#[tokio::test]
async fn a_large_hash_of_another_history_is_cleared_in_steps() {
    let (_redis, client) = redis().await;
    let (unread, alice) = (Unread::new(client.clone(), history()), user("alice"));
    let truth: Vec<MemberState> = (0..18_000).map(|chat| direct(chat, 7)).collect();
    fill(&unread, &alice, truth).await;
    assert_eq!(copy(&unread, &alice).await.map(|all| all.len()), Some(18_000));
    enter(&unread, "after a restore");
    let mut steps = 0;
    while copy(&unread, &alice).await.is_none() {
        steps += 1;
        assert!(steps <= 10, "{} are left", fields(&client).await);
        fill(&unread, &alice, vec![direct(1, 1)]).await;
    }
    assert!(steps > 1);
    assert_eq!(copy(&unread, &alice).await, Some(vec![counter(1, 1)]));
    // Too large for a copy, so Postgres counts.
    let truth: Vec<MemberState> = (0..20_100).map(|chat| direct(chat, 7)).collect();
    enter(&unread, "after another");
    fill(&unread, &alice, truth).await;
    assert_eq!(copy(&unread, &alice).await, None);
}

#[tokio::test]
async fn a_fill_in_parts_ends_where_another_begins_or_an_old_tombstone_goes() {
    let (_redis, client) = redis().await;
    let (here, there) =
        (Unread::new(client.clone(), history()), Unread::new(client.clone(), history()));
    let alice = user("alice");
    let truth: Vec<MemberState> = (0..15_000).map(|chat| direct(chat, 7)).collect();
    let epoch = here.shared.history.current();
    let begin = async |unread: &Unread| match unread.begin_fill(&alice).await {
        Ok(Some(filler)) => filler,
        other => unreachable!("{other:?}"),
    };
    let first = begin(&here).await;
    let interrupt = async {
        while fields(&client).await < 1_000 {}
        begin(&there).await
    };
    let (stored, second) = tokio::join!(here.fill(&alice, first, &epoch, &truth), interrupt);
    assert_eq!(stored, Ok(false));
    assert!(fields(&client).await < 15_000);
    assert_eq!(copy(&here, &alice).await, None);
    // Values that exist already do no harm.
    assert_eq!(there.fill(&alice, second, &epoch, &truth[..2_500]).await, Ok(true));
    assert_eq!(there.fill(&alice, begin(&there).await, &epoch, &truth).await, Ok(true));
    assert_eq!(copy(&here, &alice).await, Some(truth.iter().map(Counter::from).collect()));

    command(&client, "FLUSHALL").await;
    let filler = begin(&here).await;
    bury(&client, 10).await;
    gone(&there, &alice, 3).await;
    assert_eq!(here.fill(&alice, filler, &epoch, &truth[..10]).await, Ok(false));
    assert_eq!(copy(&here, &alice).await, None, "a chat of the fill may have been deleted");
}

#[tokio::test]
async fn what_a_history_that_is_gone_says_late_changes_no_counter() {
    let (_redis, client) = redis().await;
    let (unread, alice) = (Unread::new(client.clone(), history()), user("alice"));
    let (old, new) = (Epoch::from("one-00000001"), Epoch::from("one-00000002"));
    let raw = async |chat: u128| {
        let field = Uuid::from_u128(chat);
        let value = command(&client, &format!("HGET test:unread:alice {field}")).await;
        value.as_string().unwrap_or_default()
    };
    for restored in [false, true] {
        let ghost = if restored { Epoch::from("before a restore-00000007") } else { old.clone() };
        command(&client, "FLUSHALL").await;
        enter(&unread, &new);
        fill(&unread, &alice, vec![direct(1, 6)]).await;
        set_in(&unread, &ghost, &alice, counter(1, 77)).await;
        set_in(&unread, &ghost, &alice, counter(2, 77)).await;
        gone_in(&unread, &ghost, &alice, 1).await;
        assert_eq!(
            (raw(1).await, raw(2).await),
            (CounterChange::Direct(counter(1, 6)).encode("head:").1, String::new())
        );
        let all = fill(&unread, &alice, vec![direct(1, 6)]).await;
        assert_eq!(all, [counter(1, 6)]);
        assert_eq!(copy(&unread, &alice).await, Some(all), "the copy is trusted again");
    }
}

#[tokio::test]
async fn a_replica_that_has_not_heard_of_the_next_history_believes_no_copy_of_before() {
    let (_redis, client) = redis().await;
    let (behind, alice) = (Unread::new(client.clone(), history()), user("alice"));
    for next in ["one-00000002", "after a restore-00000001"] {
        command(&client, "FLUSHALL").await;
        fill(&behind, &alice, vec![direct(1, 77)]).await;
        set_in(&behind, &next.into(), &alice, counter(1, 7)).await;
        assert_eq!(copy(&behind, &alice).await, None, "{next}");
        // It then reads counters of the next epoch, which must not be stored in this one.
        let truth = async || Ok::<_, RedisUnavailable>((next.into(), vec![direct(1, 7)]));
        let read = behind.read_or_fill(&alice, truth).await.map(|all| all.counters);
        assert_eq!(read, Ok(vec![counter(1, 7)]));
        assert_eq!(copy(&behind, &alice).await, None, "{next}");
    }
}

#[tokio::test]
async fn many_readers_load_once_and_none_waits_for_a_frozen_redis() {
    let (redis, client) = redis().await;
    let (unread, alice) = (Unread::new(client, history()), user("alice"));
    let loads = AtomicUsize::new(0);
    let read = || {
        unread.read_or_fill(&alice, async || {
            loads.fetch_add(1, SeqCst);
            sleep(Duration::from_millis(30)).await;
            Ok::<_, RedisUnavailable>((history().current(), vec![direct(1, 1)]))
        })
    };
    let all = futures_util::future::join_all((0..50).map(|_| read())).await;
    assert!(all.into_iter().all(|read| read.map(|all| all.counters) == Ok(vec![counter(1, 1)])));
    assert_eq!(loads.load(SeqCst), 1);

    redis.pause().expect("it runs");
    assert!(read().await.is_ok());
    let begin = Instant::now();
    assert!(read().await.is_ok());
    assert!(begin.elapsed() < Duration::from_millis(150), "{:?}", begin.elapsed());
    redis.resume().expect("it runs");
}
