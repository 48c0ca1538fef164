//! The errors of the store, without any value that must not be logged.

use std::{fmt, sync::Arc, time::Duration};

use deadpool::managed::PoolError;
use tokio_postgres::error::{DbError, SqlState};

use crate::error::{Cause, Error};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no usable connection to Postgres")]
    Unavailable(#[source] Option<Cause>),
    /// A value of one row was refused; the other rows of its batch may be valid.
    #[error("Postgres refused a row")]
    Data(#[source] Cause),
    #[error("a row was locked for too long")]
    Locked(#[source] Cause),
    #[error("a statement took too long")]
    Slow(#[source] Cause),
    #[error("Postgres failed")]
    Failed(#[source] Cause),
    #[error("{0}")]
    Schema(String),
}

impl StoreError {
    /// Postgres did not answer within `waited`.
    pub(super) fn no_answer(waited: Duration) -> Self {
        Self::Unavailable(Some(Arc::new(NoAnswer(waited))))
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Unavailable(cause) => cause.clone(),
            Self::Data(cause) | Self::Locked(cause) | Self::Slow(cause) | Self::Failed(cause) => {
                Some(Arc::clone(cause))
            }
            Self::Schema(_) => None,
        }
    }

    /// Whether a table is missing, as in a database that was never migrated.
    pub(super) fn is_undefined_table(&self) -> bool {
        let Self::Failed(cause) = self else { return false };
        cause
            .downcast_ref::<Refusal>()
            .is_some_and(|refusal| refusal.code == SqlState::UNDEFINED_TABLE)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

/// An error from Postgres, without the values of rows that it may quote, so that it is safe to log. It has
/// neither detail, context nor the position in the statement, nor the message of a data exception.
#[derive(Debug)]
struct Refusal {
    code: SqlState,
    /// `None` if the message may quote a value.
    message: Option<String>,
    constraint: Option<String>,
}

/// Data exceptions (Appendix A of PostgreSQL's manual): their messages quote what could not be read.
const DATA_EXCEPTION: &str = "22";

impl Refusal {
    fn new(error: &DbError) -> Self {
        let quotes = error.code().code().starts_with(DATA_EXCEPTION);
        Self {
            code: error.code().clone(),
            message: (!quotes).then(|| format!("{}: {}", error.severity(), error.message())),
            constraint: error.constraint().map(str::to_owned),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("an invalid value"))?;
        write!(f, " (SQLSTATE {}", self.code.code())?;
        if let Some(constraint) = &self.constraint {
            write!(f, ", constraint {constraint}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Refusal {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => Self::Unavailable(cause),
            StoreError::Locked(cause) | StoreError::Slow(cause) => Self::Unavailable(Some(cause)),
            StoreError::Data(cause) | StoreError::Failed(cause) => Self::Internal(cause),
            StoreError::Schema(_) => Self::internal(error),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(refused) = error.as_db_error() {
            return refused.into();
        }
        let broken = error.is_closed() || std::error::Error::source(&error).is_some();
        let cause: Cause = Arc::new(error);
        if broken { Self::Unavailable(Some(cause)) } else { Self::Failed(cause) }
    }
}

impl From<&DbError> for StoreError {
    fn from(error: &DbError) -> Self {
        // Classes of PostgreSQL's Appendix A: connection, resources, operator intervention and rollback
        // are temporary errors. So are the time-outs of a lock and of a statement.
        let state = error.code();
        let locked = *state == SqlState::LOCK_NOT_AVAILABLE;
        let slow = *state == SqlState::QUERY_CANCELED;
        let passing =
            matches!(&state.code()[..2], "08" | "53" | "57" | "40") || is_by_standby(state);
        let data = matches!(&state.code()[..2], DATA_EXCEPTION | "23");
        let cause: Cause = Arc::new(Refusal::new(error));
        match (passing, data) {
            _ if locked => Self::Locked(cause),
            _ if slow => Self::Slow(cause),
            (true, _) => Self::Unavailable(Some(cause)),
            (_, true) => Self::Data(cause),
            _ => Self::Failed(cause),
        }
    }
}

/// The error from Postgres, if any, is somewhere in the library's chain of sources.
impl From<refinery::Error> for StoreError {
    fn from(error: refinery::Error) -> Self {
        let first: &(dyn std::error::Error + 'static) = &error;
        let mut causes = std::iter::successors(Some(first), |cause| (*cause).source());
        match causes.find_map(|cause| cause.downcast_ref::<DbError>()) {
            Some(refused) => refused.into(),
            None => Self::Failed(Arc::new(error)),
        }
    }
}

impl From<PoolError<StoreError>> for StoreError {
    fn from(error: PoolError<StoreError>) -> Self {
        match error {
            PoolError::Backend(error) => error,
            error => Self::Unavailable(Some(Arc::new(Pool(error.to_string())))),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Pool(String);

/// Whether a standby refused the statement. The URL's settings avoid standbys, but during a failover a
/// pooler may still lead to one.
pub(super) fn is_by_standby(state: &SqlState) -> bool {
    *state == SqlState::READ_ONLY_SQL_TRANSACTION
        || *state == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
}
