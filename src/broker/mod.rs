//! Redis: the connection for commands, and publications between replicas.
//!
//! Everything in Redis may be lost at any moment. What is said here fails fast ([`RedisUnavailable`]) and is
//! rebuilt from Postgres; a publication that may have been lost is admitted ([`Event::Lost`]).
//! This module, [`crate::unread`] and [`crate::presence`] are the only ones that know fred.

mod client;
mod connection;
mod listener;
mod once;
mod pubsub;
mod script;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use uuid::Uuid;

pub use client::RedisClient;
pub use pubsub::Broker;
pub(crate) use script::{Call, Script};

use crate::{
    model::{ChatId, UserId},
    tls::TlsError,
};

/// Why there can be no connection, ever.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("the URL of Redis is not usable: {0}")]
    Url(String),
    #[error("no TLS to Redis")]
    Tls(#[from] TlsError),
    #[error("this is Redis {0}: {oldest} or newer is needed", oldest = client::OLDEST_REDIS)]
    TooOld(String),
    #[error("BESEDA_REDIS_CA needs a REDIS_URL that begins with rediss")]
    PlainWithCa,
}

/// Redis does not answer, or not in time. What was asked may still happen, late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis is away")]
pub struct RedisUnavailable;

/// What one can listen to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Channel {
    /// What happens in a chat.
    Chat(ChatId),
    /// What concerns one person: their inbox.
    User(UserId),
    /// What every replica has to know.
    All,
}

/// What the broker tells its one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Publication {
        channel: Channel,
        payload: Bytes,
    },
    /// Publications may have been lost before this: compare everything. All that should be
    /// subscribed is subscribed again by now.
    Lost,
}

impl Channel {
    fn name(&self, prefix: &str) -> String {
        match self {
            Self::Chat(chat) => format!("{prefix}chat:{chat}"),
            Self::User(user) => format!("{prefix}user:{user}"),
            Self::All => format!("{prefix}all:"),
        }
    }

    fn parse(name: &str, prefix: &str) -> Option<Self> {
        let (kind, id) = name.strip_prefix(prefix)?.split_once(':')?;
        match kind {
            "chat" => Uuid::parse_str(id).ok().map(Self::Chat),
            "user" => UserId::parse(id).map(Self::User),
            "all" => Some(Self::All),
            _ => None,
        }
    }
}
