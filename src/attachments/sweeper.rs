//! Removes the bytes of attachments that are gone, and attachments that were never sent.

use std::time::Duration;

use super::{
    bytes::{ByteError, ByteStore},
    key::{Key, Part},
};
use crate::{
    error::chain,
    store::{Store, StoreError},
};

/// Interval of the search. Nobody waits for it: without its row an attachment cannot be read.
const INTERVAL: Duration = Duration::from_secs(5);

/// Attachments taken at once: each takes the store of attachments some three requests.
const TAKEN: i64 = 64;

/// Sweeps for ever, on every replica; one replica at a time removes an attachment.
pub(super) async fn run(store: Store, bytes: ByteStore) {
    loop {
        tokio::time::sleep(INTERVAL.mul_f64(rand::random_range(0.8..1.2))).await;
        if let Err(error) = sweep(&store, &bytes).await {
            tracing::warn!(error = chain(&error), "removing attachments failed");
        }
    }
}

async fn sweep(store: &Store, bytes: &ByteStore) -> Result<(), StoreError> {
    while store.expire_attachments(TAKEN).await? == TAKEN {}
    store.release_attachment_removals().await?;
    loop {
        let taken = store.take_attachment_removals(TAKEN).await?;
        let more = i64::try_from(taken.len()) == Ok(TAKEN);
        for (chat_id, attachment_id) in taken {
            match bytes.delete(Key { chat_id, attachment_id }, &Part::ALL).await {
                Ok(()) | Err(ByteError::Missing) => {
                    store.end_attachment_removal(chat_id, attachment_id).await?;
                }
                // It is due again later. With a store that is away, the others would fail too.
                Err(error) => {
                    tracing::warn!(error = chain(&error), "an attachment was not removed");
                    return Ok(());
                }
            }
        }
        if !more {
            return Ok(());
        }
    }
}
