//! Groups: chats of many members, who come and go.

mod counters;
mod delivery;
mod history;
mod joining;
mod making;
mod members;
mod moderation;
mod online_count;
mod rights;
mod sync;
mod system_messages;
mod webhooks;

use serde_json::{Value, json};

use crate::harness::{Chat, Client};

/// Creates a group of the caller and these users.
pub(crate) async fn create(owner: &Client, title: &str, user_ids: &[&str]) -> Chat {
    create_with(owner, title, user_ids, json!({})).await
}

/// Creates a group with these settings.
pub(crate) async fn create_with(
    owner: &Client,
    title: &str,
    user_ids: &[&str],
    settings: Value,
) -> Chat {
    let body =
        json!({ "kind": "group", "title": title, "user_ids": user_ids, "settings": settings });
    Chat::from_json(&owner.post("/chats/", body).await.expect(201))
}

/// The ids of all members, in the order of the list.
async fn member_ids(client: &Client, chat: &Chat) -> Vec<String> {
    let page = client.get(&chat.path("members/?limit=100")).await.expect(200);
    let results = page["results"].as_array().expect("members");
    results.iter().map(|m| m["user"]["user_id"].as_str().expect("an id").to_owned()).collect()
}

/// Adds members and returns the answer.
pub(crate) async fn add(client: &Client, chat: &Chat, user_ids: &[&str]) -> Value {
    client.post(&chat.path("members/"), json!({ "user_ids": user_ids })).await.expect(200)
}

/// Makes members known by names, so that a group can have many of them.
pub(crate) fn crowd(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("one of many {n:04}")).collect()
}
