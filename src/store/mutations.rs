//! Mutations: edits, deletions and read markers, written in batches like new messages.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::Type;

use super::{
    GroupHead, MemberState, Noted, Store, StoreError,
    member_state::{Told, group_head},
    refusals::refusal,
    row::Row,
    rows::{
        chat_kind, epoch, epoch_of, has_message, mentions_param, message, message_columns, time,
    },
};
use crate::{
    error::Error,
    model::{ChatId, ChatKind, Epoch, Mentions, Message, MessageId, UserId},
};

/// A requested change in a chat.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub chat_id: ChatId,
    pub user: UserId,
    pub kind: MutationKind,
}

/// The change that is requested.
#[derive(Debug, Clone)]
pub enum MutationKind {
    /// `mentions` `None`: they stay as they are.
    Edit { message_id: MessageId, text: String, mentions: Option<Mentions> },
    /// `admin`: regardless of the message's sender.
    Delete { message_id: MessageId, admin: bool },
    /// Moves the reader's marker forward, never back; `None`: to the head.
    Mark { up_to_seq: Option<i64> },
}

/// A batch that was written.
#[derive(Debug)]
pub struct MutatedBatch {
    /// An outcome a mutation, in order.
    pub outcomes: Vec<MutationOutcome>,
    /// Of both members of each direct chat that changed, and of readers.
    pub states: Vec<MemberState>,
    /// Of groups in which counters changed otherwise.
    pub heads: Vec<GroupHead>,
    pub epoch: Epoch,
}

/// The outcome of a mutation.
#[derive(Debug)]
pub enum MutationOutcome {
    Done(Box<Mutated>),
    Refused(Error),
}

/// The chat after a mutation.
#[derive(Debug, Clone)]
pub struct Mutated {
    pub chat_id: ChatId,
    pub kind: ChatKind,
    /// Whether a mark is told to all members.
    pub receipts: bool,
    /// The change's revision; `None`: there was nothing to change, or the mark is silent.
    pub changed_ev: Option<i64>,
    pub noted: Option<Noted>,
    /// Whether anything changed.
    pub moved: bool,
    pub result: MutationResult,
}

/// The part of the outcome that the requester needs.
#[derive(Debug, Clone)]
pub enum MutationResult {
    Message(Box<Message>),
    Mark { reader: UserId, state: Box<MemberState> },
}

impl Store {
    /// Writes a batch in one transaction. A chat may come often in it, a reader's mark in a chat once.
    pub async fn mutate_chats(&self, batch: &[Mutation]) -> Result<MutatedBatch, StoreError> {
        let chats: Vec<_> = batch.iter().map(|one| one.chat_id).collect();
        let users: Vec<_> = batch.iter().map(|one| one.user.as_str()).collect();
        let (mut kinds, mut messages, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut mentioned, mut admins, mut marks) = (Vec::new(), Vec::new(), Vec::new());
        for Mutation { kind, .. } in batch {
            let (name, message, text, whom, admin, mark) = match kind {
                MutationKind::Edit { message_id, text, mentions } => {
                    let whom = mentions.as_ref().map(mentions_param);
                    ("edit", Some(*message_id), Some(text.as_str()), whom, false, None)
                }
                MutationKind::Delete { message_id, admin } => {
                    ("delete", Some(*message_id), None, None, *admin, None)
                }
                MutationKind::Mark { up_to_seq } => ("mark", None, None, None, false, *up_to_seq),
            };
            kinds.push(name);
            messages.push(message);
            texts.push(text);
            mentioned.push(whom);
            admins.push(admin);
            marks.push(mark);
        }
        let rows = self
            .run(
                &self.writes,
                MUTATE_CHATS,
                &[
                    (&kinds, Type::TEXT_ARRAY),
                    (&chats, Type::UUID_ARRAY),
                    (&users, Type::TEXT_ARRAY),
                    (&messages, Type::UUID_ARRAY),
                    (&texts, Type::TEXT_ARRAY),
                    (&mentioned, Type::TEXT_ARRAY),
                    (&admins, Type::BOOL_ARRAY),
                    (&marks, Type::INT8_ARRAY),
                ],
            )
            .await?;
        let epoch = rows.first().map(epoch_of).ok_or(StoreError::Unavailable(None))?;
        let found: HashMap<i64, &Row> =
            rows.iter().filter_map(|row| Some((row.get::<Option<_>>("idx")?, row))).collect();
        let outcome = |(idx, one)| match found.get(&idx) {
            Some(row) => mutation_outcome(one, row, &epoch),
            None => MutationOutcome::Refused(Error::ChatNotFound),
        };
        let outcomes = (1..).zip(batch).map(outcome).collect();
        let mut states = Vec::with_capacity(2 * rows.len());
        let (mut directs, mut heads) = (HashSet::new(), Vec::new());
        for row in rows.iter().filter(|row| row.get::<Option<bool>>("moved") == Some(true)) {
            let Some(one) = mutation_of(batch, row) else { continue };
            if row.get::<Option<&str>>("kind") == Some("direct") {
                directs.insert(one.chat_id);
            } else if row.get::<Option<i64>>("recount_ev") == row.get("changed_ev") {
                heads.push(group_head(row, one.chat_id, Epoch::clone(&epoch)));
            }
            if Told::is_on(row) {
                states.extend(told(one, row, &epoch).states());
            }
        }
        self.complete_states(&mut states, directs).await?;
        Ok(MutatedBatch { outcomes, states, heads, epoch })
    }
}

/// A row's mutation.
fn mutation_of<'a>(batch: &'a [Mutation], row: &Row) -> Option<&'a Mutation> {
    let idx: i64 = row.get::<Option<_>>("idx")?;
    batch.get(usize::try_from(idx - 1).ok()?)
}

/// The states on a mark's row.
fn told<'a>(mark: &'a Mutation, row: &'a Row, epoch: &'a Epoch) -> Told<'a> {
    Told { row, chat_id: mark.chat_id, user_id: &mark.user, activity: time(row, "activity"), epoch }
}

fn mutation_outcome(mutation: &Mutation, row: &Row, epoch: &Epoch) -> MutationOutcome {
    match row.get("outcome") {
        "ok" => {}
        refused => return MutationOutcome::Refused(refusal(refused, row)),
    }
    let Mutation { chat_id, user, kind } = mutation;
    let result = match kind {
        MutationKind::Mark { .. } if Told::is_on(row) => {
            let state = Box::new(told(mutation, row, epoch).own());
            MutationResult::Mark { reader: user.clone(), state }
        }
        MutationKind::Edit { .. } | MutationKind::Delete { .. } if has_message(row) => {
            MutationResult::Message(Box::new(message(*chat_id, row)))
        }
        _ => return MutationOutcome::Refused(Error::ChatNotFound),
    };
    MutationOutcome::Done(Box::new(Mutated {
        chat_id: *chat_id,
        kind: chat_kind(row.get("kind")),
        receipts: row.get("receipts"),
        changed_ev: row.get("changed_ev"),
        noted: Noted::by(epoch, row.get("outbox_id")),
        moved: row.get("moved"),
        result,
    }))
}

const MUTATE_CHATS: &str = concat!(
    "-- store.mutate_chats
SELECT f.idx, f.outcome, extract(epoch FROM f.wait - clock_timestamp())::float8 AS wait_s, f.wait, f.moved,
       f.changed_ev, f.outbox_id, f.kind, f.receipts, f.last_seq, f.last_ev, f.activity, f.counted, f.recount_ev,
       f.room_name, f.rev, f.read_seq, f.unread, f.unread_mentions, f.flags, f.peer_id, f.peer_rev,
       f.peer_read_seq, f.peer_unread, f.peer_mentions, f.peer_flags, ",
    epoch!(),
    ", ",
    message_columns!(),
    "
  FROM mutate_chats($1, $2, $3, $4, $5, $6, $7, $8) f CROSS JOIN LATERAL (SELECT (f.message).*) m"
);
