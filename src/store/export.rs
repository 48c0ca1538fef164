//! What is kept of one person, in pages: each is one statement, and looks into an index.

use tokio_postgres::{Row, types::Type};

use super::{
    Param, Store, StoreError,
    rows::{message, message_columns, opt_time, user},
};
use crate::model::{
    ChatId, ExportedBlock, ExportedChat, ExportedProfile, ExportedReport, Message, MessageId, Time,
    UserId,
};

impl Store {
    /// A person as kept; `None` where they are not known, or were erased.
    pub async fn get_exported_profile(
        &self,
        user_id: &UserId,
    ) -> Result<Option<ExportedProfile>, StoreError> {
        let row = self.query_opt(EXPORT_PROFILE, &[(&user_id.as_str(), Type::TEXT)]).await?;
        Ok(row.map(|row| ExportedProfile {
            user_id: user(row.get(0)),
            name: row.get(1),
            avatar_url: row.get(2),
            created_at: Time(row.get(3)),
            last_seen_at: opt_time(&row, 4),
        }))
    }

    /// Whom a person has blocked, by id, past `after`.
    pub async fn list_exported_blocks(
        &self,
        blocker: &UserId,
        after: Option<&UserId>,
        limit: i64,
    ) -> Result<Vec<ExportedBlock>, StoreError> {
        let after = after.map_or("", UserId::as_str);
        let params: [Param<'_>; 3] =
            [(&blocker.as_str(), Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)];
        let rows = self.query(EXPORT_BLOCKS, &params).await?;
        let block =
            |row: &Row| ExportedBlock { user_id: user(row.get(0)), created_at: Time(row.get(1)) };
        Ok(rows.iter().map(block).collect())
    }

    /// A person's chats, by id, past `after`.
    pub async fn list_exported_chats(
        &self,
        user_id: &UserId,
        after: ChatId,
        limit: i64,
    ) -> Result<Vec<ExportedChat>, StoreError> {
        let params: [Param<'_>; 3] =
            [(&user_id.as_str(), Type::TEXT), (&after, Type::UUID), (&limit, Type::INT8)];
        let rows = self.query(EXPORT_CHATS, &params).await?;
        let chat = |row: &Row| ExportedChat {
            chat_id: row.get(0),
            room_name: row.get(1),
            created_at: Time(row.get(2)),
            created_by: user(row.get(3)),
            other_user_id: user(row.get(4)),
            read_seq: row.get(5),
            last_seq: row.get(6),
        };
        Ok(rows.iter().map(chat).collect())
    }

    /// A person's own messages within a range of a chat's `seq`, both inclusive, tombstones too.
    pub async fn list_exported_messages(
        &self,
        chat_id: ChatId,
        sender: &UserId,
        lo: i64,
        hi: i64,
    ) -> Result<Vec<Message>, StoreError> {
        let rows = self
            .query(
                EXPORT_MESSAGES,
                &[
                    (&chat_id, Type::UUID),
                    (&sender.as_str(), Type::TEXT),
                    (&lo, Type::INT8),
                    (&hi, Type::INT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| message(chat_id, row, 0)).collect())
    }

    /// Reports that a person has made, by chat and message, past `after`.
    pub async fn list_exported_reports(
        &self,
        reporter: &UserId,
        after: (ChatId, MessageId),
        limit: i64,
    ) -> Result<Vec<ExportedReport>, StoreError> {
        let rows = self
            .query(
                EXPORT_REPORTS,
                &[
                    (&reporter.as_str(), Type::TEXT),
                    (&after.0, Type::UUID),
                    (&after.1, Type::UUID),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let report = |row: &Row| ExportedReport {
            report_id: row.get(0),
            chat_id: row.get(1),
            message_id: row.get(2),
            seq: row.get(3),
            sender_id: user(row.get(4)),
            reason: row.get(5),
            created_at: Time(row.get(6)),
        };
        Ok(rows.iter().map(report).collect())
    }
}

const EXPORT_PROFILE: &str = "\
-- store.export_profile
SELECT user_id, name, avatar_url, created_at, last_seen_at FROM users
 WHERE user_id = $1 AND erased_at IS NULL";

const EXPORT_BLOCKS: &str = "\
-- store.export_blocks
SELECT blocked_id, created_at FROM blocks
 WHERE blocker_id = $1 AND blocked_id > $2 ORDER BY blocked_id LIMIT $3";

const EXPORT_CHATS: &str = "\
-- store.export_chats
SELECT c.chat_id, c.room_name, c.created_at, c.created_by,
       CASE me.user_id WHEN c.user_lo THEN c.user_hi ELSE c.user_lo END, me.read_seq, c.last_seq
  FROM (SELECT * FROM members
         WHERE user_id = $1 COLLATE \"POSIX\" AND chat_id > $2 ORDER BY chat_id LIMIT $3) me
 CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
 ORDER BY me.chat_id";

const EXPORT_MESSAGES: &str = concat!(
    "-- store.export_messages\nSELECT ",
    message_columns!(),
    " FROM messages m
 WHERE m.chat_id = $1 AND m.seq BETWEEN $3 AND $4 AND m.sender_id = $2 ORDER BY m.seq"
);

const EXPORT_REPORTS: &str = "\
-- store.export_reports
SELECT report_id, chat_id, message_id, seq, sender_id, reason, created_at FROM reports
 WHERE reporter_id = $1 AND (chat_id, message_id) > ($2, $3)
 ORDER BY chat_id, message_id LIMIT $4";
