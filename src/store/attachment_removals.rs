//! Attachments whose bytes are to be removed.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::model::ChatId;

impl Store {
    /// Drops up to `limit` attachments that were never sent within a day; returns how many.
    pub async fn expire_attachments(&self, limit: i64) -> Result<i64, StoreError> {
        Ok(self.query_one(EXPIRE, &[(&limit, Type::INT8)]).await?.get("dropped"))
    }

    /// Lets go of bytes that waited for a report which is decided by now.
    pub async fn release_attachment_removals(&self) -> Result<(), StoreError> {
        self.query_one(RELEASE, &[]).await.map(drop)
    }

    /// Takes up to `limit` attachments whose bytes are to be removed. Until they are removed they are due again, the
    /// later the more often that failed.
    pub async fn take_attachment_removals(
        &self,
        limit: i64,
    ) -> Result<Vec<(ChatId, Uuid)>, StoreError> {
        let rows = self.query(TAKE, &[(&limit, Type::INT8)]).await?;
        Ok(rows.iter().map(|row| (row.get("chat_id"), row.get("attachment_id"))).collect())
    }

    /// Notes that the bytes are gone.
    pub async fn end_attachment_removal(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
    ) -> Result<(), StoreError> {
        self.query(END, &[(&chat_id, Type::UUID), (&attachment_id, Type::UUID)]).await?;
        Ok(())
    }
}

const EXPIRE: &str = "\
-- store.expire_attachments
SELECT expire_attachments($1) AS dropped";

const RELEASE: &str = "\
-- store.release_attachment_removals
SELECT release_removals() AS released";

/// The pause, which is also the lease: from half a minute to an hour.
const TAKE: &str = "\
-- store.take_attachment_removals
UPDATE attachment_removals r
   SET due_at = clock_timestamp() + interval '30 seconds' * power(2, least(r.attempts, 7)),
       attempts = r.attempts + 1
 WHERE r.ctid = ANY (ARRAY(
       SELECT r.ctid FROM attachment_removals r WHERE r.due_at <= clock_timestamp()
        ORDER BY r.due_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING r.chat_id, r.attachment_id";

const END: &str = "\
-- store.end_attachment_removal
DELETE FROM attachment_removals WHERE chat_id = $1 AND attachment_id = $2";
