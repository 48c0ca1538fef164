//! The keys that tokens are checked with. A key's kind fixes its one algorithm.

use std::collections::HashMap;

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

use crate::{
    config::{ConfigError, MAX_FIXED_KEYS},
    error::Error,
};

/// Most keys taken of one set: issuers publish two or three, the old, the current and the next.
const MAX_KEYS: usize = 64;

/// A key, with all that a token checked with it must fulfil.
pub(super) struct Key {
    /// By which a token's header may name it.
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    pub(super) validation: Validation,
}

impl Key {
    fn new(
        id: Option<String>,
        algorithm: Algorithm,
        decoding: DecodingKey,
        rules: &Validation,
    ) -> Self {
        let validation = Validation { algorithms: vec![algorithm], ..rules.clone() };
        Self { id, algorithm, decoding, validation }
    }

    pub(super) fn from_secret(secret: &str, rules: &Validation) -> Self {
        Self::new(None, Algorithm::HS256, DecodingKey::from_secret(secret.as_bytes()), rules)
    }

    /// Reads the public keys of a PEM file: one, or two while one takes the place of the other.
    pub(super) fn from_pem(
        pem: &[u8],
        name: &'static str,
        rules: &Validation,
    ) -> Result<Vec<Self>, ConfigError> {
        let refuse = |reason: &str| ConfigError { name: name.into(), reason: reason.to_owned() };
        // What is no text is no PEM, and has no beginning either.
        let text = str::from_utf8(pem).unwrap_or_default();
        let beginnings: Vec<usize> =
            text.match_indices("-----BEGIN").map(|(position, _)| position).collect();
        if beginnings.len() > MAX_FIXED_KEYS {
            return Err(refuse("has more than two public keys: the old one and the new one"));
        }
        let ends = beginnings.iter().skip(1).copied().chain([text.len()]);
        let blocks = beginnings.iter().zip(ends).map(|(&begin, end)| text[begin..end].as_bytes());
        let keys: Option<Vec<_>> = blocks.map(|block| Self::from_block(block, rules)).collect();
        keys.filter(|keys| !keys.is_empty())
            .ok_or_else(|| refuse("not a public key of RSA, P-256 or Ed25519 in PEM"))
    }

    fn from_block(pem: &[u8], rules: &Validation) -> Option<Self> {
        let (algorithm, key) = DecodingKey::from_rsa_pem(pem)
            .map(|key| (Algorithm::RS256, key))
            .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
            .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)))
            .ok()?;
        Some(Self::new(None, algorithm, key, rules))
    }

    /// `None` for a key of another kind or purpose: an issuer's set may hold any.
    fn from_jwk(jwk: &Jwk, rules: &Validation) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            // A shared secret that is published is none.
            _ => return None,
        };
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|it| it.contains(&KeyOperations::Verify))
            && common.key_algorithm.is_none_or(|it| it == KeyAlgorithm::from(algorithm));
        let decoding = signs.then(|| DecodingKey::from_jwk(jwk).ok())??;
        Some(Self::new(common.key_id.clone(), algorithm, decoding, rules))
    }
}

/// What an issuer has published.
pub(super) struct KeySet {
    named: HashMap<String, Key>,
    unnamed: Vec<Key>,
}

impl KeySet {
    /// Reads a set (RFC 7517 §5); `None` where it is none, or holds no key that can be used here.
    pub(super) fn parse(body: &[u8], rules: &Validation) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(body).ok()?;
        // One by one: a key of a kind that nobody here knows must not hide the others.
        let keys = set
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
            .filter_map(|jwk| Key::from_jwk(&jwk, rules))
            .take(MAX_KEYS);
        let (mut named, mut unnamed) = (HashMap::new(), Vec::new());
        for key in keys {
            match key.id.clone() {
                Some(id) => drop(named.insert(id, key)),
                None => unnamed.push(key),
            }
        }
        let any = !named.is_empty() || !unnamed.is_empty();
        any.then_some(Self { named, unnamed })
    }

    pub(super) fn len(&self) -> usize {
        self.named.len() + self.unnamed.len()
    }

    /// The key that a token's header names; without a name, the only one of its algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        if let Some(id) = id {
            return self.named.get(id).map_or(Found::Unknown, Found::Key);
        }
        let mut fitting =
            self.named.values().chain(&self.unnamed).filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(key),
            (None, _) => Found::Refused("its algorithm is not of our key"),
            (Some(_), Some(_)) => Found::Refused("it does not say which key (kid)"),
        }
    }
}

/// What a search for a key came to.
pub(super) enum Found<'a> {
    Key(&'a Key),
    /// No key of that name: the issuer may have published it since.
    Unknown,
    Refused(&'static str),
}

impl Found<'_> {
    pub(super) fn refusal(&self) -> Error {
        Error::TokenInvalid(match self {
            Found::Refused(reason) => reason,
            _ => "its issuer has no such key",
        })
    }
}
