//! Counters of groups are exact for every member, at any size.

use serde_json::{Value, json};

use super::{add, create, crowd};
use crate::harness::{Chat, Client, Cluster};

/// Unread messages and mentions that a user is told of a chat.
async fn counters(client: &Client, chat: &Chat) -> (i64, i64) {
    let summary = client.get("/chats/unread/").await.expect(200);
    let all = summary["chats"].as_array().expect("chats");
    let one = all.iter().find(|one| one["chat_id"] == *chat.id).expect("the chat");
    let number = |name: &str| one[name].as_i64().expect("a number");
    let shown = client.chat(chat).await;
    assert_eq!(shown["unread_count"], one["unread_count"], "list and chat agree");
    assert_eq!(shown["unread_mentions"], one["unread_mentions"]);
    (number("unread_count"), number("unread_mentions"))
}

async fn say(client: &Client, chat: &Chat, text: &str, mentions: Value) -> Value {
    client
        .post(&chat.path("messages/"), json!({ "text": text, "mentions": mentions }))
        .await
        .expect(201)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_has_their_own_exact_count_on_every_replica() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let chat = create(&user("alice", 0), "Counted", &["bob", "carol", "dave"]).await;
    let mut sent = Vec::new();
    for n in 0..10 {
        let sender = ["alice", "bob", "carol"][n % 3];
        sent.push(user(sender, n % 2).send(&chat, "x").await);
    }
    // alice sent four, bob and carol three each.
    for (id, expected) in [("alice", 6), ("bob", 7), ("carol", 7), ("dave", 10)] {
        for replica in 0..2 {
            assert_eq!(counters(&user(id, replica), &chat).await.0, expected, "{id}");
        }
    }
    let up_to = json!({ "up_to_seq": 5 });
    let read = user("dave", 1).post(&chat.path("mark_read/"), up_to).await.expect(200);
    assert_eq!((&read["unread_count"], &read["total_unread"]), (&json!(5), &json!(5)));
    let path = |n: usize| {
        chat.path(&format!("messages/{}/", sent[n]["message_id"].as_str().expect("an id")))
    };
    // One read, one unread by dave; the first is alice's.
    for n in [0, 6] {
        user("alice", 0).delete(&path(n)).await.expect(204);
    }
    for (id, expected) in [("alice", 6), ("bob", 5), ("carol", 5), ("dave", 4)] {
        assert_eq!(counters(&user(id, 0), &chat).await.0, expected, "{id}");
    }
    // Counted from Postgres alone.
    cluster.redis_flush().await;
    assert_eq!(counters(&user("dave", 1), &chat).await.0, 4);
    user("dave", 0).mark_read(&chat).await;
    user("dave", 0).send(&chat, "mine is not unread").await;
    assert_eq!(counters(&user("dave", 1), &chat).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_size_of_receipts_marks_are_silent_and_exact() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let owner = user("owner", 0);
    let many = crowd(40);
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let chat = create(&owner, "Large", &names).await;
    assert_eq!(owner.chat(&chat).await["receipts"], false);
    for (n, name) in names.iter().take(5).enumerate() {
        user(name, n % 2).send(&chat, "x").await;
    }
    let before = owner.chat(&chat).await["last_ev"].clone();
    let read = user(names[30], 1)
        .post(&chat.path("mark_read/"), json!({ "up_to_seq": 3 }))
        .await
        .expect(200);
    assert_eq!(read["unread_count"], 2);
    assert_eq!(owner.chat(&chat).await["last_ev"], before, "a silent mark takes no revision");
    assert_eq!(counters(&user(names[30], 0), &chat).await.0, 2);
    assert_eq!(counters(&user(names[31], 0), &chat).await.0, 5);
    assert_eq!(counters(&user(names[0], 1), &chat).await.0, 4);
    let page = owner.get(&chat.path("members/")).await.expect(200);
    assert_eq!(page["results"][0]["read_seq"], json!(null));
    // For good: a group that shrinks gets none back.
    for name in &names[10..40] {
        owner
            .delete(&chat.path(&format!("members/{}/", name.replace(' ', "%20"))))
            .await
            .expect(204);
    }
    assert_eq!(owner.chat(&chat).await["receipts"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn mentions_are_counted_for_whom_they_mention() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let chat = create(&user("alice", 0), "Mentioned", &["bob", "carol"]).await;
    let one =
        say(&user("alice", 0), &chat, "hi bob", json!(["bob", "alice", "stranger", "bob"])).await;
    assert_eq!(one["mentions"], json!(["bob"]), "members only, and not oneself");
    let all = say(&user("alice", 1), &chat, "hi all", json!("all")).await;
    assert_eq!(all["mentions"], "all");
    say(&user("carol", 0), &chat, "nobody", json!([])).await;
    assert_eq!(counters(&user("bob", 1), &chat).await, (3, 2));
    assert_eq!(counters(&user("carol", 1), &chat).await, (2, 1));
    assert_eq!(counters(&user("alice", 1), &chat).await, (1, 0));
    // An edit mentions others.
    let path = chat.path(&format!("messages/{}/", one["message_id"].as_str().expect("an id")));
    let edited = json!({ "text": "hi carol", "mentions": ["carol"] });
    assert_eq!(
        user("alice", 0).patch(&path, edited).await.expect(200)["mentions"],
        json!(["carol"])
    );
    assert_eq!(counters(&user("bob", 0), &chat).await, (3, 1));
    assert_eq!(counters(&user("carol", 0), &chat).await, (2, 2));
    let kept = user("alice", 0).patch(&path, json!({ "text": "hi again" })).await.expect(200);
    assert_eq!(kept["mentions"], json!(["carol"]), "left out, they stay");
    user("alice", 1).delete(&path).await.expect(204);
    assert_eq!(counters(&user("carol", 0), &chat).await, (1, 1));
    user("carol", 0).mark_read(&chat).await;
    assert_eq!(counters(&user("carol", 1), &chat).await, (0, 0));
    // Mentions are content: a retry with others is another message.
    let body = json!({ "text": "k", "client_msg_id": "k", "mentions": ["bob"] });
    user("alice", 0).post(&chat.path("messages/"), body.clone()).await.expect(201);
    user("alice", 1).post(&chat.path("messages/"), body).await.expect(200);
    let other = json!({ "text": "k", "client_msg_id": "k" });
    user("alice", 0)
        .post(&chat.path("messages/"), other)
        .await
        .expect_problem(422, "idempotency_mismatch");
    let faults = json!({ "text": "x", "mentions": "everybody" });
    user("alice", 0).post(&chat.path("messages/"), faults).await.expect_faults(&["mentions"]);
    let many = json!({ "text": "x", "mentions": crowd(51) });
    user("alice", 0).post(&chat.path("messages/"), many).await.expect_faults(&["mentions"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_large_group_only_its_admins_mention_all() {
    let cluster = Cluster::start(1).await;
    let many = crowd(33);
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let owner = cluster.user("owner").on(0);
    let chat = create(&owner, "Loud", &names).await;
    let body = json!({ "text": "hey", "mentions": "all" });
    let plain = cluster.user(names[0]).on(0);
    plain.post(&chat.path("messages/"), body.clone()).await.expect_problem(403, "forbidden");
    owner.post(&chat.path("messages/"), body).await.expect(201);
    assert_eq!(counters(&cluster.user(names[32]).on(0), &chat).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_badge_heeds_what_each_chat_may_notify_of() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let bob = user("bob", 0);
    let direct = user("alice", 0).open_chat(&cluster.user("bob")).await;
    let loud = create(&user("alice", 0), "Loud", &["bob"]).await;
    let mentions = create(&user("alice", 0), "Mentions", &["bob"]).await;
    let silent = create(&user("alice", 0), "Silent", &["bob"]).await;
    let archived = create(&user("alice", 0), "Archived", &["bob"]).await;
    let set = async |chat: &Chat, own: Value| {
        let told = bob.patch(&chat.path("me/"), own.clone()).await.expect(200);
        for (name, value) in own.as_object().expect("an object") {
            assert_eq!(&told[name], value);
        }
    };
    set(&mentions, json!({ "notify": "mentions" })).await;
    set(&silent, json!({ "notify": "none" })).await;
    set(&archived, json!({ "archived": true })).await;
    set(&direct, json!({ "pinned": true })).await;
    for chat in [&direct, &loud, &mentions, &silent, &archived] {
        user("alice", 1).send(chat, "one").await;
    }
    for chat in [&loud, &mentions, &silent, &archived] {
        say(&user("alice", 1), chat, "two", json!(["bob"])).await;
    }
    let summary = user("bob", 1).get("/chats/unread/").await.expect(200);
    assert_eq!(
        (&summary["total"], &summary["total_mentions"], &summary["badge"]),
        (&json!(9), &json!(4), &json!(1 + 2 + 1)),
        "{summary}"
    );
    let ids = async |query: &str| {
        let page = user("bob", 1).get(&format!("/chats/{query}")).await.expect(200);
        let all = page["results"].as_array().expect("chats").clone();
        all.iter()
            .map(|chat| chat["chat_id"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    // Pinned first, then the latest activity; archived ones only where they are asked for.
    assert_eq!(ids("").await, [&direct.id, &silent.id, &mentions.id, &loud.id].map(String::clone));
    assert_eq!(ids("?filter=archived").await, [archived.id.as_str()]);
    assert_eq!(ids("?filter=pinned").await, [direct.id.as_str()]);
    user("bob", 0).mark_read(&silent).await;
    assert_eq!(
        ids("?filter=unread").await,
        [&direct.id, &mentions.id, &loud.id].map(String::clone)
    );
    bob.get("/chats/?filter=lost").await.expect_faults(&["filter"]);
    bob.patch(&loud.path("me/"), json!({ "notify": "loudly", "pinned": 1 }))
        .await
        .expect_faults(&["notify", "pinned"]);
    add(&user("alice", 0), &loud, &["carol"]).await;
    user("carol", 0)
        .patch(&direct.path("me/"), json!({}))
        .await
        .expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_reaches_every_copy_by_one_value_in_redis() {
    let cluster = Cluster::start(2).await;
    let [alice, bob] = ["alice", "bob"].map(|id| cluster.user(id));
    let chat = create(&alice.on(0), "Copied", &["bob", "carol"]).await;
    for member in [&alice, &bob] {
        assert_eq!(member.on(1).unread_in(&chat).await, 0);
    }
    for text in ["one", "two", "three"] {
        alice.on(0).send(&chat, text).await;
    }
    assert_eq!(bob.on(1).unread_in(&chat).await, 3);
    // If Redis said otherwise, all replicas would.
    let (mut redis, key) = (cluster.redis().await, format!("head:{}", chat.id));
    let head = redis.get(&key).await.expect("a head");
    let mut numbers: Vec<&str> = head.split('|').collect();
    numbers[3] = "103";
    let full = format!("{}{key}", cluster.redis_prefix());
    redis.command(&["SET", &full, &numbers.join("|")]).await;
    for replica in [0, 1] {
        assert_eq!(bob.on(replica).unread_in(&chat).await, 103);
        assert_eq!(alice.on(replica).unread_in(&chat).await, 0, "her own are in her copy");
    }
    // A deletion counts for those only who have not read so far: Postgres is asked, and Redis right again.
    let last = alice.on(0).send(&chat, "four").await;
    alice
        .on(0)
        .delete(&chat.path(&format!("messages/{}/", last["message_id"].as_str().expect("an id"))))
        .await
        .expect(204);
    for replica in [0, 1] {
        assert_eq!(bob.on(replica).unread_in(&chat).await, 3);
    }
    // A mention is the member's own.
    say(&alice.on(0), &chat, "@bob", json!(["bob"])).await;
    assert_eq!(counters(&bob.on(1), &chat).await, (4, 1));
    assert_eq!(counters(&cluster.user("carol").on(1), &chat).await, (4, 0));
    say(&alice.on(0), &chat, "@all", json!("all")).await;
    assert_eq!(counters(&bob.on(1), &chat).await, (5, 2));
    assert_eq!(counters(&cluster.user("carol").on(1), &chat).await, (5, 1));
}
