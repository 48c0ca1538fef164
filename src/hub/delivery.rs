//! What the hub brings to a socket.

use std::sync::Arc;

use crate::{
    model::{ChatId, Epoch, Time, UserId},
    protocol::{AddressedFrame, Frame, ResetReason},
};

/// A delivery to a socket.
#[derive(Debug, Clone)]
pub enum Delivery {
    Event {
        chat_id: ChatId,
        epoch: Epoch,
        ev: i64,
        /// Time of the commit, in microseconds since 1970.
        micros: i64,
        frame: AddressedFrame,
    },
    /// The changes of a filled gap, in their current state.
    Catchup {
        chat_id: ChatId,
        fill: Arc<Fill>,
    },
    Reset {
        chat_id: ChatId,
        head_ev: i64,
        epoch: Epoch,
        reason: ResetReason,
    },
    Deleted {
        chat_id: ChatId,
        epoch: Epoch,
    },
    Typing {
        chat_id: ChatId,
        user_id: UserId,
        frame: Frame,
    },
    Presence {
        chat_id: ChatId,
        user_id: UserId,
        frame: Frame,
    },
    /// To a user's sockets: they have read further in a chat without receipts.
    OwnRead {
        chat_id: ChatId,
        epoch: Epoch,
        frame: Frame,
    },
    /// To an inbox: a chat has changed.
    ChatMoved {
        chat_id: ChatId,
    },
    /// To a user's inbox: any chat may have changed.
    Inbox,
    /// The user was erased.
    Erased,
    /// The user's tokens issued before `at` are void.
    Revoked {
        at: Time,
    },
}

impl Delivery {
    /// Whether nobody waits for it, so that it may reach the sockets of a large chat one after the other.
    pub(super) fn is_deferrable(&self) -> bool {
        match self {
            Self::Event { frame, .. } => frame.deferrable,
            Self::Typing { .. } | Self::Presence { .. } => true,
            _ => false,
        }
    }
}

/// The content of a gap: changes ascending by `ev`.
#[derive(Debug)]
pub struct Fill {
    pub epoch: Epoch,
    pub after_ev: i64,
    pub frames: Vec<(i64, AddressedFrame)>,
    /// The revision up to which these are all.
    pub head_ev: i64,
    /// Whether this was the chat's head when they were read. If not, somebody who left and came back may
    /// be told of with a later part only, and must not be told what was said in between.
    pub whole: bool,
}
