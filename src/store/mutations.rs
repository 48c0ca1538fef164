//! Mutations: edits, deletions and read markers, written in batches like new messages.

use tokio_postgres::{Row, types::Type};

use super::{
    Noted, Store, StoreError,
    messages::refusal,
    rows::{ChatState, chat_state, epoch, message, message_columns},
};
use crate::{
    error::Error,
    model::{ChatId, Message, MessageId, UserId},
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
    Edit {
        message_id: MessageId,
        text: String,
    },
    /// `admin`: regardless of the message's sender.
    Delete {
        message_id: MessageId,
        admin: bool,
    },
    /// Moves the reader's marker forward, never back; `None`: to the head.
    Mark {
        up_to_seq: Option<i64>,
    },
}

/// The outcome of a mutation.
#[derive(Debug)]
pub enum MutationOutcome {
    Done(Box<Mutated>),
    Refused(Error),
}

/// The chat's state after a mutation.
#[derive(Debug, Clone)]
pub struct Mutated {
    pub state: ChatState,
    /// The change's revision; `None`: there was nothing to change.
    pub changed_ev: Option<i64>,
    pub noted: Option<Noted>,
    pub result: MutationResult,
}

/// The part of the outcome that the requester needs.
#[derive(Debug, Clone)]
pub enum MutationResult {
    Message(Box<Message>),
    Mark { reader: UserId, room_name: String, read_seq: i64, unread: i64 },
}

impl Store {
    /// Writes a batch in one transaction and returns an outcome for each mutation, in order. A
    /// batch must not have two mutations of one chat.
    pub async fn mutate_chats(
        &self,
        batch: &[Mutation],
    ) -> Result<Vec<MutationOutcome>, StoreError> {
        let chats: Vec<_> = batch.iter().map(|one| one.chat_id).collect();
        let users: Vec<_> = batch.iter().map(|one| one.user.as_str()).collect();
        let (mut kinds, mut messages, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut admins, mut marks) = (Vec::new(), Vec::new());
        for Mutation { kind, .. } in batch {
            let (name, message, text, admin, mark) = match kind {
                MutationKind::Edit { message_id, text } => {
                    ("edit", Some(*message_id), Some(text.as_str()), false, None)
                }
                MutationKind::Delete { message_id, admin } => {
                    ("delete", Some(*message_id), None, *admin, None)
                }
                MutationKind::Mark { up_to_seq } => ("mark", None, None, false, *up_to_seq),
            };
            kinds.push(name);
            messages.push(message);
            texts.push(text);
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
                    (&admins, Type::BOOL_ARRAY),
                    (&marks, Type::INT8_ARRAY),
                ],
            )
            .await?;
        Ok(batch.iter().zip(&rows).map(|(one, row)| mutation_outcome(one, row)).collect())
    }
}

fn mutation_outcome(mutation: &Mutation, row: &Row) -> MutationOutcome {
    match row.get("outcome") {
        "ok" => {}
        refused => return MutationOutcome::Refused(refusal(refused)),
    }
    let Mutation { chat_id, user, kind } = mutation;
    let state = chat_state(row);
    let result = match kind {
        MutationKind::Mark { .. } => {
            let (read_seq, unread) = if *user == state.user_lo {
                (state.lo_read, state.lo_unread)
            } else {
                (state.hi_read, state.hi_unread)
            };
            let (reader, room_name) = (user.clone(), state.room_name.clone());
            MutationResult::Mark { reader, room_name, read_seq, unread }
        }
        MutationKind::Edit { .. } | MutationKind::Delete { .. } => {
            MutationResult::Message(Box::new(message(*chat_id, row)))
        }
    };
    let noted = Noted::by(&state.epoch, row.get("outbox_id"));
    let changed_ev = row.get("changed_ev");
    MutationOutcome::Done(Box::new(Mutated { state, changed_ev, noted, result }))
}

const MUTATE_CHATS: &str = concat!(
    "-- store.mutate_chats
SELECT a.outcome, a.changed_ev, a.outbox_id, (a.state).*, ",
    epoch!(),
    ", ",
    message_columns!(),
    " FROM mutate_chats($1, $2, $3, $4, $5, $6, $7) a, LATERAL (SELECT (a.message).*) m
 ORDER BY a.idx"
);
