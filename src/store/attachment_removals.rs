//! Attachments whose bytes are to be removed.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::model::ChatId;

/// What waits; ages are in seconds, 0 where nothing does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttachmentBacklog {
    pub removals: i64,
    pub oldest_removal: f64,
    pub scans: i64,
    pub oldest_scan: f64,
}

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

    /// Counts what waits to be removed, and to be scanned.
    pub async fn get_attachment_backlog(&self) -> Result<AttachmentBacklog, StoreError> {
        let row = self.query_one(BACKLOG, &[]).await?;
        Ok(AttachmentBacklog {
            removals: row.get("removals"),
            oldest_removal: row.get("oldest_removal"),
            scans: row.get("scans"),
            oldest_scan: row.get("oldest_scan"),
        })
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

/// What a report keeps waits for nobody.
const BACKLOG: &str = "\
-- store.get_attachment_backlog
SELECT r.removals, r.oldest_removal, s.scans, s.oldest_scan
  FROM (SELECT count(*) AS removals,
               coalesce(extract(epoch FROM clock_timestamp() - min(queued_at)), 0)::float8 AS oldest_removal
          FROM attachment_removals WHERE due_at < 'infinity') r
 CROSS JOIN (SELECT count(*) AS scans,
                    coalesce(extract(epoch FROM clock_timestamp() - min(checked_at)), 0)::float8 AS oldest_scan
               FROM attachments WHERE state = 'scanning') s";

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
