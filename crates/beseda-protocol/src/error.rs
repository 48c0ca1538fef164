//! Error codes of REST and of the socket, and `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Why a call or a command failed. Codes are stable; titles and details are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    InvalidJson,
    InvalidRequest,
    Unauthenticated,
    TokenExpired,
    TokenInvalid,
    Forbidden,
    NotAuthor,
    Blocked,
    Silenced,
    SlowMode,
    TooLarge,
    Banned,
    QuotaExceeded,
    ChatNotFound,
    MessageNotFound,
    UserNotFound,
    MemberNotFound,
    InviteNotFound,
    AttachmentNotFound,
    RouteNotFound,
    MethodNotAllowed,
    PayloadTooLarge,
    RangeNotSatisfiable,
    UnsupportedMediaType,
    RoomMismatch,
    ChatFull,
    LimitReached,
    ValidationFailed,
    SelfChat,
    IdempotencyMismatch,
    RateLimited,
    Internal,
    Unavailable,
    Timeout,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 34] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::TokenExpired,
        Self::TokenInvalid,
        Self::Forbidden,
        Self::NotAuthor,
        Self::Blocked,
        Self::Silenced,
        Self::SlowMode,
        Self::TooLarge,
        Self::Banned,
        Self::QuotaExceeded,
        Self::ChatNotFound,
        Self::MessageNotFound,
        Self::UserNotFound,
        Self::MemberNotFound,
        Self::InviteNotFound,
        Self::AttachmentNotFound,
        Self::RouteNotFound,
        Self::MethodNotAllowed,
        Self::PayloadTooLarge,
        Self::RangeNotSatisfiable,
        Self::UnsupportedMediaType,
        Self::RoomMismatch,
        Self::ChatFull,
        Self::LimitReached,
        Self::ValidationFailed,
        Self::SelfChat,
        Self::IdempotencyMismatch,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
        Self::Timeout,
    ];

    /// Returns the value of the field `code`.
    pub fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// Returns the HTTP status of the code.
    pub fn status(self) -> u16 {
        self.entry().1
    }

    /// Returns a short title for humans, equal for all problems of one code (RFC 9457 §3.1.3).
    pub fn title(self) -> &'static str {
        self.entry().2
    }

    /// Finds a code by its name; `None` for one of a later version.
    ///
    /// ```
    /// use beseda_protocol::ErrorCode;
    ///
    /// assert_eq!(ErrorCode::parse("blocked"), Some(ErrorCode::Blocked));
    /// assert_eq!(ErrorCode::parse("of_the_future"), None);
    /// ```
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == raw)
    }

    /// Whether a retry of the same call may succeed: 429 and 5xx.
    pub fn is_temporary(self) -> bool {
        self.status() == 429 || self.status() >= 500
    }

    fn entry(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::InvalidJson => ("invalid_json", 400, "Unreadable JSON"),
            Self::InvalidRequest => ("invalid_request", 400, "Unreadable request"),
            Self::Unauthenticated => ("unauthenticated", 401, "No token"),
            Self::TokenExpired => ("token_expired", 401, "Token expired"),
            Self::TokenInvalid => ("token_invalid", 401, "Token not valid"),
            Self::Forbidden => ("forbidden", 403, "Not allowed"),
            Self::NotAuthor => ("not_author", 403, "Not the author"),
            Self::Blocked => ("blocked", 403, "Blocked"),
            Self::Silenced => ("silenced", 403, "Silenced"),
            Self::SlowMode => ("slow_mode", 403, "Slow mode"),
            Self::TooLarge => ("too_large", 403, "Chat too large"),
            Self::Banned => ("banned", 403, "Banned"),
            Self::QuotaExceeded => ("quota_exceeded", 403, "Quota exceeded"),
            Self::ChatNotFound => ("chat_not_found", 404, "No such chat"),
            Self::MessageNotFound => ("message_not_found", 404, "No such message"),
            Self::UserNotFound => ("user_not_found", 404, "No such user"),
            Self::MemberNotFound => ("member_not_found", 404, "No such member"),
            Self::InviteNotFound => ("invite_not_found", 404, "No such invitation"),
            Self::AttachmentNotFound => ("attachment_not_found", 404, "No such attachment"),
            Self::RouteNotFound => ("route_not_found", 404, "No such path"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "Method not allowed"),
            Self::PayloadTooLarge => ("payload_too_large", 413, "Body too large"),
            Self::RangeNotSatisfiable => ("range_not_satisfiable", 416, "No such range"),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, "Not JSON"),
            Self::RoomMismatch => ("room_mismatch", 409, "Another chat"),
            Self::ChatFull => ("chat_full", 409, "Chat full"),
            Self::LimitReached => ("limit_reached", 409, "Limit reached"),
            Self::ValidationFailed => ("validation_failed", 422, "Fields at fault"),
            Self::SelfChat => ("self_chat", 422, "A chat with oneself"),
            Self::IdempotencyMismatch => ("idempotency_mismatch", 422, "Id used for other content"),
            Self::RateLimited => ("rate_limited", 429, "Too many requests"),
            Self::Internal => ("internal", 500, "Internal error"),
            Self::Unavailable => ("unavailable", 503, "Unavailable"),
            Self::Timeout => ("timeout", 504, "Took too long"),
        }
    }
}

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// The field's name as sent; `body` for the whole document.
    pub field: String,
    /// A text for programmers; not stable.
    pub message: String,
}

/// The body of a failed call: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    #[serde(rename = "type", default)]
    #[cfg_attr(
        feature = "openapi",
        schema(required = true, example = "urn:beseda:error:chat_not_found")
    )]
    pub kind: String,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true, value_type = String))]
    pub title: Cow<'static, str>,
    pub status: u16,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub detail: String,
    /// The stable name of the failure.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "chat_not_found"))]
    pub code: Cow<'static, str>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub request_id: String,
    /// For `validation_failed`: every invalid field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<FieldError>>,
    /// For 429 and 503: when to retry, in milliseconds. The header `Retry-After` has it in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// Makes a problem of this code; `detail` describes this one case.
    pub fn new(code: ErrorCode, detail: impl Into<String>, request_id: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:beseda:error:{}", code.as_str()),
            title: code.title().into(),
            status: code.status(),
            detail: detail.into(),
            code: code.as_str().into(),
            request_id: request_id.into(),
            errors: None,
            retry_after_ms: None,
        }
    }

    /// Returns the code, if this version knows it. `status` and `code` are always there; other fields may
    /// be missing.
    ///
    /// ```
    /// use beseda_protocol::{ErrorCode, Problem};
    ///
    /// let body = r#"{"type":"urn:beseda:error:rate_limited","title":"Too many requests","status":429,
    ///     "detail":"Too many requests of this kind; wait and retry.","code":"rate_limited",
    ///     "request_id":"01a20a32-faed-704e-b46a-598e38f1ce60","retry_after_ms":250}"#;
    /// let problem: Problem = serde_json::from_str(body)?;
    /// assert_eq!(problem.known(), Some(ErrorCode::RateLimited));
    /// assert_eq!(problem.retry_after_ms, Some(250));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn known(&self) -> Option<ErrorCode> {
        ErrorCode::parse(&self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_name_and_has_a_status_of_a_failure() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            assert!((400..600).contains(&code.status()), "{code:?}");
        }
        assert_eq!(ErrorCode::parse("of_the_future"), None);
    }
}
