//! Deletes what is left of deleted chats: of huge ones, and where a replica died in between.

use std::time::Duration;

use crate::{
    error::chain,
    store::{Store, StoreError},
};

/// How often it is looked for. Nobody waits for it: the chat itself is gone.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs for ever, on every replica; each chat is one replica's at a time.
pub async fn run(store: Store) {
    loop {
        tokio::time::sleep(INTERVAL.mul_f64(rand::random_range(0.8..1.2))).await;
        if let Err(error) = purge_all(&store).await {
            tracing::warn!(error = chain(&error), "purging deleted chats failed");
        }
    }
}

async fn purge_all(store: &Store) -> Result<(), StoreError> {
    while let Some(chat_id) = store.take_purge().await? {
        while !store.purge_messages(chat_id).await? {}
    }
    Ok(())
}
