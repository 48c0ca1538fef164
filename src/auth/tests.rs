use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use super::{Identity, Tickets, Verifier, is_revoked};
use crate::{config::AuthConfig, error::Error, model::Time};

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

#[tokio::test]
async fn claims_are_required_not_only_checked_where_present() {
    let plain = verifier(&[]);
    assert_eq!(code(plain.verify(&token(json!({"sub": "a", "exp": now() + 60}))).await), "ok");
    assert_eq!(code(plain.verify(&token(json!({"sub": "a"}))).await), "token_invalid");
    assert_eq!(code(plain.verify(&token(json!({"exp": now() + 60}))).await), "token_invalid");
    assert_eq!(
        code(plain.verify(&token(json!({"sub": "a", "exp": now() - 60}))).await),
        "token_expired"
    );
    let strict = verifier(&["--jwt-issuer", "host", "--jwt-audience", "chat"]);
    let whole = json!({"sub": "a", "exp": now() + 60, "iss": "host", "aud": ["chat"]});
    assert_eq!(code(strict.verify(&token(whole.clone())).await), "ok");
    for missing in ["iss", "aud"] {
        let mut claims = whole.clone();
        claims.as_object_mut().expect("an object").remove(missing);
        assert_eq!(code(strict.verify(&token(claims)).await), "token_invalid", "{missing}");
    }
}

#[tokio::test]
async fn not_before_is_held_and_none_is_no_algorithm() {
    let plain = verifier(&[]);
    let early = token(json!({"sub": "a", "exp": now() + 600, "nbf": now() + 300}));
    assert_eq!(code(plain.verify(&early).await), "token_invalid");
    // {"alg":"none"} . {"sub":"a","exp":9999999999} . nothing
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    assert_eq!(code(plain.verify(none).await), "token_invalid");
}

#[tokio::test]
async fn the_admin_scope_is_a_whole_word() {
    let plain = verifier(&[]);
    let admin = async |scope: &str| {
        let claims = json!({"sub": "a", "exp": now() + 60, "scope": scope});
        plain.verify(&token(claims)).await.expect("valid").admin
    };
    assert!(admin("read chat:admin").await);
    assert!(!admin("chat:administrator").await);
}

#[tokio::test]
async fn a_ticket_is_no_token_and_a_token_no_ticket() {
    let tickets = Tickets::new(&[7; 32]);
    let of_host = token(json!({"sub": "a", "exp": now() + 60}));
    let identity = verifier(&[]).verify(&of_host).await.expect("valid");
    let ticket = tickets.issue(&identity, None).expect("issued");
    assert_eq!(tickets.check(&ticket).expect("valid").user_id, *identity.user_id());
    assert!(verifier(&[]).verify(&ticket).await.is_err());
    assert!(tickets.check(&token(json!({"sub": "a", "exp": now() + 60, "aud": "ws"}))).is_err());
    assert!(Tickets::new(&[8; 32]).check(&ticket).is_err());
}

#[tokio::test]
async fn only_older_tokens_are_revoked_and_those_that_hide_their_age() {
    let issued_at = async |iat: serde_json::Value| {
        let claims = json!({"sub": "a", "exp": now() + 60, "iat": iat});
        verifier(&[]).verify(&token(claims)).await.expect("valid").issued_at
    };
    let revoked_at = issued_at(json!(1_000.5)).await;
    assert_eq!(revoked_at, jiff::Timestamp::from_millisecond(1_000_500).ok().map(Time));
    for (iat, revoked) in [
        (json!(1_000), true),
        (json!(1_001), false),
        (json!(1_000.5), false),
        (json!(null), true),
        (json!("yesterday"), true),
        (json!(1e300), true),
    ] {
        let issued_at = issued_at(iat.clone()).await;
        assert_eq!(is_revoked(issued_at, revoked_at), revoked, "{iat}");
        assert!(!is_revoked(issued_at, None));
    }
}
