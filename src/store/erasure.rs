//! Erasing a user chat by chat, and deleting the rows of a deleted chat. Both can take long, so they run
//! in steps well below a statement's time-out.

use tokio_postgres::types::Type;

use super::{
    Noted, Store, StoreError, Unpublished,
    rows::{epoch, epoch_of},
};
use crate::model::{ChatId, Epoch, UserId};

/// Rows per step: some 50 ms.
const STEP: i64 = 5_000;

impl Store {
    /// Deletes up to [`STEP`] messages of a deleted chat, then as many of its other rows; true: none is left.
    pub async fn purge_chat(&self, chat_id: ChatId) -> Result<bool, StoreError> {
        let row =
            self.query_one(PURGE_CHAT, &[(&chat_id, Type::UUID), (&STEP, Type::INT8)]).await?;
        Ok(row.get("finished"))
    }

    /// Takes one deleted chat that still has rows, for half a minute.
    pub async fn take_purge(&self) -> Result<Option<ChatId>, StoreError> {
        Ok(self.query_opt(TAKE_PURGE, &[]).await?.map(|row| row.get("chat_id")))
    }

    /// Marks a user as erased and removes their profile; returns the epoch, or `None` where the user is
    /// unknown. A second call changes nothing.
    pub async fn mark_erased(&self, user: &UserId) -> Result<Option<Epoch>, StoreError> {
        let row = self.query_one(MARK_ERASED, &[(&user.as_str(), Type::TEXT)]).await?;
        Ok(row.get::<bool>("known").then(|| epoch_of(&row)))
    }

    /// Lists all chats of a user, also those that they have left.
    pub async fn list_chat_ids(&self, user: &UserId) -> Result<Vec<ChatId>, StoreError> {
        let rows = self.query(LIST_CHAT_IDS, &[(&user.as_str(), Type::TEXT)]).await?;
        Ok(rows.iter().map(|row| row.get("chat_id")).collect())
    }

    /// Turns up to [`STEP`] messages of a user in one chat into tombstones, each with an `ev` of its own;
    /// returns the outbox row, or `None` where no message was left. A member of a group must have left it
    /// ([`leave_as_erased`](Self::leave_as_erased)) before.
    pub async fn erase_in_chat(
        &self,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<Option<Unpublished>, StoreError> {
        let row = self
            .query_opt(
                ERASE_IN_CHAT,
                &[(&chat_id, Type::UUID), (&user.as_str(), Type::TEXT), (&STEP, Type::INT8)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let noted = Noted { epoch: epoch_of(&row), outbox_id: row.get("outbox_id") };
        // Whom the messages mentioned is known to the outbox. Without its row a sweeper was faster.
        let found = self.get_unpublished(&noted).await?;
        let swept = || Unpublished { noted, chats: vec![chat_id], members: Vec::new() };
        Ok(Some(found.unwrap_or_else(swept)))
    }
}

const MARK_ERASED: &str =
    concat!("-- store.mark_erased\nSELECT mark_erased($1) AS known, ", epoch!());

/// Sorted at read, as `store.list_own_chats` does. An index each serves those of now and those that were left.
const LIST_CHAT_IDS: &str = "\
-- store.list_chat_ids
SELECT chat_id FROM (
    SELECT chat_id FROM members WHERE user_id = $1 COLLATE \"POSIX\" AND left_ev IS NULL
    UNION ALL
    SELECT chat_id FROM members WHERE user_id = $1 COLLATE \"POSIX\" AND left_ev IS NOT NULL
    OFFSET 0) own
 ORDER BY chat_id";

const ERASE_IN_CHAT: &str = concat!(
    "-- store.erase_in_chat\nSELECT outbox_id, ",
    epoch!(),
    " FROM erase_in_chat($1, $2, $3)"
);

const PURGE_CHAT: &str = "\
-- store.purge_chat
SELECT purge_chat($1, $2) AS finished";

const TAKE_PURGE: &str = "\
-- store.take_purge
UPDATE purges SET due_at = clock_timestamp() + interval '30 seconds'
 WHERE chat_id = (SELECT chat_id FROM purges WHERE due_at <= clock_timestamp()
                   ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING chat_id";
