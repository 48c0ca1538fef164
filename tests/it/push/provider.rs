//! A provider of push: a Web Push service, FCM with its token endpoint, and APNs, over HTTP/2 and TLS.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use beseda::config::{Config, Secret, Switch};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use web_push_native::{Auth, decrypt, p256::SecretKey};

use crate::harness::{
    Authority, eventually,
    keys::{KeyOfHost, es256, rs256},
};

/// What came with one request.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    /// The path: which device, and of Google's the project.
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    /// What the device reads.
    pub(crate) json: Value,
    /// What it was answered; none while it waits, or where the sender left.
    pub(crate) answered: Option<u16>,
}

/// What a push is answered.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) retry_after: Option<u64>,
}

impl From<u16> for Reply {
    fn from(status: u16) -> Self {
        Self { status, body: json!({}), retry_after: None }
    }
}

/// The answer to a push, by how many came before it.
type Replies = Box<dyn Fn(&Push, usize) -> Reply + Send>;

struct Shared {
    pushes: Mutex<Vec<Push>>,
    replies: Mutex<Replies>,
    /// Requests are answered while it is true.
    open: watch::Sender<bool>,
    /// Whether Google's token endpoint answers.
    grants: watch::Sender<bool>,
    /// Subscriptions' keys, by the path of their endpoints.
    devices: Mutex<HashMap<String, (SecretKey, [u8; 16])>>,
    /// How often an access token was given.
    granted: Mutex<usize>,
    google: KeyOfHost,
    apple: KeyOfHost,
    vapid: KeyOfHost,
    address: SocketAddr,
}

/// The providers; they end with the test's runtime.
pub(crate) struct Provider {
    pub(crate) authority: Authority,
    shared: Arc<Shared>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let authority = Authority::new();
        let certificate = authority.sign("127.0.0.1");
        let chain = CertificateDer::from_pem_slice(certificate.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain.expect("a certificate")], key)
            .expect("a certificate and its key");
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let shared = Arc::new(Shared {
            pushes: Mutex::default(),
            replies: Mutex::new(Box::new(|_, _| 200.into())),
            open: watch::Sender::new(true),
            grants: watch::Sender::new(true),
            devices: Mutex::default(),
            granted: Mutex::default(),
            google: rs256(),
            apple: es256(),
            vapid: es256(),
            address: listener.local_addr().expect("an address"),
        });
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(socket) = acceptor.accept(socket).await else { return };
                    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
                    // Ends when the client leaves.
                    let _ = connection.await;
                });
            }
        });
        Self { authority, shared }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.shared.address)
    }

    /// Settings of replicas that push to it, soon.
    pub(crate) fn settings(&self) -> impl FnOnce(&mut Config) + use<> {
        let url: reqwest::Url = self.url().parse().expect("a URL");
        let google = json!({
            "project_id": "beseda-test", "private_key_id": "google-1",
            "private_key": self.shared.google.pem, "client_email": "push@beseda-test.example",
            "token_uri": format!("{url}token"),
        });
        let secret = |text: &str| Some(Secret::from(text.to_owned()));
        let (vapid, apple) = (secret(&self.shared.vapid.pem), secret(&self.shared.apple.pem));
        let ca = self.authority.path().to_owned();
        move |config| {
            let push = &mut config.push;
            push.vapid_key = vapid;
            push.vapid_subject = Some("mailto:ops@example.com".parse().expect("a URL"));
            push.fcm_key = Some(Secret::from(google.to_string()));
            push.fcm_url = url.clone();
            push.apns_key = apple;
            push.apns_key_id = Some("APPLEKEY01".to_owned());
            push.apns_team_id = Some("TEAM000001".to_owned());
            push.apns_topic = Some("com.example.chat".to_owned());
            push.apns_url = url;
            push.push_allow_private = Switch::On;
            push.push_ca = Some(ca);
            push.push_delay = Duration::from_millis(50);
            // However slow this machine is: nothing is sent twice for that.
            push.push_timeout = Duration::from_secs(120);
        }
    }

    /// The same settings as variables of the environment.
    pub(crate) fn variables(&self) -> [(&'static str, String); 8] {
        [
            ("BESEDA_VAPID_KEY", self.shared.vapid.pem.clone()),
            ("BESEDA_VAPID_SUBJECT", "mailto:ops@example.com".to_owned()),
            ("BESEDA_APNS_KEY", self.shared.apple.pem.clone()),
            ("BESEDA_APNS_KEY_ID", "APPLEKEY01".to_owned()),
            ("BESEDA_APNS_TEAM_ID", "TEAM000001".to_owned()),
            ("BESEDA_APNS_TOPIC", "com.example.chat".to_owned()),
            ("BESEDA_APNS_URL", self.url()),
            ("BESEDA_PUSH_CA", self.authority.path().display().to_string()),
        ]
    }

    /// What a browser would register: a new subscription.
    pub(crate) fn subscription(&self, name: &str) -> Value {
        let secret = SecretKey::from_slice(&rand::random::<[u8; 32]>()).expect("a scalar");
        let auth: [u8; 16] = rand::random();
        let path = format!("/push/{name}");
        let point = secret.public_key().to_sec1_bytes();
        let point = match point.len() {
            65 => point.to_vec(),
            // Compressed by default.
            _ => {
                use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;
                secret.public_key().to_encoded_point(false).as_bytes().to_vec()
            }
        };
        self.shared.devices.lock().expect("no panic").insert(path.clone(), (secret, auth));
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "platform": "webpush",
            "preview": true,
            "subscription": {
                "endpoint": format!("{}{path}", self.url()),
                "expirationTime": null,
                "keys": { "p256dh": encode(&point), "auth": encode(&auth) },
            },
        })
    }

    pub(crate) fn reply<R: Into<Reply>>(
        &self,
        replies: impl Fn(&Push, usize) -> R + Send + 'static,
    ) {
        let replies: Replies = Box::new(move |push, earlier| replies(push, earlier).into());
        *self.shared.replies.lock().expect("no panic") = replies;
    }

    pub(crate) fn open(&self, open: bool) {
        self.shared.open.send_replace(open);
    }

    pub(crate) fn grant(&self, grants: bool) {
        self.shared.grants.send_replace(grants);
    }

    /// How often Google's token endpoint has given an access token.
    pub(crate) fn granted(&self) -> usize {
        *self.shared.granted.lock().expect("no panic")
    }

    /// All that has come, in the order in which it came.
    pub(crate) fn pushes(&self) -> Vec<Push> {
        self.shared.pushes.lock().expect("no panic").clone()
    }

    /// All that has come to one device of Web Push.
    pub(crate) fn pushes_to(&self, name: &str) -> Vec<Push> {
        let path = format!("/push/{name}");
        self.pushes().into_iter().filter(|push| push.path == path).collect()
    }

    /// So many have come at least.
    pub(crate) async fn expect(&self, count: usize) -> Vec<Push> {
        eventually(async || {
            let pushes = self.pushes();
            if pushes.len() >= count { Ok(pushes) } else { Err(format!("{pushes:#?}")) }
        })
        .await
    }
}

/// Checks a request as the provider would, reads it as the device would, and answers as the test wishes.
async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    if path == "/token" {
        let mut grants = shared.grants.subscribe();
        grants.wait_for(|grants| *grants).await.expect("the provider lives");
        return grant(&shared, &body);
    }
    let json = if path.starts_with("/push/") {
        web_push(&shared, &path, &headers, &body)
    } else if path.starts_with("/3/device/") {
        apns(&shared, &headers, &body)
    } else {
        fcm(&path, &headers, &body)
    };
    let named = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().expect("ASCII").to_owned()));
    let push = Push { path, headers: named.collect(), json, answered: None };
    let (place, earlier) = {
        let mut pushes = shared.pushes.lock().expect("no panic");
        pushes.push(push.clone());
        (pushes.len() - 1, pushes.len() - 1)
    };
    let mut open = shared.open.subscribe();
    open.wait_for(|open| *open).await.expect("the provider lives");
    let Reply { status, body, retry_after } =
        (shared.replies.lock().expect("no panic"))(&push, earlier);
    shared.pushes.lock().expect("no panic")[place].answered = Some(status);
    let status = StatusCode::from_u16(status).expect("a status");
    let mut answer = (status, body.to_string()).into_response();
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert("retry-after", seconds.into());
    }
    answer
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().expect("ASCII")
}

/// RFC 8030, 8188, 8291, 8292.
fn web_push(shared: &Shared, path: &str, headers: &HeaderMap, body: &Bytes) -> Value {
    let (token, key) = header(headers, "authorization")
        .strip_prefix("vapid t=")
        .and_then(|rest| rest.split_once(", k="))
        .expect("a VAPID token and its key");
    let public = DecodingKey::from_ec_pem(shared.vapid.public.as_bytes()).expect("a key");
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_audience(&[format!("https://{}", shared.address)]);
    let claims = decode::<Value>(token, &public, &rules).expect("a valid token").claims;
    assert_eq!(claims["sub"], "mailto:ops@example.com");
    let now = u64::try_from(jiff::Timestamp::now().as_second()).expect("after 1970");
    assert!(claims["exp"].as_u64().is_some_and(|exp| exp <= now + 24 * 3_600), "{claims}");
    assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(key).expect("base64url").len(), 65);
    assert_eq!(header(headers, "content-encoding"), "aes128gcm");
    assert!(header(headers, "ttl").parse::<u64>().is_ok_and(|ttl| ttl <= 86_400));
    assert!(headers.get("topic").is_none_or(|topic| topic.len() <= 32));
    assert!(body.len() <= 4_096);
    let devices = shared.devices.lock().expect("no panic");
    let (secret, auth) = devices.get(path).expect("a device of ours");
    let auth = Auth::clone_from_slice(auth);
    let plain = decrypt(body.to_vec(), secret, &auth).expect("it is for this device");
    serde_json::from_slice(&plain).expect("JSON")
}

fn apns(shared: &Shared, headers: &HeaderMap, body: &Bytes) -> Value {
    let token = header(headers, "authorization").strip_prefix("bearer ").expect("a token");
    let public = DecodingKey::from_ec_pem(shared.apple.public.as_bytes()).expect("a key");
    let mut rules = Validation::new(Algorithm::ES256);
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    let read = decode::<Value>(token, &public, &rules).expect("a valid token");
    assert_eq!(read.header.kid.as_deref(), Some("APPLEKEY01"));
    assert_eq!(read.claims["iss"], "TEAM000001");
    assert_eq!(header(headers, "apns-topic"), "com.example.chat");
    assert!(body.len() <= 4_096);
    serde_json::from_slice(body).expect("JSON")
}

fn fcm(path: &str, headers: &HeaderMap, body: &Bytes) -> Value {
    assert_eq!(path, "/v1/projects/beseda-test/messages:send");
    assert_eq!(header(headers, "authorization"), "Bearer access-token");
    let json: Value = serde_json::from_slice(body).expect("JSON");
    let data = json["message"]["data"].as_object().expect("data");
    assert!(data.values().all(Value::is_string), "{json}");
    json
}

/// Google's token endpoint (RFC 7523).
fn grant(shared: &Shared, body: &Bytes) -> Response {
    let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let public = DecodingKey::from_rsa_pem(shared.google.public.as_bytes()).expect("a key");
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&[format!("https://{}/token", shared.address)]);
    let read = decode::<Value>(&form["assertion"], &public, &rules).expect("a valid assertion");
    assert_eq!(read.header.kid.as_deref(), Some("google-1"));
    assert_eq!(read.claims["iss"], "push@beseda-test.example");
    *shared.granted.lock().expect("no panic") += 1;
    let granted = json!({ "access_token": "access-token", "expires_in": 3_599 });
    granted.to_string().into_response()
}
