//! Messages: written in batches, read by ranges of `seq` (dense, so a page is a range) and of `ev`.

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

/// A message to be written, checked as far as that goes without the database.
#[derive(Debug, Clone)]
pub struct Draft {
    pub chat_id: ChatId,
    pub sender_id: UserId,
    pub message_id: MessageId,
    pub client_msg_id: Option<String>,
    /// Keyed digest of text and metadata; given where `client_msg_id` is.
    pub digest: Option<Bytes>,
    pub text: String,
    pub metadata: Option<Box<RawValue>>,
}

/// What became of one message of a batch.
#[derive(Debug)]
pub enum SendOutcome {
    Created {
        message: Message,
        state: ChatState,
        noted: Option<Noted>,
    },
    /// An earlier send with the same `client_msg_id` and content: the message as it is now.
    Replayed {
        message: Message,
        state: ChatState,
    },
    Refused(Error),
}

/// Messages of a range of `seq`, ascending.
#[derive(Debug, Clone)]
pub struct Page {
    pub messages: Vec<Message>,
    /// The range asked for, both inclusive; empty where `hi` < `lo`.
    pub lo: i64,
    pub hi: i64,
}

/// A page and where the chat stood in the same snapshot.
#[derive(Debug, Clone)]
pub struct History {
    pub head: Head,
    pub page: Page,
}

/// What changed since a position, ascending by `ev`, and the head of the same snapshot.
#[derive(Debug, Clone)]
pub struct Changes {
    pub head: Head,
    /// The reader's other; `None` where one of the two has blocked the other.
    pub visible: Option<UserId>,
    pub changes: Vec<Change>,
    /// There is more past the last one: a limit was reached.
    pub more: bool,
}

impl Store {
    /// Writes a batch in one transaction. An outcome a draft, in order.
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
        if has_message(&row) { Ok(message(chat_id, &row)) } else { Err(Error::MessageNotFound) }
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

    /// What changed after `after_ev`, at most `limit` changes and no more than [`CHANGES_BYTES`] beyond
    /// the first. `reader` must be a member; `None`
    /// asks on behalf of all members. Gives `None` where the chat is gone or not the reader's.
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
        // Each row goes as it is read, so that a page is in memory once.
        let changes: Vec<Change> =
            rows.into_iter().filter_map(|row| change(chat_id, &row)).collect();
        // The last change of a chat is always there: nothing has superseded it.
        let more = changes.last().is_some_and(|last| last.ev() < head.ev);
        Ok(Some(Changes { head, visible, changes, more }))
    }

    /// The head of a chat; `None` where it is not the user's.
    pub async fn get_head(
        &self,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<Option<Head>, StoreError> {
        Ok(self.get_changes(chat_id, Some(user), i64::MAX, 0).await?.map(|changes| changes.head))
    }

    /// Live texts of a range of `seq` (both inclusive), newest first, up to the one with which they have
    /// `bytes`: what a search walks over.
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

    /// Messages by number, newest first: what a search found.
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

/// What `send_messages` gives for a message. A retry is of the same chat, sender and key as the first
/// send, or its id would be another one: these come from the draft.
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

/// The errors that the writing functions name.
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

/// Reads a reader and their marker, or a message; `None`: the row has neither.
fn change(chat_id: ChatId, row: &Row) -> Option<Change> {
    let ev: i64 = row.get::<_, Option<i64>>("m_ev")?;
    Some(match row.get::<_, Option<&str>>("reader") {
        Some(reader) => Change::Read { user_id: user(reader), read_seq: row.get("marker"), ev },
        None => Change::Message(Box::new(message(chat_id, row))),
    })
}

/// The columns that [`send_outcome`] reads, before the epoch: asked for by the statement that writes, and
/// once, as it is the same for all rows.
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

/// The same, and an event for each new message's recipient, in the same transaction.
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

/// `seq` is dense, so that a page is a range, whatever was deleted.
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

/// Texts and metadata of one page of changes, in bytes: a socket whose reader is slow holds a page as
/// long as a write may take, and one user may have 50 sockets. Five hundred usual messages have less.
const CHANGES_BYTES: i64 = 512 * 1024;

/// The state since a position: there is no log of events to grow. `before`: the bytes of the rows before
/// this one, so that one comes however large it is.
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

/// One by one: `= ANY` on the second column would be a filter over all of the chat in one of two plans.
const LIST_MESSAGES: &str = concat!(
    "-- store.list_messages\nSELECT ",
    message_columns!(),
    " FROM unnest($2) AS s (seq)
 CROSS JOIN LATERAL (SELECT * FROM messages m WHERE m.chat_id = $1 AND m.seq = s.seq OFFSET 0) m
 ORDER BY m.seq DESC"
);
