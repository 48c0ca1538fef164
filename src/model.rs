//! The domain's types: those that travel on the wire, and those that only the server has.

pub use beseda_protocol::model::*;

/// A user's public data, as the host application gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub user_id: UserId,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
}

/// What bars a user from being admitted, if anything does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    pub erased: bool,
    /// Tokens issued earlier are void.
    pub revoked_at: Option<Time>,
}

/// A change of a chat: the current state of the row that changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Message(Box<Message>),
    Read { user_id: UserId, read_seq: i64, ev: i64 },
}

impl Change {
    pub fn ev(&self) -> i64 {
        match self {
            Self::Message(message) => message.ev,
            Self::Read { ev, .. } => *ev,
        }
    }
}
