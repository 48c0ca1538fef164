//! How chats are shown, one by one and in a list.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Chat, Cluster, assert_members, assert_time};

const CHAT: [&str; 24] = [
    "chat_id",
    "room_name",
    "kind",
    "created_at",
    "created_by",
    "other_user",
    "last_message",
    "last_seq",
    "last_ev",
    "read_seq",
    "peer_read_seq",
    "unread_count",
    "unread_mentions",
    "title",
    "avatar_url",
    "metadata",
    "member_count",
    "role",
    "settings",
    "receipts",
    "first_seq",
    "notify",
    "pinned",
    "archived",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_shown_whole_and_to_each_from_their_side() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let mut opened = alice.on(0).post("/chats/", json!({ "user_id": "bob" })).await.expect(201);
    assert_eq!(opened["created"], true);
    opened.as_object_mut().expect("an object").remove("created");
    assert_members(&opened, &CHAT);
    assert_members(
        &opened["other_user"],
        &["user_id", "name", "avatar_url", "online", "last_seen_at"],
    );
    assert_eq!(opened["kind"], "direct");
    assert_eq!(opened["created_by"], "alice");
    assert_eq!(opened["other_user"]["user_id"], "bob");
    assert_eq!(opened["other_user"]["online"], false);
    assert_time(&opened["created_at"]);
    let chat = Chat::from_json(&opened);
    let version = &chat.id[14..15];
    assert_eq!((chat.id.len(), version), (36, "7"), "a hyphenated UUIDv7");
    let base64url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(chat.room_name.len() == 22 && chat.room_name.chars().all(base64url));
    for empty in ["last_message", "other_user/name", "other_user/last_seen_at"] {
        assert_eq!(opened.pointer(&format!("/{empty}")), Some(&Value::Null), "{empty}");
    }

    let sent = alice.on(0).send(&chat, "hello").await;
    let seen = bob.on(1).post("/chats/", json!({ "user_id": "alice" })).await.expect(200);
    assert_eq!(seen["created"], false);
    assert_eq!(seen["chat_id"], *chat.id);
    assert_eq!(seen["created_by"], "alice");
    assert_eq!(seen["other_user"]["user_id"], "alice");
    assert_eq!(seen["last_message"], sent);
    assert_eq!(numbers(&seen), json!([1, 1, 0, 0, 1]));
    assert_eq!(numbers(&alice.on(1).chat(&chat).await), json!([1, 1, 0, 0, 0]));
    bob.on(1).mark_read(&chat).await;
    assert_eq!(numbers(&bob.on(0).chat(&chat).await), json!([1, 2, 1, 0, 0]));
    assert_eq!(numbers(&alice.on(1).chat(&chat).await), json!([1, 2, 0, 1, 0]));
}

/// last_seq, last_ev, read_seq, peer_read_seq, unread_count.
fn numbers(chat: &Value) -> Value {
    ["last_seq", "last_ev", "read_seq", "peer_read_seq", "unread_count"]
        .map(|name| &chat[name])
        .into_iter()
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_listed_page_by_page_latest_activity_first() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let mut chats = Vec::new();
    for i in 0..7 {
        chats.push(alice.on(i % 2).open_chat(&cluster.user(&format!("peer {i}"))).await);
    }
    // Chats of others are none of hers.
    cluster.user("peer 1").on(0).open_chat(&cluster.user("peer 2")).await;
    let peer = cluster.user("peer 3");
    peer.on(1).send(&chats[3], "I come to the top").await;
    alice.on(0).send(&chats[1], "and I above it").await;
    let expected: Vec<&str> = [1, 3, 6, 5, 4, 2, 0].map(|i| chats[i].id.as_str()).to_vec();

    for limit in [1, 2, 3, 7, 100] {
        let (mut listed, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = alice.on(1).get(&format!("/chats/?limit={limit}{cursor}")).await.expect(200);
            assert_members(&page, &["results", "next"]);
            let results = page["results"].as_array().expect("a list");
            assert!(results.len() <= limit);
            results.iter().for_each(|chat| assert_members(chat, &CHAT));
            listed.extend(results.iter().map(|c| c["chat_id"].as_str().expect("an id").to_owned()));
            assert!(listed.len() <= expected.len(), "limit {limit}: {listed:?}");
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(listed, expected, "limit {limit}");
    }
    for chat in alice.on(0).get("/chats/").await.expect(200)["results"].as_array().expect("a list")
    {
        assert_eq!(
            *chat,
            alice
                .on(1)
                .get(&format!("/chats/{}/", chat["chat_id"].as_str().expect("an id")))
                .await
                .expect(200)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_refuses_bad_limits_and_cursors() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    for limit in ["0", "101", "-1", "x", "", "1.5", "99999999999999999999"] {
        alice.on(0).get(&format!("/chats/?limit={limit}")).await.expect_faults(&["limit"]);
    }
    for cursor in ["x", "AAAA", "%00", "____", "🦊", &"A".repeat(32), &"_".repeat(32), "null"] {
        let answer = alice.on(0).get(&format!("/chats/?cursor={cursor}")).await;
        // A well-formed one of no room is a place in the list like any other.
        if answer.status != 200 {
            answer.expect_problem(400, "invalid_request");
        }
    }
    alice.on(0).get("/chats/?cursor=x").await.expect_problem(400, "invalid_request");
    let empty = alice.on(0).get("/chats/?unknown=parameters&are=ignored").await.expect(200);
    assert_eq!(empty, json!({ "results": [], "next": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_takes_as_many_queries_for_forty_chats_as_for_one() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    let queries = async || {
        let page = cluster.operator(0).request(Method::GET, "/metrics").await.text;
        // What the background does at its own time, and what a token costs now and then.
        let other = ["outbox", "unpublished", "admit", "applied_migrations"];
        let counts = page.lines().filter(|line| {
            line.starts_with("beseda_store_query_seconds_count")
                && !other.iter().any(|name| line.contains(name))
        });
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let cost = async || {
        let before = queries().await;
        alice.on(0).get("/chats/?limit=100").await.expect(200);
        queries().await - before
    };
    alice.on(0).open_chat(&cluster.user("peer")).await;
    // The first read of one's chats has Redis learn their order.
    cost().await;
    let for_one = cost().await;
    for i in 0..39 {
        let peer = cluster.user(&format!("peer {i}"));
        let chat = alice.on(0).open_chat(&peer).await;
        peer.on(0).send(&chat, "hi").await;
    }
    assert!(for_one > 0);
    assert_eq!(cost().await, for_one);
}

/// A socket tells of what changed after its `hello`. What the list lacked would never be told.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_does_not_wait_for_redis_to_hear_of_a_chat() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice").on(0);
    let mut chats = Vec::new();
    for other in ["bob", "carol"] {
        chats.push(alice.open_chat(&cluster.user(other)).await);
    }
    alice.get("/chats/unread/").await.expect(200);
    // As if what was written to Redis had been lost on the way.
    let copies = format!("{}unread:alice", cluster.redis_prefix());
    cluster.redis().await.command(&["HDEL", &copies, &chats[1].id]).await;
    let unread = alice.get("/chats/unread/").await.expect(200);
    assert_eq!(unread["chats"].as_array().map(Vec::len), Some(1), "Redis does not know it");
    let list = alice.get("/chats/").await.expect(200);
    let listed: Vec<_> = list["results"].as_array().expect("chats").iter().collect();
    let ids: Vec<_> = listed.iter().map(|chat| chat["chat_id"].as_str()).collect();
    assert_eq!(ids, [Some(&*chats[1].id), Some(&*chats[0].id)]);
    cluster.redis().await.command(&["DEL", &copies]).await;
}
