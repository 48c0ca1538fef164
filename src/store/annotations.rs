//! Annotations: reactions to messages, and pins; and who reacted, and what is pinned.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::Type;

use super::{
    MemberState, Noted, Param, Store, StoreError,
    refusals::refusal,
    row::Row,
    rows::{
        chat_kind, epoch, epoch_of, has_message, message, message_columns, message_for,
        my_reactions, time, user,
    },
};
use crate::{
    error::Error,
    model::{ChangedPart, ChatId, ChatKind, Epoch, Message, MessageId, Time, UserId},
};

/// A requested annotation of a message.
#[derive(Debug, Clone)]
pub struct Annotation {
    pub chat_id: ChatId,
    pub message_id: MessageId,
    /// Who asks; for the host application, its token's subject.
    pub user: UserId,
    pub kind: AnnotationKind,
}

/// What shall be so, whether or not it is already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnnotationKind {
    /// The user's reaction with this emoji is there, or not.
    Reaction { emoji: String, present: bool },
    /// The message is pinned, or not. `host`: asked by the host application.
    Pin { present: bool, host: bool },
}

impl AnnotationKind {
    /// The part of the message that it changes.
    pub fn changes(&self) -> ChangedPart {
        match self {
            Self::Reaction { .. } => ChangedPart::Reactions,
            Self::Pin { .. } => ChangedPart::Pinned,
        }
    }
}

/// A batch that was written.
#[derive(Debug)]
pub struct AnnotatedBatch {
    /// An outcome an annotation, in order.
    pub outcomes: Vec<AnnotationOutcome>,
    /// Of both members of each direct chat that changed.
    pub states: Vec<MemberState>,
    pub epoch: Epoch,
}

/// The outcome of an annotation.
#[derive(Debug)]
pub enum AnnotationOutcome {
    Done(Box<Annotated>),
    Refused(Error),
}

/// A message after an annotation.
#[derive(Debug, Clone)]
pub struct Annotated {
    pub message: Message,
    pub changed: ChangedPart,
    /// The change's revision, which several annotations may share; `None`: there was nothing to change.
    pub changed_ev: Option<i64>,
    pub noted: Option<Noted>,
}

/// A reaction of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserReaction {
    pub emoji: String,
    pub user_id: UserId,
    pub created_at: Time,
}

impl Store {
    /// Writes a batch in one transaction.
    pub async fn annotate_messages(
        &self,
        batch: &[Annotation],
    ) -> Result<AnnotatedBatch, StoreError> {
        let chats: Vec<_> = batch.iter().map(|one| one.chat_id).collect();
        let messages: Vec<_> = batch.iter().map(|one| one.message_id).collect();
        let users: Vec<_> = batch.iter().map(|one| one.user.as_str()).collect();
        let (mut kinds, mut emojis, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        for Annotation { kind, .. } in batch {
            let (name, emoji, host) = match kind {
                AnnotationKind::Reaction { emoji, present: true } => ("react", Some(emoji), false),
                AnnotationKind::Reaction { emoji, .. } => ("unreact", Some(emoji), false),
                AnnotationKind::Pin { present: true, host } => ("pin", None, *host),
                AnnotationKind::Pin { host, .. } => ("unpin", None, *host),
            };
            kinds.push(name);
            emojis.push(emoji.map(String::as_str));
            hosts.push(host);
        }
        let params: [Param<'_>; 6] = [
            (&kinds, Type::TEXT_ARRAY),
            (&chats, Type::UUID_ARRAY),
            (&messages, Type::UUID_ARRAY),
            (&users, Type::TEXT_ARRAY),
            (&emojis, Type::TEXT_ARRAY),
            (&hosts, Type::BOOL_ARRAY),
        ];
        let rows = self.run(&self.writes, ANNOTATE_MESSAGES, &params).await?;
        let epoch = rows.first().map(epoch_of).ok_or(StoreError::Unavailable(None))?;
        let found: HashMap<i64, &Row> = rows.iter().map(|row| (row.get("idx"), row)).collect();
        let mut directs = HashSet::new();
        let mut outcome = |(idx, one): (i64, &Annotation)| match found.get(&idx) {
            Some(row) => {
                let outcome = annotation_outcome(one, row, &epoch);
                if let AnnotationOutcome::Done(done) = &outcome
                    && done.changed_ev.is_some()
                    && chat_kind(row.get("kind")) == ChatKind::Direct
                {
                    directs.insert(one.chat_id);
                }
                outcome
            }
            None => AnnotationOutcome::Refused(Error::ChatNotFound),
        };
        let outcomes = (1..).zip(batch).map(&mut outcome).collect();
        let mut states = Vec::new();
        self.complete_states(&mut states, directs).await?;
        Ok(AnnotatedBatch { outcomes, states, epoch })
    }

    /// Who reacted to a message, by emoji, then in the order of their reactions, past `after`; with one emoji
    /// only, where it is given.
    pub async fn list_reactions(
        &self,
        chat_id: ChatId,
        message_id: MessageId,
        reader: &UserId,
        emoji: Option<&str>,
        after: Option<&UserReaction>,
        limit: i64,
    ) -> Result<Vec<UserReaction>, Error> {
        // An error says whether it is the chat or the message that the reader has not.
        let message = self.get_message(chat_id, message_id, reader).await?;
        let params: [Param<'_>; 7] = [
            (&chat_id, Type::UUID),
            (&message.seq, Type::INT8),
            (&emoji, Type::TEXT),
            (&after.map(|last| last.emoji.as_str()), Type::TEXT),
            (&after.map(|last| last.created_at.0), Type::TIMESTAMPTZ),
            (&after.map(|last| last.user_id.as_str()), Type::TEXT),
            (&limit, Type::INT8),
        ];
        let rows = self.query(LIST_REACTIONS, &params).await?;
        let reaction = |row: &Row| UserReaction {
            emoji: row.get("emoji"),
            user_id: user(row.get("user_id")),
            created_at: time(row, "created_at"),
        };
        Ok(rows.iter().map(reaction).collect())
    }

    /// A chat's pinned messages that the reader may see, the latest pin first, past `after` (when it was pinned,
    /// and its `seq`); `None` where the chat is not theirs.
    pub async fn list_pins(
        &self,
        chat_id: ChatId,
        reader: &UserId,
        after: Option<(Time, i64)>,
        limit: i64,
    ) -> Result<Option<Vec<Message>>, StoreError> {
        let (at, seq) = after.map(|(at, seq)| (at.0, seq)).unzip();
        let params: [Param<'_>; 5] = [
            (&chat_id, Type::UUID),
            (&reader.as_str(), Type::TEXT),
            (&at, Type::TIMESTAMPTZ),
            (&seq, Type::INT8),
            (&limit, Type::INT8),
        ];
        let rows = self.query(LIST_PINS, &params).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let pinned = rows.iter().filter(|row| has_message(row));
        Ok(Some(pinned.map(|row| message_for(chat_id, row)).collect()))
    }
}

fn annotation_outcome(one: &Annotation, row: &Row, epoch: &Epoch) -> AnnotationOutcome {
    match row.get("outcome") {
        "ok" if has_message(row) => AnnotationOutcome::Done(Box::new(Annotated {
            message: message(one.chat_id, row),
            changed: one.kind.changes(),
            changed_ev: row.get("changed_ev"),
            noted: Noted::by(epoch, row.get("outbox_id")),
        })),
        refused => AnnotationOutcome::Refused(refusal(refused, row)),
    }
}

const ANNOTATE_MESSAGES: &str = concat!(
    "-- store.annotate_messages
SELECT f.idx, f.outcome, extract(epoch FROM f.wait - clock_timestamp())::float8 AS wait_s, f.wait, f.changed_ev,
       f.outbox_id, f.kind, ",
    epoch!(),
    ", ",
    message_columns!(),
    "
  FROM annotate_messages($1, $2, $3, $4, $5, $6) f CROSS JOIN LATERAL (SELECT (f.message).*) m"
);

const LIST_REACTIONS: &str = "\
-- store.list_reactions
SELECT r.emoji, r.user_id, r.created_at FROM reactions r
 WHERE r.chat_id = $1 AND r.seq = $2 AND ($3::text IS NULL OR r.emoji = $3)
   AND ($4::text IS NULL OR (r.emoji, r.created_at, r.user_id) > ($4, $5, $6))
 ORDER BY r.emoji, r.created_at, r.user_id LIMIT $7";

/// A chat has 100 pins at most: they are sorted at read.
const LIST_PINS: &str = concat!(
    "-- store.list_pins\nSELECT ",
    message_columns!(),
    ", ",
    my_reactions!("$2"),
    "
  FROM members me
  LEFT JOIN LATERAL (SELECT p.seq, p.pinned_at FROM pins p
                      WHERE p.chat_id = me.chat_id AND p.seq >= me.first_seq
                        AND ($3::timestamptz IS NULL OR (p.pinned_at, p.seq) < ($3, $4))
                      ORDER BY p.pinned_at DESC, p.seq DESC LIMIT $5) p ON true
  LEFT JOIN LATERAL (SELECT * FROM messages m WHERE m.chat_id = me.chat_id AND m.seq = p.seq OFFSET 0) m ON true
 WHERE me.chat_id = $1 AND me.user_id = $2 AND coalesce(me.left_ev, 0) = 0
 ORDER BY p.pinned_at DESC, p.seq DESC"
);
