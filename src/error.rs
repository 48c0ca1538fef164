//! The errors of requests and commands: a closed set, with code and status in one place.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;

use crate::model::Time;

/// The cause of an internal failure, shared by all requests that it hit (a batch fails as a whole).
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Formats an error with its causes in one line, for logs and not for clients.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}

pub use beseda_protocol::{ErrorCode, FieldError};

/// Why a request or a command failed, as a client is told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("The body is not JSON in UTF-8: {0}")]
    InvalidJson(String),
    #[error("{0}")]
    InvalidRequest(&'static str),
    #[error("Give a token: Authorization: Bearer <JWT>.")]
    Unauthenticated,
    #[error("The token has expired.")]
    TokenExpired,
    #[error("The token is not valid: {0}.")]
    TokenInvalid(&'static str),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("Only its author may do this to a message.")]
    NotAuthor,
    #[error("One of the two has blocked the other.")]
    Blocked,
    #[error("You may not write here until {}.", until.0)]
    Silenced { until: Time },
    #[error("This chat is in slow mode; wait and retry.")]
    SlowMode { retry_after: Duration },
    #[error("This chat has too many members for that.")]
    TooLarge,
    #[error("You are banned from this chat.")]
    Banned,
    #[error("You have uploaded as much as one may in a day.")]
    QuotaExceeded,
    #[error("There is no such chat among yours.")]
    ChatNotFound,
    #[error("There is no such message in this chat.")]
    MessageNotFound,
    #[error("There is no such user.")]
    UserNotFound,
    #[error("There is no such member in this chat.")]
    MemberNotFound,
    #[error("This invitation is unknown, spent or withdrawn.")]
    InviteNotFound,
    #[error("There is no such attachment that you may use here.")]
    AttachmentNotFound,
    #[error("There is nothing at this path.")]
    RouteNotFound,
    #[error("This path does not take this method.")]
    MethodNotAllowed,
    #[error("The body is larger than {limit} bytes.")]
    PayloadTooLarge { limit: usize },
    #[error("The attachment has no such range of bytes.")]
    RangeNotSatisfiable,
    #[error("Send the body as application/json.")]
    UnsupportedMediaType,
    #[error("room_name belongs to another chat than the path.")]
    RoomMismatch,
    #[error("This chat has as many members as one may have.")]
    ChatFull,
    #[error("{0}")]
    LimitReached(&'static str),
    #[error("The request has fields at fault.")]
    Validation(Vec<FieldError>),
    #[error("A chat takes two different people.")]
    SelfChat,
    #[error("This client_msg_id was used for other content.")]
    IdempotencyMismatch,
    #[error("Too many requests of this kind; wait and retry.")]
    RateLimited { retry_after: Duration },
    #[error("Something failed on our side.")]
    Internal(#[source] Cause),
    #[error("A part of the service is away; retry.")]
    Unavailable(#[source] Option<Cause>),
    #[error("This took too long; retry.")]
    Timeout,
}

/// `Retry-After` of a 503: long enough to reconnect to the database, short enough for a user to wait.
pub const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

impl Error {
    /// One invalid field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Validation(vec![FieldError { field: field.into(), message: message.into() }])
    }

    pub fn internal(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    /// Returns the code. It is stable: part of the API, and the label of a metric.
    pub fn code(&self) -> &'static str {
        self.kind().as_str()
    }

    pub fn status(&self) -> StatusCode {
        // Every code has a valid status.
        StatusCode::from_u16(self.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Returns when a retry makes sense: for 429, 503 and slow mode.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::SlowMode { retry_after } => {
                Some(*retry_after)
            }
            Self::Unavailable(_) => Some(UNAVAILABLE_RETRY),
            _ => None,
        }
    }

    /// Returns the code, as a value of the protocol.
    pub fn kind(&self) -> ErrorCode {
        match self {
            Self::InvalidJson(_) => ErrorCode::InvalidJson,
            Self::InvalidRequest(_) => ErrorCode::InvalidRequest,
            Self::Unauthenticated => ErrorCode::Unauthenticated,
            Self::TokenExpired => ErrorCode::TokenExpired,
            Self::TokenInvalid(_) => ErrorCode::TokenInvalid,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::NotAuthor => ErrorCode::NotAuthor,
            Self::Blocked => ErrorCode::Blocked,
            Self::Silenced { .. } => ErrorCode::Silenced,
            Self::SlowMode { .. } => ErrorCode::SlowMode,
            Self::TooLarge => ErrorCode::TooLarge,
            Self::Banned => ErrorCode::Banned,
            Self::QuotaExceeded => ErrorCode::QuotaExceeded,
            Self::ChatNotFound => ErrorCode::ChatNotFound,
            Self::MessageNotFound => ErrorCode::MessageNotFound,
            Self::UserNotFound => ErrorCode::UserNotFound,
            Self::MemberNotFound => ErrorCode::MemberNotFound,
            Self::InviteNotFound => ErrorCode::InviteNotFound,
            Self::AttachmentNotFound => ErrorCode::AttachmentNotFound,
            Self::RangeNotSatisfiable => ErrorCode::RangeNotSatisfiable,
            Self::RouteNotFound => ErrorCode::RouteNotFound,
            Self::MethodNotAllowed => ErrorCode::MethodNotAllowed,
            Self::PayloadTooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::UnsupportedMediaType => ErrorCode::UnsupportedMediaType,
            Self::RoomMismatch => ErrorCode::RoomMismatch,
            Self::ChatFull => ErrorCode::ChatFull,
            Self::LimitReached(_) => ErrorCode::LimitReached,
            Self::Validation(_) => ErrorCode::ValidationFailed,
            Self::SelfChat => ErrorCode::SelfChat,
            Self::IdempotencyMismatch => ErrorCode::IdempotencyMismatch,
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            Self::Internal(_) => ErrorCode::Internal,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Timeout => ErrorCode::Timeout,
        }
    }
}

/// Collects field errors while a request is read, so that the answer names all of them.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    /// Adds the errors of the object `outer`.
    pub fn nest(&mut self, outer: &str, inner: FieldErrors) {
        self.0.extend(inner.0.into_iter().map(|FieldError { field, message }| FieldError {
            field: format!("{outer}.{field}"),
            message,
        }));
    }

    pub fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Validation(self.0)) }
    }
}
