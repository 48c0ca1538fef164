//! The progress of uploads that replicas pass on to an object store.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::model::ChatId;

/// An upload in parts.
#[derive(Debug, Clone)]
pub struct AttachmentUpload {
    /// The object store's name for it.
    pub upload_id: String,
    /// The object store's names for the parts that it has, in order.
    pub part_ids: Vec<String>,
}

impl Store {
    pub async fn get_attachment_upload(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
    ) -> Result<Option<AttachmentUpload>, StoreError> {
        let params = [(&chat_id as _, Type::UUID), (&attachment_id as _, Type::UUID)];
        let row = self.query_opt(GET, &params).await?;
        Ok(row.map(|row| AttachmentUpload {
            upload_id: row.get("upload_id"),
            part_ids: row.get("part_ids"),
        }))
    }

    /// Notes a new upload; false: there is one already.
    pub async fn begin_attachment_upload(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
        upload_id: &str,
    ) -> Result<bool, StoreError> {
        let row = self
            .query_opt(
                BEGIN,
                &[(&chat_id, Type::UUID), (&attachment_id, Type::UUID), (&upload_id, Type::TEXT)],
            )
            .await?;
        Ok(row.is_some())
    }

    /// Notes that the object store has a part, the `at`-th; false: another request was faster.
    pub async fn add_attachment_part(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
        upload_id: &str,
        at: usize,
        part_id: &str,
    ) -> Result<bool, StoreError> {
        let at = i32::try_from(at).unwrap_or(i32::MAX);
        let row = self
            .query_opt(
                ADD_PART,
                &[
                    (&chat_id, Type::UUID),
                    (&attachment_id, Type::UUID),
                    (&upload_id, Type::TEXT),
                    (&at, Type::INT4),
                    (&part_id, Type::TEXT),
                ],
            )
            .await?;
        Ok(row.is_some())
    }

    /// Forgets an upload, which is complete or given up.
    pub async fn end_attachment_upload(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
    ) -> Result<(), StoreError> {
        self.query(END, &[(&chat_id, Type::UUID), (&attachment_id, Type::UUID)]).await?;
        Ok(())
    }
}

const GET: &str = "\
-- store.get_attachment_upload
SELECT upload_id, part_ids FROM attachment_uploads WHERE chat_id = $1 AND attachment_id = $2";

const BEGIN: &str = "\
-- store.begin_attachment_upload
INSERT INTO attachment_uploads (chat_id, attachment_id, upload_id) VALUES ($1, $2, $3)
    ON CONFLICT DO NOTHING RETURNING 1";

const ADD_PART: &str = "\
-- store.add_attachment_part
UPDATE attachment_uploads SET part_ids = part_ids || $5
 WHERE chat_id = $1 AND attachment_id = $2 AND upload_id = $3 AND cardinality(part_ids) = $4
RETURNING 1";

const END: &str = "\
-- store.end_attachment_upload
DELETE FROM attachment_uploads WHERE chat_id = $1 AND attachment_id = $2";
