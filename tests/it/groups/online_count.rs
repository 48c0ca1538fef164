//! How many of a group's members are online, told with `subscribed`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{add, create, crowd};
use crate::harness::{Chat, Client, Cluster, Socket, eventually};

/// Largest group of which it is told, in members.
const MOST: usize = 1_000;

/// How old a count may be.
const LIFETIME: Duration = Duration::from_secs(10);

const LOOKS: &str = "store.list_member_ids";

/// A group of `total` members, the caller and these included.
async fn create_large(owner: &Client, user_ids: &[&str], total: usize) -> Chat {
    let mut names = crowd(total - 1 - user_ids.len());
    names.extend(user_ids.iter().map(|id| (*id).to_owned()));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    create(owner, "Large", &names).await
}

/// Subscribes and returns what is told first.
async fn subscribe(client: &Client, chat: &Chat) -> (Value, Socket) {
    let mut socket = Socket::open(&client.chat_url(chat).await).await;
    socket.expect("hello").await;
    (socket.expect("subscribed").await, socket)
}

/// Waits until every replica knows that the user is online.
async fn wait_for_presence(cluster: &Cluster, user_id: &str) {
    for replica in 0..2 {
        let host = cluster.host().on(replica);
        eventually(async || {
            let user = host.get(&format!("/users/{user_id}/")).await.expect(200);
            if user["online"] == true { Ok(()) } else { Err(user.to_string()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_online_on_all_replicas_are_counted_in_a_large_group() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let owner = user("owner", 0);
    let chat = create_large(&owner, &["here", "there", "gone"], 40).await;
    let mut sockets = Vec::new();
    // Members, one who is none any more, and a stranger.
    for (id, replica) in [("here", 0), ("there", 1), ("gone", 1), ("stranger", 0)] {
        sockets.push(user(id, replica).connect_many().await);
        wait_for_presence(&cluster, id).await;
    }
    owner.delete(&chat.path("members/gone/")).await.expect(204);
    for replica in 0..2 {
        let (told, _socket) = subscribe(&user("owner", replica), &chat).await;
        assert_eq!((&told["online"], &told["online_count"]), (&json!([]), &json!(3)), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_small_group_the_count_is_that_of_the_list() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let chat = create(&user("owner", 0), "Small", &["bob", "carol"]).await;
    let (told, _hers) = subscribe(&user("owner", 0), &chat).await;
    assert_eq!((&told["online"], &told["online_count"]), (&json!(["owner"]), &json!(1)));
    wait_for_presence(&cluster, "owner").await;
    // At once: nothing is kept.
    let (told, _his) = subscribe(&user("bob", 1), &chat).await;
    assert_eq!(told["online_count"], 2, "{told}");
    let head = told["head_ev"].as_i64().expect("a number");
    let epoch = told["epoch"].as_str().expect("an epoch");
    let mut resumed = user("bob", 1).resume(&chat, head, epoch).await;
    assert_eq!(resumed.wait_for("subscribed").await["online_count"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn above_a_thousand_members_nobody_is_counted() {
    let cluster = Cluster::start(1).await;
    let owner = cluster.user("owner").on(0);
    let chat = create_large(&owner, &[], MOST).await;
    let (told, _socket) = subscribe(&owner, &chat).await;
    assert_eq!(told["online_count"], 1, "{told}");
    let looks = cluster.statements(0, LOOKS).await;
    add(&owner, &chat, &["one more"]).await;
    let (told, _socket) = subscribe(&owner, &chat).await;
    assert_eq!(told["online_count"], json!(null), "{told}");
    assert_eq!(cluster.statements(0, LOOKS).await, looks, "its members are not even read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rush_into_a_large_group_shares_one_look_at_its_members() {
    let cluster = Cluster::start(2).await;
    let names: Vec<String> = (0..40).map(|n| format!("member-{n}")).collect();
    let ids: Vec<&str> = names.iter().map(String::as_str).collect();
    let chat = create(&cluster.user("owner").on(0), "Rush", &ids).await;
    let begun = Instant::now();
    let clients: Vec<Client> = ids
        .iter()
        .zip([0, 1].into_iter().cycle())
        .map(|(id, on)| cluster.user(id).on(on))
        .collect();
    let told = join_all(clients.iter().map(|client| subscribe(client, &chat))).await;
    let took = begun.elapsed();
    for (told, _) in &told {
        let count = told["online_count"].as_i64().expect("a number");
        assert!((1..=40).contains(&count), "{told}");
    }
    // One on each replica, and another where a count was old already.
    let most = 1 + took.as_secs() / LIFETIME.as_secs();
    for replica in 0..2 {
        let looks = cluster.statements(replica, LOOKS).await;
        assert!((1..=most).contains(&looks), "{looks} looks in {took:?}");
    }
}
