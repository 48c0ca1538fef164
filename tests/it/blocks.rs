//! Blocks: what they refuse, whom they name, and how many there may be.

use serde_json::{Value, json};

use crate::harness::{Cluster, assert_members, assert_time};

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
    for cursor in ["x", "AAAA", "gAAAAAAAAAA", "gAAAAAAAAABh"] {
        alice
            .get(&format!("/blocks/?cursor={cursor}"))
            .await
            .expect_problem(400, "invalid_request");
    }

    // By default a page is one of 30.
    cluster
        .psql("INSERT INTO blocks SELECT 'bob', 'v' || n FROM generate_series(1, 40) AS n")
        .await;
    let page = bob.get("/blocks/").await.expect(200);
    assert_eq!(page["results"].as_array().map(Vec::len), Some(30));
    assert!(page["next"].is_string(), "{page}");
}
