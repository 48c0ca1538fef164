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
    model::{Time, UserId},
    store::Profile,
};

/// Longest token taken: a larger one is no session's, and costs time to refuse.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The scope of the host application's own server.
const ADMIN_SCOPE: &str = "chat:admin";

/// What is said of a token that another key has signed.
const FORGED: Misfit = Misfit::Key("its signature is not of our key");
/// What is said of a token whose algorithm is another key's.
const OTHER_ALGORITHM: Misfit = Misfit::Key("its algorithm is not of our key");

const UNREADABLE: Error = Error::TokenInvalid("it can't be read");

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub profile: Profile,
    pub admin: bool,
    /// Seconds since 1970.
    pub expires_at: i64,
    /// `None`: the token does not say.
    pub issued_at: Option<Time>,
}

impl Identity {
    pub fn user_id(&self) -> &UserId {
        &self.profile.user_id
    }
}

/// Whether a token of `issued_at` is void since its user's tokens were revoked. One that does not
/// say when it was issued counts as older.
pub fn is_revoked(issued_at: Option<Time>, revoked_at: Option<Time>) -> bool {
    revoked_at.is_some_and(|revoked_at| issued_at.is_none_or(|issued_at| issued_at < revoked_at))
}

/// What a token says, each claim still as it was written: what only decorates (a name cut within a
/// character) must not make the rest unreadable. Of a claim given twice the last counts.
type Claims = BTreeMap<String, Box<RawValue>>;

/// A claim; `None`: it is missing, or of another type.
fn claim<T: DeserializeOwned>(claims: &Claims, name: &str) -> Option<T> {
    claims.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// Somebody whose tokens are taken.
struct Issuer {
    /// What `iss` must be; `None`: anything, where there is no other issuer.
    name: Option<String>,
    keys: Keys,
}

enum Keys {
    /// Of the settings: one, or two while one takes the place of the other.
    Fixed(Vec<Key>),
    Published(Arc<Jwks>),
}

/// Checks the host application's tokens. A key's kind fixes the algorithm. Cheap to clone.
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

    /// Reads what issuers publish, once. An issuer that is away is no reason not to start.
    pub async fn load(&self) {
        join_all(self.published().map(|jwks| jwks.refresh())).await;
    }

    /// Keeps what issuers publish fresh, for ever.
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
        // Of the header, `alg` and `kid` choose among the keys that were configured; keys, and
        // addresses of keys, that it brings along (jwk, jku, x5c, x5u) are nobody's.
        let header = decode_header(token).map_err(|_| Error::TokenInvalid("it is not a JWT"))?;
        // RFC 7515 §4.1.11: extensions that must be understood, and we know none.
        if header.crit.is_some() {
            return Err(Error::TokenInvalid("it has a critical extension"));
        }
        let claims = match &self.issuer_of(token)?.keys {
            Keys::Fixed(keys) => check_each(token, keys)?,
            Keys::Published(jwks) => {
                let keys = jwks.current().ok_or(Error::Unavailable(None))?;
                match check_among(token, &header, &keys) {
                    // Under a new name, or under the old one: the issuer may have changed its keys.
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

    /// Whose keys to check with. Where there are several issuers the token says it itself: that is
    /// a choice among them, and what the key's own rules require is checked with the signature.
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

    /// By how much a token may outlive its `exp`.
    pub fn leeway(&self) -> Duration {
        self.leeway
    }
}

/// What every token must fulfil; the algorithm is the key's.
fn rules(config: &AuthConfig, issuer: Option<&str>) -> Validation {
    let mut rules = Validation::new(Algorithm::HS256);
    rules.leeway = config.jwt_leeway.as_secs();
    rules.validate_nbf = true;
    // The library checks what is there; what must be there has to be named.
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

/// Why a token does not pass.
enum Refused {
    /// None of the keys fits it.
    Misfit(Misfit),
    /// Whatever keys there are.
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

/// Checks a token with the keys that it may be signed with.
fn check_among(token: &str, header: &Header, keys: &KeySet) -> Result<Claims, Refused> {
    check_each(token, keys.find(header.kid.as_deref(), header.alg).map_err(Refused::Misfit)?)
}

/// Checks a token with each of an issuer's keys, until one of them has signed it.
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

/// Checks a token's signature and claims.
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

/// What valid claims say.
fn identity(claims: &Claims) -> Result<Identity, Error> {
    let user_id = claim::<String>(claims, "sub").and_then(|sub| UserId::parse(&sub));
    // A profile follows the token, but a name that is too long is no reason to lock a person out.
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
        // Beyond 2^53 seconds the fraction is gone, and so is the question.
        expires_at: expires_at as i64,
        // It may have a fraction; what is no time of ours counts as not said.
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
