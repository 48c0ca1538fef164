//! Who is told of what, and what the badge says: what is unread when its moment has come, and as things are then.

use std::time::Duration;

use serde_json::{Value, json};

use super::{all_is_decided, badge, provider::Provider, register};
use crate::harness::{Chat, Cluster, User, eventually};

/// What was told, in short: the type, the text if there is one, and the badge.
fn told(provider: &Provider, device: &str) -> Vec<(String, Value, Value)> {
    let pushes = provider.pushes_to(device).into_iter();
    let short = |json: Value| {
        let kind = json["type"].as_str().expect("a type").to_owned();
        (kind, json["text"].clone(), json["badge"].clone())
    };
    pushes.map(|push| short(push.json)).collect()
}

fn message(text: &str, badge: i64) -> (String, Value, Value) {
    ("message".to_owned(), json!(text), json!(badge))
}

fn silent(kind: &str, badge: i64) -> (String, Value, Value) {
    (kind.to_owned(), Value::Null, json!(badge))
}

async fn group(owner: &User, title: &str, users: &[&str]) -> Chat {
    let body = json!({ "kind": "group", "title": title, "user_ids": users });
    Chat::from_json(&owner.on(0).post("/chats/", body).await.expect(201))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_in_time_is_not_told_and_one_push_stands_for_many_messages() {
    let provider = Provider::start().await;
    let settings = provider.settings();
    let cluster = Cluster::with(2, |config| {
        settings(config);
        config.push.push_delay = Duration::from_secs(2);
    })
    .await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    register(&carol, 0, "c", provider.subscription("c")).await;
    let with_bob = alice.on(0).open_chat(&bob).await;
    let with_carol = alice.on(0).open_chat(&carol).await;
    for number in 1..=5 {
        alice.on(number % 2).send(&with_bob, &format!("read {number}")).await;
        alice.on(number % 2).send(&with_carol, &format!("unread {number}")).await;
    }
    // Whether there is a socket does not matter: a tab that is open on a desk does not keep the phone silent.
    let socket = carol.on(0).connect(&with_carol).await;
    bob.on(1).mark_read(&with_bob).await;
    all_is_decided(&cluster).await;
    assert_eq!(told(&provider, "b"), []);
    assert_eq!(told(&provider, "c"), [message("unread 5", 5)]);
    // Who has written is not told of it.
    carol.on(0).send(&with_carol, "an answer").await;
    all_is_decided(&cluster).await;
    socket.close().await;
    assert!(provider.pushes().len() <= 2, "{:#?}", provider.pushes());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_badge_is_that_of_all_chats_and_falls_on_every_device_that_was_told() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(2, provider.settings()).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    for device in ["b1", "b2"] {
        register(&bob, 0, device, provider.subscription(device)).await;
    }
    let with_alice = alice.on(0).open_chat(&bob).await;
    let with_carol = carol.on(0).open_chat(&bob).await;
    let mut expected = Vec::new();
    for (sender, chat, text) in
        [(&alice, &with_alice, "one"), (&carol, &with_carol, "two"), (&alice, &with_alice, "three")]
    {
        sender.on(1).send(chat, text).await;
        expected.push(message(text, expected.len() as i64 + 1));
        all_is_decided(&cluster).await;
    }
    assert_eq!(told(&provider, "b1"), expected);
    // A part is read: what is shown stays, and the badge falls.
    let up_to = json!({ "up_to_seq": 1 });
    bob.on(0).post(&with_alice.path("mark_read/"), up_to).await.expect(200);
    all_is_decided(&cluster).await;
    expected.push(silent("badge", 2));
    bob.on(1).mark_read(&with_alice).await;
    all_is_decided(&cluster).await;
    expected.push(silent("read", 1));
    bob.on(0).mark_read(&with_carol).await;
    all_is_decided(&cluster).await;
    expected.push(silent("read", 0));
    assert_eq!(told(&provider, "b1"), expected);
    assert_eq!(told(&provider, "b2"), expected);
    assert_eq!(badge(&bob).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_in_time_while_another_chat_is_told_leaves_no_false_badge() {
    let provider = Provider::start().await;
    let settings = provider.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        config.push.push_delay = Duration::from_secs(2);
    })
    .await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    let with_alice = alice.on(0).open_chat(&bob).await;
    let with_carol = carol.on(0).open_chat(&bob).await;
    alice.on(0).send(&with_alice, "told").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // Counted in the first push's badge, and read before its own moment.
    carol.on(0).send(&with_carol, "read in time").await;
    let first = provider.expect(1).await.remove(0);
    bob.on(0).mark_read(&with_carol).await;
    all_is_decided(&cluster).await;
    let mut expected = vec![("message".to_owned(), json!("told"), first.json["badge"].clone())];
    if first.json["badge"] == 2 {
        expected.push(silent("badge", 1));
    }
    assert_eq!(told(&provider, "b"), expected);
    assert_eq!(badge(&bob).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_to_be_told_of_less_is_shown_less() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    let band = group(&alice, "Band", &["bob"]).await;
    alice.on(0).send(&band, "usual").await;
    all_is_decided(&cluster).await;
    bob.on(0).patch(&band.path("me/"), json!({ "notify": "mentions" })).await.expect(200);
    all_is_decided(&cluster).await;
    assert_eq!(told(&provider, "b"), [message("usual", 1), silent("read", 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_tells_each_member_as_they_wish() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(2, provider.settings()).await;
    let alice = cluster.user("alice");
    let names = ["all", "mentions", "none", "archived", "leaver", "late"];
    let users = names.map(|name| cluster.user(name));
    let [all, mentions, none, archived, leaver, late] = &users;
    register(&alice, 0, "alice", provider.subscription("alice")).await;
    for (name, user) in names.iter().zip(&users) {
        register(user, 0, name, provider.subscription(name)).await;
    }
    let chat = group(&alice, "Team", &names[..5]).await;
    let me = chat.path("me/");
    mentions.on(0).patch(&me, json!({ "notify": "mentions" })).await.expect(200);
    none.on(0).patch(&me, json!({ "notify": "none" })).await.expect(200);
    archived.on(0).patch(&me, json!({ "archived": true })).await.expect(200);
    leaver.on(0).delete(&chat.path("members/leaver/")).await.expect(204);
    alice.on(1).send(&chat, "to all").await;
    all_is_decided(&cluster).await;
    let pushes = provider.expect(1).await;
    assert_eq!((pushes.len(), &pushes[0].json["title"]), (1, &json!("Team")));
    assert_eq!(pushes[0].json["sender_name"], "alice");
    assert_eq!(told(&provider, "all"), [message("to all", 1)]);

    alice.on(0).post(&chat.path("members/"), json!({ "user_ids": ["late"] })).await.expect(200);
    let mention = json!({ "text": "to you", "mentions": ["mentions", "none", "late"] });
    alice.on(0).post(&chat.path("messages/"), mention).await.expect(201);
    all_is_decided(&cluster).await;
    assert_eq!(told(&provider, "all")[1..], [message("to you", 2)]);
    assert_eq!(told(&provider, "mentions"), [message("to you", 1)]);
    assert_eq!(told(&provider, "late"), [message("to you", 1)]);
    for quiet in ["none", "archived", "leaver", "alice"] {
        assert_eq!(told(&provider, quiet), [], "{quiet}");
    }
    for user in [all, mentions, late] {
        let name = &user.id;
        let last = told(&provider, name).pop().expect("a push").2;
        assert_eq!(last, badge(user).await, "{name}");
    }
    // Silenced afterwards, and out: what is shown is taken back, and counts no more.
    all.on(0).patch(&me, json!({ "notify": "none" })).await.expect(200);
    alice.on(0).delete(&chat.path("members/late/")).await.expect(204);
    all_is_decided(&cluster).await;
    assert_eq!(told(&provider, "all")[2..], [silent("read", 0)]);
    assert_eq!(told(&provider, "late")[1..], [silent("read", 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_taken_back_and_what_never_was_told_falls_back_to_what_is_left() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    for user in [&bob, &carol] {
        register(user, 0, &user.id, provider.subscription(&user.id)).await;
    }
    let chat = group(&alice, "Team", &["bob", "carol"]).await;
    let direct = alice.on(0).open_chat(&bob).await;
    let delete = async |chat: &Chat, sent: &Value| {
        let id = sent["message_id"].as_str().expect("an id");
        alice.on(0).delete(&chat.path(&format!("messages/{id}/"))).await.expect(204);
    };
    let first = alice.on(0).send(&chat, "a slip").await;
    let second = alice.on(0).send(&direct, "another").await;
    all_is_decided(&cluster).await;
    delete(&chat, &first).await;
    all_is_decided(&cluster).await;
    delete(&direct, &second).await;
    all_is_decided(&cluster).await;
    assert_eq!(told(&provider, "carol"), [message("a slip", 1), silent("read", 0)]);
    let to_bob = told(&provider, "bob");
    assert_eq!(to_bob.last(), Some(&silent("read", 0)), "{to_bob:?}");
    // While the device's provider is slow, the newest message goes: the one before it is told.
    provider.open(false);
    let count = provider.pushes().len();
    alice.on(0).send(&direct, "on its way").await;
    provider.expect(count + 1).await;
    alice.on(0).send(&direct, "stays").await;
    let goes = alice.on(0).send(&direct, "goes").await;
    eventually(async || {
        let wanted = "SELECT count(*) FROM push_marks WHERE user_id = 'bob' AND want_seq = 4";
        match cluster.psql_value::<i64>(wanted).await {
            1 => Ok(()),
            _ => Err("not walked yet".to_owned()),
        }
    })
    .await;
    delete(&direct, &goes).await;
    provider.open(true);
    all_is_decided(&cluster).await;
    let last = told(&provider, "bob");
    assert_eq!(last[to_bob.len()..], [message("on its way", 1), message("stays", 2)]);
    // A chat that is gone, and a user who is.
    alice.on(0).delete(&direct.path("")).await.expect(204);
    all_is_decided(&cluster).await;
    assert_eq!(told(&provider, "bob").pop(), Some(silent("read", 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_writes_nothing_for_push_and_nothing_is_asked_where_no_platform_is_set_up() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "off").await;
    bob.on(0).mark_read(&chat).await;
    let rows = "SELECT (SELECT count(*) FROM push_chats) + (SELECT count(*) FROM push_lanes)";
    assert_eq!(cluster.psql_value::<i64>(rows).await, 0);
    for name in ["store.walk_push", "store.take_push_lanes", "store.delete_outbox_for_push"] {
        assert_eq!(cluster.statements(0, name).await, 0, "{name}");
    }

    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    let chat = alice.on(0).open_chat(&bob).await;
    let before = cluster.statements(0, "store.send_usual").await;
    alice.on(0).send(&chat, "on").await;
    assert_eq!(cluster.statements(0, "store.send_usual").await, before + 1);
    all_is_decided(&cluster).await;
    assert_eq!(told(&provider, "b"), [message("on", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sleepers_of_a_large_group_are_walked_in_steps_and_each_is_told_once() {
    const SLEEPERS: i64 = 1_025;
    let provider = Provider::start().await;
    let settings = provider.settings();
    let cluster = Cluster::with(2, |config| {
        settings(config);
        // They have no device yet that anything could be sent to: the queue alone is looked at.
        config.push.push_concurrency = 1;
    })
    .await;
    let alice = cluster.user("alice");
    let chat = group(&alice, "Town", &[]).await;
    let fill = format!(
        "INSERT INTO users (user_id) SELECT 'sleeper ' || n FROM generate_series(1, {SLEEPERS}) n;
         INSERT INTO members (chat_id, user_id)
         SELECT '{chat}', 'sleeper ' || n FROM generate_series(1, {SLEEPERS}) n;
         UPDATE chats SET member_count = {SLEEPERS} + 1, receipts = false WHERE chat_id = '{chat}';
         INSERT INTO devices (user_id, device_id, platform, token, token_key, preview)
         SELECT 'sleeper ' || n, 'phone', 'apns', 'aa' || n, sha256(n::text::bytea), false
           FROM generate_series(1, {SLEEPERS}) n;
         INSERT INTO push_lanes (user_id, device_id)
         SELECT user_id, device_id FROM devices"
    );
    cluster.psql(&fill).await;
    provider.open(false);
    alice.on(0).send(&chat, "wake up").await;
    eventually(async || {
        let wanted = "SELECT count(*) FROM push_marks WHERE want_seq = 1";
        match cluster.psql_value::<i64>(wanted).await {
            SLEEPERS => Ok(()),
            count => Err(format!("{count} are wanted")),
        }
    })
    .await;
    let done = "SELECT count(*) FROM push_chats WHERE walked_seq = 1 AND to_seq IS NULL";
    eventually(async || match cluster.psql_value::<i64>(done).await {
        1 => Ok(()),
        _ => Err("the walk goes on".to_owned()),
    })
    .await;
    // The rest would take its time here.
    cluster.psql("DELETE FROM push_marks; DELETE FROM push_lanes; DELETE FROM devices").await;
    provider.open(true);
    cluster
        .psql(&format!("DELETE FROM members WHERE user_id <> 'alice' AND chat_id = '{chat}'"))
        .await;
    cluster.psql(&format!("UPDATE chats SET member_count = 1 WHERE chat_id = '{chat}'")).await;
    cluster.redis_flush().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_do_not_wait_for_redis() {
    let provider = Provider::start().await;
    let cluster = Cluster::with_own_stack(2, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&bob, 0, "b", provider.subscription("b")).await;
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "before").await;
    provider.expect(1).await;
    cluster.stack().redis.kill();
    alice.on(0).send(&chat, "while it is away").await;
    provider.expect(2).await;
    bob.on(0).mark_read(&chat).await;
    let last = provider.expect(3).await.remove(2);
    assert_eq!((&last.json["type"], &last.json["badge"]), (&json!("read"), &json!(0)));
    cluster.stack().redis.restart().await.expect("Redis comes back");
    all_is_decided(&cluster).await;
    assert_eq!(provider.pushes().len(), 3, "{:#?}", provider.pushes());
}
