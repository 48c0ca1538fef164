//! The outbox: changes that are committed and may not have reached Redis yet.

use tokio_postgres::types::Type;

use super::{
    Store, StoreError,
    row::Row,
    rows::{epoch, epoch_of, users},
};
use crate::model::{ChatId, Epoch, UserId};

/// A row of the outbox, with its epoch: in another history its number may be another row's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Noted {
    pub epoch: Epoch,
    pub outbox_id: i64,
}

impl Noted {
    pub(super) fn by(epoch: &Epoch, outbox_id: Option<i64>) -> Option<Self> {
        outbox_id.map(|outbox_id| Self { epoch: Epoch::clone(epoch), outbox_id })
    }
}

/// One transaction's changes that are not published yet.
#[derive(Debug, Clone)]
pub struct Unpublished {
    pub noted: Noted,
    pub chats: Vec<ChatId>,
    /// Members whose own state changed by more than their chat's head, or whose place or chat is gone. In a
    /// direct chat any change is one of both members; they are named only where the chat is gone.
    pub members: Vec<(ChatId, UserId)>,
}

impl Store {
    /// Takes up to `limit` rows that are due, oldest first. They are due again half a second later:
    /// if the taker dies, or has lost Redis without knowing it yet, another one publishes them, and
    /// publishing twice does no harm.
    pub async fn take_unpublished(&self, limit: i64) -> Result<Vec<Unpublished>, StoreError> {
        let rows = self.query(TAKE_UNPUBLISHED, &[(&limit, Type::INT8)]).await?;
        Ok(rows.iter().map(unpublished).collect())
    }

    /// Returns one row; `None`: it is published already, or of another epoch.
    pub async fn get_unpublished(&self, noted: &Noted) -> Result<Option<Unpublished>, StoreError> {
        let row = self
            .query_opt(
                GET_UNPUBLISHED,
                &[(&noted.outbox_id, Type::INT8), (&&*noted.epoch, Type::TEXT)],
            )
            .await?;
        Ok(row.as_ref().map(unpublished))
    }

    /// Returns the number of rows, and the age of the oldest in seconds.
    pub async fn get_backlog(&self) -> Result<(i64, f64), StoreError> {
        let row = self.query_one(GET_BACKLOG, &[]).await?;
        Ok((row.get("rows"), row.get("oldest")))
    }

    /// Deletes rows that Redis has, unless the epoch has changed since. With push, what they say is noted for it.
    pub async fn delete_outbox(&self, epoch: &Epoch, ids: &[i64]) -> Result<(), StoreError> {
        if let Some(delay) = self.push_delay {
            return self.delete_outbox_for_push(epoch, ids, delay).await;
        }
        self.query(DELETE_OUTBOX, &[(&ids, Type::INT8_ARRAY), (&&**epoch, Type::TEXT)]).await?;
        Ok(())
    }
}

fn unpublished(row: &Row) -> Unpublished {
    let of_chats: Vec<ChatId> = row.get("of_chats");
    Unpublished {
        noted: Noted { epoch: epoch_of(row), outbox_id: row.get("outbox_id") },
        chats: row.get("chats"),
        members: of_chats.into_iter().zip(users(row, "of_users")).collect(),
    }
}

/// An array, since that is read once: as a list of values (`IN`) the rows that are due would be looked for
/// again for each row of the table, on a plan that was made when it was empty.
const TAKE_UNPUBLISHED: &str = concat!(
    "-- store.take_unpublished
UPDATE outbox SET due_at = clock_timestamp() + interval '500 milliseconds'
 WHERE outbox_id = ANY (ARRAY(SELECT outbox_id FROM outbox WHERE due_at <= clock_timestamp()
                               ORDER BY outbox_id LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING outbox_id, chats, of_chats, of_users, ",
    epoch!()
);

const GET_UNPUBLISHED: &str = concat!(
    "-- store.get_unpublished
SELECT * FROM (SELECT outbox_id, chats, of_chats, of_users, ",
    epoch!(),
    " FROM outbox WHERE outbox_id = $1) o WHERE epoch = $2"
);

const GET_BACKLOG: &str = "\
-- store.get_backlog
SELECT count(*) AS rows,
       coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest
  FROM outbox";

/// Without waiting for the disk: rows that a crash of Postgres brings back are swept.
const DELETE_OUTBOX: &str = concat!(
    "-- store.delete_outbox
DELETE FROM outbox
 WHERE outbox_id = ANY($1) AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off' AND $2 = ",
    epoch!()
);
