//! What a new member sees of what was said before.

use serde_json::{Value, json};

use super::{add, create, create_with};
use crate::harness::{Chat, Client, Cluster};

async fn texts(client: &Client, chat: &Chat, query: &str) -> Vec<String> {
    let page = client.history(chat, query).await;
    let results = page["results"].as_array().expect("messages");
    let text = |m: &Value| m["text"].as_str().expect("a text").to_owned();
    results.iter().filter(|m| m["type"] == "text").map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_sees_all_and_has_nothing_unread() {
    let cluster = Cluster::start(1).await;
    let (owner, bob) = (cluster.user("owner").on(0), cluster.user("bob").on(0));
    let chat = create(&owner, "Told", &[]).await;
    owner.send(&chat, "before").await;
    add(&owner, &chat, &["bob"]).await;
    assert_eq!(texts(&bob, &chat, "").await, ["before"]);
    assert_eq!(bob.unread_in(&chat).await, 0);
    owner.send(&chat, "after").await;
    assert_eq!(bob.unread_in(&chat).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_history_begins_with_joining_nothing_before_is_seen() {
    let cluster = Cluster::start(2).await;
    let (owner, bob) = (cluster.user("owner").on(0), cluster.user("bob").on(1));
    let chat = create_with(&owner, "Discreet", &[], json!({ "history": "joined" })).await;
    let secret = owner.send(&chat, "a secret").await;
    let id = secret["message_id"].as_str().expect("an id").to_owned();
    add(&owner, &chat, &["bob"]).await;
    owner.send(&chat, "public").await;
    let seen = bob.chat(&chat).await;
    assert!(seen["first_seq"].as_i64() > secret["seq"].as_i64(), "{seen}");
    assert_eq!(seen["unread_count"], 1);
    for query in ["", "?before=3", "?after=0", "?around=1"] {
        assert!(texts(&bob, &chat, query).await.iter().all(|text| text != "a secret"), "{query}");
    }
    bob.get(&chat.path(&format!("messages/{id}/"))).await.expect_problem(404, "message_not_found");
    let found = bob.get(&chat.path("search/?query=secret")).await.expect(200);
    assert_eq!(found["results"], json!([]));
    bob.post(&chat.path(&format!("messages/{id}/report/")), json!({}))
        .await
        .expect_problem(404, "message_not_found");
    // An edit of it is not told to him either, but its revision is.
    let epoch = bob.history(&chat, "").await["epoch"].as_str().expect("an epoch").to_owned();
    let mut resumed = bob.resume(&chat, 0, &epoch).await;
    let frames = resumed.frames_until("synced").await;
    assert!(!json!(frames).to_string().contains("a secret"), "{frames:?}");
    owner
        .patch(&chat.path(&format!("messages/{id}/")), json!({ "text": "a secret still" }))
        .await
        .expect(200);
    owner.send(&chat, "next").await;
    let skipped = resumed.expect("skipped").await;
    let next = resumed.expect("message.created").await;
    assert_eq!(skipped["ev"].as_i64().map(|ev| ev + 1), next["ev"].as_i64());
    // Who leaves and returns sees from the latest joining on.
    bob.delete(&chat.path("members/bob/")).await.expect(204);
    owner.send(&chat, "while he was away").await;
    add(&owner, &chat, &["bob"]).await;
    assert!(texts(&bob, &chat, "").await.is_empty());
}
