//! Who is asking: the host application's tokens, and our own tickets for sockets.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
    errors::ErrorKind,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    config::{AuthConfig, ConfigError},
    error::Error,
    model::{ChatId, MAX_AVATAR_URL_CHARS, MAX_NAME_CHARS, UserId},
    store::Profile,
};

/// Longest token taken: a larger one is no session's, and costs time to refuse.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How long a ticket may wait to be used: a page's round trip and a slow handshake, not more,
/// because tickets stand in URLs and so in logs.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);

/// The audience of tickets; no host token can pass for one, as the key differs too.
const TICKET_AUDIENCE: &str = "ws";

/// The scope of the host application's own server.
const ADMIN_SCOPE: &str = "chat:admin";

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub profile: Profile,
    pub admin: bool,
    /// Seconds since 1970.
    pub expires_at: i64,
}

impl Identity {
    pub fn user_id(&self) -> &UserId {
        &self.profile.user_id
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    name: Option<serde_json::Value>,
    picture: Option<serde_json::Value>,
    scope: Option<serde_json::Value>,
}

/// Checks the host application's tokens. The key's kind fixes the algorithm.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("validation", &self.validation).finish_non_exhaustive()
    }
}

impl Verifier {
    pub fn new(config: &AuthConfig) -> Result<Self, ConfigError> {
        let (algorithm, key) = match (&config.jwt_hs256_secret, config.public_key_pem()?) {
            (Some(secret), _) => {
                (Algorithm::HS256, DecodingKey::from_secret(secret.expose().as_bytes()))
            }
            (None, Some(pem)) => public_key(&pem)?,
            (None, None) => {
                return Err(ConfigError {
                    name: "BESEDA_JWT_HS256_SECRET".into(),
                    reason: "no key to check tokens with".to_owned(),
                });
            }
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = config.jwt_leeway.as_secs();
        validation.validate_nbf = true;
        // The library checks what is there; what must be there has to be named.
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = &config.jwt_issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        match &config.jwt_audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { key, validation })
    }

    pub fn verify(&self, token: &str) -> Result<Identity, Error> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::TokenInvalid("it is longer than 8 KiB"));
        }
        let header = decode_header(token).map_err(|_| Error::TokenInvalid("it is not a JWT"))?;
        // RFC 7515 §4.1.11: extensions that must be understood, and we know none.
        if header.crit.is_some() {
            return Err(Error::TokenInvalid("it has a critical extension"));
        }
        let claims = decode::<Claims>(token, &self.key, &self.validation).map_err(refusal)?.claims;
        let user_id =
            UserId::parse(&claims.sub).ok_or(Error::TokenInvalid("sub is not a user_id"))?;
        // A profile follows the token, but a name that is too long is no reason to lock a person out.
        let text = |value: Option<serde_json::Value>, max_chars: usize| {
            value
                .as_ref()
                .and_then(serde_json::Value::as_str)
                .filter(|text| !text.contains('\0') && text.chars().count() <= max_chars)
                .map(str::to_owned)
        };
        let admin = claims
            .scope
            .as_ref()
            .and_then(serde_json::Value::as_str)
            .is_some_and(|scope| scope.split(' ').any(|one| one == ADMIN_SCOPE));
        Ok(Identity {
            profile: Profile {
                user_id,
                name: text(claims.name, MAX_NAME_CHARS),
                avatar_url: text(claims.picture, MAX_AVATAR_URL_CHARS),
            },
            admin,
            // Beyond 2^53 seconds the fraction is gone, and so is the question.
            expires_at: claims.exp as i64,
        })
    }

    /// By how much a token may outlive its `exp`.
    pub fn leeway(&self) -> Duration {
        Duration::from_secs(self.validation.leeway)
    }
}

fn refusal(error: jsonwebtoken::errors::Error) -> Error {
    match error.kind() {
        ErrorKind::ExpiredSignature => Error::TokenExpired,
        ErrorKind::InvalidSignature => Error::TokenInvalid("its signature is not of our key"),
        ErrorKind::InvalidAlgorithm => Error::TokenInvalid("its algorithm is not of our key"),
        ErrorKind::InvalidIssuer => Error::TokenInvalid("iss is not ours"),
        ErrorKind::InvalidAudience => Error::TokenInvalid("aud is not ours"),
        ErrorKind::ImmatureSignature => Error::TokenInvalid("nbf is in the future"),
        ErrorKind::MissingRequiredClaim(_) => Error::TokenInvalid("a claim is missing"),
        _ => Error::TokenInvalid("it can't be read"),
    }
}

fn public_key(pem: &[u8]) -> Result<(Algorithm, DecodingKey), ConfigError> {
    DecodingKey::from_rsa_pem(pem)
        .map(|key| (Algorithm::RS256, key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
        .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)))
        .map_err(|_| ConfigError {
            name: "BESEDA_JWT_PUBLIC_KEY".into(),
            reason: "not a public key of RSA, P-256 or Ed25519 in PEM".to_owned(),
        })
}

/// What a ticket lets its bearer open.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Ticket {
    #[serde(rename = "sub")]
    pub user_id: UserId,
    /// The one chat's socket; `None`: the many-chats socket.
    #[serde(rename = "chat", skip_serializing_if = "Option::is_none")]
    pub chat_id: Option<ChatId>,
    /// For its single use.
    #[serde(rename = "jti")]
    pub id: Uuid,
    aud: String,
    exp: i64,
    /// When the token that it was given for expires, in seconds since 1970.
    #[serde(rename = "tex")]
    pub token_expires_at: i64,
    #[serde(default, rename = "adm")]
    pub admin: bool,
}

/// Makes and checks tickets; the key is the installation's, so any replica takes any other's.
#[derive(Clone)]
pub struct Tickets {
    signing: Arc<EncodingKey>,
    checking: Arc<DecodingKey>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    pub fn new(instance_secret: &[u8]) -> Self {
        let key = derive_key(instance_secret, "tickets");
        Self {
            signing: Arc::new(EncodingKey::from_secret(&key)),
            checking: Arc::new(DecodingKey::from_secret(&key)),
        }
    }

    pub fn issue(&self, identity: &Identity, chat_id: Option<ChatId>) -> Result<String, Error> {
        let lifetime = TICKET_LIFETIME.as_secs().cast_signed();
        let ticket = Ticket {
            user_id: identity.user_id().clone(),
            chat_id,
            id: Uuid::now_v7(),
            aud: TICKET_AUDIENCE.to_owned(),
            exp: jiff::Timestamp::now().as_second() + lifetime,
            token_expires_at: identity.expires_at,
            admin: identity.admin,
        };
        encode(&Header::new(Algorithm::HS256), &ticket, &self.signing).map_err(Error::internal)
    }

    pub fn check(&self, ticket: &str) -> Result<Ticket, Error> {
        if ticket.len() > MAX_TOKEN_BYTES {
            return Err(Error::TokenInvalid("it is longer than 8 KiB"));
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // Both clocks are replicas' own; a minute's ticket needs little tolerance.
        validation.leeway = 5;
        validation.set_audience(&[TICKET_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "sub", "aud"]);
        decode::<Ticket>(ticket, &self.checking, &validation)
            .map(|data| data.claims)
            .map_err(refusal)
    }
}

/// A key for one purpose from the installation's secret: HMAC as a pseudo-random function
/// (RFC 5869 §2.3 with one block).
pub fn derive_key(instance_secret: &[u8], purpose: &str) -> [u8; 32] {
    mac(instance_secret, &[purpose.as_bytes()])
}

/// HMAC-SHA256 over length-prefixed parts, so that no two lists of parts give the same input.
pub fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    use aws_lc_rs::hmac;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        auth: AuthConfig,
    }

    const SECRET: &str = "a secret of more than thirty-two bytes";

    fn verifier(flags: &[&str]) -> Verifier {
        let mut args = vec!["t", "--jwt-hs256-secret", SECRET];
        args.extend(flags);
        Verifier::new(&Cli::parse_from(args).auth).expect("a usable key")
    }

    fn token(claims: serde_json::Value) -> String {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        encode(&Header::new(Algorithm::HS256), &claims, &key).expect("encodes")
    }

    fn now() -> i64 {
        jiff::Timestamp::now().as_second()
    }

    fn code(result: Result<Identity, Error>) -> &'static str {
        result.map_or_else(|error| error.code(), |_| "ok")
    }

    #[test]
    fn claims_are_required_not_only_checked_where_present() {
        let plain = verifier(&[]);
        assert_eq!(code(plain.verify(&token(json!({"sub": "a", "exp": now() + 60})))), "ok");
        assert_eq!(code(plain.verify(&token(json!({"sub": "a"})))), "token_invalid");
        assert_eq!(code(plain.verify(&token(json!({"exp": now() + 60})))), "token_invalid");
        assert_eq!(
            code(plain.verify(&token(json!({"sub": "a", "exp": now() - 60})))),
            "token_expired"
        );
        let strict = verifier(&["--jwt-issuer", "host", "--jwt-audience", "chat"]);
        let whole = json!({"sub": "a", "exp": now() + 60, "iss": "host", "aud": ["chat"]});
        assert_eq!(code(strict.verify(&token(whole.clone()))), "ok");
        for missing in ["iss", "aud"] {
            let mut claims = whole.clone();
            claims.as_object_mut().expect("an object").remove(missing);
            assert_eq!(code(strict.verify(&token(claims))), "token_invalid", "{missing}");
        }
    }

    #[test]
    fn not_before_is_held_and_none_is_no_algorithm() {
        let plain = verifier(&[]);
        let early = token(json!({"sub": "a", "exp": now() + 600, "nbf": now() + 300}));
        assert_eq!(code(plain.verify(&early)), "token_invalid");
        // {"alg":"none"} . {"sub":"a","exp":9999999999} . nothing
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
        assert_eq!(code(plain.verify(none)), "token_invalid");
    }

    #[test]
    fn the_admin_scope_is_a_whole_word() {
        let plain = verifier(&[]);
        let admin = |scope: &str| {
            let claims = json!({"sub": "a", "exp": now() + 60, "scope": scope});
            plain.verify(&token(claims)).expect("valid").admin
        };
        assert!(admin("read chat:admin"));
        assert!(!admin("chat:administrator"));
    }

    #[test]
    fn a_ticket_is_no_token_and_a_token_no_ticket() {
        let tickets = Tickets::new(&[7; 32]);
        let identity =
            verifier(&[]).verify(&token(json!({"sub": "a", "exp": now() + 60}))).expect("valid");
        let ticket = tickets.issue(&identity, None).expect("issued");
        assert_eq!(tickets.check(&ticket).expect("valid").user_id, *identity.user_id());
        assert!(verifier(&[]).verify(&ticket).is_err());
        assert!(
            tickets.check(&token(json!({"sub": "a", "exp": now() + 60, "aud": "ws"}))).is_err()
        );
        assert!(Tickets::new(&[8; 32]).check(&ticket).is_err());
    }
}
