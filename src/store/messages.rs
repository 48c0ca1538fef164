//! New messages, written in batches.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio_postgres::types::{Json, Type};

use super::{
    MemberState, Noted, Param, Store, StoreError,
    member_state::Told,
    refusals::refusal,
    row::Row,
    rows::{
        carried, chat_kind, epoch, epoch_of, mentions, mentions_param, message, message_columns,
        time,
    },
    webhooks::note_webhooks,
};
use crate::{
    error::Error,
    model::{
        Attachment, AttachmentId, ChatId, ChatKind, Epoch, Mentions, Message, MessageId,
        MessageKind, UserId,
    },
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
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    pub attachments: Vec<AttachmentId>,
}

/// A batch that was written.
#[derive(Debug)]
pub struct SentBatch {
    /// An outcome a draft, in order.
    pub outcomes: Vec<SendOutcome>,
    /// Of both members of each direct chat; in a group of the senders and of those whom messages name.
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
        if let [draft] = batch
            && let Some(sent) = self.send_usual(draft).await?
        {
            return Ok(sent);
        }
        let chats: Vec<_> = batch.iter().map(|d| d.chat_id).collect();
        let senders: Vec<_> = batch.iter().map(|d| d.sender_id.as_str()).collect();
        let ids: Vec<_> = batch.iter().map(|d| d.message_id).collect();
        let keys: Vec<_> = batch.iter().map(|d| d.client_msg_id.as_deref()).collect();
        let digests: Vec<_> = batch.iter().map(|d| d.digest.as_deref()).collect();
        let texts: Vec<_> = batch.iter().map(|d| d.text.as_str()).collect();
        let metadata: Vec<_> = batch.iter().map(|d| d.metadata.as_ref().map(Json)).collect();
        let mentioned: Vec<_> = batch.iter().map(|d| whom(d.mentions.as_ref())).collect();
        let replies: Vec<_> = batch.iter().map(|d| d.reply_to).collect();
        let attached: Vec<_> = batch.iter().map(|d| attached(&d.attachments)).collect();
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
            (&replies, Type::UUID_ARRAY),
            (&attached, Type::TEXT_ARRAY),
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
        let (mut states, mut replayed) = (Vec::with_capacity(2 * batch.len()), Vec::new());
        let (mut directs, mut in_groups) = (HashSet::new(), HashSet::new());
        for row in &rows {
            let Some((idx, draft)) = draft_of(batch, row) else { continue };
            found.insert(idx, row);
            if !matches!(row.get("outcome"), "created" | "replayed") {
                continue;
            }
            match chat_kind(row.get("kind")) {
                ChatKind::Direct => {
                    directs.insert(draft.chat_id);
                }
                ChatKind::Group => in_groups.extend(concerned(draft, row)),
            }
            if row.get::<&str>("outcome") == "replayed" {
                replayed.push((draft.chat_id, row.get("seq")));
            } else if Told::is_on(row) {
                states.extend(Told::by_message(row, draft, &epoch).states());
            }
        }
        let mut earlier = self.get_earlier(&replayed).await?;
        self.complete_states(&mut states, directs).await?;
        self.complete_members(&mut states, in_groups).await?;
        let outcome = |(idx, draft)| match found.get(&idx) {
            Some(row) => send_outcome(draft, row, &epoch, &mut earlier),
            None => SendOutcome::Refused(Error::ChatNotFound),
        };
        let outcomes = (1..).zip(batch).map(outcome).collect();
        Ok(SentBatch { outcomes, states, epoch })
    }

    /// Returns these messages, by chat and `seq`, as they are now.
    async fn get_earlier(
        &self,
        messages: &[(ChatId, i64)],
    ) -> Result<HashMap<(ChatId, i64), Message>, StoreError> {
        if messages.is_empty() {
            return Ok(HashMap::new());
        }
        let (chats, seqs): (Vec<_>, Vec<_>) = messages.iter().copied().unzip();
        let params = [(&chats as _, Type::UUID_ARRAY), (&seqs as _, Type::INT8_ARRAY)];
        let rows = self.query(GET_EARLIER, &params).await?;
        let read = |row: &Row| {
            let message = message(row.get("chat_id"), row);
            ((message.chat_id, message.seq), message)
        };
        Ok(rows.iter().map(read).collect())
    }
}

/// A row's draft, and its place; `None`: the row is of none.
fn draft_of<'a>(batch: &'a [Draft], row: &Row) -> Option<(i64, &'a Draft)> {
    let idx: i64 = row.get::<Option<_>>("idx")?;
    let place = usize::try_from(idx - 1).ok()?;
    Some((idx, batch.get(place)?))
}

/// The members of a group whose own counters a message may have changed: its sender, and whom it names.
fn concerned(draft: &Draft, row: &Row) -> Vec<(ChatId, UserId)> {
    let mut users = match mentions(row, "mentions") {
        Mentions::Users(users) => users,
        Mentions::All => Vec::new(),
    };
    users.push(draft.sender_id.clone());
    users.into_iter().map(|user_id| (draft.chat_id, user_id)).collect()
}

/// `None`: the message mentions nobody.
fn whom(mentions: Option<&Mentions>) -> Option<String> {
    mentions.map(mentions_param).filter(|ids| !ids.is_empty())
}

/// `None`: the message has no attachments.
fn attached(attachments: &[AttachmentId]) -> Option<String> {
    let ids: Vec<_> = attachments.iter().map(ToString::to_string).collect();
    (!ids.is_empty()).then(|| ids.join(","))
}

/// What `send_messages` gives for a message. `earlier`: the messages that were replayed.
fn send_outcome(
    draft: &Draft,
    row: &Row,
    epoch: &Epoch,
    earlier: &mut HashMap<(ChatId, i64), Message>,
) -> SendOutcome {
    match row.get("outcome") {
        "created" => {}
        "replayed" => {
            // Gone: its chat was deleted meanwhile.
            return match earlier.remove(&(draft.chat_id, row.get("seq"))) {
                Some(message) => SendOutcome::Replayed { message },
                None => SendOutcome::Refused(Error::ChatNotFound),
            };
        }
        refused => return SendOutcome::Refused(refusal(refused, row)),
    }
    let attachments = carried(row, "attachments");
    created(draft, row, epoch, mentions(row, "mentions"), attachments)
}

/// A message that was created, from its row.
pub(super) fn created(
    draft: &Draft,
    row: &Row,
    epoch: &Epoch,
    mentions: Mentions,
    attachments: Vec<Attachment>,
) -> SendOutcome {
    let Draft { chat_id, sender_id, message_id, client_msg_id, text, metadata, .. } = draft.clone();
    let message = Message {
        message_id,
        chat_id,
        seq: row.get("seq"),
        ev: row.get("ev"),
        kind: MessageKind::Text,
        sender_id: Some(sender_id),
        text,
        metadata,
        mentions,
        system: None,
        reply_to: carried(row, "reply_to"),
        attachments,
        reactions: Vec::new(),
        pinned_at: None,
        client_msg_id,
        created_at: time(row, "created_at"),
        edited_at: None,
        deleted_at: None,
        my_reactions: None,
    };
    let noted = Noted::by(epoch, row.get("outbox_id"));
    SendOutcome::Created { message, kind: chat_kind(row.get("kind")), noted }
}

/// The columns of a row `f` of `send_messages`, and the epoch, which is asked for by the statement that writes,
/// and once, as it is the same for all rows.
macro_rules! sent_columns {
    () => {
        concat!("f.*, extract(epoch FROM f.wait - clock_timestamp())::float8 AS wait_s, ", epoch!())
    };
}

const SEND_MESSAGES: &str = concat!(
    "-- store.send_messages\nSELECT ",
    sent_columns!(),
    "
  FROM send_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) f"
);

const GET_EARLIER: &str = concat!(
    "-- store.get_earlier\nSELECT q.chat_id, ",
    message_columns!(),
    "
  FROM unnest($1, $2) AS q (chat_id, seq)
 CROSS JOIN LATERAL (SELECT * FROM messages m WHERE m.chat_id = q.chat_id AND m.seq = q.seq OFFSET 0) m"
);

/// The same, and an event for each new message, in the same transaction: of a direct chat for its
/// recipient, since the chat was there, with both its members, before the statement began; of a group one
/// for all members, however many they are.
const SEND_MESSAGES_NOTING: &str = concat!(
    "-- store.send_messages_noting
WITH f AS MATERIALIZED (
    SELECT * FROM send_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
), events (kind, chat_id, recipient_id, seq, report_id, due_at) AS (
    SELECT 'message.created', ($1)[f.idx::integer], peer.user_id, f.seq, NULL::uuid,
           clock_timestamp() + $11 * interval '1 second'
      FROM f
      LEFT JOIN LATERAL (SELECT m.user_id FROM members m
                          WHERE m.chat_id = ($1)[f.idx::integer] AND m.user_id <> ($2)[f.idx::integer]
                            AND f.kind = 'direct' OFFSET 0) peer ON true
     WHERE f.outcome = 'created'
), ",
    note_webhooks!(),
    " SELECT ",
    sent_columns!(),
    " FROM f"
);
