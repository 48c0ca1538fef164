//! Whose tokens are taken: algorithms, keys, claims.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use beseda::config::Secret;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::harness::{
    Cluster, SECRET, claims,
    keys::{eddsa, es256, rs256},
    now, sign, sign_with,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_takes_tokens_of_its_own_algorithm_and_no_others() {
    let keys = [rs256(), es256(), eddsa()];
    let strangers = [rs256(), es256(), eddsa()];
    for (key, stranger) in keys.iter().zip(&strangers) {
        let cluster = Cluster::with(1, |config| {
            config.auth.jwt_hs256_secret = None;
            config.auth.jwt_public_key = Some(key.public.clone());
        })
        .await;
        let alice = |algorithm, private: &EncodingKey| {
            let token = sign_with(algorithm, private, &claims("alice"));
            cluster.user("alice").with_token(token).on(0)
        };
        alice(key.algorithm, &key.private).get("/chats/").await.expect(200);
        let refused = async |algorithm, private: &EncodingKey| {
            let answer = alice(algorithm, private).get("/chats/").await;
            answer.expect_problem(401, "token_invalid");
        };
        refused(stranger.algorithm, &stranger.private).await;
        for other in keys.iter().filter(|other| other.algorithm != key.algorithm) {
            refused(other.algorithm, &other.private).await;
        }
        // The public key taken for a secret.
        let confused = EncodingKey::from_secret(key.public.as_bytes());
        refused(Algorithm::HS256, &confused).await;
        refused(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_the_path_of_its_file() {
    let key = eddsa();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &key.public).expect("the file is written");
    let cluster = Cluster::with(1, |config| {
        config.auth.jwt_hs256_secret = None;
        config.auth.jwt_public_key = Some(file.path().display().to_string());
    })
    .await;
    let token = sign_with(key.algorithm, &key.private, &claims("alice"));
    cluster.user("alice").with_token(token).on(0).get("/chats/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_key_takes_the_place_of_another_tokens_of_both_are_taken() {
    const NEXT: &str = "the secret, with a comma in it, that is to come";
    let (old, next, stranger) = (rs256(), eddsa(), eddsa());
    let pair = tempfile::NamedTempFile::new().expect("a file");
    let both = format!("The next:\n{}\n{}", next.public, old.public);
    std::fs::write(pair.path(), both).expect("the file is written");
    let cluster = Cluster::with(1, |config| {
        config.auth.jwt_hs256_secret = Some(Secret::from(format!("{NEXT}\r\n{SECRET}\n")));
        let issuer = format!("https://pair={}", pair.path().display());
        config.auth.jwt_issuer = Some("https://secret".to_owned());
        config.auth.jwt_issuers = vec![issuer.parse().expect("an issuer")];
    })
    .await;
    let ask = async |algorithm, key: &EncodingKey, issuer: &str, exp: u64| {
        let claims = json!({ "sub": "alice", "exp": exp, "iss": issuer });
        let token = sign_with(algorithm, key, &claims);
        cluster.user("alice").with_token(token).on(0).get("/chats/").await
    };
    let (good, past) = (now() + 600, now() - 600);
    for secret in [SECRET, NEXT] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        ask(Algorithm::HS256, &key, "https://secret", good).await.expect(200);
        let expired = ask(Algorithm::HS256, &key, "https://secret", past).await;
        expired.expect_problem(401, "token_expired");
        let elsewhere = ask(Algorithm::HS256, &key, "https://pair", good).await;
        elsewhere.expect_problem(401, "token_invalid");
    }
    for key in [&old, &next] {
        ask(key.algorithm, &key.private, "https://pair", good).await.expect(200);
        let expired = ask(key.algorithm, &key.private, "https://pair", past).await;
        expired.expect_problem(401, "token_expired");
    }
    let refused = ask(stranger.algorithm, &stranger.private, "https://pair", good).await;
    refused.expect_problem(401, "token_invalid");
    let both = EncodingKey::from_secret(format!("{NEXT}\n{SECRET}").as_bytes());
    let refused = ask(Algorithm::HS256, &both, "https://secret", good).await;
    refused.expect_problem(401, "token_invalid");

    let three = format!("{SECRET}\n{NEXT}\nanother secret of more than thirty-two bytes");
    for wrong in [three, format!("{SECRET}\nshort"), format!("{SECRET}\n\n{NEXT}"), String::new()] {
        let secret = Secret::from(wrong);
        let refusal = cluster.refusal(|c| c.auth.jwt_hs256_secret = Some(secret)).await;
        assert!(refusal.starts_with("BESEDA_JWT_HS256_SECRET: must be "), "{refusal}");
    }
    for wrong in [old.public.repeat(3), format!("{}-----BEGIN PUBLIC KEY-----", old.public)] {
        let refusal = cluster
            .refusal(|c| {
                c.auth.jwt_hs256_secret = None;
                c.auth.jwt_public_key = Some(wrong);
            })
            .await;
        assert!(refusal.starts_with("BESEDA_JWT_PUBLIC_KEY: "), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_claimed_is_asked_for_and_times_are_held() {
    let cluster = Cluster::start(1).await;
    let whole = json!({ "sub": "alice", "exp": now() + 600, "iss": "anybody", "aud": "anything" });
    let ask = async |change: &dyn Fn(&mut Value)| {
        let mut claims = whole.clone();
        change(&mut claims);
        cluster.user("alice").with_token(sign(&claims)).on(0).get("/chats/").await
    };
    ask(&|_| {}).await.expect(200);
    ask(&|claims| claims["nbf"] = json!(now() - 60)).await.expect(200);
    // Within the leeway of 10 s.
    ask(&|claims| claims["exp"] = json!(now() - 4)).await.expect(200);
    ask(&|claims| claims["nbf"] = json!(now() + 4)).await.expect(200);
    ask(&|claims| claims["exp"] = json!(now() - 60)).await.expect_problem(401, "token_expired");
    let no_user = [json!(null), json!(""), json!(7), json!("a\u{0}"), json!("x".repeat(129))];
    for sub in no_user {
        ask(&|claims| claims["sub"] = sub.clone()).await.expect_problem(401, "token_invalid");
    }
    for exp in [json!(null), json!("soon"), json!({})] {
        ask(&|claims| claims["exp"] = exp.clone()).await.expect_problem(401, "token_invalid");
    }
    ask(&|claims| claims["nbf"] = json!(now() + 60)).await.expect_problem(401, "token_invalid");

    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
    let long = format!("{}{}", sign(&whole), "A".repeat(9 * 1024));
    let cut = sign(&whole)[..60].to_owned();
    for token in [none, &long, &cut, "a.b.c", "...", "🦊"] {
        let answer = cluster.user("alice").with_token(token).on(0).get("/chats/").await;
        answer.expect_problem(401, "token_invalid");
    }
    let other = EncodingKey::from_secret(b"another secret of more than thirty-two bytes");
    let token = sign_with(Algorithm::HS256, &other, &whole);
    let answer = cluster.user("alice").with_token(token).on(0).get("/chats/").await;
    answer.expect_problem(401, "token_invalid");
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let token = sign_with(Algorithm::HS512, &secret, &whole);
    let answer = cluster.user("alice").with_token(token).on(0).get("/chats/").await;
    answer.expect_problem(401, "token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_and_audience_are_required_where_configured() {
    let cluster = Cluster::with(1, |config| {
        config.auth.jwt_issuer = Some("https://host".to_owned());
        config.auth.jwt_audience = Some("chat".to_owned());
    })
    .await;
    let ask = async |iss: Value, aud: Value| {
        let mut claims = claims("alice");
        (claims["iss"], claims["aud"]) = (iss, aud);
        let claims: Value = claims
            .as_object()
            .expect("an object")
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        cluster.user("alice").with_token(sign(&claims)).on(0).get("/chats/").await
    };
    ask(json!("https://host"), json!("chat")).await.expect(200);
    ask(json!("https://host"), json!(["other", "chat"])).await.expect(200);
    let wrong = [
        (json!(null), json!("chat")),
        (json!("https://host"), json!(null)),
        (json!("https://host/"), json!("chat")),
        (json!("https://host"), json!("chats")),
        (json!("https://host"), json!([])),
        (json!(["https://other"]), json!("chat")),
    ];
    for (iss, aud) in wrong {
        ask(iss, aud).await.expect_problem(401, "token_invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_scope_chat_admin_is_the_host_application() {
    let cluster = Cluster::start(1).await;
    let ask = async |scope: Value| {
        let mut claims = claims("x");
        claims["scope"] = scope;
        let client = cluster.user_claiming(&claims).on(0);
        client.put("/users/somebody/", json!({})).await
    };
    for scope in [json!("chat:admin"), json!("read chat:admin write")] {
        assert!(matches!(ask(scope).await.status, 200 | 201));
    }
    for scope in [
        json!(null),
        json!(""),
        json!("chat:administrator"),
        json!("CHAT:ADMIN"),
        json!(["chat:admin"]),
        json!("admin"),
    ] {
        ask(scope).await.expect_problem(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_only_decorate_lock_nobody_out() {
    use aws_lc_rs::hmac;
    let cluster = Cluster::start(1).await;
    let end = claims("x")["exp"].as_u64().expect("a number");
    // Signed by hand, as no library here would write such JSON.
    let signed = |claims: &str| {
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let unsigned = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        format!("{unsigned}.{}", encode(hmac::sign(&key, unsigned.as_bytes()).as_ref()))
    };
    for (index, decoration) in [
        r#""name":"Anna \ud83d""#,
        r#""name":"\udc00 Anna","picture":"https://x/\ud800""#,
        r#""name":7,"picture":[1,{"a":null}]"#,
        r#""name":"a","name":"b""#,
        r#""name":"a\u0000b""#,
        r#""scope":"\ud83d","iat":"yesterday""#,
        r#""iat":-300000000000"#,
        r#""iat":1e300"#,
        r#""anything":"\ud83d","n":1e999"#,
    ]
    .iter()
    .enumerate()
    {
        let id = format!("user-{index}");
        let token = signed(&format!(r#"{{"sub":"{id}","exp":{end},{decoration}}}"#));
        let user = cluster.user(&id).with_token(token);
        user.on(0).get("/chats/").await.expect(200);
        let known = user.on(0).get(&format!("/users/{id}/")).await.expect(200);
        let name = if decoration.contains(r#""b""#) { json!("b") } else { json!(null) };
        assert_eq!(known["name"], name, "{decoration}");
    }
    // Faults in the other claims still count.
    for claims in [format!(r#"{{"sub":"a\ud83d","exp":{end}}}"#), r#"{"sub":"a"}"#.to_owned()] {
        let nobody = cluster.user("a").with_token(signed(&claims));
        nobody.on(0).get("/chats/").await.expect_problem(401, "token_invalid");
    }
}
