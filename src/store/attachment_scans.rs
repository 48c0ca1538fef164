//! Attachments that a scanner has yet to judge.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{AttachmentState, Changed, Store, StoreError, row::Row, rows::epoch};
use crate::model::ChatId;

/// An attachment to be scanned.
#[derive(Debug, Clone, Copy)]
pub struct DueScan {
    pub chat_id: ChatId,
    pub attachment_id: Uuid,
    /// In bytes.
    pub size: u64,
    /// The number of scans that failed.
    pub attempts: i32,
}

impl Store {
    /// Takes up to `limit` attachments that are to be scanned, for as long as `lease`.
    pub async fn take_attachment_scans(
        &self,
        limit: i64,
        lease: Duration,
    ) -> Result<Vec<DueScan>, StoreError> {
        let lease = lease.as_secs_f64();
        let rows = self.query(TAKE, &[(&limit, Type::INT8), (&lease, Type::FLOAT8)]).await?;
        let scan = |row: &Row| DueScan {
            chat_id: row.get("chat_id"),
            attachment_id: row.get("attachment_id"),
            size: row.get::<i64>("size").unsigned_abs(),
            attempts: row.get("attempts"),
        };
        Ok(rows.iter().map(scan).collect())
    }

    /// Notes that a scan failed, and is tried again after `pause`.
    pub async fn postpone_attachment_scan(
        &self,
        scan: &DueScan,
        pause: Duration,
    ) -> Result<(), StoreError> {
        let pause = pause.as_secs_f64();
        let params = [
            (&scan.chat_id as _, Type::UUID),
            (&scan.attachment_id as _, Type::UUID),
            (&pause as _, Type::FLOAT8),
        ];
        self.query(POSTPONE, &params).await?;
        Ok(())
    }

    /// Stores what the scanner said; returns the revision of the message, where the attachment was sent.
    pub async fn settle_attachment_scan(
        &self,
        scan: &DueScan,
        state: AttachmentState,
    ) -> Result<Option<Changed>, StoreError> {
        let params = [
            (&scan.chat_id as _, Type::UUID),
            (&scan.attachment_id as _, Type::UUID),
            (&state.name() as _, Type::TEXT),
        ];
        let row = self.query_opt(SETTLE, &params).await?;
        Ok(row.as_ref().and_then(Changed::read))
    }
}

const TAKE: &str = "\
-- store.take_attachment_scans
UPDATE attachments a SET busy_until = clock_timestamp() + $2 * interval '1 second'
 WHERE a.ctid = ANY (ARRAY(
       SELECT a.ctid FROM attachments a WHERE a.state = 'scanning' AND a.busy_until <= clock_timestamp()
        ORDER BY a.busy_until LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING a.chat_id, a.attachment_id, a.size, a.attempts";

const POSTPONE: &str = "\
-- store.postpone_attachment_scan
UPDATE attachments SET busy_until = clock_timestamp() + $3 * interval '1 second', attempts = attempts + 1
 WHERE chat_id = $1 AND attachment_id = $2 AND state = 'scanning'";

const SETTLE: &str = concat!(
    "-- store.settle_attachment_scan\nSELECT ev, outbox_id, ",
    epoch!(),
    " FROM settle_scan($1, $2, $3)"
);
