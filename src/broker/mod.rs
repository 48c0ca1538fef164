//! Redis: the connection for commands, and publications between replicas.
//!
//! Redis may lose everything at any moment. Commands therefore fail fast ([`RedisUnavailable`]), what
//! they wrote is rebuilt from Postgres, and a possible loss of publications is reported
//! ([`Event::Lost`]). Only this module, [`crate::unread`] and [`crate::presence`] use fred.

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
pub(crate) use script::{Call, Script, Work};

use crate::{
    model::{ChatId, UserId},
    tls::TlsError,
};

/// A mistake in the settings, or in the choice of a server, that no retry mends.
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

/// Redis did not answer in time, or at all. The command may still be carried out later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis is unavailable")]
pub struct RedisUnavailable;

/// A pub/sub channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The changes of a chat.
    Chat(ChatId),
    /// The inbox of a user.
    User(UserId),
    /// News for every replica.
    All,
}

/// An event for the broker's one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Publication {
        channel: Channel,
        payload: Bytes,
    },
    /// Publications may have been lost before this event, so everything must be compared with Postgres.
    /// All wanted channels are subscribed again.
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
