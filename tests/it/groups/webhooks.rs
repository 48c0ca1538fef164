//! Events of groups for the host application: one for each member who is away and wants to be notified.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde_json::{Value, json};

use super::{add, create, crowd};
use crate::{
    harness::{Chat, Client, Cluster, assert_members, eventually_within},
    webhooks::{
        admin, all_is_decided, printed,
        receiver::{Delivery, Receiver},
    },
};

async fn say(client: &Client, chat: &Chat, text: &str, mentions: Value) -> Value {
    let body = json!({ "text": text, "mentions": mentions });
    crate::harness::told(client.post(&chat.path("messages/"), body).await.expect(201))
}

fn recipient(delivery: &Delivery) -> String {
    delivery.json["data"]["recipient_id"].as_str().expect("a user").to_owned()
}

/// Texts and those who were told of them, in the order in which they came.
fn told(receiver: &Receiver) -> Vec<(String, String)> {
    let of = |one: &Delivery| {
        (one.message()["text"].as_str().expect("a text").to_owned(), recipient(one))
    };
    receiver.deliveries().iter().map(of).collect()
}

async fn rows(cluster: &Cluster, chat: &Chat) -> i64 {
    let id = &chat.id;
    cluster.psql_value(&format!("SELECT count(*) FROM webhooks WHERE chat_id = '{id}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_are_away_are_told_as_they_wish_to_be() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let on = |id: &str, replica: usize| cluster.user(id).on(replica);
    let everybody = ["all", "archived", "here", "mentioned", "none", "read"];
    let chat = create(&on("alice", 0), "Sleepers", &everybody).await;
    for (id, own) in [
        ("archived", json!({ "archived": true })),
        ("mentioned", json!({ "notify": "mentions" })),
        ("none", json!({ "notify": "none" })),
    ] {
        on(id, 1).patch(&chat.path("me/"), own).await.expect(200);
    }
    let socket = on("here", 1).connect(&chat).await;
    let other = cluster.user("all").on(0).open_chat(&cluster.user("zoe")).await;
    on("zoe", 0).send(&other, "direct").await;
    receiver.expect(1).await;

    let sent = say(&on("alice", 0), &chat, "one", json!([])).await;
    let events = receiver.expect(4).await;
    all_is_decided(&cluster).await;
    let data = &events[1].json["data"];
    assert_eq!(events[1].json["type"], "message.created");
    let members = ["recipient_id", "room_name", "title", "message", "unread_count", "total_unread"];
    assert_members(data, &members);
    let expected = json!({
        "recipient_id": "all", "room_name": chat.room_name, "title": "Sleepers", "message": sent,
        "unread_count": 1, "total_unread": 2,
    });
    assert_eq!(*data, expected);
    let pairs = |text: &str, users: &[&str]| -> Vec<(String, String)> {
        users.iter().map(|user| (text.to_owned(), (*user).to_owned())).collect()
    };
    assert_eq!(told(&receiver)[1..], pairs("one", &["all", "archived", "read"]));

    on("read", 0).mark_read(&chat).await;
    for (text, mentions, users) in [
        ("two", json!(["mentioned", "none"]), ["all", "archived", "mentioned", "read"]),
        ("three", json!("all"), ["all", "archived", "mentioned", "read"]),
    ] {
        let before = receiver.deliveries().len();
        say(&on("alice", 1), &chat, text, mentions).await;
        receiver.expect(before + users.len()).await;
        all_is_decided(&cluster).await;
        assert_eq!(told(&receiver)[before..], pairs(text, &users));
    }
    for (user, unread) in [("all", 3), ("mentioned", 3), ("read", 2)] {
        let all = receiver.deliveries();
        let last = all.iter().rfind(|one| recipient(one) == user).expect("it was told");
        assert_eq!(last.json["data"]["unread_count"], unread, "{user}");
    }
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_need_not_know_any_more_is_not_told() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let on = |id: &str, replica: usize| cluster.user(id).on(replica);
    let alice = on("alice", 0);
    let everybody = ["a", "b", "erased", "left", "muted", "read", "waning", "z"];
    let chat = create(&alice, "Busy", &everybody).await;
    receiver.open(false);
    alice.send(&chat, "one").await;
    // On its way to the first of them; the others have to wait.
    receiver.expect(1).await;
    let deleted = alice.send(&chat, "deleted").await;
    let path = format!("messages/{}/", deleted["message_id"].as_str().expect("an id"));
    alice.delete(&chat.path(&path)).await.expect(204);
    on("read", 1).mark_read(&chat).await;
    on("left", 1).delete(&chat.path("members/left/")).await.expect(204);
    on("muted", 1).patch(&chat.path("me/"), json!({ "notify": "none" })).await.expect(200);
    cluster.host().on(1).delete("/users/erased/").await.expect(204);
    // Whose erasure has begun, and has not come to this chat yet.
    on("waning", 0).send(&chat, "waning").await;
    cluster.psql("SELECT mark_erased('waning')").await;
    add(&alice, &chat, &["newcomer"]).await;
    assert_eq!(rows(&cluster, &chat).await, 3, "the others' events wait still");
    receiver.open(true);
    all_is_decided(&cluster).await;
    let users: Vec<_> = told(&receiver).into_iter().map(|(_, user)| user).collect();
    assert_eq!(users, ["a", "b", "z"]);
    cluster.host().on(0).delete("/users/waning/").await.expect(204);

    // With the group go its events.
    receiver.open(false);
    alice.send(&chat, "two").await;
    receiver.expect(4).await;
    alice.delete(&chat.path("")).await.expect(204);
    assert_eq!(rows(&cluster, &chat).await, 0);
    receiver.open(true);
    all_is_decided(&cluster).await;
    assert_eq!(receiver.deliveries().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_costs_a_message_one_row_and_each_of_it_is_told_once_in_order() {
    // More than are looked at with one statement.
    const SLEEPERS: usize = 300;
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let (alice, crowd) = (cluster.user("alice"), crowd(SLEEPERS));
    let ids: Vec<&str> = crowd.iter().map(String::as_str).collect();
    let chat = create(&alice.on(0), "Crowd", &ids).await;
    receiver.open(false);
    // Some fail at first, and are tried again before anybody after them.
    receiver.answer(|one, earlier| {
        let fails = recipient(one).ends_with("007") && one.message()["text"] == "first";
        if fails && earlier == 0 { 500 } else { 200 }
    });
    for text in ["first", "second"] {
        alice.on(0).send(&chat, text).await;
    }
    receiver.expect(1).await;
    assert_eq!(rows(&cluster, &chat).await, 2);
    // Whoever is slow to take a group's events holds up no other chat's.
    let direct = alice.on(1).open_chat(&cluster.user("bob")).await;
    alice.on(1).send(&direct, "meanwhile").await;
    assert_eq!(recipient(&receiver.expect(2).await[1]), "bob");
    receiver.open(true);
    eventually_within(Duration::from_secs(60), async || match rows(&cluster, &chat).await {
        0 => Ok(()),
        rows => Err(format!("{rows} rows after {} deliveries", receiver.deliveries().len())),
    })
    .await;
    let all = receiver.deliveries();
    let mut expected = Vec::new();
    for text in ["first", "second"] {
        for id in &crowd {
            expected.push((text.to_owned(), id.clone()));
            if text == "first" && id.ends_with("007") {
                expected.push((text.to_owned(), id.clone()));
            }
        }
    }
    let of_group: Vec<_> = told(&receiver).into_iter().filter(|(_, user)| user != "bob").collect();
    assert_eq!(of_group, expected);
    let mut by_id: HashMap<&str, Vec<(String, &Value)>> = HashMap::new();
    for one in &all {
        by_id.entry(&one.id).or_default().push((recipient(one), &one.message()["text"]));
    }
    assert_eq!(by_id.len(), 2 * SLEEPERS + 1, "an event for each, whatever is repeated");
    assert!(by_id.values().all(|same| same.iter().all(|one| *one == same[0])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_among_the_members_has_another_go_on() {
    let receiver = Receiver::start().await;
    let mut cluster = Cluster::with(1, receiver.settings()).await;
    let alice = cluster.user("alice");
    let ids = ["a", "b", "c", "d", "e", "f"];
    let chat = create(&alice.on(0), "Fallen", &ids).await;
    // The third is tried again after a moment; meanwhile the receiver falls silent.
    receiver.answer(|one, earlier| if recipient(one) == "c" && earlier == 0 { 503 } else { 200 });
    alice.on(0).send(&chat, "one").await;
    receiver.expect(3).await;
    receiver.open(false);
    receiver.expect(4).await;
    let heir = cluster.add_replica_with(receiver.settings()).await;
    cluster.abort(0);
    assert_eq!(rows(&cluster, &chat).await, 1, "{heir} finds it");
    // The lease of the one that fell is over.
    cluster.psql("UPDATE webhook_lanes SET due_at = clock_timestamp()").await;
    receiver.open(true);
    all_is_decided(&cluster).await;
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in receiver.deliveries() {
        told.entry(recipient(&one)).or_default().push(one.id);
    }
    assert!(told.keys().eq(ids.iter()), "nobody is forgotten: {told:?}");
    assert!(told.values().all(|same| same.iter().all(|id| *id == same[0])), "{told:?}");
    for done in ["a", "b", "d", "e", "f"] {
        assert_eq!(told[done].len(), 1, "{done}: only what was on its way is sent again");
    }
    assert_eq!(told["c"].len(), 3, "refused, cut off, taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_lease_ran_out_leaves_the_members_to_the_next() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let alice = cluster.user("alice");
    let ids = ["a", "b", "c", "d", "e", "f"];
    let chat = create(&alice.on(0), "Late", &ids).await;
    receiver.answer(|one, earlier| if recipient(one) == "c" && earlier == 0 { 503 } else { 200 });
    alice.on(0).send(&chat, "one").await;
    receiver.expect(3).await;
    receiver.open(false);
    receiver.expect(4).await;
    // Two are at the same member now.
    cluster.psql("UPDATE webhook_lanes SET due_at = clock_timestamp()").await;
    receiver.expect(5).await;
    receiver.open(true);
    all_is_decided(&cluster).await;
    let all = receiver.deliveries();
    let users: Vec<_> = all.iter().map(recipient).collect();
    assert_eq!(users, ["a", "b", "c", "c", "c", "d", "e", "f"]);
    assert!(all[3..5].iter().all(|one| one.id == all[2].id), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_is_given_up_is_a_dead_letter_and_the_others_are_told() {
    let receiver = Receiver::start().await;
    let settings = receiver.settings();
    let cluster = Cluster::with(2, |config| {
        settings(config);
        config.webhooks.webhook_max_age = Duration::ZERO;
    })
    .await;
    let alice = cluster.user("alice");
    let chat = create(&alice.on(0), "Dead", &["a", "b", "c"]).await;
    receiver.answer(|one, _| if recipient(one) == "b" { 507 } else { 200 });
    alice.on(0).send(&chat, "one").await;
    let all = receiver.expect(3).await;
    all_is_decided(&cluster).await;
    let users: Vec<_> = all.iter().map(recipient).collect();
    assert_eq!(users, ["a", "b", "c"]);
    let listed = printed(&admin(&cluster, &[]).await);
    for part in [&*all[1].id, &*chat.id, "after 1 attempts: answered 507", "1 given up"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    receiver.answer(|_, _| 200);
    let replayed = admin(&cluster, &["--replay", &all[1].id]).await;
    assert_eq!(printed(&replayed), "1 to be sent again", "{replayed:?}");
    let again = receiver.expect(4).await.remove(3);
    all_is_decided(&cluster).await;
    assert_eq!((&again.id, recipient(&again)), (&all[1].id, "b".to_owned()));
    assert_eq!(again.json["data"], all[1].json["data"]);

    // A dead letter goes with an erased person, even from a group that they had left.
    receiver.answer(|one, _| if recipient(one) == "b" { 507 } else { 200 });
    alice.on(0).send(&chat, "two").await;
    receiver.expect(7).await;
    all_is_decided(&cluster).await;
    assert_eq!(rows(&cluster, &chat).await, 1);
    cluster.user("b").on(0).delete(&chat.path("members/b/")).await.expect(204);
    cluster.host().on(1).delete("/users/b/").await.expect(204);
    assert_eq!(rows(&cluster, &chat).await, 0);
}
