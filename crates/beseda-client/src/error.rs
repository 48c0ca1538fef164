//! Why a call failed.

use std::{fmt, sync::Arc, time::Duration};

use beseda_protocol::{ErrorCode, FieldError, Problem};

/// A call that failed: what the server said of it, or that no answer came.
#[derive(Debug, Clone)]
pub struct Error {
    /// The HTTP status; 0 where no answer came, or nothing was asked.
    pub status: u16,
    /// Stable: a code of the protocol, [`Error::NETWORK`] where no answer came, [`Error::FILE`], or empty
    /// where a proxy answered in words of its own.
    pub code: String,
    /// For people; not stable.
    pub detail: String,
    /// The fields at fault (422).
    pub fields: Box<[FieldError]>,
    /// When the server asks for a retry (429, 503).
    pub retry_after: Option<Duration>,
    /// What the server calls this request in its log.
    pub request_id: Option<Box<str>>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The code of a call that got no answer.
    pub const NETWORK: &'static str = "network";

    /// The code of a file of this machine that could not be read.
    pub const FILE: &'static str = "file";

    pub(crate) fn file(cause: std::io::Error) -> Self {
        Self { code: Self::FILE.to_owned(), ..Self::network(cause) }
    }

    /// No answer came, or none of Beseda's.
    pub fn network(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        // The last cause is the one that says something: "connection refused".
        let mut detail = cause.to_string();
        let mut next = cause.source();
        while let Some(inner) = next {
            detail = inner.to_string();
            next = inner.source();
        }
        Self {
            status: 0,
            code: Self::NETWORK.to_owned(),
            detail,
            fields: Box::default(),
            retry_after: None,
            request_id: None,
            cause: Some(Arc::new(cause)),
        }
    }

    /// An answer that is no success.
    pub fn answered(status: u16, body: &[u8]) -> Self {
        let problem: Option<Problem> = serde_json::from_slice(body).ok();
        let (code, detail, errors, retry_after_ms, request_id) = match problem {
            Some(it) => {
                (it.code.into_owned(), it.detail, it.errors, it.retry_after_ms, Some(it.request_id))
            }
            None => (String::new(), format!("HTTP status {status}"), None, None, None),
        };
        Self {
            status,
            code,
            detail,
            fields: errors.unwrap_or_default().into(),
            retry_after: retry_after_ms.map(Duration::from_millis),
            request_id: request_id.map(String::into_boxed_str),
            cause: None,
        }
    }

    /// The code, where this version knows it.
    pub fn known(&self) -> Option<ErrorCode> {
        ErrorCode::parse(&self.code)
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        let may_pass = matches!(self.status, 0 | 408 | 429) || self.status >= 500;
        may_pass && self.code != Self::FILE
    }

    /// Whether another token is needed.
    pub fn is_unauthenticated(&self) -> bool {
        self.status == 401
    }
}

/// By what the server said; a cause is not compared.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        (self.status, &self.code, &self.detail) == (other.status, &other.code, &other.detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause: &(dyn std::error::Error + 'static) = self.cause.as_deref()?;
        Some(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_read_and_a_proxy_has_words_of_its_own() {
        let body = br#"{"type":"t","title":"t","status":429,"detail":"slow down",
            "code":"rate_limited","request_id":"r","retry_after_ms":250}"#;
        let error = Error::answered(429, body);
        assert_eq!(error.known(), Some(ErrorCode::RateLimited));
        assert_eq!(error.retry_after, Some(Duration::from_millis(250)));
        assert!(error.is_temporary());
        let error = Error::answered(502, b"<h1>Bad gateway</h1>");
        assert_eq!((error.code.as_str(), error.is_temporary()), ("", true));
        assert!(!Error::answered(403, b"").is_temporary());
    }
}
