use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{testing::*, *};

fn chat(number: u128) -> Channel {
    Channel::Chat(Uuid::from_u128(number))
}

/// Connects a broker and takes the `Lost` of its first connection.
async fn broker(client: &RedisClient) -> (Broker, mpsc::Receiver<Event>) {
    connected(client, false).await
}

async fn connected(client: &RedisClient, sharded: bool) -> (Broker, mpsc::Receiver<Event>) {
    let (broker, mut events) = Broker::connect(client, sharded);
    lost(&mut events).await;
    (broker, events)
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    timeout(CEILING, events.recv()).await.expect("an event in time").expect("it runs")
}

async fn lost(events: &mut mpsc::Receiver<Event>) {
    while next(events).await != Event::Lost {}
}

async fn channels(client: &RedisClient) -> usize {
    command(client, "PUBSUB CHANNELS").await.into_array().len()
}

async fn shard_channels(client: &RedisClient) -> usize {
    command(client, "PUBSUB SHARDCHANNELS").await.into_array().len()
}

/// Checks that publications after an acknowledged subscription arrive, and that no subscription is left.
/// `count` returns the subscriptions that Redis has.
async fn arrives(
    here: &RedisClient,
    there: &RedisClient,
    sharded: bool,
    count: impl AsyncFn() -> usize,
) {
    let (listener, mut events) = connected(here, sharded).await;
    let (publisher, _events) = Broker::connect(there, sharded);
    for number in 0..500 {
        listener.subscribe(&chat(number)).await.expect("Redis is there");
        let publication = (chat(number), Bytes::from(number.to_string()));
        publisher.publish(std::slice::from_ref(&publication)).await.expect("Redis is there");
        let (channel, payload) = publication;
        assert_eq!(next(&mut events).await, Event::Publication { channel, payload });
    }
    // Concurrent subscriptions share an acknowledgement.
    let storm: Vec<Channel> = (500..5_500).map(chat).collect();
    let all = join_all(storm.iter().map(|channel| listener.subscribe(channel))).await;
    assert!(all.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(count().await, 5_500);
    for channel in &storm {
        listener.unsubscribe(channel);
    }
    let begin = Instant::now();
    while count().await != 500 {
        assert!(begin.elapsed() < CEILING);
    }
}

#[test]
fn a_channel_survives_its_name() {
    for channel in [chat(7), Channel::User(user("a:b chat:ё"))] {
        assert_eq!(Channel::parse(&channel.name("x:"), "x:"), Some(channel.clone()));
        assert_eq!(Channel::parse(&channel.name("x:"), "y:"), None);
    }
}

#[tokio::test]
async fn a_wrong_url_is_an_error_and_an_absent_redis_is_not() {
    for wrong in ["", "nonsense", "http://127.0.0.1:6379", "redis://"] {
        assert!(RedisClient::connect(wrong, None, "").is_err(), "{wrong}");
    }
    let client = RedisClient::connect("redis://127.0.0.1:1", None, "").expect("a URL");
    let (broker, _events) = Broker::connect(&client, false);
    assert_eq!(broker.subscribe(&chat(1)).await, Err(RedisUnavailable));
    assert_eq!(broker.publish(&[(chat(1), Bytes::new())]).await, Err(RedisUnavailable));
    assert!(!client.is_up() && client.generation().is_none());
}

#[tokio::test]
async fn what_is_published_after_an_acknowledged_subscription_arrives() {
    let (redis, here) = redis().await;
    let there = connect(&redis).await;
    arrives(&here, &there, false, async || channels(&here).await).await;
}

#[tokio::test]
async fn with_shards_too_what_is_published_after_an_acknowledged_subscription_arrives() {
    let (servers, clients, here) = ring().await;
    let there = RedisClient::connect(&ring_url(&servers), None, "test:").expect("a URL");
    up(&there).await;
    let count = async || {
        let mut count = 0;
        for client in &clients {
            assert_eq!(channels(client).await, 0, "none on all servers");
            let own = shard_channels(client).await;
            assert!(own < 5_500, "each has a part");
            count += own;
        }
        count
    };
    arrives(&here, &there, true, count).await;
}

#[tokio::test]
async fn what_is_published_while_a_slot_is_on_its_way_arrives() {
    let (_servers, clients, here) = ring().await;
    let (broker, mut events) = connected(&here, true).await;
    let publication = (chat(1), Bytes::from_static(b"x"));
    broker.subscribe(&publication.0).await.expect("Redis is there");
    let slot = fred::util::redis_keyslot(publication.0.name("test:").as_bytes());
    let from = usize::from(slot) / 5_462;
    let to = (from + 1) % 3;
    for (here, there, state) in [(to, from, "IMPORTING"), (from, to, "MIGRATING")] {
        let id = command(&clients[there], "CLUSTER MYID").await.into_string().expect("an id");
        command(&clients[here], &format!("CLUSTER SETSLOT {slot} {state} {id}")).await;
    }
    broker.publish(std::slice::from_ref(&publication)).await.expect("Redis takes it");
    let (channel, payload) = publication;
    assert_eq!(next(&mut events).await, Event::Publication { channel, payload });
}

#[tokio::test]
async fn a_lost_connection_is_admitted_once_everything_is_subscribed_again() {
    let (_redis, client) = redis().await;
    let (broker, mut events) = broker(&client).await;
    join_all((0..1_000).map(chat).collect::<Vec<_>>().iter().map(|c| broker.subscribe(c))).await;
    for _ in 0..3 {
        command(&client, "CLIENT KILL TYPE pubsub").await;
        lost(&mut events).await;
        assert_eq!(channels(&client).await, 1_000);
    }
}

#[tokio::test]
async fn with_shards_too_a_lost_connection_is_admitted_once_everything_is_subscribed_again() {
    let (_servers, clients, here) = ring().await;
    let (broker, mut events) = connected(&here, true).await;
    join_all((0..1_000).map(chat).collect::<Vec<_>>().iter().map(|c| broker.subscribe(c))).await;
    for client in &clients {
        let before = shard_channels(client).await;
        command(client, "CLIENT KILL TYPE pubsub").await;
        lost(&mut events).await;
        assert_eq!(shard_channels(client).await, before);
    }
}

#[tokio::test]
async fn slots_that_have_moved_are_admitted_and_subscribed_where_they_are() {
    let (_servers, clients, here) = ring().await;
    let (broker, mut events) = connected(&here, true).await;
    join_all((0..2_000).map(chat).collect::<Vec<_>>().iter().map(|c| broker.subscribe(c))).await;
    let to = command(&clients[1], "CLUSTER MYID").await.into_string().expect("an id");
    // Of so many moved slots, one soon has a channel whose subscription is repeated.
    for slot in 0..1_000 {
        for client in [&clients[1], &clients[0], &clients[2]] {
            command(client, &format!("CLUSTER SETSLOT {slot} NODE {to}")).await;
        }
    }
    lost(&mut events).await;
    let begin = Instant::now();
    let everywhere =
        async || join_all(clients.iter().map(shard_channels)).await.iter().sum::<usize>();
    while everywhere().await != 2_000 {
        assert!(begin.elapsed() < CEILING);
    }
}

#[tokio::test]
async fn nobody_waits_for_a_frozen_redis_and_it_heals() {
    let (redis, client) = redis().await;
    let (broker, mut events) = broker(&client).await;
    broker.subscribe(&chat(1)).await.expect("Redis is there");
    redis.pause().expect("it runs");
    let one = [(chat(1), Bytes::from_static(b"late"))];
    assert_eq!(broker.publish(&one).await, Err(RedisUnavailable));
    let begin = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(broker.publish(&one).await, Err(RedisUnavailable));
    }
    assert!(begin.elapsed() < Duration::from_millis(250), "{:?}", begin.elapsed());
    let mut state = client.subscribe_state();
    timeout(CEILING, state.wait_for(|up| !up)).await.expect("noticed").expect("it runs");
    redis.resume().expect("it runs");
    up(&client).await;
    let after = Bytes::from_static(b"after");
    broker.publish(&[(chat(1), after.clone())]).await.expect("Redis is back");
    // The freeze is too short for the connection to be replaced; if it was, `Lost` reports that.
    let heard = Event::Publication { channel: chat(1), payload: after };
    while ![&heard, &Event::Lost].contains(&&next(&mut events).await) {}
    let begin = Instant::now();
    while channels(&client).await != 1 {
        assert!(begin.elapsed() < CEILING);
    }
}

#[tokio::test]
async fn another_process_is_another_generation() {
    let (redis, here) = redis().await;
    let before = here.generation();
    assert_eq!(connect(&redis).await.generation(), before, "equal on all replicas");
    command(&here, "FLUSHALL").await;
    assert_eq!(here.generation(), before);
    redis.restart().await.expect("it starts");
    let begin = Instant::now();
    while here.generation().is_none_or(|now| Some(now) == before) {
        assert!(begin.elapsed() < CEILING);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    here.shutdown().await;
    assert!(!here.is_up());
}
