//! What is found over all chats of a user: texts, and mentions.

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::{
    groups::{create, create_with},
    harness::{Client, Cluster},
};

/// All hits, by pages of `limit`: the texts of their messages.
async fn all_pages(client: &Client, path: &str, limit: usize) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}limit={limit}{cursor}")).await.expect(200);
        let results = page["results"].as_array().expect("a list");
        assert!(results.len() <= limit);
        for one in results {
            let message = if one["message"].is_object() { &one["message"] } else { one };
            found.push(message["text"].as_str().expect("a text").to_owned());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_over_all_chats_gives_the_newest_first() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let mut chats = vec![create(&alice.on(0), "Group", &["bob", "carol"]).await];
    for other in ["bob", "carol"] {
        chats.push(alice.on(0).open_chat(&cluster.user(other)).await);
    }
    let foreign = cluster.user("bob").on(0).open_chat(&cluster.user("carol")).await;
    cluster.user("bob").on(0).send(&foreign, "needle of others").await;
    let mut expected = Vec::new();
    for n in 0..60 {
        let text = if n % 4 == 3 { format!("hay {n}") } else { format!("needle {n}") };
        alice.on(n % 2).send(&chats[(n * n) % 3], &text).await;
        if n % 4 != 3 {
            expected.insert(0, text);
        }
    }
    for limit in [1, 7, 50] {
        assert_eq!(
            all_pages(&alice.on(1), "/search/?query=needle&", limit).await,
            expected,
            "{limit}"
        );
    }
    let page = alice.on(0).get("/search/?query=needle").await.expect(200);
    assert_eq!(page["complete"], true);
    assert_eq!(page["results"][0]["highlights"], json!([[0, 6]]));
    let none = json!({ "results": [], "next": null, "complete": true });
    assert_eq!(alice.on(1).get("/search/?query=nothing").await.expect(200), none);
    assert_eq!(cluster.user("nobody").on(0).get("/search/?query=needle").await.expect(200), none);
    alice.on(0).get("/search/?query=&limit=51").await.expect_faults(&["query", "limit"]);
    alice.on(0).get("/search/?query=a&cursor=!").await.expect_problem(400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_later_finds_nothing_of_before() {
    let cluster = Cluster::start(1).await;
    let (owner, late) = (cluster.user("owner").on(0), cluster.user("late").on(0));
    let chat = create_with(&owner, "Late", &["early"], json!({ "history": "joined" })).await;
    let body = json!({ "text": "needle before", "mentions": "all" });
    owner.post(&chat.path("messages/"), body.clone()).await.expect(201);
    owner.post(&chat.path("members/"), json!({ "user_ids": ["late"] })).await.expect(200);
    assert_eq!(all_pages(&late, "/search/?query=needle&", 10).await, [""; 0]);
    assert_eq!(all_pages(&late, "/mentions/?", 10).await, [""; 0]);
    let body = json!({ "text": "needle after", "mentions": "all" });
    owner.post(&chat.path("messages/"), body).await.expect(201);
    assert_eq!(all_pages(&late, "/search/?query=needle&", 10).await, ["needle after"]);
    assert_eq!(all_pages(&late, "/mentions/?", 10).await, ["needle after"]);
    late.delete(&chat.path("members/late/")).await.expect(204);
    assert_eq!(all_pages(&late, "/search/?query=needle&", 10).await, [""; 0]);
    assert_eq!(all_pages(&late, "/mentions/?", 10).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mentions_of_all_chats_are_listed_newest_first() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chats = [
        alice.on(0).open_chat(&bob).await,
        create(&alice.on(0), "One", &["bob"]).await,
        create(&alice.on(0), "Two", &["bob", "carol"]).await,
    ];
    let mut expected = Vec::new();
    let mut sent = Vec::new();
    for n in 0..24 {
        let whom = [json!(["bob"]), json!("all"), json!([]), json!(["alice"])][n % 4].clone();
        let (text, chat) = (format!("message {n}"), &chats[n % 3]);
        let body = json!({ "text": text, "mentions": whom });
        sent.push(alice.on(n % 2).post(&chat.path("messages/"), body).await.expect(201));
        if n % 4 < 2 {
            expected.insert(0, text);
        }
    }
    for limit in [1, 5, 100] {
        assert_eq!(all_pages(&bob.on(1), "/mentions/?", limit).await, expected, "{limit}");
    }
    // Not one's own, and not what was deleted.
    assert_eq!(all_pages(&alice.on(0), "/mentions/?", 100).await, [""; 0]);
    let newest = &sent[21];
    let id = newest["message_id"].as_str().expect("an id");
    alice.on(0).delete(&chats[0].path(&format!("messages/{id}/"))).await.expect(204);
    assert_eq!(all_pages(&bob.on(0), "/mentions/?", 100).await, expected[1..]);
    bob.on(0).get("/mentions/?limit=0").await.expect_faults(&["limit"]);
    let page: Value = bob.on(0).get("/mentions/?limit=1").await.expect(200);
    assert_eq!(page["results"][0]["my_reactions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_reaches_every_chat_however_many_there_are() {
    const CHATS: usize = 1_010;
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let opened = (0..CHATS).map(|n| {
        let client = alice.on(n % 2);
        async move {
            let chat = create(&client, "One of many", &[]).await;
            client.send(&chat, &format!("needle {n}")).await;
        }
    });
    futures_util::stream::iter(opened).buffer_unordered(16).collect::<()>().await;
    let mut found = all_pages(&alice.on(0), "/search/?query=needle&", 50).await;
    let mut expected: Vec<String> = (0..CHATS).map(|n| format!("needle {n}")).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
