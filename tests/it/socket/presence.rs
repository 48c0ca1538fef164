//! Who is there.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{assert_members, kind};
use crate::harness::{Cluster, Socket, eventually};

/// The documented grace: a shorter absence is not reported.
const GRACE: Duration = Duration::from_secs(3);

async fn online(socket: &mut Socket) -> Vec<String> {
    socket.expect("hello").await;
    let subscribed = socket.expect("subscribed").await;
    let list = subscribed["online"].as_array().expect("a list").clone();
    let mut names: Vec<String> =
        list.iter().map(|name| name.as_str().expect("an id").to_owned()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn coming_and_going_is_told_with_a_grace() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut hers = Socket::open(&alice.on(0).chat_url(&chat).await).await;
    assert_eq!(online(&mut hers).await, ["alice"]);
    hers.expect("synced").await;

    let mut his = Socket::open(&bob.on(1).chat_url(&chat).await).await;
    let came = hers.wait_for("presence").await;
    let expected =
        json!({ "type": "presence", "user_id": "bob", "online": true, "last_seen_at": null });
    assert_eq!(came, expected);
    assert_eq!(online(&mut his).await, ["alice", "bob"]);

    // A second one comes and goes: nothing to tell.
    let second = bob.on(0).connect(&chat).await;
    second.close().await;
    let left = Instant::now();
    his.close().await;
    // Back within the grace: nothing either.
    let again = bob.on(0).connect(&chat).await;
    again.close().await;
    let went = hers.wait_for("presence").await;
    assert!(left.elapsed() >= GRACE, "told after {:?}", left.elapsed());
    assert_members(&went, &["type", "user_id", "online", "last_seen_at"]);
    assert_eq!((&went["user_id"], &went["online"]), (&json!("bob"), &json!(false)));
    assert!(went["last_seen_at"].is_string(), "{went}");
    let seen = alice.on(1).chat(&chat).await["other_user"].clone();
    assert_eq!(seen["online"], false);

    let _back = bob.on(1).connect(&chat).await;
    assert_eq!(hers.wait_for("presence").await["online"], true);
    let seen = alice.on(1).chat(&chat).await["other_user"].clone();
    assert_eq!((&seen["online"], &seen["last_seen_at"]), (&json!(true), &json!(null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_there_while_redis_was_away_is_told_once_it_is_back() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let _his = bob.on(1).connect(&chat).await;
    let redis = &cluster.stack().redis;
    let seen = async |online: bool| {
        eventually(async || {
            let chat = alice.on(0).chat(&chat).await;
            if chat["other_user"]["online"] == online { Ok(()) } else { Err(chat.to_string()) }
        })
        .await;
    };
    seen(true).await;
    redis.pause().expect("it runs");
    seen(false).await;
    let mut hers = Socket::open(&alice.on(0).chat_url(&chat).await).await;
    assert_eq!(online(&mut hers).await, ["alice"]);
    hers.expect("synced").await;
    redis.resume().expect("it runs");
    let told = hers.wait_for("presence").await;
    assert_eq!((&told["user_id"], &told["online"]), (&json!("bob"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_many_chats_socket_makes_one_present_too() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut hers = alice.on(0).connect(&chat).await;
    let mut his = bob.on(1).connect_many().await;
    assert_eq!(hers.wait_for("presence").await["online"], true);
    // He has no subscription, so he is sent no presence.
    alice.on(1).connect(&chat).await;
    let told = his.frames_so_far().await;
    assert!(told.iter().all(|frame| kind(frame) != "presence"), "{told:?}");
    // One's own coming is not told to oneself.
    let own = hers.frames_so_far().await;
    assert!(own.iter().all(|frame| frame["user_id"] != "alice"), "{own:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_hides_presence_for_both() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).put("/users/bob/block/", json!({})).await.expect(204);
    let mut hers = Socket::open(&alice.on(0).chat_url(&chat).await).await;
    assert_eq!(online(&mut hers).await, ["alice"]);
    let mut his = Socket::open(&bob.on(1).chat_url(&chat).await).await;
    assert_eq!(online(&mut his).await, ["bob"]);
    for user in [&alice, &bob] {
        let seen = user.on(0).chat(&chat).await["other_user"].clone();
        assert_eq!((&seen["online"], &seen["last_seen_at"]), (&json!(false), &json!(null)));
    }
    // A change on the same channel comes after whatever would have been told.
    bob.on(1).mark_read(&chat).await;
    alice.on(0).delete("/users/bob/block/").await.expect(204);
    alice.on(0).send(&chat, "x").await;
    for socket in [&mut hers, &mut his] {
        let frames = socket.frames_until("message.created").await;
        assert!(frames.iter().all(|frame| kind(frame) != "presence"), "{frames:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_a_replica_that_drains_go_elsewhere_without_a_gap() {
    let mut cluster = Cluster::with(2, |config| {
        config.shutdown_grace = Duration::from_secs(4);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut hers = alice.on(0).connect(&chat).await;
    let mut his = bob.on(1).connect(&chat).await;
    assert_eq!(hers.wait_for("presence").await["online"], true);
    let draining = tokio::spawn(cluster.drain(1));
    his.expect_close(4200).await;
    let _again = bob.on(0).connect(&chat).await;
    draining.await.expect("it ends");
    // Nothing but what is true at the end may be told last.
    alice.on(0).send(&chat, "x").await;
    let frames = hers.frames_until("message.created").await;
    let last = frames.iter().rfind(|frame| kind(frame) == "presence");
    assert!(last.is_none_or(|frame| frame["online"] == true), "{frames:?}");
    assert_eq!(alice.on(0).chat(&chat).await["other_user"]["online"], true);
}
