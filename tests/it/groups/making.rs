//! Groups are created once, whole, and shown to each member from their side.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{create, crowd, member_ids};
use crate::harness::{Chat, Cluster, assert_members};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_is_shown_whole_to_its_owner_and_its_members() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let body = json!({
        "kind": "group", "title": "Lunch", "user_ids": ["bob", "carol", "bob", "alice"],
        "avatar_url": "https://example.org/lunch.png", "metadata": { "floor": 3 },
        "settings": { "post": "admins", "slow_mode_s": 30 },
    });
    let mut made = alice.on(0).post("/chats/", body).await.expect(201);
    assert_eq!(made["created"], true);
    made.as_object_mut().expect("an object").remove("created");
    assert_eq!(
        made,
        alice
            .on(1)
            .get(&format!("/chats/{}/", made["chat_id"].as_str().unwrap_or_default()))
            .await
            .expect(200)
    );
    assert_members(
        &made,
        &[
            "chat_id",
            "room_name",
            "kind",
            "title",
            "avatar_url",
            "metadata",
            "member_count",
            "created_at",
            "created_by",
            "other_user",
            "role",
            "settings",
            "receipts",
            "last_message",
            "last_seq",
            "last_ev",
            "first_seq",
            "read_seq",
            "peer_read_seq",
            "unread_count",
            "unread_mentions",
            "notify",
            "pinned",
            "archived",
        ],
    );
    let expected = json!({
        "kind": "group", "title": "Lunch", "avatar_url": "https://example.org/lunch.png",
        "metadata": { "floor": 3 }, "member_count": 3, "created_by": "alice", "other_user": null,
        "role": "owner", "receipts": true, "last_message": null, "last_seq": 0, "first_seq": 1,
        "read_seq": 0, "peer_read_seq": null, "unread_count": 0, "unread_mentions": 0,
        "notify": "all", "pinned": false, "archived": false,
        "settings": { "post": "admins", "invite": "admins", "history": "all", "join": "invite",
                      "slow_mode_s": 30 },
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&made[name], value, "{name}");
    }
    let chat = Chat::from_json(&made);
    let his = bob.on(1).chat(&chat).await;
    assert_eq!((&his["role"], &his["title"]), (&json!("member"), &json!("Lunch")));
    let by_name = bob.on(0).get(&format!("/chats/{}/", chat.room_name)).await.expect(200);
    assert_eq!(by_name["chat_id"], *chat.id);
    assert_eq!(member_ids(&bob.on(0), &chat).await, ["alice", "bob", "carol"]);
    let list = bob.on(1).get("/chats/").await.expect(200);
    assert_eq!(list["results"][0]["chat_id"], *chat.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_chat_has_the_members_of_a_chat_and_none_can_be_changed() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let a = alice.on(0);
    let chat = a.open_chat(&bob).await;
    let shown = a.chat(&chat).await;
    for (name, value) in [
        ("kind", json!("direct")),
        ("role", json!("member")),
        ("settings", json!(null)),
        ("title", json!(null)),
        ("member_count", json!(2)),
        ("receipts", json!(true)),
        ("peer_read_seq", json!(0)),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    assert_eq!(member_ids(&a, &chat).await, ["alice", "bob"]);
    let body = json!({ "user_ids": ["carol"] });
    a.post(&chat.path("members/"), body).await.expect_problem(403, "forbidden");
    a.delete(&chat.path("members/bob/")).await.expect_problem(403, "forbidden");
    a.patch(&chat.path("members/bob/"), json!({ "role": "admin" }))
        .await
        .expect_problem(403, "forbidden");
    a.patch(&chat.path(""), json!({ "title": "x" })).await.expect_problem(403, "forbidden");
    a.put(&chat.path("bans/bob/"), json!({})).await.expect_problem(403, "forbidden");
    a.post(&chat.path("invites/"), json!({})).await.expect_problem(403, "forbidden");
    a.post(&chat.path("join/"), json!({})).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_creation_gives_one_group_for_ever() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let body =
        json!({ "kind": "group", "title": "Once", "user_ids": ["bob"], "client_chat_id": "k" });
    let answers =
        join_all((0..10).map(|n| alice.on(n % 2).post("/chats/", body.clone()).into_future()))
            .await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 1, "{answers:?}");
    let mut ids: Vec<Value> =
        answers.into_iter().map(|answer| answer.json["chat_id"].clone()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    // Whatever else a repeat says, the group is given as it is now.
    let other = json!({ "kind": "group", "title": "Other", "user_ids": [], "client_chat_id": "k" });
    let again = alice.on(0).post("/chats/", other).await.expect(200);
    assert_eq!((&again["title"], &again["created"]), (&json!("Once"), &json!(false)));
    let by_header = json!({ "kind": "group", "title": "Once", "user_ids": [] });
    let again =
        alice.on(1).post("/chats/", by_header).header("idempotency-key", "k").await.expect(200);
    assert_eq!(again["chat_id"], ids[0]);
    // Another caller's key is another one.
    cluster.user("bob").on(0).post("/chats/", body.clone()).await.expect(201);
    let chat = Chat::from_json(&again);
    alice.on(0).delete(&chat.path("")).await.expect(204);
    alice.on(1).post("/chats/", body).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_as_many_chats_as_one_may_gets_repeats_answered_and_nothing_new() {
    let cluster = Cluster::with(1, |config| config.limits.rooms_per_user = 1).await;
    let (alice, bob) = (cluster.user("alice").on(0), cluster.user("bob").on(0));
    let once = json!({ "kind": "group", "title": "Once", "user_ids": [], "client_chat_id": "k" });
    let made = alice.post("/chats/", once.clone()).await.expect(201);
    let chat = Chat::from_json(&made);
    let other = json!({ "kind": "group", "title": "Other", "user_ids": [], "client_chat_id": "l" });
    alice.post("/chats/", other).await.expect_problem(403, "forbidden");
    assert_eq!(alice.post("/chats/", once).await.expect(200)["chat_id"], *chat.id);
    let invite = alice.post(&chat.path("invites/"), json!({})).await.expect(201);
    let accept = format!("/invites/{}/", invite["code"].as_str().expect("a code"));
    for _ in 0..2 {
        bob.post(&accept, json!({})).await.expect(200);
    }
    let more = create(&cluster.user("carol").on(0), "More", &[]).await;
    let invite = cluster.user("carol").on(0).post(&more.path("invites/"), json!({})).await;
    let code = invite.expect(201)["code"].as_str().expect("a code").to_owned();
    bob.post(&format!("/invites/{code}/"), json!({})).await.expect_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_application_names_the_owner() {
    let cluster = Cluster::start(1).await;
    let host = cluster.host().on(0);
    let body = json!({ "kind": "group", "title": "T", "user_ids": ["bob"] });
    host.post("/chats/", body).await.expect_faults(&["owner_id"]);
    let body = json!({ "kind": "group", "title": "T", "user_ids": ["bob"], "owner_id": "alice" });
    let made = host.post("/chats/", body.clone()).await.expect(201);
    let chat = Chat::from_json(&made);
    assert_eq!(member_ids(&cluster.user("alice").on(0), &chat).await, ["alice", "bob"]);
    assert_eq!(cluster.user("alice").on(0).chat(&chat).await["role"], "owner");
    // The host application reads the chat, without what was said in it.
    cluster.user("bob").on(0).send(&chat, "hello").await;
    let seen = host.get(&chat.path("")).await.expect(200);
    assert_eq!((&seen["last_message"], &seen["last_seq"]), (&json!(null), &json!(1)));
    host.get(&chat.path("messages/")).await.expect_problem(404, "chat_not_found");
    cluster.user("eve").on(0).post("/chats/", body).await.expect_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_at_fault_is_named() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice").on(0);
    let group = |mut fields: Value| {
        fields["kind"] = "group".into();
        alice.post("/chats/", fields).into_future()
    };
    group(json!({ "user_ids": [] })).await.expect_faults(&["title"]);
    group(json!({ "title": "", "user_ids": [7] })).await.expect_faults(&["title", "user_ids"]);
    group(json!({ "title": "x".repeat(201), "user_ids": "bob" }))
        .await
        .expect_faults(&["title", "user_ids"]);
    group(json!({ "title": "T", "user_ids": [], "metadata": [], "avatar_url": 1 }))
        .await
        .expect_faults(&["avatar_url", "metadata"]);
    let settings = json!({ "post": "nobody", "slow_mode_s": 21_601, "join": 1 });
    group(json!({ "title": "T", "user_ids": [], "settings": settings })).await.expect_faults(&[
        "settings.join",
        "settings.post",
        "settings.slow_mode_s",
    ]);
    group(json!({ "title": "T", "user_ids": crowd(1_001) })).await.expect_faults(&["user_ids"]);
    group(json!({ "title": "T", "user_ids": [], "client_chat_id": "x".repeat(65) }))
        .await
        .expect_faults(&["client_chat_id"]);
    alice.post("/chats/", json!({ "kind": "choir" })).await.expect_faults(&["kind", "user_id"]);
    assert_eq!(cluster.psql_value::<i64>("SELECT count(*) FROM chats").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_changes_its_title_and_settings() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = create(&alice.on(0), "Before", &["bob"]).await;
    let change =
        json!({ "title": "After", "metadata": { "a": 1 }, "settings": { "invite": "members" } });
    let changed = alice.on(0).patch(&chat.path(""), change).await.expect(200);
    assert_eq!(changed["title"], "After");
    assert_eq!(changed["settings"]["invite"], "members");
    assert_eq!(changed["settings"]["post"], "members");
    let seen = bob.on(1).chat(&chat).await;
    assert_eq!((&seen["title"], &seen["metadata"]), (&json!("After"), &json!({ "a": 1 })));
    let cleared = alice.on(1).patch(&chat.path(""), json!({ "metadata": null })).await.expect(200);
    assert_eq!((&cleared["metadata"], &cleared["title"]), (&json!(null), &json!("After")));
    alice.on(0).patch(&chat.path(""), json!({ "title": null })).await.expect_faults(&["title"]);
    bob.on(0)
        .patch(&chat.path(""), json!({ "title": "His" }))
        .await
        .expect_problem(403, "forbidden");
    let stranger = cluster.user("eve").on(0);
    stranger
        .patch(&chat.path(""), json!({ "title": "Hers" }))
        .await
        .expect_problem(404, "chat_not_found");
}
