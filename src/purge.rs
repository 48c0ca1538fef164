//! Deletes the remaining rows of deleted chats: of huge ones, and after a replica's crash.

use std::time::Duration;

use crate::{
    error::chain,
    store::{Store, StoreError},
};

/// Interval of the search. Nobody waits for it, because the chat itself is already gone.
const INTERVAL: Duration = Duration::from_secs(5);

/// Purges for ever, on every replica; one replica at a time works on a chat.
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
        while !store.purge_chat(chat_id).await? {}
    }
    Ok(())
}
