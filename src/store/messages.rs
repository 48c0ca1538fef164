//! Messages, written in batches and read by ranges of `seq` (which is dense, so that a page is a range) or
//! of `ev`.

use beseda_protocol::rest::Window;
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio_postgres::{
    Row,
    types::{Json, Type},
};

use super::{
    ChatState, Noted, Param, Store, StoreError,
    rows::{chat_state, epoch, has_message, json, message, message_columns, opt_time, time, user},
    webhooks::note_webhooks,
};
use crate::{
    error::Error,
    model::{Change, ChatId, Head, Message, MessageId, UserId},
};

/// A message to be written, after all checks that need no database.
#[derive(Debug, Clone)]
pub struct Draft {
    pub chat_id: ChatId,
    pub sender_id: UserId,
    pub message_id: MessageId,
    pub client_msg_id: Option<String>,
    /// Keyed digest of text and metadata, present if `client_msg_id` is.
    pub digest: Option<Bytes>,
    pub text: String,
    pub metadata: Option<Box<RawValue>>,
}

/// The outcome of one message of a batch.
#[derive(Debug)]
pub enum SendOutcome {
    Created {
        message: Message,
        state: ChatState,
        noted: Option<Noted>,
    },
    /// The message of an earlier send with the same `client_msg_id` and content, as it is now.
    Replayed {
        message: Message,
        state: ChatState,
    },
    Refused(Error),
}

/// The messages in a range of `seq`, ascending.
#[derive(Debug, Clone)]
pub struct Page {
    pub messages: Vec<Message>,
    /// The requested range, both ends inclusive; empty if `hi` < `lo`.
    pub lo: i64,
    pub hi: i64,
}

/// A page and the chat's head, from the same snapshot.
#[derive(Debug, Clone)]
pub struct History {
    pub head: Head,
    pub page: Page,
}

/// The changes since a position, ascending by `ev`, and the chat's head, from the same snapshot.
#[derive(Debug, Clone)]
pub struct Changes {
    pub head: Head,
    /// The reader's peer, whose presence may be shown; `None` if one of the two has blocked the other.
    pub visible: Option<UserId>,
    pub changes: Vec<Change>,
    /// A limit was reached, and more changes follow the last one.
    pub more: bool,
}

impl Store {
    /// Writes a batch in one transaction and returns an outcome for each draft, in order.
    pub async fn send_messages(&self, batch: &[Draft]) -> Result<Vec<SendOutcome>, StoreError> {
        let chats: Vec<_> = batch.iter().map(|d| d.chat_id).collect();
        let senders: Vec<_> = batch.iter().map(|d| d.sender_id.as_str()).collect();
        let ids: Vec<_> = batch.iter().map(|d| d.message_id).collect();
        let keys: Vec<_> = batch.iter().map(|d| d.client_msg_id.as_deref()).collect();
        let digests: Vec<_> = batch.iter().map(|d| d.digest.as_deref()).collect();
        let texts: Vec<_> = batch.iter().map(|d| d.text.as_str()).collect();
        let metadata: Vec<_> = batch.iter().map(|d| d.metadata.as_ref().map(Json)).collect();
        let delay = self.webhook_delay.map(|delay| delay.as_secs_f64());
        let mut params: Vec<Param<'_>> = vec![
            (&chats, Type::UUID_ARRAY),
            (&senders, Type::TEXT_ARRAY),
            (&ids, Type::UUID_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&digests, Type::BYTEA_ARRAY),
            (&texts, Type::TEXT_ARRAY),
            (&metadata, Type::JSON_ARRAY),
        ];
        let sql = match &delay {
            Some(delay) => {
                params.push((delay, Type::FLOAT8));
                SEND_MESSAGES_NOTING
            }
            None => SEND_MESSAGES,
        };
        let rows = self.run(&self.writes, sql, &params).await?;
        Ok(batch.iter().zip(&rows).map(|(draft, row)| send_outcome(draft, row)).collect())
    }

    /// Returns one message. The error tells whether the chat or the message does not exist for the user.
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
        if has_message(&row) { Ok(message(chat_id, &row)) } else { Err(Error::MessageNotFound) }
    }

    /// Returns a page of the history with the chat's head; `None` if the user is no member.
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
            .read(
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
        Ok(rows.first().map(|first| History {
            head: head(first),
            page: Page {
                lo: first.get("lo"),
                hi: first.get("hi"),
                messages: rows
                    .iter()
                    .filter(|row| has_message(row))
                    .map(|row| message(chat_id, row))
                    .collect(),
            },
        }))
    }

    /// Returns the changes after `after_ev`: at most `limit`, and no more than [`CHANGES_BYTES`] beyond
    /// the first one. A `reader` of `None` reads on behalf of all members. Returns `None` if the chat is
    /// gone or `reader` is no member.
    pub async fn get_changes(
        &self,
        chat_id: ChatId,
        reader: Option<&UserId>,
        after_ev: i64,
        limit: i64,
    ) -> Result<Option<Changes>, StoreError> {
        let rows = self
            .read(
                GET_CHANGES,
                &[
                    (&chat_id, Type::UUID),
                    (&reader.map(UserId::as_str), Type::TEXT),
                    (&after_ev, Type::INT8),
                    (&limit, Type::INT8),
                    (&CHANGES_BYTES, Type::INT8),
                ],
            )
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (head, visible) = (head(first), first.get::<_, Option<&str>>("visible").map(user));
        // Consumes each row, so that a page is in memory only once.
        let changes: Vec<Change> =
            rows.into_iter().filter_map(|row| change(chat_id, &row)).collect();
        // The row of a chat's last change always exists, because no later change has replaced it.
        let more = changes.last().is_some_and(|last| last.ev() < head.ev);
        Ok(Some(Changes { head, visible, changes, more }))
    }

    /// Returns the head of a chat; `None` if the user is no member.
    pub async fn get_head(
        &self,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<Option<Head>, StoreError> {
        Ok(self.get_changes(chat_id, Some(user), i64::MAX, 0).await?.map(|changes| changes.head))
    }

    /// Lists the texts that a search walks over: those of undeleted messages in a range of `seq` (both ends
    /// inclusive), newest first, up to the one with which their sum reaches `bytes`.
    pub async fn list_texts(
        &self,
        chat_id: ChatId,
        (lo, hi): (i64, i64),
        bytes: i64,
    ) -> Result<Vec<(i64, String)>, StoreError> {
        let rows = self
            .run(
                &self.searches,
                LIST_TEXTS,
                &[
                    (&chat_id, Type::UUID),
                    (&lo, Type::INT8),
                    (&hi, Type::INT8),
                    (&bytes, Type::INT8),
                ],
            )
            .await?;
        Ok(rows.into_iter().map(|row| (row.get("seq"), row.get("text"))).collect())
    }

    /// Lists the messages with these numbers, which a search has found; newest first.
    pub async fn list_messages(
        &self,
        chat_id: ChatId,
        seqs: &[i64],
    ) -> Result<Vec<Message>, StoreError> {
        let params: [Param<'_>; 2] = [(&chat_id, Type::UUID), (&seqs, Type::INT8_ARRAY)];
        let rows = self.run(&self.searches, LIST_MESSAGES, &params).await?;
        Ok(rows.iter().map(|row| message(chat_id, row)).collect())
    }
}

/// Reads a row of `send_messages`. The fields that the row lacks come from the draft: for a retry, they are
/// those of the first send, because the message id is derived from chat, sender and `client_msg_id`.
fn send_outcome(draft: &Draft, row: &Row) -> SendOutcome {
    let replayed = match row.get("outcome") {
        "created" => false,
        "replayed" => true,
        refused => return SendOutcome::Refused(refusal(refused)),
    };
    let Draft { chat_id, sender_id, message_id, client_msg_id, digest: _, text, metadata } =
        draft.clone();
    let (text, metadata) =
        if replayed { (row.get("text"), json(row, "metadata")) } else { (text, metadata) };
    let message = Message {
        message_id,
        chat_id,
        seq: row.get("seq"),
        ev: row.get("ev"),
        sender_id,
        text,
        metadata,
        client_msg_id,
        created_at: time(row, "created_at"),
        edited_at: opt_time(row, "edited_at"),
        deleted_at: opt_time(row, "deleted_at"),
    };
    let state = chat_state(row);
    if replayed {
        SendOutcome::Replayed { message, state }
    } else {
        let noted = Noted::by(&state.epoch, row.get("outbox_id"));
        SendOutcome::Created { message, state, noted }
    }
}

/// Turns an outcome of the writing functions into its error.
pub(super) fn refusal(outcome: &str) -> Error {
    match outcome {
        "message_not_found" => Error::MessageNotFound,
        "not_author" => Error::NotAuthor,
        "blocked" => Error::Blocked,
        "forbidden" => Error::Forbidden("The other person's account is gone."),
        "idempotency_mismatch" => Error::IdempotencyMismatch,
        _ => Error::ChatNotFound,
    }
}

fn head(row: &Row) -> Head {
    Head {
        ev: row.get("last_ev"),
        seq: row.get("last_seq"),
        epoch: row.get("epoch"),
        read_seq: row.get("read_seq"),
        peer_read_seq: row.get("peer_read_seq"),
    }
}

/// Reads a change of a read marker or of a message; `None` if the row has neither.
fn change(chat_id: ChatId, row: &Row) -> Option<Change> {
    let ev: i64 = row.get::<_, Option<i64>>("m_ev")?;
    Some(match row.get::<_, Option<&str>>("reader") {
        Some(reader) => Change::Read { user_id: user(reader), read_seq: row.get("marker"), ev },
        None => Change::Message(Box::new(message(chat_id, row))),
    })
}

/// The columns that [`send_outcome`] reads, except for the epoch, which the statement reads once for all
/// rows.
macro_rules! sent_columns {
    () => {
        "outcome, seq, ev, text, metadata, created_at, edited_at, deleted_at, outbox_id, chat_id, \
         room_name, user_lo, user_hi, last_seq, last_ev, activity, lo_read, lo_unread, hi_read, \
         hi_unread"
    };
}

const SEND_MESSAGES: &str = concat!(
    "-- store.send_messages\nSELECT ",
    sent_columns!(),
    ", ",
    epoch!(),
    " FROM send_messages($1, $2, $3, $4, $5, $6, $7)"
);

/// Also adds a webhook event for the recipient of each new message, in the same transaction.
const SEND_MESSAGES_NOTING: &str = concat!(
    "-- store.send_messages_noting
WITH sent AS MATERIALIZED (
    SELECT * FROM send_messages($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY AS s (",
    sent_columns!(),
    ", idx)
), events (kind, chat_id, recipient_id, seq, report_id, due_at) AS (
    SELECT 'message.created', s.chat_id,
           CASE ($2)[s.idx::integer] WHEN s.user_lo THEN s.user_hi ELSE s.user_lo END,
           s.seq, NULL::uuid, clock_timestamp() + $8 * interval '1 second'
      FROM sent s WHERE s.outcome = 'created'
), ",
    note_webhooks!(),
    " SELECT ",
    sent_columns!(),
    ", ",
    epoch!(),
    " FROM sent ORDER BY idx"
);

const GET_MESSAGE: &str = concat!(
    "-- store.get_message\nSELECT ",
    message_columns!(),
    " FROM members me
  LEFT JOIN LATERAL message_by_id(me.chat_id, $2) m ON true
 WHERE me.chat_id = $1 AND me.user_id = $3"
);

/// A page is a range of `seq`, which has no holes, because deleted messages keep their rows.
const GET_HISTORY: &str = concat!(
    "-- store.get_history
WITH head AS (
    SELECT c.chat_id, c.last_ev, c.last_seq, me.read_seq, peer.read_seq AS peer_read_seq,
           greatest(1, CASE $3
               WHEN 'newest' THEN c.last_seq - $5 + 1
               WHEN 'before' THEN least($4 - 1, c.last_seq) - $5 + 1
               WHEN 'after' THEN $4 + 1
               ELSE least($4 - $5 / 2, c.last_seq - $5 + 1) END) AS lo,
           CASE $3
               WHEN 'before' THEN $4 - 1
               WHEN 'after' THEN $4 + $5
               WHEN 'newest' THEN c.last_seq
               ELSE greatest(1, least($4 - $5 / 2, c.last_seq - $5 + 1)) + $5 - 1 END AS hi
      FROM chats c
     CROSS JOIN LATERAL (SELECT m.read_seq FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = $2 OFFSET 0) me
     CROSS JOIN LATERAL (SELECT m.read_seq FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id <> $2 OFFSET 0) peer
     WHERE c.chat_id = $1
)
SELECT h.last_ev, h.last_seq, ",
    epoch!(),
    ", h.read_seq, h.peer_read_seq, h.lo, least(h.hi, h.last_seq) AS hi, ",
    message_columns!(),
    " FROM head h
  LEFT JOIN LATERAL (SELECT * FROM messages m
                      WHERE m.chat_id = h.chat_id AND m.seq BETWEEN h.lo AND h.hi OFFSET 0) m ON true
 ORDER BY m.seq"
);

/// Bytes of text and metadata in one page of changes. A socket with a slow reader holds a page in memory
/// until the write times out, and one user may have 50 sockets. Five hundred usual messages have less.
const CHANGES_BYTES: i64 = 512 * 1024;

/// Reads what changed since a position from the rows themselves, so that no log of events grows. `before`
/// sums the bytes of the preceding rows only, so that at least one row is returned, however large it is.
const GET_CHANGES: &str = concat!(
    "-- store.get_changes
WITH head AS (
    SELECT c.chat_id, c.last_ev, c.last_seq, me.read_seq, peer.read_seq AS peer_read_seq,
           CASE WHEN NOT c.blocked THEN peer.user_id END AS visible
      FROM chats c
     CROSS JOIN LATERAL (SELECT m.user_id, m.read_seq FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = coalesce($2, c.user_lo)
                         OFFSET 0) me
     CROSS JOIN LATERAL (SELECT m.user_id, m.read_seq FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id <> me.user_id OFFSET 0) peer
     WHERE c.chat_id = $1
), moved AS (
    (SELECT NULL::text AS reader, NULL::bigint AS marker, m.seq, m.ev, m.message_id, m.sender_id,
            m.client_msg_id, m.text, m.metadata, m.created_at, m.edited_at, m.deleted_at
       FROM messages m WHERE m.chat_id = $1 AND m.ev > $3 ORDER BY m.ev LIMIT $4)
    UNION ALL
    (SELECT r.user_id, r.read_seq, NULL, r.ev, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
       FROM members r WHERE r.chat_id = $1 AND r.ev > $3)
)
SELECT h.last_ev, h.last_seq, ",
    epoch!(),
    ", h.read_seq, h.peer_read_seq, h.visible, m.reader, m.marker, ",
    message_columns!(),
    "
  FROM head h LEFT JOIN (
    SELECT *, coalesce(sum(octet_length(text) + coalesce(octet_length(metadata::text), 0))
                  OVER (ORDER BY ev ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
      FROM (SELECT * FROM moved ORDER BY ev LIMIT $4) limited
  ) m ON m.before < $5
 ORDER BY m.ev"
);

const LIST_TEXTS: &str = "\
-- store.list_texts
SELECT seq, text FROM (
    SELECT seq, text, coalesce(sum(octet_length(text))
               OVER (ORDER BY seq DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
      FROM messages WHERE chat_id = $1 AND seq BETWEEN $2 AND $3 AND deleted_at IS NULL
) x WHERE before < $4 ORDER BY seq DESC";

/// Looks up each message by its full key: with `= ANY` on the second column, one of two possible plans
/// would filter all rows of the chat.
const LIST_MESSAGES: &str = concat!(
    "-- store.list_messages\nSELECT ",
    message_columns!(),
    " FROM unnest($2) AS s (seq)
 CROSS JOIN LATERAL (SELECT * FROM messages m WHERE m.chat_id = $1 AND m.seq = s.seq OFFSET 0) m
 ORDER BY m.seq DESC"
);
