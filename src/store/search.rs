//! Texts to look through, and messages across chats: what a search found, and what mentions a user.

use tokio_postgres::types::Type;

use super::{
    Param, Store, StoreError,
    row::Row,
    rows::{message_columns, message_for, my_reactions, time},
};
use crate::model::{ChatId, Message, Time, UserId};

/// The place of a message among those of all chats, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageCursor {
    pub created_at: Time,
    pub chat_id: ChatId,
    pub seq: i64,
}

impl MessageCursor {
    /// Its parts as parameters, which are null together.
    fn parts(after: Option<Self>) -> (Option<jiff::Timestamp>, Option<ChatId>, Option<i64>) {
        let created_at = after.map(|cursor| cursor.created_at.0);
        (created_at, after.map(|cursor| cursor.chat_id), after.map(|cursor| cursor.seq))
    }
}

/// A chat's texts that a search has yet to look through.
#[derive(Debug, Clone, Copy)]
pub struct Searchable {
    pub chat_id: ChatId,
    /// The first message that the user may see.
    pub first: i64,
    /// The last message to look at.
    pub hi: i64,
    /// None of them is younger.
    pub bound: Time,
}

/// A message's text, and behind it the names of its attachments.
#[derive(Debug, Clone)]
pub struct Text {
    pub seq: i64,
    pub created_at: Time,
    pub text: String,
}

impl Store {
    /// Live texts of a range of `seq` (both inclusive), newest first, up to the one with which they have
    /// `bytes`: what a search walks over.
    pub async fn list_texts(
        &self,
        chat_id: ChatId,
        (lo, hi): (i64, i64),
        bytes: i64,
    ) -> Result<Vec<Text>, StoreError> {
        let params: [Param<'_>; 4] =
            [(&chat_id, Type::UUID), (&lo, Type::INT8), (&hi, Type::INT8), (&bytes, Type::INT8)];
        let rows = self.search(LIST_TEXTS, &params).await?;
        let text = |row: Row| Text {
            seq: row.get("seq"),
            created_at: time(&row, "created_at"),
            text: row.get("text"),
        };
        Ok(rows.into_iter().map(text).collect())
    }

    /// Messages by chat and number, in this order, as `reader` sees them: what a search found. Those that are gone
    /// are left out.
    pub async fn list_messages(
        &self,
        found: &[(ChatId, i64)],
        reader: &UserId,
    ) -> Result<Vec<Message>, StoreError> {
        let (chats, seqs): (Vec<_>, Vec<_>) = found.iter().copied().unzip();
        let params: [Param<'_>; 3] =
            [(&chats, Type::UUID_ARRAY), (&seqs, Type::INT8_ARRAY), (&reader.as_str(), Type::TEXT)];
        let rows = self.search(LIST_MESSAGES, &params).await?;
        Ok(rows.iter().map(|row| message_for(row.get("chat_id"), row)).collect())
    }

    /// The user's chats with messages past `after`, in no order.
    pub async fn list_searchable(
        &self,
        user: &UserId,
        after: Option<MessageCursor>,
    ) -> Result<Vec<Searchable>, StoreError> {
        let (created_at, chat_id, seq) = MessageCursor::parts(after);
        let params: [Param<'_>; 4] = [
            (&user.as_str(), Type::TEXT),
            (&created_at, Type::TIMESTAMPTZ),
            (&chat_id, Type::UUID),
            (&seq, Type::INT8),
        ];
        let rows = self.search(LIST_SEARCHABLE, &params).await?;
        let searchable = |row: &Row| Searchable {
            chat_id: row.get("chat_id"),
            first: row.get("first_seq"),
            hi: row.get("hi"),
            bound: time(row, "bound"),
        };
        Ok(rows.iter().map(searchable).collect())
    }

    /// Messages of all chats that mention the user, newest first, past `after`.
    pub async fn list_mentions(
        &self,
        user: &UserId,
        after: Option<MessageCursor>,
        limit: i64,
    ) -> Result<Vec<Message>, StoreError> {
        let (created_at, chat_id, seq) = MessageCursor::parts(after);
        let params: [Param<'_>; 5] = [
            (&user.as_str(), Type::TEXT),
            (&created_at, Type::TIMESTAMPTZ),
            (&chat_id, Type::UUID),
            (&seq, Type::INT8),
            (&limit, Type::INT8),
        ];
        let rows = self.list(LIST_MENTIONS, &params).await?;
        Ok(rows.iter().map(|row| message_for(row.get("chat_id"), row)).collect())
    }
}

const LIST_TEXTS: &str = "\
-- store.list_texts
SELECT seq, created_at, text FROM (
    SELECT seq, created_at, text, coalesce(sum(octet_length(text))
               OVER (ORDER BY seq DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
      FROM (SELECT seq, created_at, CASE WHEN attachments IS NULL THEN text ELSE concat_ws(chr(10), text, (
                       SELECT string_agg(a.one ->> 'name', chr(10))
                         FROM json_array_elements(attachments) AS a (one))) END AS text
              FROM messages
             WHERE chat_id = $1 AND seq BETWEEN $2 AND $3 AND deleted_at IS NULL AND system IS NULL) m
) x WHERE before < $4 ORDER BY seq DESC";

/// One by one: `= ANY` on the second column would be a filter over all of the chat in one of two plans.
const LIST_MESSAGES: &str = concat!(
    "-- store.list_messages\nSELECT m.chat_id, ",
    message_columns!(),
    ", ",
    my_reactions!("$3"),
    " FROM unnest($1, $2) WITH ORDINALITY AS s (chat_id, seq, n)
 CROSS JOIN LATERAL (SELECT * FROM messages m WHERE m.chat_id = s.chat_id AND m.seq = s.seq OFFSET 0) m
 ORDER BY s.n"
);

/// Newest first is by time, then by chat, then by number. A chat whose id comes first has fewer messages before the
/// cursor at its very moment.
const LIST_SEARCHABLE: &str = "\
-- store.list_searchable
SELECT * FROM (
    SELECT me.chat_id, me.first_seq, least(c.last_message_at, $2) AS bound,
           CASE WHEN $2::timestamptz IS NULL OR c.last_message_at < $2 THEN c.last_seq
                WHEN me.chat_id = $3 THEN least(c.last_seq, $4 - 1)
                ELSE last_seq_before(me.chat_id, c.last_seq, $2, me.chat_id < $3) END AS hi
      FROM members me
     CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
     WHERE me.user_id = $1 COLLATE \"POSIX\" AND me.left_ev IS NULL AND c.last_seq >= me.first_seq
    OFFSET 0) x
 WHERE hi >= first_seq";

/// Of each chat the latest ones past the cursor; chats that never mentioned the user or all are passed over by numbers
/// on their rows.
const LIST_MENTIONS: &str = concat!(
    "-- store.list_mentions\nSELECT m.chat_id, ",
    message_columns!(),
    ", ",
    my_reactions!("$1"),
    "
  FROM (SELECT me.chat_id, x.seq
          FROM members me
         CROSS JOIN LATERAL (SELECT c.all_mention_seq FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
         CROSS JOIN LATERAL (VALUES ($1, me.mention_seq), (chr(1), c.all_mention_seq)) AS whom (user_id, top)
         CROSS JOIN LATERAL (
             SELECT x.seq, m.created_at
               FROM (SELECT x.seq FROM mentions x
                      WHERE x.chat_id = CASE WHEN whom.top > 0 THEN me.chat_id END AND x.user_id = whom.user_id
                        AND x.seq >= me.first_seq AND x.sender_id <> $1
                      ORDER BY x.seq DESC OFFSET 0) x
              CROSS JOIN LATERAL (SELECT m.created_at FROM messages m
                                   WHERE m.chat_id = me.chat_id AND m.seq = x.seq OFFSET 0) m
              WHERE $2::timestamptz IS NULL OR (m.created_at, me.chat_id, x.seq) < ($2, $3, $4)
              ORDER BY x.seq DESC LIMIT $5) x
         WHERE me.user_id = $1 COLLATE \"POSIX\" AND me.left_ev IS NULL
           AND greatest(me.mention_seq, c.all_mention_seq) > 0
         ORDER BY x.created_at DESC, me.chat_id DESC, x.seq DESC LIMIT $5) f
 CROSS JOIN LATERAL (SELECT * FROM messages m WHERE m.chat_id = f.chat_id AND m.seq = f.seq OFFSET 0) m
 ORDER BY m.created_at DESC, m.chat_id DESC, m.seq DESC"
);
