//! Errors that prevent a run. Its findings are in the report instead.

use std::{io, path::PathBuf};

use beseda::dev::DevError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{call}")]
    Request {
        call: &'static str,
        #[source]
        source: Box<beseda_client::Error>,
    },
    #[error("the socket of chat {chat} did not open: {reason}")]
    Socket { chat: u32, reason: String },
    #[error("{0} can't be a user id's beginning")]
    Prefix(String),
    #[error("the installation did not start")]
    Dev(#[from] DevError),
    #[error("{} is not the program: build it (cargo build --release), or say --beseda PATH", .0.display())]
    NoProgram(PathBuf),
    #[error("cannot run {}", path.display())]
    Spawn {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("replica {0} did not get ready; its output is above")]
    NotReady(usize),
    #[error("process {0} is gone, or is not yours to see")]
    NoProcess(u32),
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
    #[error("cannot write the result")]
    Output(#[source] io::Error),
    #[error("cannot write the result as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the database could not be read")]
    Database(#[from] tokio_postgres::Error),
    #[error("{0}")]
    Usage(&'static str),
    #[error("interrupted")]
    Interrupted,
}

/// Formats an error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
