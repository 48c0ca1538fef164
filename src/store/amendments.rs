//! Changes of what is there: edits, deletions, read markers, written in batches like new messages.

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

/// A change that somebody wants made in a chat.
#[derive(Debug, Clone)]
pub struct Amendment {
    pub chat_id: ChatId,
    pub user: UserId,
    pub kind: AmendmentKind,
}

/// What is to be changed.
#[derive(Debug, Clone)]
pub enum AmendmentKind {
    Edit {
        message_id: MessageId,
        text: String,
    },
    /// `admin`: whoever's message it is.
    Delete {
        message_id: MessageId,
        admin: bool,
    },
    /// The reader's marker forward, never back; `None`: to the head.
    Mark {
        up_to_seq: Option<i64>,
    },
}

/// What became of an amendment.
#[derive(Debug)]
pub enum AmendmentOutcome {
    Done(Amended),
    Refused(Error),
}

/// Where an amendment left its chat.
#[derive(Debug, Clone)]
pub struct Amended {
    pub state: ChatState,
    /// The change's number; `None` where there was nothing to change.
    pub changed_ev: Option<i64>,
    pub noted: Option<Noted>,
    pub result: AmendmentResult,
}

/// What whoever asked for it wants to know.
#[derive(Debug, Clone)]
pub enum AmendmentResult {
    Message(Box<Message>),
    Mark { reader: UserId, room_name: String, read_seq: i64, unread: i64 },
}

impl Store {
    /// Writes a batch in one transaction. An outcome an amendment, in order. No two of a batch may be
    /// of the same chat.
    pub async fn amend_chats(
        &self,
        batch: &[Amendment],
    ) -> Result<Vec<AmendmentOutcome>, StoreError> {
        let chats: Vec<_> = batch.iter().map(|one| one.chat_id).collect();
        let users: Vec<_> = batch.iter().map(|one| one.user.as_str()).collect();
        let (mut kinds, mut messages, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut admins, mut marks) = (Vec::new(), Vec::new());
        for Amendment { kind, .. } in batch {
            let (name, message, text, admin, mark) = match kind {
                AmendmentKind::Edit { message_id, text } => {
                    ("edit", Some(*message_id), Some(text.as_str()), false, None)
                }
                AmendmentKind::Delete { message_id, admin } => {
                    ("delete", Some(*message_id), None, *admin, None)
                }
                AmendmentKind::Mark { up_to_seq } => ("mark", None, None, false, *up_to_seq),
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
                AMEND_CHATS,
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
        Ok(batch.iter().zip(&rows).map(|(one, row)| amendment_outcome(one, row)).collect())
    }
}

fn amendment_outcome(amendment: &Amendment, row: &Row) -> AmendmentOutcome {
    match row.get(0) {
        "ok" => {}
        refused => return AmendmentOutcome::Refused(refusal(refused)),
    }
    let Amendment { chat_id, user, kind } = amendment;
    let state = chat_state(row, 3);
    let result = match kind {
        AmendmentKind::Mark { .. } => {
            let (read_seq, unread) = if *user == state.user_lo {
                (state.lo_read, state.lo_unread)
            } else {
                (state.hi_read, state.hi_unread)
            };
            let (reader, room_name) = (user.clone(), state.room_name.clone());
            AmendmentResult::Mark { reader, room_name, read_seq, unread }
        }
        AmendmentKind::Edit { .. } | AmendmentKind::Delete { .. } => {
            AmendmentResult::Message(Box::new(message(*chat_id, row, 15)))
        }
    };
    let noted = Noted::by(&state.epoch, row.get(2));
    AmendmentOutcome::Done(Amended { state, changed_ev: row.get(1), noted, result })
}

const AMEND_CHATS: &str = concat!(
    "-- store.amend_chats
SELECT a.outcome, a.changed_ev, a.outbox_id, (a.state).*, ",
    epoch!(),
    ", ",
    message_columns!(),
    " FROM mutate_chats($1, $2, $3, $4, $5, $6, $7) a, LATERAL (SELECT (a.message).*) m
 ORDER BY a.idx"
);
