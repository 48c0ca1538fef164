//! Who opens a chat with whom; a pair has one.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Chat, Cluster, User};

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
    // It is no member itself: it sees the chat, and nothing of what is said there.
    alice.on(0).send(&chat, "between us").await;
    let seen = host.on(0).get(&chat.path("")).await.expect(200);
    assert_eq!((&seen["last_message"], &seen["other_user"]), (&json!(null), &json!(null)));
    host.on(0).get(&chat.path("messages/")).await.expect_problem(404, "chat_not_found");
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
