//! `beseda dev` and the stack of the tests: real Postgres and Redis as child processes.
//!
//! Each child listens on its own loopback port and leads its own process group, so Ctrl-C in a terminal
//! reaches only this process, which ends the children in order. A small shell watches each child and
//! ends it if this process is killed. Not meant for production.

mod demo;
mod folders;
mod parent;
mod postgres;
mod process;
mod redis;
mod run;
#[cfg(test)]
mod tests;
mod token;

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

pub use self::{
    postgres::Postgres,
    redis::Redis,
    run::{Options, run},
    token::{Claims, Signing, TokenOptions, sign, token},
};

/// The durability of a child's data across a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Postgres is durable, as in production; Redis saves snapshots, the last one when it ends.
    Full,
    /// For tests: nothing is flushed to the disk, and Redis loses its data with a restart.
    None,
}

/// Why the development stack did not start, or a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("{what} was not found: {hint}")]
    Missing { what: &'static str, hint: &'static str },
    #[error(
        "{} was made by PostgreSQL {found}, which is not installed; install it, or remove the folder",
        path.display()
    )]
    OtherVersion { path: PathBuf, found: String },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{} is in use by another process; end that one first, or choose another folder with --data (make run ARGS=\"--data other\")", .0.display())]
    InUse(PathBuf),
    #[error(
        "port {0} of 127.0.0.1 is taken; choose another with --port (make run ARGS=\"--port 9000\"), or none for any free one"
    )]
    PortTaken(u16),
    /// The child ended before it served; `log` is the tail of its log.
    #[error("{server} ended while starting ({status}):\n{log}")]
    Ended { server: &'static str, status: ExitStatus, log: String },
    #[error("{server} did not serve within {waited:?}:\n{log}")]
    NotReady { server: &'static str, waited: Duration, log: String },
    #[error("{0} is not running")]
    NotRunning(&'static str),
    #[error("Postgres refused")]
    Database(#[from] tokio_postgres::Error),
    #[error("the configuration is not right")]
    Config(#[from] clap::Error),
    #[error("a replica did not start")]
    Replica(#[from] crate::app::StartError),
    #[error("{0:?} can't be a user id: 1 to 128 characters, no control characters")]
    UserId(String),
    #[error(
        "no secret to sign with: set BESEDA_JWT_HS256_SECRET, or give --data with the folder of `beseda dev`"
    )]
    NoSecret,
    #[error("the token could not be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("the groups of the demo were not made: {0}")]
    Demo(String),
    #[error("ended by a second signal")]
    Interrupted,
}

impl DevError {
    /// For `map_err`: `what` describes the failed action and its path.
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
