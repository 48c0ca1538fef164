//! Issuers that publish their keys, and several of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use beseda::{config::Config, context::OPENINGS};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{
    Answer, Cluster, SECRET, Socket, claims, eventually,
    keys::{KeyOfHost, eddsa, es256, rs256},
    sign_with,
};

/// A host application's server that publishes keys; ends with the test's runtime.
struct Issuer {
    address: SocketAddr,
    shared: Arc<Published>,
}

#[derive(Default)]
struct Published {
    /// What is answered, and with which status; 0: nothing ever.
    answer: Mutex<(u16, String)>,
    asked: AtomicUsize,
}

impl Issuer {
    async fn start() -> Self {
        let shared = Arc::new(Published::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let answer = async |State(shared): State<Arc<Published>>| {
            shared.asked.fetch_add(1, SeqCst);
            let (status, body) = shared.answer.lock().expect("no panic").clone();
            if status == 0 {
                std::future::pending::<()>().await;
            }
            (StatusCode::from_u16(status).expect("a status"), body)
        };
        let router = Router::new().route("/keys", get(answer)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    fn publish(&self, keys: &[Value]) {
        self.answer(200, json!({ "keys": keys }).to_string());
    }

    fn answer(&self, status: u16, body: impl Into<String>) {
        *self.shared.answer.lock().expect("no panic") = (status, body.into());
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// How often its keys were asked for.
    fn asked(&self) -> usize {
        self.shared.asked.load(SeqCst)
    }

    fn only(&self) -> impl FnOnce(&mut Config) {
        let url = self.url().parse().expect("a URL");
        move |config| {
            config.auth.jwt_hs256_secret = None;
            config.auth.jwt_jwks_url = Some(url);
        }
    }
}

async fn ask(cluster: &Cluster, token: impl Into<String>) -> Answer {
    cluster.user("alice").with_token(token).on(0).get("/chats/").await
}

fn token(key: &KeyOfHost, kid: &str) -> String {
    key.sign(Some(kid), &claims("alice"))
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_without_a_restart_and_invented_ones_cost_the_issuer_nothing() {
    let issuer = Issuer::start().await;
    let (old, new, next) = (es256(), eddsa(), rs256());
    issuer.publish(&[old.jwk(Some("old")), new.jwk(Some("new"))]);
    let cluster = Cluster::with(1, issuer.only()).await;
    assert_eq!(issuer.asked(), 1);
    ask(&cluster, token(&old, "old")).await.expect(200);
    ask(&cluster, token(&new, "new")).await.expect(200);
    // A token without `kid` is checked with the only key of its algorithm.
    ask(&cluster, new.sign(None, &claims("alice"))).await.expect(200);
    assert_eq!(issuer.asked(), 1);
    // A known `kid` does not make another key or algorithm valid. The key could have changed under its
    // name, but the set was fetched too recently to be fetched again.
    ask(&cluster, token(&eddsa(), "new")).await.expect_problem(401, "token_invalid");
    ask(&cluster, token(&new, "old")).await.expect_problem(401, "token_invalid");
    assert_eq!(issuer.asked(), 2);

    issuer.publish(&[new.jwk(Some("new")), next.jwk(Some("next"))]);
    ask(&cluster, token(&next, "next")).await.expect(200);
    assert_eq!(issuer.asked(), 3);
    ask(&cluster, token(&old, "old")).await.expect_problem(401, "token_invalid");
    for kid in ["invented", "by", "anybody"] {
        ask(&cluster, token(&next, kid)).await.expect_problem(401, "token_invalid");
    }
    ask(&cluster, token(&eddsa(), "new")).await.expect_problem(401, "token_invalid");
    assert_eq!(issuer.asked(), 3, "for each reason the issuer is asked once a minute at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_share_a_name_all_count() {
    let issuer = Issuer::start().await;
    let (rsa, ec, other) = (rs256(), es256(), es256());
    for order in [[&rsa, &ec, &other], [&other, &ec, &rsa]] {
        issuer.publish(&order.map(|key| key.jwk(Some("k"))));
        let cluster = Cluster::with(1, issuer.only()).await;
        let asked = issuer.asked();
        for key in order {
            ask(&cluster, token(key, "k")).await.expect(200);
        }
        assert_eq!(issuer.asked(), asked);
        ask(&cluster, token(&es256(), "k")).await.expect_problem(401, "token_invalid");
        ask(&cluster, token(&eddsa(), "k")).await.expect_problem(401, "token_invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changed_under_its_name_or_without_one_is_asked_for_at_once() {
    let issuer = Issuer::start().await;
    for kid in [Some("k"), None] {
        let (old, new) = (es256(), es256());
        issuer.publish(&[old.jwk(kid)]);
        let cluster = Cluster::with(1, issuer.only()).await;
        let signed = |key: &KeyOfHost| key.sign(kid, &claims("alice"));
        ask(&cluster, signed(&old)).await.expect(200);
        issuer.publish(&[new.jwk(kid)]);
        let asked = issuer.asked();
        ask(&cluster, signed(&new)).await.expect(200);
        assert_eq!(issuer.asked(), asked + 1);
        // Other keys are not accepted, and do not have the set fetched again so soon.
        for _ in 0..3 {
            ask(&cluster, signed(&es256())).await.expect_problem(401, "token_invalid");
        }
        assert_eq!(issuer.asked(), asked + 1);
    }
    // Of another kind under the old name.
    let (old, new) = (rs256(), eddsa());
    issuer.publish(&[old.jwk(Some("k"))]);
    let cluster = Cluster::with(1, issuer.only()).await;
    issuer.publish(&[new.jwk(Some("k"))]);
    ask(&cluster, token(&new, "k")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_does_not_answer_keeps_no_socket_of_others_waiting() {
    let issuer = Issuer::start().await;
    let key = es256();
    issuer.publish(&[key.jwk(Some("good"))]);
    let cluster = Cluster::with(1, issuer.only()).await;
    issuer.answer(0, "");
    let url = format!("ws://{}/ws/", cluster.anyone(0).host());
    let began = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..=OPENINGS {
        let mut socket = Socket::open(&url).await;
        socket.send(json!({ "type": "auth", "token": token(&key, "invented") })).await;
        waiting.push(socket);
    }
    eventually(async || match issuer.asked() {
        1 => Err("not asked yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    let bearer = format!("Bearer {}", token(&key, "good"));
    let opened = Socket::open_with(&url, &[("authorization", &bearer)]).await;
    opened.expect("an upgrade").expect("hello").await;
    // As long as the issuer has to answer.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for mut socket in waiting {
        socket.expect_close(4102).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_keys_stay_while_the_issuer_is_away() {
    let issuer = Issuer::start().await;
    let key = es256();
    issuer.publish(&[key.jwk(Some("k"))]);
    let large = json!({ "keys": [key.jwk(Some("unknown"))], "padding": "x".repeat(300_000) });
    let answers = [
        (500, String::new()),
        (200, "not JSON".to_owned()),
        (200, json!({ "keys": [] }).to_string()),
        (302, String::new()),
        (200, large.to_string()),
    ];
    for (status, body) in answers {
        issuer.publish(&[key.jwk(Some("k"))]);
        let cluster = Cluster::with(1, issuer.only()).await;
        issuer.answer(status, body);
        ask(&cluster, token(&key, "unknown")).await.expect_problem(401, "token_invalid");
        ask(&cluster, token(&key, "k")).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_starts_without_its_issuer_and_takes_tokens_once_it_is_there() {
    let issuer = Issuer::start().await;
    issuer.answer(503, "");
    let cluster = Cluster::with(1, issuer.only()).await;
    let key = es256();
    // Nothing is known of the token: that is no fault of its bearer's.
    ask(&cluster, token(&key, "k")).await.expect_problem(503, "unavailable");
    issuer.publish(&[key.jwk(Some("k"))]);
    eventually(async || match ask(&cluster, token(&key, "k")).await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_keys_that_verify_are_taken_of_a_set() {
    let issuer = Issuer::start().await;
    let (good, encrypts, other) = (es256(), es256(), eddsa());
    let changed = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let secret = json!({ "kty": "oct", "kid": "secret", "k": "c2VjcmV0" });
    issuer.publish(&[
        json!({ "kty": "a kind of tomorrow", "kid": "tomorrow" }),
        json!("no key at all"),
        secret,
        changed(encrypts.jwk(Some("enc")), "use", json!("enc")),
        changed(encrypts.jwk(Some("ops")), "key_ops", json!(["encrypt"])),
        changed(rs256().jwk(Some("rs512")), "alg", json!("RS512")),
        good.jwk(Some("good")),
        other.jwk(None),
    ]);
    let cluster = Cluster::with(1, issuer.only()).await;
    ask(&cluster, token(&good, "good")).await.expect(200);
    ask(&cluster, other.sign(None, &claims("alice"))).await.expect(200);
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("secret".to_owned());
    let published = EncodingKey::from_secret(b"secret");
    let confused = encode(&header, &claims("alice"), &published).expect("a token");
    for token in [token(&encrypts, "enc"), token(&encrypts, "ops"), confused] {
        ask(&cluster, token).await.expect_problem(401, "token_invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_token_brings_along_are_nobodys() {
    let (issuer, thief) = (Issuer::start().await, Issuer::start().await);
    let (key, stolen) = (es256(), es256());
    issuer.publish(&[key.jwk(Some("k"))]);
    thief.publish(&[stolen.jwk(Some("k"))]);
    let cluster = Cluster::with(1, issuer.only()).await;
    let jwk = || Some(serde_json::from_value(stolen.jwk(Some("k"))).expect("a key"));
    let bring: [&dyn Fn(&mut Header); 4] = [
        &|header| header.jwk = jwk(),
        &|header| header.jku = Some(thief.url()),
        &|header| header.x5u = Some(thief.url()),
        &|header| (header.jwk, header.kid) = (jwk(), None),
    ];
    for change in bring {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k".to_owned());
        change(&mut header);
        let token = encode(&header, &claims("alice"), &stolen.private).expect("a token");
        ask(&cluster, token).await.expect_problem(401, "token_invalid");
    }
    let mut header = Header::new(Algorithm::ES256);
    (header.kid, header.crit) = (Some("k".to_owned()), Some(vec!["exp".to_owned()]));
    let critical = encode(&header, &claims("alice"), &key.private).expect("a token");
    ask(&cluster, critical).await.expect_problem(401, "token_invalid");
    assert_eq!(thief.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_issuers_each_signs_for_itself_only() {
    let issuer = Issuer::start().await;
    let (published, filed) = (es256(), eddsa());
    issuer.publish(&[published.jwk(Some("k"))]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &filed.public).expect("the file is written");
    let cluster = Cluster::with(1, |config| {
        config.auth.jwt_issuer = Some("own".to_owned());
        let others = [
            format!("https://published.example={}", issuer.url()),
            format!("filed={}", file.path().display()),
        ];
        config.auth.jwt_issuers = others.map(|it| it.parse().expect("an issuer")).into();
    })
    .await;
    let claiming = |iss: Value| {
        let mut claims = claims("alice");
        claims["iss"] = iss;
        claims
    };
    let own = |iss: Value| {
        let secret = EncodingKey::from_secret(SECRET.as_bytes());
        sign_with(Algorithm::HS256, &secret, &claiming(iss))
    };
    let by_published = |iss: Value| published.sign(Some("k"), &claiming(iss));
    let by_filed = |iss: Value| filed.sign(None, &claiming(iss));
    let names = [json!("own"), json!("https://published.example"), json!("filed")];
    let signers: [&dyn Fn(Value) -> String; 3] = [&own, &by_published, &by_filed];
    for (index, signer) in signers.iter().enumerate() {
        for (claimed, name) in names.iter().enumerate() {
            let answer = ask(&cluster, signer(name.clone())).await;
            if index == claimed {
                answer.expect(200);
            } else {
                answer.expect_problem(401, "token_invalid");
            }
        }
        for nobody in [json!(null), json!("stranger"), json!(["own"]), json!({})] {
            ask(&cluster, signer(nobody)).await.expect_problem(401, "token_invalid");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_leave_in_doubt_whose_key_counts_are_refused() {
    let cluster = Cluster::start(1).await;
    let url = |raw: &str| raw.parse().expect("a URL");
    let refused = async |set: &dyn Fn(&mut Config), name: &str| {
        let refusal = cluster.refusal(set).await;
        assert!(refusal.starts_with(name), "{name}: {refusal}");
    };
    refused(&|c| c.auth.jwt_hs256_secret = None, "BESEDA_JWT_HS256_SECRET").await;
    let both = |c: &mut Config| c.auth.jwt_jwks_url = Some(url("https://host.example/keys"));
    refused(&both, "BESEDA_JWT_JWKS_URL").await;
    for plain in ["http://host.example/keys", "ftp://localhost/keys", "http://10.0.0.1/keys"] {
        let set = |c: &mut Config| {
            c.auth.jwt_hs256_secret = None;
            c.auth.jwt_jwks_url = Some(url(plain));
        };
        refused(&set, "BESEDA_JWT_JWKS_URL").await;
    }
    let other = |c: &mut Config| {
        c.auth.jwt_issuers = vec!["a=https://a.example/keys".parse().expect("an issuer")];
    };
    refused(&other, "BESEDA_JWT_ISSUER").await;
    let twice = |c: &mut Config| {
        c.auth.jwt_issuer = Some("a".to_owned());
        other(c);
    };
    refused(&twice, "BESEDA_JWT_ISSUERS").await;
    for no_issuer in ["", "a", "=https://a.example", "a="] {
        let parsed = no_issuer.parse::<beseda::config::IssuerConfig>();
        assert!(parsed.is_err(), "{no_issuer}");
    }
}
