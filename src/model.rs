//! The domain's types: those that travel on the wire, and those that only the server has.

use std::fmt;

use serde::Deserialize;

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

/// A reader's part in a chat, as read with its head.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Membership {
    pub role: Role,
    /// The first message that the reader may see.
    pub first_seq: i64,
    pub read_seq: i64,
}

/// The head of a chat: its newest numbers, of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head {
    pub kind: ChatKind,
    pub ev: i64,
    pub seq: i64,
    /// Opaque. A different one means that the database went back in time.
    pub epoch: String,
    /// Whether read markers take a revision and are told to all members.
    pub receipts: bool,
    pub member_count: i32,
    /// The reader's part; what a plain member with all of the history has, where no reader asked.
    pub reader: Membership,
    /// Of a direct chat: how far the other member has read.
    pub peer_read_seq: Option<i64>,
}

/// A member's own settings of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnFlags {
    pub notify: Notify,
    pub archived: bool,
    pub pinned: bool,
}

impl Default for OwnFlags {
    fn default() -> Self {
        Self { notify: Notify::All, archived: false, pinned: false }
    }
}

impl OwnFlags {
    /// Reads the short form: the first letter of `notify`, `A` for archived, `P` for pinned, as in `aP`.
    pub fn parse(text: &str) -> Option<Self> {
        let (notify, marks) = text.split_at_checked(1)?;
        let notify = match notify {
            "a" => Notify::All,
            "m" => Notify::Mentions,
            "n" => Notify::None,
            _ => return None,
        };
        Some(Self { notify, archived: marks.contains('A'), pinned: marks.contains('P') })
    }
}

/// Writes the short form.
impl fmt::Display for OwnFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.notify {
            Notify::All => "a",
            Notify::Mentions => "m",
            Notify::None => "n",
        })?;
        f.write_str(if self.archived { "A" } else { "" })?;
        f.write_str(if self.pinned { "P" } else { "" })
    }
}

/// Who is told of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    All,
    /// The owner and the admins: a change of members in a chat without receipts.
    Admins,
    /// Members who may see the message with this `seq`.
    SeeingSeq(i64),
}

/// A change of a chat: the current state of the row that changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Message(Box<Message>),
    Read {
        user_id: UserId,
        read_seq: i64,
        ev: i64,
    },
    /// Users who became members with one change.
    Joined {
        members: Vec<Member>,
        by: Option<UserId>,
        ev: i64,
    },
    /// A member's role or silence changed.
    Updated {
        member: Box<Member>,
        by: Option<UserId>,
        ev: i64,
    },
    Left {
        user_id: UserId,
        by: Option<UserId>,
        reason: LeftReason,
        ev: i64,
    },
    /// What the group shows, or whether it has receipts.
    Group(Box<GroupChange>),
}

impl Change {
    pub fn ev(&self) -> i64 {
        match self {
            Self::Message(message) => message.ev,
            Self::Group(change) => change.ev,
            Self::Read { ev, .. }
            | Self::Joined { ev, .. }
            | Self::Updated { ev, .. }
            | Self::Left { ev, .. } => *ev,
        }
    }

    /// Who is told of it, in a chat with receipts or without.
    pub fn audience(&self, receipts: bool) -> Audience {
        match self {
            Self::Message(message) => Audience::SeeingSeq(message.seq),
            Self::Joined { .. } | Self::Updated { .. } | Self::Left { .. } if !receipts => {
                Audience::Admins
            }
            _ => Audience::All,
        }
    }

    /// The users whose own part in the chat it changed.
    pub fn affected(&self) -> Vec<UserId> {
        match self {
            Self::Joined { members, .. } => {
                members.iter().map(|member| member.user.user_id.clone()).collect()
            }
            Self::Updated { member, .. } => vec![member.user.user_id.clone()],
            Self::Left { user_id, .. } => vec![user_id.clone()],
            Self::Message(_) | Self::Read { .. } | Self::Group(_) => Vec::new(),
        }
    }
}
