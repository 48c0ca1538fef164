//! The host application's tokens.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use beseda_protocol::bounds::{MAX_AVATAR_URL_CHARS, MAX_NAME_CHARS};
use futures_util::future::join_all;
use jsonwebtoken::{
    Algorithm, Header, Validation, dangerous::insecure_decode_claims, decode, decode_header,
    errors::ErrorKind,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    jwks::Jwks,
    keys::{Key, KeySet, Misfit},
};
use crate::{
    config::{AuthConfig, ConfigError, KeySource},
    error::Error,
    model::{Profile, Time, UserId},
};

/// Maximum length of a token: larger ones are no session tokens, and cost time to refuse.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The scope of the host application's server.
const ADMIN_SCOPE: &str = "chat:admin";

/// The reason for a token that another key has signed.
const FORGED: Misfit = Misfit::Key("its signature is not of our key");
/// The reason for a token with another key's algorithm.
const OTHER_ALGORITHM: Misfit = Misfit::Key("its algorithm is not of our key");

const UNREADABLE: Error = Error::TokenInvalid("it can't be read");

/// The claims of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub profile: Profile,
    pub admin: bool,
    /// Seconds since 1970.
    pub expires_at: i64,
    /// `None`: the token has no `iat`.
    pub issued_at: Option<Time>,
}

impl Identity {
    pub fn user_id(&self) -> &UserId {
        &self.profile.user_id
    }
}

/// Whether a token issued at `issued_at` was revoked at `revoked_at`. A token without `iat` counts
/// as older.
pub fn is_revoked(issued_at: Option<Time>, revoked_at: Option<Time>) -> bool {
    revoked_at.is_some_and(|revoked_at| issued_at.is_none_or(|issued_at| issued_at < revoked_at))
}

/// The claims of a token, not yet decoded: a broken optional claim (a name cut within a character)
/// must not make the rest unreadable. Of duplicates the last counts.
type Claims = BTreeMap<String, Box<RawValue>>;

/// Decodes a claim; `None` if it is missing or has another type.
fn claim<T: DeserializeOwned>(claims: &Claims, name: &str) -> Option<T> {
    claims.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// An issuer whose tokens are accepted.
struct Issuer {
    /// The required `iss`; `None`: any, if there is no other issuer.
    name: Option<String>,
    keys: Keys,
}

enum Keys {
    /// From the settings: one, or two during a rotation.
    Fixed(Vec<Key>),
    Published(Arc<Jwks>),
}

/// Verifies the host application's tokens. A key's kind fixes the algorithm. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    issuers: Arc<[Issuer]>,
    leeway: Duration,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.issuers.iter().map(|issuer| &issuer.name).collect();
        f.debug_struct("Verifier").field("issuers", &names).finish_non_exhaustive()
    }
}

impl Verifier {
    pub fn new(config: &AuthConfig) -> Result<Self, ConfigError> {
        let mut issuers = Vec::new();
        let own = config.jwt_issuer.as_deref();
        let rules = rules(config, own);
        let secrets = config.hs256_secrets()?;
        if !secrets.is_empty() {
            let keys = secrets.iter().map(|secret| Key::from_secret(secret, &rules)).collect();
            issuers.push(Issuer { name: own.map(str::to_owned), keys: Keys::Fixed(keys) });
        } else if let Some(pem) = config.public_key_pem()? {
            let keys = Keys::Fixed(Key::from_pem(&pem, "BESEDA_JWT_PUBLIC_KEY", &rules)?);
            issuers.push(Issuer { name: own.map(str::to_owned), keys });
        } else if let Some(url) = &config.jwt_jwks_url {
            let keys = Keys::Published(Arc::new(Jwks::new(url.clone(), rules)?));
            issuers.push(Issuer { name: own.map(str::to_owned), keys });
        }
        for issuer in &config.jwt_issuers {
            let rules = self::rules(config, Some(&issuer.name));
            let keys = match &issuer.keys {
                KeySource::Url(url) => Keys::Published(Arc::new(Jwks::new(url.clone(), rules)?)),
                KeySource::File(_) => {
                    Keys::Fixed(Key::from_pem(&issuer.pem()?, "BESEDA_JWT_ISSUERS", &rules)?)
                }
            };
            issuers.push(Issuer { name: Some(issuer.name.clone()), keys });
        }
        if issuers.is_empty() {
            return Err(ConfigError {
                name: "BESEDA_JWT_HS256_SECRET".into(),
                reason: "no key to check tokens with".to_owned(),
            });
        }
        Ok(Self { issuers: issuers.into(), leeway: config.jwt_leeway })
    }

    /// Reads the published keys once. An unavailable issuer does not prevent the start.
    pub async fn load(&self) {
        join_all(self.published().map(|jwks| jwks.refresh())).await;
    }

    /// Refreshes the published keys, for ever.
    pub async fn keep_fresh(self) {
        join_all(self.published().map(|jwks| jwks.keep_fresh())).await;
    }

    fn published(&self) -> impl Iterator<Item = &Arc<Jwks>> {
        self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            Keys::Published(jwks) => Some(jwks),
            Keys::Fixed(_) => None,
        })
    }

    pub async fn verify(&self, token: &str) -> Result<Identity, Error> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::TokenInvalid("it is longer than 8 KiB"));
        }
        // Of the header, only `alg` and `kid` are used, to choose among configured keys; keys and
        // URLs of keys in it (jwk, jku, x5c, x5u) are untrusted.
        let header = decode_header(token).map_err(|_| Error::TokenInvalid("it is not a JWT"))?;
        // RFC 7515 §4.1.11: critical extensions must be understood, and none is supported.
        if header.crit.is_some() {
            return Err(Error::TokenInvalid("it has a critical extension"));
        }
        let claims = match &self.issuer_of(token)?.keys {
            Keys::Fixed(keys) => check_each(token, keys)?,
            Keys::Published(jwks) => {
                let keys = jwks.current().ok_or(Error::Unavailable(None))?;
                match check_among(token, &header, &keys) {
                    // The issuer may have changed its keys, under a new `kid` or under the old one.
                    Err(Refused::Misfit(misfit)) => {
                        jwks.ask_again(misfit).await;
                        let fresh = jwks.current().filter(|fresh| !Arc::ptr_eq(fresh, &keys));
                        match fresh {
                            Some(fresh) => check_among(token, &header, &fresh)?,
                            None => return Err(misfit.into()),
                        }
                    }
                    other => other?,
                }
            }
        };
        identity(&claims)
    }

    /// Chooses the issuer. With several issuers the token's unverified `iss` selects one; the rules
    /// of its keys check `iss` again together with the signature.
    fn issuer_of(&self, token: &str) -> Result<&Issuer, Error> {
        #[derive(Deserialize)]
        struct Unverified {
            iss: Option<serde_json::Value>,
        }
        if let [only] = &*self.issuers {
            return Ok(only);
        }
        let claims = insecure_decode_claims::<Unverified>(token);
        let claims = claims.map_err(|_| UNREADABLE)?;
        let named = claims.iss.as_ref().and_then(serde_json::Value::as_str);
        let named = named.ok_or(Error::TokenInvalid("a claim is missing"))?;
        let mut issuers = self.issuers.iter();
        issuers
            .find(|issuer| issuer.name.as_deref() == Some(named))
            .ok_or(Error::TokenInvalid("iss is not ours"))
    }

    /// How long a token is accepted after its `exp`.
    pub fn leeway(&self) -> Duration {
        self.leeway
    }
}

/// The rules for every token; the key adds its algorithm.
fn rules(config: &AuthConfig, issuer: Option<&str>) -> Validation {
    let mut rules = Validation::new(Algorithm::HS256);
    rules.leeway = config.jwt_leeway.as_secs();
    rules.validate_nbf = true;
    // The library checks claims that are present; required ones have to be named.
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = issuer {
        rules.set_issuer(&[issuer]);
        required.push("iss");
    }
    match &config.jwt_audience {
        Some(audience) => {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        None => rules.validate_aud = false,
    }
    rules.set_required_spec_claims(&required);
    rules
}

/// The reason why a token is refused.
enum Refused {
    /// No key fits it.
    Misfit(Misfit),
    /// It is invalid for any key.
    Token(Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Misfit(misfit) => misfit.into(),
            Refused::Token(error) => error,
        }
    }
}

/// Verifies a token with the keys that may have signed it.
fn check_among(token: &str, header: &Header, keys: &KeySet) -> Result<Claims, Refused> {
    check_each(token, keys.find(header.kid.as_deref(), header.alg).map_err(Refused::Misfit)?)
}

/// Verifies a token with each key until one has signed it.
fn check_each<'a>(token: &str, keys: impl IntoIterator<Item = &'a Key>) -> Result<Claims, Refused> {
    let mut refused = Refused::Misfit(FORGED);
    for key in keys {
        match check(token, key) {
            Err(misfit @ Refused::Misfit(_)) => refused = misfit,
            done => return done,
        }
    }
    Err(refused)
}

/// Verifies a token's signature and claims with one key.
fn check(token: &str, key: &Key) -> Result<Claims, Refused> {
    match decode::<Claims>(token, &key.decoding, &key.validation) {
        Ok(data) => Ok(data.claims),
        Err(error) => Err(match error.kind() {
            ErrorKind::InvalidSignature => Refused::Misfit(FORGED),
            ErrorKind::InvalidAlgorithm => Refused::Misfit(OTHER_ALGORITHM),
            _ => Refused::Token(refusal(error)),
        }),
    }
}

/// Reads the identity from valid claims.
fn identity(claims: &Claims) -> Result<Identity, Error> {
    let user_id = claim::<String>(claims, "sub").and_then(|sub| UserId::parse(&sub));
    // A name that is too long is dropped, not an error: it must not lock its user out.
    let text = |name: &str, max_chars: usize| {
        claim::<String>(claims, name)
            .filter(|text| !text.contains('\0') && text.chars().count() <= max_chars)
    };
    let scope = claim::<String>(claims, "scope").unwrap_or_default();
    let expires_at: f64 = claim(claims, "exp").ok_or(UNREADABLE)?;
    Ok(Identity {
        profile: Profile {
            user_id: user_id.ok_or(Error::TokenInvalid("sub is not a user_id"))?,
            name: text("name", MAX_NAME_CHARS),
            avatar_url: text("picture", MAX_AVATAR_URL_CHARS),
        },
        admin: scope.split(' ').any(|one| one == ADMIN_SCOPE),
        // Saturates; beyond 2^53 seconds precision does not matter.
        expires_at: expires_at as i64,
        // It may have a fraction; a value outside our range counts as missing.
        issued_at: claim::<f64>(claims, "iat")
            .and_then(|iat| Time::from_micros((iat * 1e6) as i64)),
    })
}

pub(super) fn refusal(error: jsonwebtoken::errors::Error) -> Error {
    match error.kind() {
        ErrorKind::ExpiredSignature => Error::TokenExpired,
        ErrorKind::InvalidSignature => FORGED.into(),
        ErrorKind::InvalidAlgorithm => Error::TokenInvalid("its algorithm is not of our key"),
        ErrorKind::InvalidIssuer => Error::TokenInvalid("iss is not ours"),
        ErrorKind::InvalidAudience => Error::TokenInvalid("aud is not ours"),
        ErrorKind::ImmatureSignature => Error::TokenInvalid("nbf is in the future"),
        ErrorKind::MissingRequiredClaim(_) => Error::TokenInvalid("a claim is missing"),
        _ => UNREADABLE,
    }
}
