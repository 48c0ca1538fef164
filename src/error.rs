//! Every way a request or a command can fail: a closed set, with code and status in one place.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use serde::Serialize;

/// The cause of a failure that is ours, shared by everyone whom it hit (a batch fails as a whole).
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// An error with its causes, in one line: for logs, not for clients.
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

/// What was wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The field's name as sent; `body` where the whole document is at fault.
    pub field: String,
    /// A sentence for the programmer; not stable.
    pub message: String,
}

/// What a client is told went wrong.
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
    #[error("There is no such chat among yours.")]
    ChatNotFound,
    #[error("There is no such message in this chat.")]
    MessageNotFound,
    #[error("There is no such user.")]
    UserNotFound,
    #[error("There is nothing at this path.")]
    RouteNotFound,
    #[error("This path does not take this method.")]
    MethodNotAllowed,
    #[error("The body is larger than {limit} bytes.")]
    PayloadTooLarge { limit: usize },
    #[error("Send the body as application/json.")]
    UnsupportedMediaType,
    #[error("room_name belongs to another room than the path.")]
    RoomMismatch,
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

/// How long a client waits before it retries after a 503: long enough for a database's
/// connection to be made anew, short enough for a person to wait for.
pub const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

impl Error {
    /// One field at fault.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Validation(vec![FieldError { field: field.into(), message: message.into() }])
    }

    pub fn internal(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    /// Stable: part of the API, and a metric's label.
    pub fn code(&self) -> &'static str {
        self.entry().0
    }

    pub fn status(&self) -> StatusCode {
        self.entry().1
    }

    /// A short name for people, equal for all failures of one code (RFC 9457 §3.1.3).
    pub fn title(&self) -> &'static str {
        self.entry().2
    }

    /// When a retry makes sense, for 429 and 503.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Unavailable(_) => Some(UNAVAILABLE_RETRY),
            _ => None,
        }
    }

    fn entry(&self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidJson(_) => ("invalid_json", S::BAD_REQUEST, "Unreadable JSON"),
            Self::InvalidRequest(_) => ("invalid_request", S::BAD_REQUEST, "Unreadable request"),
            Self::Unauthenticated => ("unauthenticated", S::UNAUTHORIZED, "No token"),
            Self::TokenExpired => ("token_expired", S::UNAUTHORIZED, "Token expired"),
            Self::TokenInvalid(_) => ("token_invalid", S::UNAUTHORIZED, "Token not valid"),
            Self::Forbidden(_) => ("forbidden", S::FORBIDDEN, "Not allowed"),
            Self::NotAuthor => ("not_author", S::FORBIDDEN, "Not the author"),
            Self::Blocked => ("blocked", S::FORBIDDEN, "Blocked"),
            Self::ChatNotFound => ("chat_not_found", S::NOT_FOUND, "No such chat"),
            Self::MessageNotFound => ("message_not_found", S::NOT_FOUND, "No such message"),
            Self::UserNotFound => ("user_not_found", S::NOT_FOUND, "No such user"),
            Self::RouteNotFound => ("route_not_found", S::NOT_FOUND, "No such path"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", S::METHOD_NOT_ALLOWED, "Method not allowed")
            }
            Self::PayloadTooLarge { .. } => {
                ("payload_too_large", S::PAYLOAD_TOO_LARGE, "Body too large")
            }
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "Not JSON")
            }
            Self::RoomMismatch => ("room_mismatch", S::CONFLICT, "Another room"),
            Self::Validation(_) => {
                ("validation_failed", S::UNPROCESSABLE_ENTITY, "Fields at fault")
            }
            Self::SelfChat => ("self_chat", S::UNPROCESSABLE_ENTITY, "A chat with oneself"),
            Self::IdempotencyMismatch => {
                ("idempotency_mismatch", S::UNPROCESSABLE_ENTITY, "Id used for other content")
            }
            Self::RateLimited { .. } => ("rate_limited", S::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Internal(_) => ("internal", S::INTERNAL_SERVER_ERROR, "Internal error"),
            Self::Unavailable(_) => ("unavailable", S::SERVICE_UNAVAILABLE, "Unavailable"),
            Self::Timeout => ("timeout", S::GATEWAY_TIMEOUT, "Took too long"),
        }
    }
}

/// Field errors gathered while a request is read, so that the answer names all of them.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    /// Takes over what was wrong within `outer`.
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
