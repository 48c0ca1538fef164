//! Reactions and pins.

use serde_json::{Value, json};

use super::path_of;
use crate::{
    groups::{create, create_with, crowd},
    harness::{Answer, Chat, Client, Cluster, Psql, Request, assert_members, assert_time, told},
};

fn reaction(client: &Client, chat: &Chat, message: &Value, emoji: &str) -> Request {
    client.put(&path_to(chat, message, emoji), json!({}))
}

fn path_to(chat: &Chat, message: &Value, emoji: &str) -> String {
    let encoded = url::form_urlencoded::byte_serialize(emoji.as_bytes()).collect::<String>();
    format!("{}reactions/{encoded}/", path_of(chat, message))
}

fn pin_path(chat: &Chat, message: &Value) -> String {
    chat.path(&format!("pins/{}/", message["message_id"].as_str().expect("an id")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaction_is_set_and_taken_back_and_told_to_all() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "hello").await;
    let mut socket = alice.on(1).connect(&chat).await;

    let answer = reaction(&bob.on(0), &chat, &sent, "👍").await.expect(200);
    let thumbs = json!([{ "emoji": "👍", "count": 1, "user_ids": ["bob"] }]);
    assert_eq!(answer, json!({ "reactions": thumbs }));
    let frame = socket.expect("message.updated").await;
    assert_eq!((&frame["ev"], &frame["changed"]), (&json!(2), &json!(["reactions"])));
    assert_eq!((&frame["message"]["reactions"], &frame["message"]["ev"]), (&thumbs, &json!(2)));
    assert_eq!(frame["message"].get("my_reactions"), None, "frames are for all alike");
    // Again: nothing changes, and nobody is told.
    assert_eq!(reaction(&bob.on(1), &chat, &sent, "👍").await.expect(200), answer);

    reaction(&alice.on(1), &chat, &sent, "👍").await.expect(200);
    // Without its variation selector it is the same emoji.
    reaction(&alice.on(0), &chat, &sent, "❤").await.expect(200);
    let both = json!([
        { "emoji": "👍", "count": 2, "user_ids": ["bob", "alice"] },
        { "emoji": "❤️", "count": 1, "user_ids": ["alice"] },
    ]);
    for ev in [3, 4] {
        assert_eq!(socket.expect("message.updated").await["ev"], ev);
    }
    for (reader, mine) in [(&alice, json!(["👍", "❤️"])), (&bob, json!(["👍"]))] {
        let message = reader.on(1).get(&path_of(&chat, &sent)).await.expect(200);
        assert_eq!((&message["reactions"], &message["my_reactions"]), (&both, &mine));
        let page = reader.on(0).get(&chat.path("messages/")).await.expect(200);
        assert_eq!(page["results"][0], message);
    }

    let took = bob.on(1).delete(&path_to(&chat, &sent, "👍")).await.expect(200);
    assert_eq!(took["reactions"][0], json!({ "emoji": "👍", "count": 1, "user_ids": ["alice"] }));
    bob.on(0).delete(&path_to(&chat, &sent, "👍")).await.expect(200);
    for emoji in ["👍", "❤️"] {
        alice.on(0).delete(&path_to(&chat, &sent, emoji)).await.expect(200);
    }
    let mut last = Value::Null;
    for _ in 0..3 {
        last = socket.expect("message.updated").await;
    }
    // It came and went: what is left is a newer revision.
    assert_eq!((&last["ev"], &last["message"]["reactions"]), (&json!(7), &json!([])));
    let message = alice.on(0).get(&path_of(&chat, &sent)).await.expect(200);
    assert_eq!((&message["ev"], &message["my_reactions"]), (&json!(7), &json!([])));
    // Who is unread, and the order of chats, do not depend on it.
    assert_eq!(bob.on(0).unread_in(&chat).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_gives_reactions_and_pins_as_state() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let first = alice.on(0).send(&chat, "one").await;
    let second = alice.on(0).send(&chat, "two").await;
    let epoch = alice.on(0).history(&chat, "").await["epoch"].as_str().expect("text").to_owned();
    for emoji in [":party:", "👍"] {
        reaction(&bob.on(1), &chat, &first, emoji).await.expect(200);
    }
    reaction(&bob.on(0), &chat, &second, "👍").await.expect(200);
    bob.on(0).delete(&path_to(&chat, &second, "👍")).await.expect(200);
    alice.on(1).put(&pin_path(&chat, &first), json!({})).await.expect(204);
    let mut socket = alice.on(1).resume(&chat, 2, &epoch).await;
    let frames = socket.frames_until("synced").await;
    let told: Vec<_> = frames
        .iter()
        .filter(|frame| frame["message"].is_object())
        .map(|frame| (frame["type"].clone(), frame["message"]["seq"].clone(), frame["ev"].clone()))
        .collect();
    let expected = [
        (json!("message.created"), json!(2), json!(6)),
        (json!("message.updated"), json!(1), json!(7)),
    ];
    assert_eq!(told, expected);
    assert!(frames.iter().all(|frame| frame.get("changed").is_none()), "{frames:?}");
    let page = alice.on(0).get(&chat.path("changes/?after_ev=2")).await.expect(200);
    let evs: Vec<_> =
        page["results"].as_array().expect("frames").iter().map(|f| &f["ev"]).collect();
    assert_eq!(evs, [6, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_takes_twenty_emojis_and_nothing_else_is_one() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice").on(0), cluster.user("bob").on(0));
    let chat = alice.open_chat(&cluster.user("bob")).await;
    let sent = alice.send(&chat, "hello").await;
    for n in 0..20 {
        reaction(&alice, &chat, &sent, &format!(":e{n}:")).await.expect(200);
    }
    reaction(&bob, &chat, &sent, ":more:").await.expect_problem(409, "limit_reached");
    reaction(&bob, &chat, &sent, ":e7:").await.expect(200);
    alice.delete(&path_to(&chat, &sent, ":e0:")).await.expect(200);
    reaction(&bob, &chat, &sent, ":more:").await.expect(200);
    for emoji in ["a", "👍👍", ":A:", "::", "\u{0}", "1", &format!(":{}:", "a".repeat(65))] {
        reaction(&alice, &chat, &sent, emoji).await.expect_faults(&["emoji"]);
        alice.delete(&path_to(&chat, &sent, emoji)).await.expect_faults(&["emoji"]);
    }
    let nowhere = json!({ "message_id": "0190f5fe-7c00-7a00-8000-000000000000" });
    reaction(&alice, &chat, &nowhere, "👍").await.expect_problem(404, "message_not_found");
    let eve = cluster.user("eve").on(0);
    reaction(&eve, &chat, &sent, "👍").await.expect_problem(404, "chat_not_found");
    alice.delete(&path_of(&chat, &sent)).await.expect(204);
    reaction(&bob, &chat, &sent, "👍").await.expect_problem(404, "message_not_found");
    assert_eq!(bob.get(&path_of(&chat, &sent)).await.expect(200)["reactions"], json!([]));
    assert_eq!(cluster.psql_value::<i64>("SELECT count(*) FROM reactions").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reactions_at_once_are_counted_exactly_and_listed_in_order() {
    let cluster = Cluster::start(2).await;
    let owner = cluster.user("owner");
    let names = crowd(60);
    let ids: Vec<&str> = names.iter().map(String::as_str).collect();
    let chat = create(&owner.on(0), "Many", &ids).await;
    let sent = owner.on(0).send(&chat, "a poll").await;
    let mut socket = owner.on(1).connect(&chat).await;
    let all = names.iter().enumerate().map(|(n, name)| {
        let client = cluster.user(name).on(n % 2);
        let (chat, sent) = (chat.clone(), sent.clone());
        tokio::spawn(async move {
            for emoji in ["👍", "🎉"] {
                reaction(&client, &chat, &sent, emoji).await.expect(200);
            }
            client.delete(&path_to(&chat, &sent, "🎉")).await.expect(200);
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.expect("no panic");
    }
    let message = owner.on(0).get(&path_of(&chat, &sent)).await.expect(200);
    let [thumbs] = message["reactions"].as_array().expect("a list").as_slice() else {
        panic!("{message}")
    };
    assert_eq!(
        (&thumbs["count"], thumbs["user_ids"].as_array().map(Vec::len)),
        (&json!(60), Some(20))
    );
    // Those that are written together are told once.
    let last = message["ev"].as_i64().expect("a number");
    assert!(last < 1 + 3 * 60, "{last} revisions");
    while socket.wait_for("message.updated").await["ev"] != last {}

    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let query = format!("{}reactions/?limit=25{cursor}", path_of(&chat, &sent));
        let page = owner.on(1).get(&query).await.expect(200);
        for one in page["results"].as_array().expect("a list") {
            assert_members(one, &["user_id", "emoji", "created_at"]);
            assert_time(&one["created_at"]);
            listed.push(one["user_id"].clone());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed[..20], *thumbs["user_ids"].as_array().expect("a list"));
    listed.sort_unstable_by_key(ToString::to_string);
    listed.dedup();
    assert_eq!(listed.len(), 60);
    let none = format!("{}reactions/?emoji=%F0%9F%8E%89", path_of(&chat, &sent));
    assert_eq!(owner.on(0).get(&none).await.expect(200), json!({ "results": [], "next": null }));
    let faulty = format!("{}reactions/?emoji=x&limit=0", path_of(&chat, &sent));
    owner.on(0).get(&faulty).await.expect_faults(&["emoji", "limit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_post_may_not_react_but_takes_back_what_is_theirs() {
    let cluster = Cluster::start(1).await;
    let user = |id: &str| cluster.user(id).on(0);
    let chat = create(&user("owner"), "Quiet", &["plain"]).await;
    let sent = user("owner").send(&chat, "hello").await;
    reaction(&user("plain"), &chat, &sent, "👍").await.expect(200);
    let silence = json!({ "silenced_until": "2100-01-01T00:00:00Z" });
    user("owner").patch(&chat.path("members/plain/"), silence).await.expect(200);
    reaction(&user("plain"), &chat, &sent, "🎉").await.expect_problem(403, "silenced");
    user("plain").delete(&path_to(&chat, &sent, "👍")).await.expect(200);
    let news = create_with(&user("owner"), "News", &["plain"], json!({ "post": "admins" })).await;
    let said = user("owner").send(&news, "news").await;
    reaction(&user("plain"), &news, &said, "👍").await.expect_problem(403, "forbidden");
    let direct = user("owner").open_chat(&cluster.user("bob")).await;
    let said = user("owner").send(&direct, "hello").await;
    user("owner").put("/users/bob/block/", json!({})).await;
    reaction(&user("bob"), &direct, &said, "👍").await.expect_problem(403, "blocked");
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_listed_latest_first_and_go_with_their_message() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sent = Vec::new();
    for text in ["one", "two", "three"] {
        sent.push(alice.on(0).send(&chat, text).await);
    }
    let mut socket = bob.on(1).connect(&chat).await;
    for place in [2, 0, 1] {
        bob.on(0).put(&pin_path(&chat, &sent[place]), json!({})).await.expect(204);
        let frame = socket.expect("message.updated").await;
        assert_eq!(
            (&frame["changed"], &frame["message"]["seq"]),
            (&json!(["pinned"]), &json!(place + 1))
        );
        assert_time(&frame["message"]["pinned_at"]);
    }
    bob.on(1).put(&pin_path(&chat, &sent[1]), json!({})).await.expect(204);
    let seqs = async |client: &Client, query: &str| {
        let page = client.get(&chat.path(&format!("pins/{query}"))).await.expect(200);
        let results = page["results"].as_array().expect("messages").iter();
        (results.map(|one| one["seq"].as_i64()).collect::<Vec<_>>(), page["next"].clone())
    };
    assert_eq!(seqs(&alice.on(1), "").await.0, [Some(2), Some(1), Some(3)]);
    let (first, next) = seqs(&alice.on(0), "?limit=2").await;
    assert_eq!(first, [Some(2), Some(1)]);
    let rest = format!("?limit=2&cursor={}", next.as_str().expect("a cursor"));
    assert_eq!(seqs(&alice.on(0), &rest).await, (vec![Some(3)], Value::Null));

    alice.on(0).delete(&pin_path(&chat, &sent[0])).await.expect(204);
    alice.on(0).delete(&pin_path(&chat, &sent[0])).await.expect(204);
    let frame = socket.expect("message.updated").await;
    assert_eq!(
        (&frame["changed"], &frame["message"]["pinned_at"]),
        (&json!(["pinned"]), &Value::Null)
    );
    alice.on(0).delete(&path_of(&chat, &sent[1])).await.expect(204);
    assert_eq!(seqs(&bob.on(1), "").await.0, [Some(3)]);
    let stranger = cluster.user("eve").on(0);
    stranger.get(&chat.path("pins/")).await.expect_problem(404, "chat_not_found");
    stranger.put(&pin_path(&chat, &sent[2]), json!({})).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_its_owner_admins_and_the_host_pin_up_to_a_hundred() {
    let cluster = Cluster::start(1).await;
    let user = |id: &str| cluster.user(id).on(0);
    let chat = create(&user("owner"), "Pins", &["plain", "admin"]).await;
    user("owner").patch(&chat.path("members/admin/"), json!({ "role": "admin" })).await.expect(200);
    let mut sent = Vec::new();
    for n in 0..101 {
        sent.push(user("owner").send(&chat, &format!("message {n}")).await);
    }
    let pin = async |client: &Client, n: usize| -> Answer {
        client.put(&pin_path(&chat, &sent[n]), json!({})).await
    };
    pin(&user("plain"), 0).await.expect_problem(403, "forbidden");
    pin(&user("admin"), 0).await.expect(204);
    pin(&cluster.host().on(0), 1).await.expect(204);
    for n in 2..100 {
        pin(&user("owner"), n).await.expect(204);
    }
    pin(&user("owner"), 100).await.expect_problem(409, "limit_reached");
    user("plain").delete(&pin_path(&chat, &sent[0])).await.expect_problem(403, "forbidden");
    user("owner").delete(&pin_path(&chat, &sent[0])).await.expect(204);
    pin(&user("owner"), 100).await.expect(204);
    let page = user("plain").get(&chat.path("pins/?limit=100")).await.expect(200);
    assert_eq!(page["results"].as_array().map(Vec::len), Some(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_has_reacted_to_nothing() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "hello").await;
    let group = create(&alice.on(0), "Many", &["bob"]).await;
    let said = alice.on(1).send(&group, "hello all").await;
    for (chat, message) in [(&chat, &sent), (&group, &said)] {
        reaction(&bob.on(0), chat, message, "👍").await.expect(200);
        reaction(&alice.on(0), chat, message, "👍").await.expect(200);
    }
    let mut socket = alice.on(1).connect(&group).await;
    host.on(0).delete("/users/bob/").await.expect(204);
    let left = json!([{ "emoji": "👍", "count": 1, "user_ids": ["alice"] }]);
    for (chat, message) in [(&chat, &sent), (&group, &said)] {
        let message = alice.on(1).get(&path_of(chat, message)).await.expect(200);
        assert_eq!(message["reactions"], left);
        assert_eq!(told(message)["deleted_at"], Value::Null);
    }
    loop {
        let frame = socket.next_frame().await;
        if frame["message"]["reactions"] == left {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_removed_a_moment_after_their_edit_is_answered_that_it_was_written() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = create(&bob.on(0), "Trip", &["alice"]).await;
    let sent = alice.on(0).send(&chat, "helo").await;
    reaction(&bob.on(0), &chat, &sent, "👍").await.expect(200);

    // Her own reactions are looked up once the edit is written.
    let lock = Psql::connect(&cluster.database_url()).await;
    lock.run("BEGIN; LOCK TABLE reactions IN ACCESS EXCLUSIVE MODE").await;
    let edit = tokio::spawn({
        let (alice, path) = (alice.on(0), path_of(&chat, &sent));
        async move { alice.patch(&path, json!({ "text": "hello" })).await }
    });
    cluster.until_one_waits().await;
    bob.on(0).delete(&chat.path("members/alice/")).await.expect(204);
    lock.run("ROLLBACK").await;
    let edited = edit.await.expect("an answer").expect(200);
    assert_eq!((&edited["text"], &edited["my_reactions"]), (&json!("hello"), &json!([])));
}
