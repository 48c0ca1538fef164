//! Where strangers' bytes come in, as plain functions: what `cargo fuzz` (in `fuzz/`) and the property
//! tests below go through. Whatever comes, each returns, and what it took keeps its promise.

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
    model::UserId,
    net,
    search::{Query, Scratch},
    socket::command::Request,
};

/// The fuzz_entry of a replica with some key.
#[derive(Debug)]
pub struct Doors {
    verifier: Verifier,
    tickets: Tickets,
}

impl Default for Doors {
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

impl Doors {
    /// A token and a ticket. Nobody who has not got the key can make one.
    pub fn token(&self, raw: &str) {
        let verified = self.verifier.verify(raw).now_or_never();
        let verified = verified.expect("a secret is not asked for");
        refused(&verified.expect_err("a forged token"), raw);
        let ticket: Result<Ticket, Error> = self.tickets.check(raw);
        refused(&ticket.expect_err("a forged ticket"), raw);
    }

    /// A frame on a socket. Its id is echoed: it must stand in JSON as it is.
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

    /// A body, read as fields of every kind.
    pub fn body(&self, raw: &[u8]) {
        let read: [fn(&mut Fields) -> bool; 5] = [
            |fields| fields.optional_string("text", |_| Ok(())).is_some(),
            |fields| fields.optional_integer("text", 0).is_some(),
            |fields| fields.object("text", 4_096).is_some(),
            |fields| !fields.required_list("text", 10).is_empty(),
            |fields| fields.optional_strings("text").is_some(),
        ];
        for read in read {
            match Fields::parse(raw) {
                Ok(mut fields) => {
                    // What was read is without fault.
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

    /// A query on a text. What is highlighted lies in it, in order.
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

    /// A cursor. One that is taken is one that is given.
    pub fn cursor(&self, raw: &str) {
        if let Ok(position) = api::read_cursor(raw) {
            let again = api::read_cursor(&api::write_cursor(position));
            assert_eq!(again.ok(), Some(position));
        }
    }

    /// A path with its query, the names in it, and what is answered where they are refused.
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

    /// What proxies say of where a request came from.
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

/// Most bytes of a failure's answer: what is at fault is named, and not sent back.
const LONGEST_PROBLEM: usize = 8 * 1024;

/// A refusal is the client's fault, and told in JSON of a bounded size, with the id that the client
/// gave to its request if that is one.
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

    /// Text of the kinds that have broken others: bidi, combining, astral, control, escapes, numbers.
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

    /// JSON-like objects with the fields that are read, twice at times.
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
        fn every_door_stands_whatever_comes(raw in awkward(), other in awkward(), json in object()) {
            let fuzz_entry = Doors::default();
            fuzz_entry.token(&raw);
            fuzz_entry.token(&format!("{raw}.{other}.{raw}"));
            fuzz_entry.frame(&raw);
            fuzz_entry.frame(&json);
            fuzz_entry.body(raw.as_bytes());
            fuzz_entry.body(json.as_bytes());
            fuzz_entry.search(&raw, &other);
            fuzz_entry.cursor(&raw);
            fuzz_entry.path(&raw);
            fuzz_entry.path(&format!("/api/v1/{raw}?{other}"));
            fuzz_entry.forwarded(&raw);
        }
    }

    #[test]
    fn what_is_huge_is_refused_without_a_search_for_its_end() {
        let fuzz_entry = Doors::default();
        let long = "a\u{301}б".repeat(30_000);
        fuzz_entry.search(&long, "a text");
        fuzz_entry.search("ab*cd", &long);
        fuzz_entry.token(&"e".repeat(1_000_000));
        fuzz_entry.body("[".repeat(1_000_000).as_bytes());
        fuzz_entry.body(format!("{{\"text\":{}1", "{\"a\":".repeat(100_000)).as_bytes());
        fuzz_entry.cursor(&long);
        fuzz_entry.path(&long);
        fuzz_entry.forwarded(&"1,".repeat(30_000));
    }
}
