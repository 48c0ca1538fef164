//! Signs tokens, as a host application does.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The secret of the replicas' HS256 tokens.
pub(crate) const SECRET: &str = "thirty-two bytes or more, for tests only";

/// Returns the claims of a token that is valid for an hour.
pub(crate) fn claims(user_id: &str) -> Value {
    json!({ "sub": user_id, "exp": now() + 3_600 })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

pub(crate) fn sign(claims: &Value) -> String {
    sign_with(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

pub(crate) fn sign_with(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).expect("claims that can be signed")
}
