//! Who is known, how they are shown, blocks, and being erased.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use beseda::config::UnknownUsers;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Chat, Cluster, assert_members, assert_time, claims};

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
async fn a_block_refuses_chats_sends_and_edits_to_both_at_once_and_nothing_else() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = alice.on(0).open_chat(&bob).await;
    let path_of = |message: &Value| {
        chat.path(&format!("messages/{}/", message["message_id"].as_str().expect("an id")))
    };
    let from_alice = alice.on(0).send(&chat, "from alice").await;
    let from_bob = bob.on(1).send(&chat, "from bob").await;
    for round in 0..5 {
        alice.on(0).put("/users/bob/block/", json!({})).await.expect(204);
        alice.on(0).put("/users/bob/block/", json!({})).await.expect(204);
        // At once, on the other replica too.
        for (user, own) in [(&bob, &from_bob), (&alice, &from_alice)] {
            let send = user.on(1).post(&chat.path("messages/"), json!({ "text": "x" })).await;
            send.expect_problem(403, "blocked");
            let edit = user.on(0).patch(&path_of(own), json!({ "text": "edited" })).await;
            edit.expect_problem(403, "blocked");
        }
        alice.on(1).delete("/users/bob/block/").await.expect(204);
        bob.on(0).send(&chat, &format!("again {round}")).await;
    }

    alice.on(0).put("/users/carol/block/", json!({})).await.expect(204);
    alice.on(1).put("/users/bob/block/", json!({})).await.expect(204);
    for (user, other) in [(&carol, "alice"), (&alice, "carol")] {
        let open = user.on(1).post("/chats/", json!({ "user_id": other })).await;
        open.expect_problem(403, "blocked");
    }
    // The chat that was there is found, read, marked, searched, connected to; messages are deleted.
    for user in [&alice, &bob] {
        let other = if user.id == "alice" { &bob } else { &alice };
        assert_eq!(user.on(1).open_chat(other).await.id, chat.id);
        user.on(0).history(&chat, "").await;
        assert_eq!(user.on(1).mark_read(&chat).await["unread_count"], 0);
        user.on(0).get(&chat.path("search/?query=from")).await.expect(200);
        user.on(0).get(&chat.path("connect/")).await.expect(200);
    }
    bob.on(0).delete(&path_of(&from_bob)).await.expect(204);

    let blocks = alice.on(1).get("/blocks/").await.expect(200);
    assert_members(&blocks, &["results", "next"]);
    let ids: Vec<&Value> =
        blocks["results"].as_array().expect("a list").iter().map(|b| &b["user_id"]).collect();
    assert_eq!(ids, ["bob", "carol"], "latest first");
    assert_time(&blocks["results"][0]["created_at"]);
    assert_eq!(bob.on(0).get("/blocks/").await.expect(200)["results"], json!([]));

    // Both blocked: it takes both to end it.
    bob.on(0).put("/users/alice/block/", json!({})).await.expect(204);
    alice.on(0).delete("/users/bob/block/").await.expect(204);
    alice.on(0).delete("/users/bob/block/").await.expect(204);
    let send = alice.on(0).post(&chat.path("messages/"), json!({ "text": "x" })).await;
    send.expect_problem(403, "blocked");
    bob.on(1).delete("/users/alice/block/").await.expect(204);
    alice.on(0).send(&chat, "free").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_come_in_pages_and_have_a_limit() {
    const MOST: usize = 7;
    let cluster = Cluster::with(1, |config| config.limits.blocks_per_user = MOST as u32).await;
    let (alice, bob) = (cluster.user("alice").on(0), cluster.user("bob").on(0));
    for n in 0..MOST {
        alice.put(&format!("/users/u{n}/block/"), json!({})).await.expect(204);
    }
    // Two at the same moment, so that the time alone does not tell where a page begins.
    let same = "UPDATE blocks SET created_at = (SELECT max(created_at) FROM blocks)
                 WHERE blocked_id IN ('u2', 'u3', 'u4')";
    cluster.psql(same).await;
    let one_more = alice.put("/users/u99/block/", json!({})).await;
    one_more.expect_problem(403, "forbidden");
    alice.put("/users/u0/block/", json!({})).await.expect(204);
    bob.put("/users/u99/block/", json!({})).await.expect(204);

    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let after = cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
        let page = alice.get(&format!("/blocks/?limit=2{after}")).await.expect(200);
        let results = page["results"].as_array().expect("a list");
        assert!((1..=2).contains(&results.len()), "{page}");
        seen.extend(results.iter().map(|block| block["user_id"].clone()));
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(seen, ["u6", "u4", "u3", "u2", "u5", "u1", "u0"], "latest first");
    for refused in ["limit=0", "limit=101", "limit=x"] {
        let answer = alice.get(&format!("/blocks/?{refused}")).await;
        answer.expect_problem(422, "validation_failed");
    }
    // None of ours, and of times that Postgres does not know.
    for cursor in ["x", "AAAA", "gAAAAAAAAAA"] {
        alice
            .get(&format!("/blocks/?cursor={cursor}"))
            .await
            .expect_problem(400, "invalid_request");
    }
    let long_ago = alice.get("/blocks/?cursor=gAAAAAAAAABh").await.expect(200);
    assert_eq!(long_ago["results"], json!([]));

    // By default a page is one of 30.
    cluster
        .psql("INSERT INTO blocks SELECT 'bob', 'v' || n FROM generate_series(1, 40) AS n")
        .await;
    let page = bob.get("/blocks/").await.expect(200);
    assert_eq!(page["results"].as_array().map(Vec::len), Some(30));
    assert!(page["next"].is_string(), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_blocks_themselves_and_a_block_waits_for_a_chat() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    alice
        .on(0)
        .put("/users/alice/block/", json!({}))
        .await
        .expect_problem(422, "validation_failed");
    alice.on(0).put("/users/bob/block/", json!({})).await;
    let open = bob.on(0).post("/chats/", json!({ "user_id": "alice" })).await;
    open.expect_problem(403, "blocked");
    alice.on(0).delete("/users/bob/block/").await.expect(204);
    // A chat made after all takes its block from there.
    let chat = bob.on(0).open_chat(&alice).await;
    alice.on(0).put("/users/bob/block/", json!({})).await.expect(204);
    let chat_path = chat.path("messages/");
    bob.on(0).post(&chat_path, json!({ "text": "x" })).await.expect_problem(403, "blocked");
    // Nor does a new chat of the two forget a block.
    bob.on(0).delete(&chat.path("")).await.expect(204);
    let open = bob.on(0).post("/chats/", json!({ "user_id": "alice" })).await;
    open.expect_problem(403, "blocked");
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
    crate::harness::eventually(async || match bob.on(1).get("/chats/").await {
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

/// Has both users send on both replicas, until `stop`.
async fn chatter(
    cluster: &Cluster,
    chat: &Chat,
    stop: impl Future<Output = ()>,
) -> Vec<crate::harness::Answer> {
    let stopped = &AtomicBool::new(false);
    let senders = [("alice", 0), ("alice", 1), ("bob", 0), ("bob", 1)].map(|(id, replica)| {
        let (client, path) = (cluster.user(id).on(replica), chat.path("messages/"));
        async move {
            let mut refused = Vec::new();
            // One attempt more after the stop.
            let mut last = false;
            while !last {
                last = stopped.load(Ordering::SeqCst);
                let answer = client.post(&path, json!({ "text": "chatter" })).await;
                if answer.status != 201 {
                    refused.push(answer);
                }
            }
            refused
        }
    });
    let stopping = async {
        stop.await;
        stopped.store(true, Ordering::SeqCst);
    };
    let (refused, ()) = tokio::join!(join_all(senders), stopping);
    refused.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_written_once_a_block_is_acknowledged() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for _ in 0..3 {
        let at_block = Mutex::new(0);
        let refused = chatter(&cluster, &chat, async {
            while alice.on(0).chat(&chat).await["last_seq"].as_i64() < Some(10) {}
            alice.on(1).put("/users/bob/block/", json!({})).await.expect(204);
            let head = cluster.psql_value::<i64>("SELECT last_seq FROM chats").await;
            *at_block.lock().expect("no panic") = head;
        })
        .await;
        assert!(refused.len() >= 4);
        refused.into_iter().for_each(|answer| drop(answer.expect_problem(403, "blocked")));
        let head = cluster.psql_value::<i64>("SELECT last_seq FROM chats").await;
        assert_eq!(head, *at_block.lock().expect("no panic"));
        alice.on(0).delete("/users/bob/block/").await.expect(204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_erased_person_survives_what_they_sent_meanwhile() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let refused = chatter(&cluster, &chat, async {
        while alice.on(0).chat(&chat).await["last_seq"].as_i64() < Some(20) {}
        host.on(1).delete("/users/bob/").await.expect(204);
        let left = "SELECT count(*) FROM messages WHERE sender_id = 'bob' AND deleted_at IS NULL";
        assert_eq!(cluster.psql_value::<i64>(left).await, 0);
    })
    .await;
    for answer in refused {
        let (status, code) =
            if answer.status == 401 { (401, "token_invalid") } else { (403, "forbidden") };
        answer.expect_problem(status, code);
    }
    let left = "SELECT count(*) FROM messages WHERE sender_id = 'bob' AND deleted_at IS NULL";
    assert_eq!(cluster.psql_value::<i64>(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_deleted_amid_sends_leaves_nothing_behind() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let refused = chatter(&cluster, &chat, async {
        while alice.on(0).chat(&chat).await["last_seq"].as_i64() < Some(20) {}
        alice.on(1).delete(&chat.path("")).await.expect(204);
    })
    .await;
    assert!(refused.len() >= 4);
    refused.into_iter().for_each(|answer| drop(answer.expect_problem(404, "chat_not_found")));
    assert_eq!(cluster.psql_value::<i64>("SELECT count(*) FROM messages").await, 0);
    let unread = bob.on(0).get("/chats/unread/").await.expect(200);
    assert_eq!(unread, json!({ "total": 0, "chats": [] }));
}
