//! What is the same for all clients of a chat: its changes, and who belongs to it. No I/O.

use std::sync::Arc;

use beseda_protocol::model::{ChatKind, Message, MessageId, Reaction, Role};

/// The change behind an `ev`: the same for all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Message {
        message_id: MessageId,
        seq: i64,
        text: String,
        /// See [`carried`].
        carried: String,
        edited: bool,
        deleted: bool,
    },
    Read {
        user: String,
        read_seq: i64,
    },
    /// A member's role; `None`: they are out.
    Member {
        user: String,
        role: Option<Role>,
    },
    Group {
        title: Option<String>,
        receipts: Option<bool>,
    },
}

/// A message's reactions, and whether it is pinned; empty where there is none of it.
pub(super) fn carried(reactions: &[Reaction], is_pinned: bool) -> String {
    if reactions.is_empty() && !is_pinned {
        return String::new();
    }
    serde_json::to_string(&(reactions, is_pinned)).unwrap_or_default()
}

/// Whose chat it is.
#[derive(Debug, Clone)]
pub(super) struct Party {
    pub kind: ChatKind,
    /// The client's own user.
    pub own: String,
    /// Who may ever be a member.
    pub members: Arc<[String]>,
}

impl Change {
    pub(super) fn of(message: &Message) -> Self {
        let deleted = message.deleted_at.is_some();
        Self::Message {
            message_id: message.message_id,
            seq: message.seq,
            text: message.text.clone(),
            carried: carried(&message.reactions, message.pinned_at.is_some()),
            edited: message.edited_at.is_some() && !deleted,
            deleted,
        }
    }
}
