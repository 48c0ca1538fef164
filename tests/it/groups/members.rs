//! Members are listed, added, changed and removed.

use serde_json::{Value, json};

use super::{add, create, crowd, member_ids};
use crate::harness::{Cluster, assert_members, assert_time};

#[tokio::test(flavor = "multi_thread")]
async fn members_are_listed_by_role_and_joining_in_pages() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice").on(0);
    let chat = create(&alice, "Many", &["bob"]).await;
    let many = crowd(120);
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let told = add(&alice, &chat, &names).await;
    assert_eq!(told["added"].as_array().map(Vec::len), Some(120));
    alice
        .patch(&chat.path("members/one of many 0077/"), json!({ "role": "admin" }))
        .await
        .expect(200);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = alice.get(&chat.path(&format!("members/?limit=50{cursor}"))).await.expect(200);
        assert_eq!(page["member_count"], 122);
        for member in page["results"].as_array().expect("members") {
            assert_members(member, &["user", "role", "joined_at", "read_seq", "silenced_until"]);
            assert_time(&member["joined_at"]);
            seen.push(member["user"]["user_id"].as_str().expect("an id").to_owned());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 122);
    assert_eq!(seen[..3], ["alice", "one of many 0077", "bob"]);
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 122, "each member once");
    let admins = alice.get(&chat.path("members/?role=admin")).await.expect(200);
    assert_eq!(admins["results"].as_array().map(Vec::len), Some(1));
    let found = alice.get(&chat.path("members/?query=one%20of%20many%20001")).await.expect(200);
    assert_eq!(found["results"].as_array().map(Vec::len), Some(10));
    alice
        .get(&chat.path("members/?limit=0&role=boss&cursor=x"))
        .await
        .expect_faults(&["limit", "role"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_tells_who_came_who_was_there_and_who_may_not() {
    let cluster = Cluster::with(1, |config| config.groups.group_members = 4).await;
    let alice = cluster.user("alice").on(0);
    let chat = create(&alice, "Four", &["bob"]).await;
    alice.put(&chat.path("bans/mallory/"), json!({ "reason": "spam" })).await.expect(200);
    let told = add(&alice, &chat, &["bob", "mallory", "carol", "dave", "erin"]).await;
    assert_eq!(told["added"], json!(["carol", "dave"]));
    assert_eq!(told["present"], json!(["bob"]));
    let refused = json!([
        { "user_id": "mallory", "code": "banned" },
        { "user_id": "erin", "code": "chat_full" },
    ]);
    assert_eq!(told["refused"], refused);
    let before = alice.chat(&chat).await["last_ev"].clone();
    let again = add(&alice, &chat, &["carol", "dave"]).await;
    assert_eq!((&again["added"], &again["present"]), (&json!([]), &json!(["carol", "dave"])));
    assert_eq!(alice.chat(&chat).await["last_ev"], before, "a repetition changes nothing");
    alice
        .post(&chat.path("members/"), json!({ "user_ids": [] }))
        .await
        .expect_faults(&["user_ids"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_or_is_removed_is_a_stranger_and_can_come_back() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = create(&alice.on(0), "Comings", &["bob", "carol"]).await;
    let sent = bob.on(0).send(&chat, "mine").await;
    bob.on(1).delete(&chat.path("members/bob/")).await.expect(204);
    for path in ["", "messages/", "members/", "connect/", "search/?query=mine"] {
        bob.on(0).get(&chat.path(path)).await.expect_problem(404, "chat_not_found");
    }
    bob.on(0).delete(&chat.path("members/bob/")).await.expect_problem(404, "chat_not_found");
    bob.on(0)
        .post(&chat.path("messages/"), json!({ "text": "again" }))
        .await
        .expect_problem(404, "chat_not_found");
    assert_eq!(bob.on(0).get("/chats/").await.expect(200)["results"], json!([]));
    assert_eq!(member_ids(&alice.on(1), &chat).await, ["alice", "carol"]);
    // What he said stays.
    let seen = alice.on(0).history(&chat, "").await;
    assert!(
        seen["results"]
            .as_array()
            .is_some_and(|all| all.iter().any(|m| m["message_id"] == sent["message_id"]))
    );
    alice.on(0).delete(&chat.path("members/carol/")).await.expect(204);
    alice.on(0).delete(&chat.path("members/carol/")).await.expect(204);
    assert_eq!(alice.on(1).chat(&chat).await["member_count"], 1);
    let told = add(&alice.on(1), &chat, &["bob"]).await;
    assert_eq!(told["added"], json!(["bob"]));
    let back = bob.on(0).chat(&chat).await;
    assert_eq!((&back["unread_count"], &back["first_seq"]), (&json!(0), &json!(1)));
    alice.on(0).send(&chat, "welcome").await;
    assert_eq!(bob.on(1).unread_in(&chat).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_always_has_one_owner_and_ends_with_its_last_member() {
    let cluster = Cluster::start(1).await;
    let user = |id: &str| cluster.user(id).on(0);
    let chat = create(&user("alice"), "Heirs", &["bob", "carol", "dave"]).await;
    let role = async |id: &str| user(id).chat(&chat).await["role"].clone();
    user("alice").patch(&chat.path("members/carol/"), json!({ "role": "admin" })).await.expect(200);
    // Handed over: the former owner is an admin.
    let told = user("alice")
        .patch(&chat.path("members/bob/"), json!({ "role": "owner" }))
        .await
        .expect(200);
    assert_eq!(told["role"], "owner");
    assert_eq!((role("alice").await, role("bob").await), (json!("admin"), json!("owner")));
    // The owner leaves: the admin who joined first inherits.
    user("bob").delete(&chat.path("members/bob/")).await.expect(204);
    let owners = user("dave").get(&chat.path("members/?role=owner")).await.expect(200);
    let owner = owners["results"][0]["user"]["user_id"].as_str().expect("one").to_owned();
    assert!(["alice", "carol"].contains(&owner.as_str()), "{owners}");
    for id in ["alice", "carol"] {
        user(id).delete(&chat.path(&format!("members/{id}/"))).await.expect(204);
    }
    assert_eq!(role("dave").await, "owner");
    user("dave").delete(&chat.path("members/dave/")).await.expect(204);
    assert_eq!(cluster.psql_value::<i64>("SELECT count(*) FROM chats").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_leaves_their_groups_and_hands_over() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = create(&alice.on(0), "Left behind", &["bob"]).await;
    alice.on(0).send(&chat, "words").await;
    cluster.host().on(1).delete("/users/alice/").await.expect(204);
    assert_eq!(member_ids(&bob.on(0), &chat).await, ["bob"]);
    assert_eq!(bob.on(0).chat(&chat).await["role"], "owner");
    let seen = bob.on(1).history(&chat, "").await;
    let texts: Vec<&Value> =
        seen["results"].as_array().expect("messages").iter().map(|m| &m["text"]).collect();
    assert!(texts.iter().all(|text| *text != "words"), "{texts:?}");
    let told = add(&bob.on(0), &chat, &["alice"]).await;
    assert_eq!(told["refused"], json!([{ "user_id": "alice", "code": "user_not_found" }]));
}
