//! Devices are told of what their users have not read, here by providers that speak the real protocols.

mod attempts;
mod crashes;
mod decisions;
mod devices;
mod platforms;
pub(crate) mod provider;
mod races;

use serde_json::Value;

use crate::harness::{Cluster, User, eventually};

/// Nothing waits to be walked, looked at or sent any more.
pub(crate) async fn all_is_decided(cluster: &Cluster) {
    eventually(async || {
        let waiting = "SELECT 'outbox', outbox_id::text, chats::text FROM outbox
             UNION ALL SELECT 'chat', chat_id::text, due_at::text FROM push_chats WHERE due_at IS NOT NULL
             UNION ALL SELECT 'lane', user_id, due_at::text FROM push_lanes WHERE due_at IS NOT NULL";
        match cluster.psql(waiting).await {
            rows if rows.is_empty() => Ok(()),
            rows => Err(format!("{rows:?}")),
        }
    })
    .await;
}

/// Registers a device.
pub(crate) async fn register(user: &User, replica: usize, device: &str, body: Value) -> Value {
    user.on(replica).put(&format!("/devices/{device}/"), body).await.expect(200)
}

/// The badge that `GET /chats/unread/` gives.
pub(crate) async fn badge(user: &User) -> Value {
    user.on(0).get("/chats/unread/").await.expect(200)["badge"].clone()
}
