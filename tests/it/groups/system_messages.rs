//! A small group tells its members in its history what happened to it.

use beseda::config::SystemMessages;
use serde_json::{Value, json};

use super::{add, create, crowd};
use crate::harness::{Chat, Client, Cluster};

async fn events(client: &Client, chat: &Chat) -> Vec<Value> {
    let page = client.history(chat, "").await;
    let results = page["results"].as_array().expect("messages");
    results.iter().filter(|m| m["type"] == "system").map(|m| m["system"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_a_change_however_many_it_is_about() {
    let cluster = Cluster::start(1).await;
    let (owner, bob) = (cluster.user("owner").on(0), cluster.user("bob").on(0));
    let chat = create(&owner, "Chronicle", &["bob"]).await;
    assert_eq!(events(&owner, &chat).await, Vec::<Value>::new(), "none at creation");
    add(&owner, &chat, &["carol", "dave"]).await;
    owner.patch(&chat.path(""), json!({ "title": "Annals" })).await.expect(200);
    owner.delete(&chat.path("members/carol/")).await.expect(204);
    cluster.user("dave").on(0).delete(&chat.path("members/dave/")).await.expect(204);
    owner.patch(&chat.path("members/bob/"), json!({ "role": "owner" })).await.expect(200);
    let told = events(&bob, &chat).await;
    let kinds: Vec<(&Value, &Value)> = told.iter().map(|e| (&e["event"], &e["user_ids"])).collect();
    assert_eq!(
        json!(kinds),
        json!([
            ["member.joined", ["carol", "dave"]],
            ["chat.changed", []],
            ["member.removed", ["carol"]],
            ["member.left", ["dave"]],
            ["owner.changed", ["bob"]],
        ])
    );
    assert_eq!((&told[1]["title"], &told[1]["by"]), (&json!("Annals"), &json!("owner")));
    // They count for nobody, lift nothing, and are nobody's.
    assert_eq!(bob.unread_in(&chat).await, 0);
    let last = bob.chat(&chat).await["last_message"].clone();
    assert_eq!(
        (&last["type"], &last["sender_id"], &last["text"]),
        (&json!("system"), &json!(null), &json!(""))
    );
    let path = chat.path(&format!("messages/{}/", last["message_id"].as_str().expect("an id")));
    bob.patch(&path, json!({ "text": "mine" })).await.expect_problem(403, "forbidden");
    owner.send(&chat, "a real one").await;
    assert_eq!(bob.unread_in(&chat).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_groups_have_none_unless_the_installation_wants_them() {
    for (setting, expected) in
        [(SystemMessages::Small, 0), (SystemMessages::All, 1), (SystemMessages::Off, 0)]
    {
        let cluster = Cluster::with(1, |config| config.groups.system_messages = setting).await;
        let owner = cluster.user("owner").on(0);
        let many = crowd(40);
        let names: Vec<&str> = many.iter().map(String::as_str).collect();
        let chat = create(&owner, "Large", &names).await;
        add(&owner, &chat, &["one more"]).await;
        assert_eq!(events(&owner, &chat).await.len(), expected, "{setting:?}");
    }
}
