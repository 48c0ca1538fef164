//! The export of one user's data, in pages. Each page is one statement that looks into an index.

use tokio_postgres::types::Type;

use super::{
    Param, Store, StoreError,
    row::Row,
    rows::{chat_kind, message, message_columns, opt_time, opt_user, role, time, user},
};
use crate::model::{
    ChatId, ExportedBlock, ExportedChat, ExportedProfile, ExportedReaction, ExportedReport,
    Message, MessageId, UserId,
};

impl Store {
    /// Returns a user's profile; `None`: the user is unknown, or erased.
    pub async fn get_exported_profile(
        &self,
        user_id: &UserId,
    ) -> Result<Option<ExportedProfile>, StoreError> {
        let rows = self.export(EXPORT_PROFILE, &[(&user_id.as_str(), Type::TEXT)]).await?;
        Ok(rows.first().map(|row| ExportedProfile {
            user_id: user(row.get("user_id")),
            name: row.get("name"),
            avatar_url: row.get("avatar_url"),
            created_at: time(row, "created_at"),
            last_seen_at: opt_time(row, "last_seen_at"),
        }))
    }

    /// Lists a user's blocks, by id, past `after`.
    pub async fn list_exported_blocks(
        &self,
        blocker: &UserId,
        after: Option<&UserId>,
        limit: i64,
    ) -> Result<Vec<ExportedBlock>, StoreError> {
        let after = after.map_or("", UserId::as_str);
        let params: [Param<'_>; 3] =
            [(&blocker.as_str(), Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)];
        let rows = self.export(EXPORT_BLOCKS, &params).await?;
        let block = |row: &Row| ExportedBlock {
            user_id: user(row.get("blocked_id")),
            created_at: time(row, "created_at"),
        };
        Ok(rows.iter().map(block).collect())
    }

    /// Lists a user's chats, also those that they have left, by id, past `after`.
    pub async fn list_exported_chats(
        &self,
        user_id: &UserId,
        after: ChatId,
        limit: i64,
    ) -> Result<Vec<ExportedChat>, StoreError> {
        let params: [Param<'_>; 3] =
            [(&user_id.as_str(), Type::TEXT), (&after, Type::UUID), (&limit, Type::INT8)];
        let rows = self.export(EXPORT_CHATS, &params).await?;
        let chat = |row: &Row| ExportedChat {
            chat_id: row.get("chat_id"),
            room_name: row.get("room_name"),
            kind: chat_kind(row.get("kind")),
            title: row.get("title"),
            created_at: time(row, "created_at"),
            created_by: user(row.get("created_by")),
            other_user_id: opt_user(row, "peer_id"),
            role: role(row.get("role")),
            joined_at: time(row, "joined_at"),
            read_seq: row.get("read_seq"),
            last_seq: row.get("last_seq"),
        };
        Ok(rows.iter().map(chat).collect())
    }

    /// Lists a user's own messages within a range of a chat's `seq`, both inclusive, with tombstones.
    pub async fn list_exported_messages(
        &self,
        chat_id: ChatId,
        sender: &UserId,
        lo: i64,
        hi: i64,
    ) -> Result<Vec<Message>, StoreError> {
        let rows = self
            .export(
                EXPORT_MESSAGES,
                &[
                    (&chat_id, Type::UUID),
                    (&sender.as_str(), Type::TEXT),
                    (&lo, Type::INT8),
                    (&hi, Type::INT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| message(chat_id, row)).collect())
    }

    /// Lists a user's reactions, by chat, `seq` and emoji, past `after`.
    pub async fn list_exported_reactions(
        &self,
        user_id: &UserId,
        after: Option<&ExportedReaction>,
        limit: i64,
    ) -> Result<Vec<ExportedReaction>, StoreError> {
        let chat_id = after.map_or_else(ChatId::nil, |last| last.chat_id);
        let (seq, emoji) = after.map_or((0, ""), |last| (last.seq, last.emoji.as_str()));
        let params: [Param<'_>; 5] = [
            (&user_id.as_str(), Type::TEXT),
            (&chat_id, Type::UUID),
            (&seq, Type::INT8),
            (&emoji, Type::TEXT),
            (&limit, Type::INT8),
        ];
        let rows = self.export(EXPORT_REACTIONS, &params).await?;
        let reaction = |row: &Row| ExportedReaction {
            chat_id: row.get("chat_id"),
            message_id: row.get("message_id"),
            seq: row.get("seq"),
            emoji: row.get("emoji"),
            created_at: time(row, "created_at"),
        };
        Ok(rows.iter().map(reaction).collect())
    }

    /// Lists the reports that a user has made, by chat and message, past `after`.
    pub async fn list_exported_reports(
        &self,
        reporter: &UserId,
        after: (ChatId, MessageId),
        limit: i64,
    ) -> Result<Vec<ExportedReport>, StoreError> {
        let rows = self
            .export(
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
            report_id: row.get("report_id"),
            chat_id: row.get("chat_id"),
            message_id: row.get("message_id"),
            seq: row.get("seq"),
            sender_id: user(row.get("sender_id")),
            reason: row.get("reason"),
            created_at: time(row, "created_at"),
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

/// Sorted at read, as `store.list_own_chats` does. An index each serves those of now and those that were left.
const EXPORT_CHATS: &str = "\
-- store.export_chats
SELECT c.chat_id, c.kind::text, c.room_name, g.title, c.created_at, c.created_by, peer.user_id AS peer_id,
       me.role::text, me.joined_at, me.read_seq, c.last_seq
  FROM (SELECT * FROM (SELECT * FROM members WHERE user_id = $1 COLLATE \"POSIX\" AND left_ev IS NULL
                       UNION ALL
                       SELECT * FROM members WHERE user_id = $1 COLLATE \"POSIX\" AND left_ev IS NOT NULL
                       OFFSET 0) own
         WHERE chat_id > $2 ORDER BY chat_id LIMIT $3) me
 CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
  LEFT JOIN LATERAL (SELECT m.user_id FROM members m
                      WHERE m.chat_id = c.chat_id AND c.kind = 'direct' AND m.user_id <> me.user_id
                     OFFSET 0) peer ON true
  LEFT JOIN LATERAL (SELECT g.title FROM groups g WHERE g.chat_id = c.chat_id AND c.kind = 'group'
                     OFFSET 0) g ON true
 ORDER BY me.chat_id";

const EXPORT_MESSAGES: &str = concat!(
    "-- store.export_messages\nSELECT ",
    message_columns!(),
    " FROM messages m
 WHERE m.chat_id = $1 AND m.seq BETWEEN $3 AND $4 AND m.sender_id = $2 ORDER BY m.seq"
);

const EXPORT_REACTIONS: &str = "\
-- store.export_reactions
SELECT r.chat_id, m.message_id, r.seq, r.emoji, r.created_at
  FROM (SELECT * FROM reactions r
         WHERE r.user_id = $1 COLLATE \"POSIX\" AND (r.chat_id, r.seq, r.emoji) > ($2, $3, $4)
         ORDER BY r.chat_id, r.seq, r.emoji LIMIT $5) r
 CROSS JOIN LATERAL (SELECT m.message_id FROM messages m WHERE m.chat_id = r.chat_id AND m.seq = r.seq OFFSET 0) m
 ORDER BY r.chat_id, r.seq, r.emoji";

const EXPORT_REPORTS: &str = "\
-- store.export_reports
SELECT report_id, chat_id, message_id, seq, sender_id, reason, created_at FROM reports
 WHERE reporter_id = $1 AND (chat_id, message_id) > ($2, $3)
 ORDER BY chat_id, message_id LIMIT $4";
