//! Entry points of untrusted bytes, as plain functions: `cargo fuzz` (in `fuzz/`) and the property tests
//! below call them. Each must return for any input, and what it accepts must be well formed.

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::Value;

use crate::{
    api::{self, problem},
    auth::{Ticket, Tickets, Verifier},
    chat::ChatRef,
    config::{AuthConfig, Secret},
    error::Error,
    input::{Fields, Params},
    model::{Role, UserId},
    net,
    search::{Query, Scratch},
    socket::command::Request,
};

/// The parsers of a replica whose secret no input knows.
#[derive(Debug)]
pub struct FuzzEntry {
    verifier: Verifier,
    tickets: Tickets,
}

impl Default for FuzzEntry {
    fn default() -> Self {
        let config = AuthConfig {
            jwt_hs256_secret: Some(Secret::from("x".repeat(32))),
            jwt_public_key: None,
            jwt_jwks_url: None,
            jwt_issuers: Vec::new(),
            jwt_issuer: None,
            jwt_audience: None,
            jwt_leeway: std::time::Duration::ZERO,
        };
        let verifier = Verifier::new(&config).expect("a secret is a key");
        Self { verifier, tickets: Tickets::new(&[7; 32]) }
    }
}

impl FuzzEntry {
    /// Reads a token and a ticket. Without the key nobody can make one, so both are refused.
    pub fn token(&self, raw: &str) {
        let verified = self.verifier.verify(raw).now_or_never();
        let verified = verified.expect("a secret is not asked for");
        refused(&verified.expect_err("a forged token"), raw);
        let ticket: Result<Ticket, Error> = self.tickets.check(raw);
        refused(&ticket.expect_err("a forged ticket"), raw);
    }

    /// Reads a frame of a socket. Its id is echoed verbatim, so it must be valid JSON.
    pub fn frame(&self, raw: &str) {
        match Request::parse(raw) {
            Ok(Request { id, command }) => {
                if let Some(id) = id {
                    let echoed = format!(r#"{{"id":{}}}"#, id.get());
                    assert!(serde_json::from_str::<Value>(&echoed).is_ok(), "{echoed}");
                }
                if let Err(error) = command {
                    refused(&error, "an id of the client's own");
                }
            }
            Err(error) => refused(&error, "an id of the client's own"),
        }
    }

    /// Reads a body, as fields of every kind.
    pub fn body(&self, raw: &[u8]) {
        let read: [fn(&mut Fields) -> bool; 10] = [
            |fields| fields.optional_string("text", |_| Ok(())).is_some(),
            |fields| fields.optional_integer("text", 0).is_some(),
            |fields| fields.object("text", 4_096).is_some(),
            |fields| !fields.required_list("text", 10).is_empty(),
            |fields| fields.optional_strings("text").is_some(),
            |fields| fields.optional_user_ids("text", 10).is_some(),
            |fields| fields.bounded_integer("text", 0, 10).is_some(),
            |fields| fields.optional_bool("text").is_some(),
            |fields| fields.optional_word::<Role>("text", "a role").is_some(),
            |fields| fields.future_time("text").is_some(),
        ];
        for read in read {
            match Fields::parse(raw) {
                Ok(mut fields) => {
                    // A field that was read has no error.
                    let read = read(&mut fields);
                    let finished = fields.finish();
                    assert!(!read || finished.is_ok());
                    if let Err(error) = finished {
                        refused(&error, "an id of the client's own");
                    }
                }
                Err(error) => refused(&error, "an id of the client's own"),
            }
        }
    }

    /// Runs a query on a text. Highlights must lie within the text, in order.
    pub fn search(&self, query: &str, text: &str) {
        let units = text.encode_utf16().count();
        let found = Query::parse(query).find(text, &mut Scratch::default());
        let mut end = 0;
        for [start, length] in found.into_iter().flatten() {
            assert!(length > 0 && start as usize >= end, "{query:?} in {text:?}");
            end = (start + length) as usize;
            assert!(end <= units, "{query:?} in {text:?}");
        }
    }

    /// Reads a cursor, as that of each list. An accepted one must be written as it was read.
    pub fn cursor(&self, raw: &str) {
        api::check_cursors(raw);
    }

    /// Reads a path with its query and the names in it, and encodes their refusals.
    pub fn path(&self, raw: &str) {
        if let Ok(uri) = raw.parse::<Uri>() {
            if let Some(slashed) = api::slashed(&uri) {
                assert!(slashed.path().ends_with('/'));
                assert!(api::slashed(&slashed).is_none());
                assert_eq!(slashed.query(), uri.query());
            }
            let mut params = Params::parse(uri.query().unwrap_or_default());
            let _ = params.integer("limit", 1, 100);
            let _ = params.string("query");
            if let Err(error) = params.finish() {
                refused(&error, raw);
            }
        }
        refused(&Error::RouteNotFound, raw);
        let _ = ChatRef::parse(raw);
        if let Some(user_id) = UserId::parse(raw) {
            assert_eq!(user_id.as_str(), raw);
        }
    }

    /// Reads the client address that proxies report.
    pub fn forwarded(&self, raw: &str) {
        let Ok(value) = HeaderValue::from_str(raw) else { return };
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", value);
        let peer = std::net::IpAddr::from([127, 0, 0, 1]);
        assert_eq!(net::client_address(peer, &headers, &[]), peer);
        if let Ok(all) = "0.0.0.0/0".parse() {
            net::client_address(peer, &headers, &[all]);
        }
    }
}

/// Largest problem document, in bytes: it names the faulty input, and does not send it back.
const LONGEST_PROBLEM: usize = 8 * 1024;

/// Checks that a refusal is a 4xx, in JSON of a bounded size, with the client's request id where that
/// is valid.
fn refused(error: &Error, id: &str) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert("x-request-id", value);
    }
    let id = problem::request_id(&headers);
    assert!(HeaderValue::from_str(&id).is_ok() && id.len() <= 128, "{id:?}");
    let body = problem::encode(error, &id);
    assert!(body.len() <= LONGEST_PROBLEM, "{error} takes {} bytes", body.len());
    let told: Value = serde_json::from_slice(&body).expect("a problem is JSON");
    assert!(error.status().is_client_error(), "{told}");
    assert_eq!(told["status"], error.status().as_u16());
    assert_eq!(told["request_id"], *id);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text that is known to break parsers: bidi, combining, astral, control, escapes, numbers.
    fn awkward() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<String>(),
            Just("\0".to_owned()),
            Just("\\ud800".to_owned()),
            Just("\u{202e}\u{2066}\u{200f}".to_owned()),
            Just("1e999999".to_owned()),
            Just("-0".to_owned()),
            Just("9".repeat(400)),
            Just("[".repeat(300)),
            Just("{\"a\":".repeat(200)),
            Just("%00%ff%2f..".to_owned()),
            Just("'\"\\%_*()[]|&!:<->".to_owned()),
            Just("ё\u{301}İſK😀".to_owned()),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    /// JSON-like objects with the fields that are read, some of them twice.
    fn object() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            awkward().prop_map(|text| format!("{text:?}")),
            awkward(),
            Just("null".to_owned()),
            any::<f64>().prop_map(|number| number.to_string()),
        ];
        let name =
            prop_oneof![Just("type"), Just("id"), Just("text"), Just("chat_id"), Just("users")];
        prop::collection::vec((name, value), 0..6).prop_map(|fields| {
            let fields: Vec<_> =
                fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        })
    }

    proptest! {
        #[test]
        fn every_entry_point_returns_for_any_input(raw in awkward(), other in awkward(), json in object()) {
            let entry = FuzzEntry::default();
            entry.token(&raw);
            entry.token(&format!("{raw}.{other}.{raw}"));
            entry.frame(&raw);
            entry.frame(&json);
            entry.body(raw.as_bytes());
            entry.body(json.as_bytes());
            entry.search(&raw, &other);
            entry.cursor(&raw);
            entry.path(&raw);
            entry.path(&format!("/api/v1/{raw}?{other}"));
            entry.forwarded(&raw);
        }
    }

    #[test]
    fn what_is_huge_is_refused_without_a_search_for_its_end() {
        let entry = FuzzEntry::default();
        let long = "a\u{301}б".repeat(30_000);
        entry.search(&long, "a text");
        entry.search("ab*cd", &long);
        entry.token(&"e".repeat(1_000_000));
        entry.body("[".repeat(1_000_000).as_bytes());
        entry.body(format!("{{\"text\":{}1", "{\"a\":".repeat(100_000)).as_bytes());
        entry.cursor(&long);
        entry.path(&long);
        entry.forwarded(&"1,".repeat(30_000));
    }
}
