//! The keys that verify tokens. A key's kind fixes its only algorithm.

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

use crate::{
    config::{ConfigError, MAX_FIXED_KEYS},
    error::Error,
};

/// Maximum number of keys used from one set: issuers publish two or three, the old, the current and
/// the next.
const MAX_KEYS: usize = 64;

/// Maximum number of keys tried with the same `kid` and algorithm: one is usual, two during a
/// rotation. Each costs a verification, also for a forged token.
const MAX_NAMESAKES: usize = 4;

/// A key, with the rules for tokens that it verifies.
pub(super) struct Key {
    /// The `kid` by which a token's header may name the key.
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

    /// Parses the public keys of a PEM file: one, or two during a rotation.
    pub(super) fn from_pem(
        pem: &[u8],
        name: &'static str,
        rules: &Validation,
    ) -> Result<Vec<Self>, ConfigError> {
        let refuse = |reason: &str| ConfigError { name: name.into(), reason: reason.to_owned() };
        // Binary input is not PEM, and has no block either.
        let text = str::from_utf8(pem).unwrap_or_default();
        let beginnings: Vec<usize> =
            text.match_indices("-----BEGIN").map(|(position, _)| position).collect();
        if beginnings.len() > MAX_FIXED_KEYS {
            return Err(refuse("has more than two public keys: the old one and the new one"));
        }
        let ends = beginnings.iter().skip(1).copied().chain([text.len()]);
        let blocks = beginnings.iter().zip(ends).map(|(&begin, end)| &text.as_bytes()[begin..end]);
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

    /// Reads a key of a set; `None` for one of another kind or purpose, which a set may contain.
    fn from_jwk(jwk: &Jwk, rules: &Validation) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            // A published shared secret is not secret.
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

/// An issuer's set of at least one key.
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Parses a set (RFC 7517 §5); `None` if it is invalid or has no usable key.
    pub(super) fn parse(body: &[u8], rules: &Validation) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(body).ok()?;
        // One by one, so that a key of an unknown kind does not hide the others.
        let keys = set
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
            .filter_map(|jwk| Key::from_jwk(&jwk, rules));
        let keys: Vec<_> = keys.take(MAX_KEYS).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Finds the keys that may have signed a token with this header: those of its algorithm and
    /// `kid`. Several keys may share a `kid` (RFC 7517 §4.5). Without a `kid` there must be only
    /// one key of the algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<&Key>, Misfit> {
        let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let fitting: Vec<_> =
            self.0.iter().filter(named).filter(|key| key.algorithm == algorithm).collect();
        match fitting.len() {
            0 if !self.0.iter().any(|key| named(&key)) => Err(Misfit::Name),
            0 => Err(Misfit::Key("its algorithm is not of our key")),
            2.. if id.is_none() => Err(Misfit::Key("it does not say which key (kid)")),
            _ => Ok(fitting.into_iter().take(MAX_NAMESAKES).collect()),
        }
    }
}

/// The reason why no key of a set fits a token; the issuer may have changed the set since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// No key has the token's `kid`.
    Name,
    /// None of the candidates has signed it.
    Key(&'static str),
}

impl From<Misfit> for Error {
    fn from(misfit: Misfit) -> Self {
        Self::TokenInvalid(match misfit {
            Misfit::Name => "its issuer has no such key",
            Misfit::Key(reason) => reason,
        })
    }
}
