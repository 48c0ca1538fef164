use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};

use super::*;
use crate::{broker::testing::*, dev::Redis};

/// Starts the presence of another replica.
async fn replica(redis: &Redis) -> (Presence, UnboundedReceiver<Transition>, RedisClient) {
    let (events, transitions) = mpsc::unbounded_channel();
    let client = connect(redis).await;
    (Presence::start(client.clone(), Uuid::now_v7(), events), transitions, client)
}

async fn next(transitions: &mut UnboundedReceiver<Transition>) -> (String, bool) {
    let next = timeout(CEILING, transitions.recv()).await.expect("in time").expect("it runs");
    (next.user.to_string(), next.online)
}

/// Checks that nothing happens during a grace and its tick.
async fn quiet(transitions: &mut UnboundedReceiver<Transition>) {
    let wait = GRACE + Duration::from_millis(700);
    assert!(timeout(wait, transitions.recv()).await.is_err());
}

#[tokio::test]
async fn a_person_comes_once_and_goes_once_whatever_their_sockets() {
    let (redis, _client) = redis().await;
    let (here, mut heard, _) = replica(&redis).await;
    let (there, mut heard_there, _) = replica(&redis).await;
    let (alice, bob) = (user("alice"), user("bob"));
    let (first, second) = (here.enter(&alice), here.enter(&alice));
    assert_eq!(next(&mut heard).await, ("alice".to_owned(), true));
    let third = there.enter(&alice);
    assert_eq!(there.online(&[alice.clone(), bob.clone()]).await, HashSet::from([alice.clone()]));
    drop((first, second));
    quiet(&mut heard).await;
    assert_eq!(here.online(std::slice::from_ref(&alice)).await.len(), 1);
    drop(third);
    assert_eq!(next(&mut heard_there).await, ("alice".to_owned(), false));
    assert!(here.online(&[alice]).await.is_empty());

    let _bob = here.enter(&bob);
    assert_eq!(next(&mut heard).await, ("bob".to_owned(), true));
    here.leave_all().await;
    assert_eq!(next(&mut heard).await, ("bob".to_owned(), false));
}

#[tokio::test]
async fn a_flush_is_no_transition_and_the_leases_come_back() {
    let (redis, _client) = redis().await;
    let (here, mut heard, client) = replica(&redis).await;
    let (there, mut heard_there, _) = replica(&redis).await;
    let alice = user("alice");
    let leaving = here.enter(&alice);
    assert_eq!(next(&mut heard).await, ("alice".to_owned(), true));
    let _staying = there.enter(&alice);
    drop(leaving);
    tokio::time::sleep(GRACE - Duration::from_millis(200)).await;
    // The last moment before the lease ends.
    command(&client, "FLUSHALL").await;
    quiet(&mut heard).await;
    quiet(&mut heard_there).await;
    assert_eq!(here.online(&[alice]).await.len(), 1);
}

#[tokio::test]
async fn leases_of_a_dead_replica_are_swept() {
    let (redis, _client) = redis().await;
    let (_here, mut heard, client) = replica(&redis).await;
    let long_ago = "1000";
    command(&client, &format!("HSET test:presence:alice dead {long_ago}")).await;
    command(&client, &format!("ZADD test:presence-leases {long_ago} alice")).await;
    assert_eq!(next(&mut heard).await, ("alice".to_owned(), false));
    assert_eq!(command(&client, "EXISTS test:presence-leases").await.as_i64(), Some(0));
}
