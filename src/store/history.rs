//! Messages read by ranges of `seq`, which is dense, so that a page is a range whatever was deleted.

use beseda_protocol::rest::Window;
use tokio_postgres::types::{Json, Type};

use super::{
    Store, StoreError,
    row::Row,
    rows::{epoch, has_message, message_columns, message_for, my_reactions},
};
use crate::{
    error::Error,
    model::{ChatId, Head, Message, MessageId, UserId},
};

/// Messages of a range of `seq`, ascending.
#[derive(Debug, Clone)]
pub struct Page {
    pub messages: Vec<Message>,
    /// The range asked for, both inclusive; empty where `hi` < `lo`. Never below the first message that the
    /// reader may see.
    pub lo: i64,
    pub hi: i64,
}

/// A page and where the chat stood in the same snapshot.
#[derive(Debug, Clone)]
pub struct History {
    pub head: Head,
    pub page: Page,
}

impl Store {
    /// One message; an error says whether it is the chat or the message that the user has not.
    pub async fn get_message(
        &self,
        chat_id: ChatId,
        message_id: MessageId,
        user: &UserId,
    ) -> Result<Message, Error> {
        let row = self
            .read(
                GET_MESSAGE,
                &[(&chat_id, Type::UUID), (&message_id, Type::UUID), (&user.as_str(), Type::TEXT)],
            )
            .await?
            .pop()
            .ok_or(Error::ChatNotFound)?;
        if has_message(&row) { Ok(message_for(chat_id, &row)) } else { Err(Error::MessageNotFound) }
    }

    /// A page of the history with its position; `None` where the chat is not the user's.
    pub async fn get_history(
        &self,
        chat_id: ChatId,
        user: &UserId,
        window: Window,
        limit: i64,
    ) -> Result<Option<History>, StoreError> {
        let (kind, at) = match window {
            Window::Newest => ("newest", 0),
            Window::Before(seq) => ("before", seq),
            Window::After(seq) => ("after", seq),
            Window::Around(seq) => ("around", seq),
        };
        let rows = self
            .read_page(
                GET_HISTORY,
                &[
                    (&chat_id, Type::UUID),
                    (&user.as_str(), Type::TEXT),
                    (&kind, Type::TEXT),
                    (&at, Type::INT8),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (lo, hi) = (first.get("lo"), first.get("hi"));
        let Some(head) = rows.iter().find_map(head) else { return Ok(None) };
        let messages = rows.iter().filter(|row| has_message(row));
        let mut messages: Vec<Message> = messages.map(|row| message_for(chat_id, row)).collect();
        // They are in this order, which nothing but the plan says.
        messages.sort_unstable_by_key(|message| message.seq);
        Ok(Some(History { head, page: Page { messages, lo, hi } }))
    }
}

/// The column that [`head`] reads, of a row `h` of [`chat_head!`]: one, and null but in the first row, since as a dozen
/// columns beside each message it would cost as much as the message.
macro_rules! head_column {
    ($is_first:literal) => {
        concat!(
            "CASE WHEN ",
            $is_first,
            " THEN json_build_object(
           'kind', h.kind, 'ev', h.last_ev, 'seq', h.last_seq, 'epoch', h.epoch, 'receipts', h.receipts,
           'member_count', h.member_count, 'peer_read_seq', h.peer_read_seq,
           'reader', json_build_object('role', h.role, 'first_seq', h.first_seq, 'read_seq', h.read_seq)) END AS head"
        )
    };
}
pub(super) use head_column;

/// Reads [`head_column!`]; `None`: the row is not the first.
pub(super) fn head(row: &Row) -> Option<Head> {
    row.get::<Option<Json<Head>>>("head").map(|head| head.0)
}

/// The chat `$1` with the part that its member `$2` has in it, the epoch, and more columns; no row where they are no
/// member. Where `$2` may be null (`"LEFT"` and a condition that says so): on behalf of all members.
macro_rules! chat_head {
    ($join:literal, $more:literal, $condition:literal) => {
        concat!(
            "SELECT c.chat_id, c.kind::text, c.last_ev, c.last_seq, c.receipts, c.member_count,
           coalesce(me.role, 'member')::text AS role, coalesce(me.first_seq, 1) AS first_seq,
           coalesce(me.read_seq, 0) AS read_seq, peer.read_seq AS peer_read_seq, ",
            epoch!(),
            $more,
            "
      FROM chats c
     ",
            $join,
            " JOIN LATERAL (SELECT m.user_id, m.role, m.first_seq, m.read_seq FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0
                         OFFSET 0) me ON true
      LEFT JOIN LATERAL (SELECT m.user_id, m.read_seq FROM members m
                          WHERE m.chat_id = c.chat_id AND c.kind = 'direct' AND m.user_id <> $2
                         OFFSET 0) peer ON true
     WHERE c.chat_id = $1",
            $condition
        )
    };
}
pub(super) use chat_head;

/// A deleted chat has rows of members and messages until it is purged.
const GET_MESSAGE: &str = concat!(
    "-- store.get_message\nSELECT ",
    message_columns!(),
    ", ",
    my_reactions!("$3"),
    " FROM chats c
 CROSS JOIN LATERAL (SELECT me.first_seq FROM members me
                      WHERE me.chat_id = c.chat_id AND me.user_id = $3 AND coalesce(me.left_ev, 0) = 0
                     OFFSET 0) me
  LEFT JOIN LATERAL message_by_id(c.chat_id, $2) m ON m.seq >= me.first_seq
 WHERE c.chat_id = $1"
);

/// A chat without messages in the range has a row with its head alone.
const GET_HISTORY: &str = concat!(
    "-- store.get_history
WITH head AS (",
    chat_head!("INNER", "", ""),
    "), ranged AS (
    SELECT *,
           greatest(first_seq, CASE $3
               WHEN 'newest' THEN last_seq - $5 + 1
               WHEN 'before' THEN least($4 - 1, last_seq) - $5 + 1
               WHEN 'after' THEN $4 + 1
               ELSE least($4 - $5 / 2, last_seq - $5 + 1) END) AS lo
      FROM head
), h AS MATERIALIZED (
    SELECT *, least(last_seq, CASE $3
                   WHEN 'newest' THEN last_seq
                   WHEN 'before' THEN $4 - 1
                   ELSE lo + $5 - 1 END) AS hi
      FROM ranged
)
SELECT ",
    head_column!("coalesce(m.seq, h.lo) = h.lo"),
    ", h.lo, h.hi, ",
    message_columns!(),
    ", ",
    my_reactions!("$2"),
    "
  FROM h LEFT JOIN LATERAL (SELECT * FROM messages m
                             WHERE m.chat_id = h.chat_id AND m.seq BETWEEN h.lo AND h.hi OFFSET 0) m ON true"
);
