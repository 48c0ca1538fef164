//! New messages, written in batches.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio_postgres::{
    Row,
    types::{Json, Type},
};

use super::{
    MemberState, Noted, Param, Store, StoreError,
    refusals::refusal,
    rows::{chat_kind, epoch, epoch_of, json, mentions, mentions_param, opt_time, time},
    states::{has_state, member_state, state_columns},
    webhooks::note_webhooks,
};
use crate::{
    error::Error,
    model::{ChatId, ChatKind, Epoch, Mentions, Message, MessageId, MessageKind, UserId},
};

/// A message to be written, after all checks that need no database.
#[derive(Debug, Clone)]
pub struct Draft {
    pub chat_id: ChatId,
    pub sender_id: UserId,
    pub message_id: MessageId,
    pub client_msg_id: Option<String>,
    /// Keyed digest of the content; given where `client_msg_id` is.
    pub digest: Option<Bytes>,
    pub text: String,
    pub metadata: Option<Box<RawValue>>,
    pub mentions: Option<Mentions>,
}

/// A batch that was written.
#[derive(Debug)]
pub struct SentBatch {
    /// An outcome a draft, in order.
    pub outcomes: Vec<SendOutcome>,
    /// Of senders and of those mentioned; in direct chats of both members.
    pub states: Vec<MemberState>,
    pub epoch: Epoch,
}

/// The outcome of one message of a batch.
#[derive(Debug)]
pub enum SendOutcome {
    Created {
        message: Message,
        kind: ChatKind,
        noted: Option<Noted>,
    },
    /// The message of an earlier send with the same `client_msg_id` and content, as it is now.
    Replayed {
        message: Message,
    },
    Refused(Error),
}

impl Store {
    /// Writes a batch in one transaction.
    pub async fn send_messages(&self, batch: &[Draft]) -> Result<SentBatch, StoreError> {
        let chats: Vec<_> = batch.iter().map(|d| d.chat_id).collect();
        let senders: Vec<_> = batch.iter().map(|d| d.sender_id.as_str()).collect();
        let ids: Vec<_> = batch.iter().map(|d| d.message_id).collect();
        let keys: Vec<_> = batch.iter().map(|d| d.client_msg_id.as_deref()).collect();
        let digests: Vec<_> = batch.iter().map(|d| d.digest.as_deref()).collect();
        let texts: Vec<_> = batch.iter().map(|d| d.text.as_str()).collect();
        let metadata: Vec<_> = batch.iter().map(|d| d.metadata.as_ref().map(Json)).collect();
        let mentioned: Vec<_> = batch.iter().map(|d| whom(d.mentions.as_ref())).collect();
        let delay = self.webhook_delay.map(|delay| delay.as_secs_f64());
        let mut params: Vec<Param<'_>> = vec![
            (&chats, Type::UUID_ARRAY),
            (&senders, Type::TEXT_ARRAY),
            (&ids, Type::UUID_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&digests, Type::BYTEA_ARRAY),
            (&texts, Type::TEXT_ARRAY),
            (&metadata, Type::JSON_ARRAY),
            (&mentioned, Type::TEXT_ARRAY),
        ];
        let sql = match &delay {
            Some(delay) => {
                params.push((delay, Type::FLOAT8));
                SEND_MESSAGES_NOTING
            }
            None => SEND_MESSAGES,
        };
        let rows = self.run(&self.writes, sql, &params).await?;
        let epoch = rows.first().map(epoch_of).ok_or(StoreError::Unavailable(None))?;
        let mut found: HashMap<i64, &Row> = HashMap::with_capacity(batch.len());
        let mut states = Vec::with_capacity(rows.len().saturating_sub(batch.len()));
        for row in &rows {
            if let Some(idx) = row.get("idx") {
                found.insert(idx, row);
            } else if has_state(row) {
                states.push(member_state(row, &epoch));
            }
        }
        let outcome = |(idx, draft)| match found.get(&idx) {
            Some(row) => send_outcome(draft, row, &epoch),
            None => SendOutcome::Refused(Error::ChatNotFound),
        };
        let outcomes = (1..).zip(batch).map(outcome).collect();
        Ok(SentBatch { outcomes, states, epoch })
    }
}

/// `None`: the message mentions nobody.
fn whom(mentions: Option<&Mentions>) -> Option<String> {
    mentions.map(mentions_param).filter(|ids| !ids.is_empty())
}

/// What `send_messages` gives for a message. A retry is of the same chat, sender and key as the first
/// send, or its id would be another one: these come from the draft.
fn send_outcome(draft: &Draft, row: &Row, epoch: &Epoch) -> SendOutcome {
    let replayed = match row.get("outcome") {
        "created" => false,
        "replayed" => true,
        refused => return SendOutcome::Refused(refusal(refused, row)),
    };
    let Draft { chat_id, sender_id, message_id, client_msg_id, digest: _, text, metadata, .. } =
        draft.clone();
    let (text, metadata) =
        if replayed { (row.get("text"), json(row, "metadata")) } else { (text, metadata) };
    let message = Message {
        message_id,
        chat_id,
        seq: row.get("seq"),
        ev: row.get("ev"),
        kind: MessageKind::Text,
        sender_id: Some(sender_id),
        text,
        metadata,
        mentions: mentions(row, "mentions"),
        system: None,
        client_msg_id,
        created_at: time(row, "created_at"),
        edited_at: opt_time(row, "edited_at"),
        deleted_at: opt_time(row, "deleted_at"),
    };
    if replayed {
        SendOutcome::Replayed { message }
    } else {
        let noted = Noted::by(epoch, row.get("outbox_id"));
        SendOutcome::Created { message, kind: chat_kind(row.get("kind")), noted }
    }
}

/// The columns that [`send_outcome`] reads, of a row `f` of `send_messages`, and its state's, named `s`. The
/// epoch is asked for by the statement that writes, and once, as it is the same for all rows.
macro_rules! sent_columns {
    () => {
        concat!(
            "f.idx, f.outcome, extract(epoch FROM f.wait - clock_timestamp())::float8 AS wait_s, f.wait,
       f.kind, f.seq, f.ev, f.text, f.metadata, f.mentions, f.created_at, f.edited_at, f.deleted_at,
       f.outbox_id, ",
            epoch!(),
            ", ",
            state_columns!()
        )
    };
}

const SEND_MESSAGES: &str = concat!(
    "-- store.send_messages\nSELECT ",
    sent_columns!(),
    "
  FROM send_messages($1, $2, $3, $4, $5, $6, $7, $8) f CROSS JOIN LATERAL (SELECT (f.state).*) s"
);

/// The same, and an event for the recipient of each new message of a direct chat, in the same transaction:
/// the chat was there, with both its members, before the statement began.
const SEND_MESSAGES_NOTING: &str = concat!(
    "-- store.send_messages_noting
WITH f AS MATERIALIZED (
    SELECT * FROM send_messages($1, $2, $3, $4, $5, $6, $7, $8)
), events (kind, chat_id, recipient_id, seq, report_id, due_at) AS (
    SELECT 'message.created', peer.chat_id, peer.user_id, f.seq, NULL::uuid,
           clock_timestamp() + $9 * interval '1 second'
      FROM f
     CROSS JOIN LATERAL (SELECT m.chat_id, m.user_id FROM members m
                          WHERE m.chat_id = ($1)[f.idx::integer] AND m.user_id <> ($2)[f.idx::integer]
                            AND f.kind = 'direct' OFFSET 0) peer
     WHERE f.outcome = 'created'
), ",
    note_webhooks!(),
    " SELECT ",
    sent_columns!(),
    " FROM f CROSS JOIN LATERAL (SELECT (f.state).*) s"
);
