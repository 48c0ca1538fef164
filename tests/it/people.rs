//! Who is known, how they are shown, and being erased.

use beseda::config::UnknownUsers;
use serde_json::{Value, json};

use crate::harness::{Cluster, assert_members, assert_time, claims, eventually};

const UNKNOWN: (u16, &str) = (404, "user_not_found");

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_known_everywhere_once_they_came_with_a_token() {
    let cluster = Cluster::with(2, |config| config.unknown_users = UnknownUsers::Reject).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let open =
        |user_id: &str| alice.on(0).post("/chats/", json!({ "user_id": user_id })).into_future();
    open("bob").await.expect_problem(UNKNOWN.0, UNKNOWN.1);
    host.on(0).get("/users/bob/").await.expect_problem(UNKNOWN.0, UNKNOWN.1);
    bob.on(1).get("/chats/").await.expect(200);
    open("bob").await.expect(201);
    // Or the host application named them.
    host.on(1).put("/users/carol/", json!({ "name": "Carol" })).await.expect(201);
    assert_eq!(open("carol").await.expect(201)["other_user"]["name"], "Carol");
    let both = json!({ "user_ids": ["alice", "dave"] });
    host.on(0).post("/chats/", both).await.expect_problem(UNKNOWN.0, UNKNOWN.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_made_known_by_default() {
    let cluster = Cluster::start(2).await;
    let (alice, host) = (cluster.user("alice"), cluster.host());
    alice.on(0).open_chat(&cluster.user("never came")).await;
    let shown = host.on(1).get("/users/never%20came/").await.expect(200);
    let expected = json!({
        "user_id": "never came", "name": null, "avatar_url": null, "online": false,
        "last_seen_at": null,
    });
    assert_eq!(shown, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_follows_the_token() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let bob = |name: Value, picture: Value| {
        let mut claims = claims("bob");
        (claims["name"], claims["picture"]) = (name, picture);
        cluster.user_claiming(&claims)
    };
    let chat = alice.on(0).open_chat(&cluster.user("bob")).await;
    let shown = async || {
        let user = alice.on(0).get("/users/bob/").await.expect(200);
        assert_eq!(alice.on(1).chat(&chat).await["other_user"], user);
        (user["name"].clone(), user["avatar_url"].clone())
    };
    assert_eq!(shown().await, (json!(null), json!(null)));
    let steps = [
        (json!("Bob"), json!("https://x/1.png"), (json!("Bob"), json!("https://x/1.png"))),
        (json!("Боб 🦊"), json!("https://x/2.png"), (json!("Боб 🦊"), json!("https://x/2.png"))),
        // Not claimed, or not usable: stays.
        (json!(null), json!(null), (json!("Боб 🦊"), json!("https://x/2.png"))),
        (json!(["no text"]), json!(7), (json!("Боб 🦊"), json!("https://x/2.png"))),
        (json!("x".repeat(257)), json!("nul\u{0}"), (json!("Боб 🦊"), json!("https://x/2.png"))),
    ];
    for (name, picture, expected) in steps {
        bob(name, picture).on(1).get("/chats/").await.expect(200);
        assert_eq!(shown().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_themselves_and_those_they_share_a_chat_with() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, eve) = (cluster.user("alice"), cluster.user("bob"), cluster.user("eve"));
    let chat = alice.on(0).open_chat(&bob).await;
    for (viewer, user_id) in [(&alice, "alice"), (&alice, "bob"), (&bob, "alice"), (&eve, "eve")] {
        let user = viewer.on(1).get(&format!("/users/{user_id}/")).await.expect(200);
        assert_eq!(user["user_id"], user_id);
    }
    let long = "x".repeat(129);
    for user_id in ["alice", "bob", "nobody", "%00", "a%0Ab", &long] {
        let answer = eve.on(1).get(&format!("/users/{user_id}/")).await;
        answer.expect_problem(UNKNOWN.0, UNKNOWN.1);
    }
    cluster.host().on(0).get("/users/alice/").await.expect(200);
    alice.on(0).delete(&chat.path("")).await.expect(204);
    alice.on(0).get("/users/bob/").await.expect_problem(UNKNOWN.0, UNKNOWN.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_application_names_people_one_by_one_or_many_at_once() {
    let cluster = Cluster::start(2).await;
    let (alice, host) = (cluster.user("alice"), cluster.host());
    let put = |body: Value| host.on(0).put("/users/b%2Fo%20b/", body).into_future();
    let named = put(json!({ "name": "Bob", "avatar_url": "https://x/b.png" })).await.expect(201);
    assert_members(&named, &["user_id", "name", "avatar_url", "online", "last_seen_at"]);
    assert_eq!((&named["user_id"], &named["name"]), (&json!("b/o b"), &json!("Bob")));
    // Replaced: what is not given is gone.
    let replaced = put(json!({ "name": "Robert" })).await.expect(200);
    assert_eq!((&replaced["name"], &replaced["avatar_url"]), (&json!("Robert"), &json!(null)));
    assert_eq!(host.on(1).get("/users/b%2Fo%20b/").await.expect(200), replaced);
    put(json!({ "name": "x".repeat(257), "avatar_url": 7 }))
        .await
        .expect_faults(&["name", "avatar_url"]);
    put(json!({ "name": "a\u{0}" })).await.expect_faults(&["name"]);
    put(json!({ "avatar_url": "x".repeat(2_049) })).await.expect_faults(&["avatar_url"]);

    let post = |users: Value| host.on(1).post("/users/", json!({ "users": users })).into_future();
    let thousand: Vec<Value> = (0..1_000)
        .map(|i| json!({ "user_id": format!("u{i}"), "name": "x".repeat(200) }))
        .collect();
    let done = post(json!(thousand)).await.expect(200);
    assert_eq!(done, json!({ "created": 1_000, "updated": 0, "erased": 0 }));
    let more = json!([{ "user_id": "u0", "name": "first" }, { "user_id": "new" }, { "user_id": "u0", "name": "last" }]);
    assert_eq!(post(more).await.expect(200), json!({ "created": 1, "updated": 1, "erased": 0 }));
    assert_eq!(host.on(0).get("/users/u0/").await.expect(200)["name"], "last");
    let faults = json!([{ "user_id": "ok" }, { "name": "x" }, { "user_id": "", "name": 7 }, { "user_id": "y", "name": [] }]);
    let problem = post(faults).await.expect_problem(422, "validation_failed").to_string();
    for field in ["users[1].user_id", "users[2].user_id", "users[3].name"] {
        assert!(problem.contains(field), "{field} is not in {problem}");
    }
    host.on(0).get("/users/ok/").await.expect_problem(UNKNOWN.0, UNKNOWN.1);
    let too_many: Vec<Value> = (0..1_001).map(|i| json!({ "user_id": format!("u{i}") })).collect();
    for bad in [json!([]), json!(too_many), json!({}), json!("x"), json!([1]), json!(null)] {
        post(bad).await.expect_faults(&["users"]);
    }
    let large = json!([{ "user_id": "x", "padding": "x".repeat(1024 * 1024) }]);
    post(large).await.expect_problem(413, "payload_too_large");

    alice.on(0).put("/users/alice/", json!({ "name": "A" })).await.expect_problem(403, "forbidden");
    alice.on(0).post("/users/", json!({ "users": [] })).await.expect_problem(403, "forbidden");
    alice.on(0).delete("/users/alice/").await.expect_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_leaves_tombstones_and_comes_back_only_when_named() {
    let cluster = Cluster::start(2).await;
    let (alice, host) = (cluster.user("alice"), cluster.host());
    let mut bob = claims("bob");
    (bob["name"], bob["picture"]) =
        (json!("Robert Unforgettable"), json!("https://x/unforgettable"));
    let bob = cluster.user_claiming(&bob);
    let chat = alice.on(0).open_chat(&bob).await;
    let second = bob.on(0).open_chat(&cluster.user("carol")).await;
    for i in 0..3 {
        bob.on(i % 2).send(&chat, &format!("unforgettable {i}")).await;
        alice.on(0).send(&chat, &format!("kept {i}")).await;
    }
    bob.on(1).send(&second, "unforgettable too").await;
    assert_eq!(alice.on(1).unread_in(&chat).await, 3);

    host.on(0).delete("/users/bob/").await.expect(204);
    let page = alice.on(1).history(&chat, "").await;
    let messages = page["results"].as_array().expect("a list");
    let of_bob: Vec<&Value> = messages.iter().filter(|m| m["sender_id"] == "bob").collect();
    assert_eq!((messages.len(), of_bob.len()), (6, 3));
    for tombstone in &of_bob {
        assert_eq!((&tombstone["text"], &tombstone["metadata"]), (&json!(""), &json!(null)));
        assert_time(&tombstone["deleted_at"]);
    }
    let mut evs: Vec<i64> = of_bob.iter().filter_map(|m| m["ev"].as_i64()).collect();
    evs.sort_unstable();
    assert_eq!(evs, [7, 8, 9], "each has a change of its own");
    assert_eq!(page["head_ev"], 9);
    assert_eq!(alice.on(1).unread_in(&chat).await, 0);
    let shown = alice.on(0).chat(&chat).await["other_user"].clone();
    let nobody = json!({
        "user_id": "bob", "name": null, "avatar_url": null, "online": false, "last_seen_at": null,
    });
    assert_eq!(shown, nobody);
    let send = alice.on(1).post(&chat.path("messages/"), json!({ "text": "x" })).await;
    send.expect_problem(403, "forbidden");
    host.on(1).get("/users/bob/").await.expect_problem(UNKNOWN.0, UNKNOWN.1);

    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    for table in cluster.psql(tables).await.into_iter().flatten().flatten() {
        let count = format!("SELECT count(*) FROM {table} t WHERE t::text ILIKE '%unforgettable%'");
        assert_eq!(cluster.psql_value::<i64>(&count).await, 0, "{table}");
    }

    // The replica that erased them refuses at once, the other one within seconds.
    bob.on(0).get("/chats/").await.expect_problem(401, "token_invalid");
    eventually(async || match bob.on(1).get("/chats/").await {
        answer if answer.status == 401 => Ok(answer.expect_problem(401, "token_invalid")),
        answer => Err(answer.text),
    })
    .await;
    host.on(1).delete("/users/bob/").await.expect(204);
    host.on(1).delete("/users/nobody/").await.expect_problem(UNKNOWN.0, UNKNOWN.1);

    // A list may be older than the erasure, so it brings nobody back.
    let listed = json!({ "users": [{ "user_id": "alice" }, { "user_id": "bob", "name": "Bob" }] });
    let done = host.on(0).post("/users/", listed).await.expect(200);
    assert_eq!(done, json!({ "created": 0, "updated": 1, "erased": 1 }));
    host.on(1).get("/users/bob/").await.expect_problem(UNKNOWN.0, UNKNOWN.1);
    bob.on(0).get("/chats/").await.expect_problem(401, "token_invalid");

    let named = host.on(1).put("/users/bob/", json!({ "name": "Bob again" })).await;
    assert!(matches!(named.status, 200 | 201), "{}", named.text);
    for replica in [0, 1] {
        bob.on(replica).get("/chats/").await.expect(200);
    }
    bob.on(0).send(&chat, "back").await;
    alice.on(1).send(&chat, "welcome").await;
    assert_eq!(alice.on(1).unread_in(&chat).await, 1);
}
