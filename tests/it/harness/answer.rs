//! Answers of a replica.

use bytes::Bytes;
use reqwest::{StatusCode, header::HeaderMap};
use serde_json::Value;

/// An answer with its request, for failure messages.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// `POST http://…`
    pub(crate) asked: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) bytes: Bytes,
    /// Null if the body is empty or not JSON.
    pub(crate) json: Value,
}

impl Answer {
    pub(super) fn new(asked: String, status: StatusCode, headers: HeaderMap, bytes: Bytes) -> Self {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { asked, status: status.as_u16(), headers, text, bytes, json }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of ASCII"))
    }

    /// Returns the JSON; panics on another status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{} answered {}", self.asked, self.text);
        assert!(self.header("x-request-id").is_some(), "{}: no X-Request-Id", self.asked);
        self.json
    }

    /// Returns the JSON; panics unless it is a complete problem with this `code`.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Value {
        let asked = &self.asked;
        assert_eq!(
            (self.status, self.json["code"].as_str()),
            (status, Some(code)),
            "{asked} answered {}",
            self.text
        );
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{asked}");
        let problem = &self.json;
        assert_eq!(problem["status"], status, "{asked}: {problem}");
        for member in ["type", "title", "detail", "request_id"] {
            let given = problem[member].as_str().is_some_and(|text| !text.is_empty());
            assert!(given, "{asked}: no {member} in {problem}");
        }
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{asked}");
        assert_eq!(problem["errors"].is_array(), code == "validation_failed", "{problem}");
        let waits = matches!(status, 429 | 503);
        assert_eq!(problem["retry_after_ms"].is_u64(), waits, "{problem}");
        assert_eq!(self.header("retry-after").is_some(), waits, "{asked}");
        let challenge = self.header("www-authenticate");
        assert_eq!(challenge.is_some_and(|it| it.starts_with("Bearer")), status == 401, "{asked}");
        self.json
    }

    /// Returns the names of the invalid fields; panics on another problem.
    #[track_caller]
    pub(crate) fn expect_faults(self, fields: &[&str]) {
        let problem = self.expect_problem(422, "validation_failed");
        let errors = problem["errors"].as_array().expect("checked to be a list");
        assert!(
            errors.iter().all(|error| error["message"].as_str().is_some_and(|m| !m.is_empty())),
            "{problem}"
        );
        let mut named: Vec<&str> =
            errors.iter().filter_map(|error| error["field"].as_str()).collect();
        let mut expected = fields.to_vec();
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected, "{problem}");
    }
}
