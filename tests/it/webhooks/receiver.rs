//! The host application's server.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use beseda::config::{Config, Secret, Switch};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

use crate::harness::{eventually, now};

/// The secret in use, and the one that comes after it.
pub(crate) const SECRETS: [&str; 2] =
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "dGhlIHNlY3JldCB0aGF0IGlzIHRvIGNvbWUgbmV4dA=="];

/// What came with one request.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) json: Value,
    /// What it was answered; none while it waits, or where the sender left.
    pub(crate) answered: Option<u16>,
}

impl Delivery {
    pub(crate) fn message(&self) -> &Value {
        &self.json["data"]["message"]
    }
}

/// Which status a delivery gets, by the how manieth of its id it is.
type Answers = Box<dyn Fn(&Delivery, usize) -> u16 + Send>;

struct Shared {
    deliveries: Mutex<Vec<Delivery>>,
    answers: Mutex<Answers>,
    /// Requests are answered while it is true.
    open: watch::Sender<bool>,
}

/// The host application's server; ends with the test's runtime.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            deliveries: Mutex::default(),
            answers: Mutex::new(Box::new(|_, _| 204)),
            open: watch::Sender::new(true),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    /// Settings of replicas that tell it of events, at once.
    pub(crate) fn settings(&self) -> impl FnOnce(&mut Config) + use<> {
        let url = format!("http://{}/events", self.address);
        move |config| {
            config.webhooks.webhook_url = Some(url.parse().expect("a URL"));
            config.webhooks.webhook_secret = Some(Secret::from(SECRETS.join(",")));
            config.webhooks.webhook_allow_private = Switch::On;
            config.webhooks.webhook_delay = Duration::ZERO;
            // However slow this machine is: nothing is sent twice for that.
            config.webhooks.webhook_timeout = Duration::from_secs(120);
        }
    }

    pub(crate) fn answer(&self, answers: impl Fn(&Delivery, usize) -> u16 + Send + 'static) {
        *self.shared.answers.lock().expect("no panic") = Box::new(answers);
    }

    pub(crate) fn open(&self, open: bool) {
        self.shared.open.send_replace(open);
    }

    /// All that has come, in the order in which it came.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.lock().expect("no panic").clone()
    }

    /// So many have come at least.
    pub(crate) async fn expect(&self, count: usize) -> Vec<Delivery> {
        eventually(async || {
            let deliveries = self.deliveries();
            if deliveries.len() >= count { Ok(deliveries) } else { Err(format!("{deliveries:?}")) }
        })
        .await
    }
}

/// Checks the signature as the specification says, and answers as the test wishes.
async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    assert_eq!((uri.path(), header("content-type")), ("/events", "application/json".to_owned()));
    let age = now().abs_diff(timestamp.parse().expect("seconds"));
    assert!(age < 120, "{timestamp} is no time of now");
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body].concat();
    let expected = SECRETS.map(|secret| {
        let secret = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = BASE64_STANDARD.decode(secret).expect("base64");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
        format!("v1,{}", BASE64_STANDARD.encode(tag))
    });
    assert_eq!(header("webhook-signature"), expected.join(" "));
    let delivery =
        Delivery { id, json: serde_json::from_slice(&body).expect("JSON"), answered: None };
    let (place, earlier) = {
        let mut deliveries = shared.deliveries.lock().expect("no panic");
        let earlier = deliveries.iter().filter(|one| one.id == delivery.id).count();
        deliveries.push(delivery.clone());
        (deliveries.len() - 1, earlier)
    };
    let mut open = shared.open.subscribe();
    open.wait_for(|open| *open).await.expect("the receiver lives");
    let status = (shared.answers.lock().expect("no panic"))(&delivery, earlier);
    shared.deliveries.lock().expect("no panic")[place].answered = Some(status);
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("location", "/elsewhere")], "taken").into_response()
}
