//! Settings of groups.

use clap::{Args, ValueEnum};

use super::ConfigError;

/// Largest value of BESEDA_RECEIPT_MEMBERS: a mark with a receipt locks the chat, and goes to all of its
/// members.
const MAX_RECEIPT_MEMBERS: i32 = 64;

/// Largest value of BESEDA_GROUP_MEMBERS, far from the bounds of a 32-bit count.
const MAX_GROUP_MEMBERS: i32 = 1_000_000;

/// In which groups the service writes messages of its own about members and changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SystemMessages {
    /// in groups with receipts
    Small,
    /// in all groups
    All,
    /// in none
    Off,
}

/// The settings of groups.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Groups")]
pub struct GroupConfig {
    /// Maximum number of members of a group; one more is refused with `chat_full`.
    #[arg(long, env = "BESEDA_GROUP_MEMBERS", default_value_t = 100_000)]
    pub group_members: i32,

    /// Maximum number of members of a group with receipts, up to 64. Once a group has more, it has no
    /// receipts for good: nobody is told how far others have read, and marks cost next to nothing.
    #[arg(long, env = "BESEDA_RECEIPT_MEMBERS", default_value_t = 32)]
    pub receipt_members: i32,

    /// In which groups messages of the service tell who came and went, and what changed. They are never
    /// unread.
    #[arg(long, env = "BESEDA_SYSTEM_MESSAGES", value_enum, default_value = "small")]
    pub system_messages: SystemMessages,
}

impl GroupConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let bounds = [
            ("BESEDA_GROUP_MEMBERS", self.group_members, MAX_GROUP_MEMBERS),
            ("BESEDA_RECEIPT_MEMBERS", self.receipt_members, MAX_RECEIPT_MEMBERS),
        ];
        match bounds.into_iter().find(|(_, value, max)| !(1..=*max).contains(value)) {
            Some((name, _, max)) => Err(ConfigError::new(name, format!("must be from 1 to {max}"))),
            None => Ok(()),
        }
    }
}
