//! Attachments: their rows; the bytes lie elsewhere.

use std::time::Duration;

use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use super::{
    Param, Store, StoreError,
    refusals::refusal,
    row::Row,
    rows::{time, user},
};
use crate::{
    error::Error,
    model::{Attachment, ChatId, Time, UserId},
};

/// What becomes of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentState {
    /// Its bytes are not there, or not checked.
    Awaited,
    Ready,
    Scanning,
    Blocked,
}

impl AttachmentState {
    /// The value of the type `attachment_state`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Awaited => "awaited",
            Self::Ready => "ready",
            Self::Scanning => "scanning",
            Self::Blocked => "blocked",
        }
    }

    fn parse(raw: &str) -> Self {
        match raw {
            "ready" => Self::Ready,
            "scanning" => Self::Scanning,
            "blocked" => Self::Blocked,
            _ => Self::Awaited,
        }
    }
}

/// A row of `attachments`.
#[derive(Debug, Clone)]
pub struct StoredAttachment {
    pub chat_id: ChatId,
    pub attachment_id: Uuid,
    pub owner_id: UserId,
    pub name: String,
    pub content_type: String,
    /// In bytes.
    pub size: u64,
    pub state: AttachmentState,
    pub thumbnail: bool,
    pub created_at: Time,
    /// The number of the message that it was sent with.
    pub seq: Option<i64>,
}

/// An attachment to be announced.
#[derive(Debug, Clone)]
pub struct AnnouncedAttachment<'a> {
    pub attachment_id: Uuid,
    pub name: &'a str,
    pub content_type: &'a str,
    pub size: u64,
}

/// What the bytes of an attachment were found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// In pixels.
    pub width: Option<i32>,
    pub height: Option<i32>,
    pub blurhash: Option<String>,
    pub thumbnail: bool,
    /// Of audio and video.
    pub duration_ms: Option<i64>,
}

/// How long a replica has an attachment to itself while it checks it, from when it said so last: whoever retries after
/// a crash waits for no longer.
const CHECK_LEASE: Duration = Duration::from_secs(30);

/// A size as Postgres keeps it; the bounds of the settings are far below its own.
fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl Store {
    /// Announces an attachment where its owner may send, and their day has bytes left.
    pub async fn announce_attachment(
        &self,
        chat_id: ChatId,
        owner: &UserId,
        new: &AnnouncedAttachment<'_>,
        daily_bytes: u64,
    ) -> Result<(), Error> {
        let row = self
            .query_one(
                ANNOUNCE_ATTACHMENT,
                &[
                    (&chat_id, Type::UUID),
                    (&owner.as_str(), Type::TEXT),
                    (&new.attachment_id, Type::UUID),
                    (&new.name, Type::TEXT),
                    (&new.content_type, Type::TEXT),
                    (&bytes(new.size), Type::INT8),
                    (&bytes(daily_bytes), Type::INT8),
                ],
            )
            .await?;
        match row.get("outcome") {
            "created" => Ok(()),
            "quota_exceeded" => Err(Error::QuotaExceeded),
            refused => Err(refusal(refused, &row)),
        }
    }

    /// Reads attachments of a chat; unknown ids are left out.
    pub async fn get_attachments(
        &self,
        chat_id: ChatId,
        ids: &[Uuid],
    ) -> Result<Vec<StoredAttachment>, StoreError> {
        let rows =
            self.read(GET_ATTACHMENTS, &[(&chat_id, Type::UUID), (&ids, Type::UUID_ARRAY)]).await?;
        Ok(rows.iter().map(|row| attachment(chat_id, row)).collect())
    }

    /// Reads an attachment that a member may see, whatever its state: one of a message from their `first_seq`
    /// on, or one of their own.
    pub async fn get_visible_attachment(
        &self,
        chat_id: ChatId,
        reader: &UserId,
        attachment_id: Uuid,
    ) -> Result<StoredAttachment, Error> {
        let rows = self
            .read(
                GET_VISIBLE_ATTACHMENT,
                &[
                    (&chat_id, Type::UUID),
                    (&reader.as_str(), Type::TEXT),
                    (&attachment_id, Type::UUID),
                ],
            )
            .await?;
        let row = rows.first().ok_or(Error::ChatNotFound)?;
        if row.get::<Option<Uuid>>("attachment_id").is_none() {
            return Err(Error::AttachmentNotFound);
        }
        Ok(attachment(chat_id, row))
    }

    /// Lists a page of a user's attachments, oldest first, past `after`, also as clients are given them.
    pub async fn list_own_attachments(
        &self,
        owner: &UserId,
        after: Option<(Time, Uuid)>,
        limit: i64,
    ) -> Result<Vec<(StoredAttachment, Attachment)>, StoreError> {
        let (time, id) = after.map(|(time, id)| (time.0, id)).unzip();
        let params = [
            (&owner.as_str() as _, Type::TEXT),
            (&time as _, Type::TIMESTAMPTZ),
            (&id as _, Type::UUID),
            (&limit as _, Type::INT8),
        ];
        let rows = self.query(LIST_OWN, &params).await?;
        let own = |row: &Row| {
            let given = row.get::<Json<Attachment>>("attachment").0;
            (attachment(row.get("chat_id"), row), given)
        };
        Ok(rows.iter().map(own).collect())
    }

    /// Returns those of these attachments that have no row, are not kept for a report, and do not wait for their
    /// removal.
    pub async fn list_unknown_attachments(
        &self,
        keys: &[(ChatId, Uuid)],
    ) -> Result<Vec<(ChatId, Uuid)>, StoreError> {
        let (chats, ids): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
        let params = [(&chats as _, Type::UUID_ARRAY), (&ids as _, Type::UUID_ARRAY)];
        let rows = self.query(LIST_UNKNOWN, &params).await?;
        Ok(rows.iter().map(|row| (row.get("chat_id"), row.get("attachment_id"))).collect())
    }

    /// Lists a page of the attachments that are older than an hour and whose bytes were checked, past `after`, and
    /// whether each has a thumbnail.
    pub async fn list_checked_attachments(
        &self,
        after: Option<(ChatId, Uuid)>,
        limit: i64,
    ) -> Result<Vec<((ChatId, Uuid), bool)>, StoreError> {
        let (chat_id, attachment_id) = after.unwrap_or_default();
        let params = [
            (&chat_id as _, Type::UUID),
            (&attachment_id as _, Type::UUID),
            (&limit as _, Type::INT8),
        ];
        let rows = self.query(LIST_CHECKED, &params).await?;
        let key = |row: &Row| (row.get("chat_id"), row.get("attachment_id"));
        Ok(rows.iter().map(|row| (key(row), row.get("thumbnail"))).collect())
    }

    /// Takes an attachment whose bytes are not checked yet; false: another replica checks it, or has done so.
    pub async fn take_attachment_check(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
    ) -> Result<bool, StoreError> {
        let lease = CHECK_LEASE.as_secs_f64();
        let row = self
            .query_opt(
                TAKE_CHECK,
                &[(&chat_id, Type::UUID), (&attachment_id, Type::UUID), (&lease, Type::FLOAT8)],
            )
            .await?;
        Ok(row.is_some())
    }

    /// Keeps an attachment for as long again, as its check goes on.
    pub async fn keep_attachment_check(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
    ) -> Result<(), StoreError> {
        let lease = CHECK_LEASE.as_secs_f64();
        let params: [Param<'_>; 3] =
            [(&chat_id, Type::UUID), (&attachment_id, Type::UUID), (&lease, Type::FLOAT8)];
        self.query(KEEP_CHECK, &params).await?;
        Ok(())
    }

    /// Gives an attachment back whose check failed.
    pub async fn release_attachment(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
    ) -> Result<(), StoreError> {
        self.query(RELEASE, &[(&chat_id, Type::UUID), (&attachment_id, Type::UUID)]).await?;
        Ok(())
    }

    /// Stores what the bytes were found to be; false: it is gone, or another replica has found it out.
    pub async fn settle_attachment(
        &self,
        chat_id: ChatId,
        attachment_id: Uuid,
        state: AttachmentState,
        found: &Finding,
    ) -> Result<bool, StoreError> {
        let row = self
            .query_opt(
                SETTLE,
                &[
                    (&chat_id, Type::UUID),
                    (&attachment_id, Type::UUID),
                    (&state.name(), Type::TEXT),
                    (&found.width, Type::INT4),
                    (&found.height, Type::INT4),
                    (&found.blurhash, Type::TEXT),
                    (&found.thumbnail, Type::BOOL),
                    (&found.duration_ms, Type::INT8),
                ],
            )
            .await?;
        Ok(row.is_some())
    }
}

fn attachment(chat_id: ChatId, row: &Row) -> StoredAttachment {
    StoredAttachment {
        chat_id,
        attachment_id: row.get("attachment_id"),
        owner_id: user(row.get("owner_id")),
        name: row.get("name"),
        content_type: row.get("content_type"),
        size: row.get::<i64>("size").unsigned_abs(),
        state: AttachmentState::parse(row.get("state")),
        thumbnail: row.get("thumbnail"),
        created_at: time(row, "created_at"),
        seq: row.get("seq"),
    }
}

/// The columns that [`attachment`] reads, of a table named `a`.
macro_rules! attachment_columns {
    () => {
        "a.attachment_id, a.owner_id, a.name, a.content_type, a.size, a.state::text AS state, \
         a.thumbnail, a.created_at, a.seq"
    };
}

const ANNOUNCE_ATTACHMENT: &str = "\
-- store.announce_attachment
SELECT outcome, wait, NULL::float8 AS wait_s FROM announce_attachment($1, $2, $3, $4, $5, $6, $7)";

const GET_ATTACHMENTS: &str = concat!(
    "-- store.get_attachments\nSELECT ",
    attachment_columns!(),
    " FROM unnest($2) AS i (attachment_id)
 CROSS JOIN LATERAL (SELECT * FROM attachments a
                      WHERE a.chat_id = $1 AND a.attachment_id = i.attachment_id OFFSET 0) a"
);

const GET_VISIBLE_ATTACHMENT: &str = concat!(
    "-- store.get_visible_attachment\nSELECT ",
    attachment_columns!(),
    " FROM (SELECT m.first_seq FROM members m
         WHERE m.chat_id = $1 AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me
 CROSS JOIN LATERAL (SELECT FROM chats c WHERE c.chat_id = $1 OFFSET 0) c
  LEFT JOIN LATERAL (SELECT * FROM attachments a WHERE a.chat_id = $1 AND a.attachment_id = $3 OFFSET 0) a
            ON CASE WHEN a.seq IS NULL THEN a.owner_id = $2 ELSE a.seq >= me.first_seq END"
);

const LIST_OWN: &str = concat!(
    "-- store.list_own_attachments\nSELECT a.chat_id, ",
    attachment_columns!(),
    ", attachment_json(a) AS attachment FROM attachments a
 WHERE a.owner_id = $1 COLLATE \"POSIX\"
   AND (a.created_at, a.attachment_id)
       > (coalesce($2, '-infinity'), coalesce($3, '00000000-0000-0000-0000-000000000000'))
 ORDER BY a.created_at, a.attachment_id LIMIT $4"
);

const LIST_UNKNOWN: &str = "\
-- store.list_unknown_attachments
SELECT k.chat_id, k.attachment_id FROM unnest($1, $2) AS k (chat_id, attachment_id)
 WHERE NOT EXISTS (SELECT FROM attachments a
                    WHERE a.chat_id = k.chat_id AND a.attachment_id = k.attachment_id)
   AND NOT EXISTS (SELECT FROM attachment_removals r
                    WHERE r.chat_id = k.chat_id AND r.attachment_id = k.attachment_id)
   AND NOT EXISTS (SELECT FROM report_attachments r
                    WHERE r.chat_id = k.chat_id AND r.attachment_id = k.attachment_id)";

const LIST_CHECKED: &str = "\
-- store.list_checked_attachments
SELECT a.chat_id, a.attachment_id, a.thumbnail FROM attachments a
 WHERE (a.chat_id, a.attachment_id) > ($1, $2) AND a.state IN ('ready', 'scanning')
   AND a.created_at < clock_timestamp() - interval '1 hour'
 ORDER BY a.chat_id, a.attachment_id LIMIT $3";

const TAKE_CHECK: &str = "\
-- store.take_attachment_check
UPDATE attachments SET busy_until = clock_timestamp() + $3 * interval '1 second'
 WHERE chat_id = $1 AND attachment_id = $2 AND state = 'awaited'
   AND coalesce(busy_until < clock_timestamp(), true)
RETURNING 1";

const KEEP_CHECK: &str = "\
-- store.keep_attachment_check
UPDATE attachments SET busy_until = clock_timestamp() + $3 * interval '1 second'
 WHERE chat_id = $1 AND attachment_id = $2 AND state = 'awaited'";

const RELEASE: &str = "\
-- store.release_attachment
UPDATE attachments SET busy_until = NULL
 WHERE chat_id = $1 AND attachment_id = $2 AND state = 'awaited'";

const SETTLE: &str = "\
-- store.settle_attachment
UPDATE attachments SET state = $3::text::attachment_state, width = $4, height = $5, blurhash = $6,
                       thumbnail = $7, duration_ms = $8,
                       checked_at = clock_timestamp(), busy_until = CASE WHEN $3 = 'scanning' THEN clock_timestamp() END
 WHERE chat_id = $1 AND attachment_id = $2 AND state = 'awaited'
RETURNING 1";
