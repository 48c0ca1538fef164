//! Opening, seeing, listing and deleting chats.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Chat, Cluster, User, assert_members, assert_time};

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
async fn however_many_race_from_both_sides_on_both_replicas_there_is_one_chat() {
    const PAIRS: usize = 10;
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    // The first pairs find pools without connections, the later ones really race.
    for pair in 0..PAIRS {
        let bob = cluster.user(&format!("bob {pair}"));
        let answers = join_all((0..40).map(|i| {
            let (caller, other) = if i % 2 == 0 { (&alice, &bob) } else { (&bob, &alice) };
            caller.on(i / 2 % 2).post("/chats/", json!({ "user_id": other.id })).into_future()
        }))
        .await;
        let created = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(created, 1, "{answers:?}");
        let mut chats: Vec<String> = answers
            .into_iter()
            .map(|answer| {
                assert_eq!(answer.json["created"], answer.status == 201);
                let status = if answer.status == 201 { 201 } else { 200 };
                Chat::from_json(&answer.expect(status)).id
            })
            .collect();
        chats.dedup();
        assert_eq!(chats.len(), 1);
    }
    assert_eq!(cluster.psql_value::<usize>("SELECT count(*) FROM chats").await, PAIRS);
    assert_eq!(cluster.psql_value::<usize>("SELECT count(*) FROM members").await, 2 * PAIRS);
}

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
async fn what_names_nobody_or_oneself_opens_no_chat() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    let open = |body: Value| alice.on(0).post("/chats/", body).into_future();
    open(json!({ "user_id": "alice" })).await.expect_problem(422, "self_chat");
    let nobody = [json!(""), json!("a\u{0}b"), json!("tab\t"), json!("x".repeat(129)), json!(7)];
    for nobody in nobody.into_iter().chain([json!(null), json!(["bob"]), json!("del\u{7f}")]) {
        open(json!({ "user_id": nobody })).await.expect_faults(&["user_id"]);
    }
    open(json!({})).await.expect_faults(&["user_id"]);
    open(json!([])).await.expect_faults(&["body"]);
    open(json!({ "user_ids": ["bob", "carol"] })).await.expect_problem(403, "forbidden");
    assert_eq!(cluster.psql_value::<i64>("SELECT count(*) FROM chats").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_application_opens_chats_for_others() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let open = |body: Value| host.on(0).post("/chats/", body).into_future();
    let opened = open(json!({ "user_ids": ["alice", "bob"] })).await.expect(201);
    let chat = Chat::from_json(&opened);
    assert_eq!(
        open(json!({ "user_ids": ["bob", "alice"] })).await.expect(200)["chat_id"],
        *chat.id
    );
    assert_eq!(alice.on(1).open_chat(&bob).await.id, chat.id);
    assert_eq!(bob.on(1).chat(&chat).await["other_user"]["user_id"], "alice");
    // It is no member itself.
    host.on(0).get(&chat.path("")).await.expect_problem(404, "chat_not_found");
    open(json!({ "user_ids": ["alice", "alice"] })).await.expect_problem(422, "self_chat");
    for bad in [
        json!(["alice"]),
        json!(["a", "b", "c"]),
        json!(["alice", ""]),
        json!([1, 2]),
        json!("alice"),
    ] {
        open(json!({ "user_ids": bad })).await.expect_faults(&["user_ids"]);
    }
    open(json!({})).await.expect_faults(&["user_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn user_ids_are_any_text_compared_byte_for_byte() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let ids = [
        "\u{e9}",
        "e\u{301}",
        "\u{c9}",
        "a b/c?d#e%41&f=\"'\\",
        "..",
        "%2F",
        "ALICE",
        "Алёна 🦊",
        "alice ",
        "0",
        "null",
        "{}",
        "-",
    ];
    let longest = "🦊".repeat(128);
    let mut chats = Vec::new();
    for id in ids.into_iter().chain([longest.as_str()]) {
        let other = cluster.user(id);
        let chat = alice.on(0).open_chat(&other).await;
        assert_eq!(other.on(1).open_chat(&alice).await.id, chat.id, "{id}");
        assert_eq!(alice.on(1).chat(&chat).await["other_user"]["user_id"], id);
        assert_eq!(other.on(0).send(&chat, "me").await["sender_id"], id);
        assert_eq!(alice.on(1).unread_in(&chat).await, 1, "{id}");
        chats.push(chat.id);
    }
    let count = chats.len();
    chats.sort_unstable();
    chats.dedup();
    assert_eq!(chats.len(), count);
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
    let for_one = cost().await;
    for i in 0..39 {
        let peer = cluster.user(&format!("peer {i}"));
        let chat = alice.on(0).open_chat(&peer).await;
        peer.on(0).send(&chat, "hi").await;
    }
    assert!(for_one > 0);
    assert_eq!(cost().await, for_one);
}

/// Every route below a chat, with a body that would be right.
fn routes_of(chat: &str, message_id: &str) -> Vec<(Method, String, Option<Value>)> {
    let route = |method, rest: &str, body| (method, format!("/api/v1/chats/{chat}/{rest}"), body);
    vec![
        route(Method::GET, "", None),
        route(Method::GET, "messages/", None),
        route(Method::POST, "messages/", Some(json!({ "text": "x" }))),
        route(Method::POST, "mark_read/", Some(json!({}))),
        route(Method::GET, &format!("messages/{message_id}/"), None),
        route(Method::PATCH, &format!("messages/{message_id}/"), Some(json!({ "text": "x" }))),
        route(Method::DELETE, &format!("messages/{message_id}/"), None),
        route(Method::GET, &format!("messages/{message_id}/readers/"), None),
        route(Method::PATCH, "", Some(json!({ "title": "x" }))),
        route(Method::PATCH, "me/", Some(json!({ "pinned": true }))),
        route(Method::GET, "members/", None),
        route(Method::POST, "members/", Some(json!({ "user_ids": ["x"] }))),
        route(Method::PATCH, "members/alice/", Some(json!({ "role": "admin" }))),
        route(Method::DELETE, "members/alice/", None),
        route(Method::GET, "bans/", None),
        route(Method::PUT, "bans/alice/", Some(json!({}))),
        route(Method::DELETE, "bans/alice/", None),
        route(Method::GET, "invites/", None),
        route(Method::POST, "invites/", Some(json!({}))),
        route(Method::DELETE, &format!("invites/{message_id}/"), None),
        route(Method::POST, "join/", Some(json!({}))),
        route(Method::GET, "search/?query=x", None),
        route(Method::GET, "connect/", None),
        route(Method::GET, "changes/?after_ev=0", None),
        route(Method::DELETE, "", None),
    ]
}

async fn ask(
    user: &User,
    replica: usize,
    route: (Method, String, Option<Value>),
) -> crate::harness::Answer {
    let (method, path, body) = route;
    let request = user.on(replica).request(method, &path);
    match body {
        Some(body) => request.body("application/json", body.to_string()).await,
        None => request.await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_of_others_answers_exactly_as_one_that_does_not_exist() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, eve) = (cluster.user("alice"), cluster.user("bob"), cluster.user("eve"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "secret").await;
    let message_id = sent["message_id"].as_str().expect("an id");
    let own = eve.on(0).open_chat(&alice).await;
    let absent = ["0190f5fe-7c00-7a00-8000-000000000000", "AAAAAAAAAAAAAAAAAAAAAA", "nonsense"];
    let braced = format!("%7B{}%7D", chat.id);
    let others = [chat.id.as_str(), &chat.room_name, &braced];
    for chat in others.into_iter().chain(absent) {
        for route in routes_of(chat, message_id) {
            let asked = format!("{} {}", route.0, route.1);
            let mut body = ask(&eve, 1, route).await.expect_problem(404, "chat_not_found");
            body.as_object_mut().expect("an object").remove("request_id");
            let expected = json!({
                "type": "urn:beseda:error:chat_not_found",
                "title": "No such chat",
                "status": 404,
                "detail": "There is no such chat among yours.",
                "code": "chat_not_found",
            });
            assert_eq!(body, expected, "{asked}");
        }
    }
    // Nor is the other chat's message found by way of one's own.
    let path = own.path(&format!("messages/{message_id}/"));
    eve.on(0).get(&path).await.expect_problem(404, "message_not_found");
    eve.on(0).delete(&path).await.expect_problem(404, "message_not_found");
    eve.on(0).patch(&path, json!({ "text": "x" })).await.expect_problem(404, "message_not_found");
    assert_eq!(alice.on(1).history(&chat, "").await["results"], json!([sent]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_takes_the_id_or_the_name_with_a_slash_at_the_end_or_without() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "x marks the spot").await;
    let message_id = sent["message_id"].as_str().expect("an id");
    let upper = chat.id.to_uppercase();
    for (named, slash) in
        [(&chat.id, false), (&chat.room_name, true), (&chat.room_name, false), (&upper, true)]
    {
        for (method, mut path, body) in routes_of(named, message_id) {
            if method == Method::DELETE {
                continue;
            }
            if !slash {
                path = path.replace("/?", "?").trim_end_matches('/').to_owned();
            }
            let asked = format!("{method} {path}");
            let answer = ask(&alice, 1, (method.clone(), path, body)).await;
            assert!(matches!(answer.status, 200 | 201), "{asked}: {}", answer.text);
            if asked.contains("connect") {
                // The socket's path is the id's, always.
                let url = answer.json["ws_url"].as_str().expect("a URL");
                assert!(url.contains(&format!("/ws/chat/{}/?ticket=", chat.id)), "{url}");
            }
            assert!(!answer.text.contains(&upper), "{asked}");
        }
    }
    let name = &chat.room_name;
    alice.on(1).delete(&format!("/chats/{name}/messages/{message_id}")).await.expect(204);
    alice.on(1).delete(&format!("/chats/{name}")).await.expect(204);
    alice.on(0).get(&format!("/chats/{name}")).await.expect_problem(404, "chat_not_found");
    for path in ["/chats", "/chats/unread", "/blocks", "/users/alice"] {
        let slashed = alice.on(0).get(&format!("{path}/")).await.expect(200);
        assert_eq!(alice.on(1).get(path).await.expect(200), slashed, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_chat_is_gone_for_both_and_a_new_one_is_another() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for i in 0..3 {
        alice.on(0).send(&chat, &format!("gone {i}")).await;
    }
    // Both counters are known to Redis before.
    assert_eq!(bob.on(1).unread_in(&chat).await, 3);
    assert_eq!(alice.on(1).unread_in(&chat).await, 0);
    bob.on(0).delete(&chat.path("")).await.expect_problem(403, "forbidden");
    alice.on(0).delete(&chat.path("")).await.expect(204);
    for user in [&alice, &bob] {
        for replica in [0, 1] {
            let unread = user.on(replica).get("/chats/unread/").await.expect(200);
            assert_eq!(unread, json!({ "total": 0, "total_mentions": 0, "badge": 0, "chats": [] }));
            let list = user.on(replica).get("/chats/").await.expect(200);
            assert_eq!(list["results"], json!([]));
            for chat in [&chat.id, &chat.room_name] {
                let path = format!("/chats/{chat}/messages/");
                user.on(replica).get(&path).await.expect_problem(404, "chat_not_found");
            }
        }
    }
    alice.on(1).delete(&chat.path("")).await.expect_problem(404, "chat_not_found");
    for table in ["chats", "members", "messages"] {
        let count = cluster.psql_value::<i64>(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count, 0, "{table}");
    }

    let again = bob.on(1).open_chat(&alice).await;
    assert_ne!(again.id, chat.id);
    assert_ne!(again.room_name, chat.room_name);
    assert_eq!(alice.on(0).history(&again, "").await["results"], json!([]));
    assert_eq!(alice.on(0).send(&again, "anew").await["seq"], 1);
    assert_eq!(bob.on(1).unread_in(&again).await, 1);
    alice.on(1).get(&chat.path("")).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_delete_a_chat_is_configured() {
    use beseda::config::DeleteChat::{Admin, Creator, Member};
    for (rule, creator, member) in [(Creator, 204, 403), (Member, 204, 204), (Admin, 403, 403)] {
        let cluster = Cluster::with(1, |config| config.delete_chat = rule).await;
        let (alice, bob, eve) = (cluster.user("alice"), cluster.user("bob"), cluster.user("eve"));
        for (caller, expected) in [(&alice, creator), (&bob, member)] {
            let chat = alice.on(0).open_chat(&bob).await;
            eve.on(0).delete(&chat.path("")).await.expect_problem(404, "chat_not_found");
            let answer = caller.on(0).delete(&chat.path("")).await;
            assert_eq!(answer.status, expected, "{rule:?} {}: {}", caller.id, answer.text);
            if expected == 403 {
                answer.expect_problem(403, "forbidden");
                cluster.host().on(0).delete(&chat.path("")).await.expect(204);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_as_many_chats_as_one_may_opens_no_more() {
    let cluster = Cluster::with(1, |config| config.limits.rooms_per_user = 2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let open = |user: &User, other: &str| {
        user.on(0).post("/chats/", json!({ "user_id": other })).into_future()
    };
    open(&alice, "bob").await.expect(201);
    open(&alice, "carol").await.expect(201);
    open(&alice, "dave").await.expect_problem(403, "forbidden");
    open(&alice, "bob").await.expect(200);
    open(&cluster.user("erin"), "alice").await.expect(201);
    open(&bob, "dave").await.expect(201);
    let others = json!({ "user_ids": ["alice", "dave"] });
    host.on(0).post("/chats/", others).await.expect(201);
}
