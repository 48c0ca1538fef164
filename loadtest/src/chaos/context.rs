//! What all clients share: where the replicas are, how to call them, and the books.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use beseda::{
    config::Secret,
    dev::{Claims, sign},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    findings::{Figures, Findings, Kind, lock, tick},
    follower::Subscriber,
    history::History,
    timeline::Timeline,
};
use crate::error::Error;

/// How long one attempt may take before it goes to another replica: a frozen one would hold it.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long a call is repeated. No fault lasts nearly as long.
const GIVE_UP: Duration = Duration::from_secs(45);

/// Pause before the next attempt, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..250;

/// What the clients are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Everything.
    Busy,
    /// Nothing new; sockets stay, and come back where they break.
    Settling,
    /// End.
    Over,
}

/// A user and a token that outlives the run.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub id: String,
    pub token: String,
}

/// The answer that counts: no 5xx, no 429.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// An attempt before this one may have taken effect, or may do so later.
    pub loose: bool,
    pub replayed: bool,
}

impl Answer {
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {}", self.text()))
    }

    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        format!("{} {text}", self.status)
    }

    /// The `code` of a problem.
    pub(super) fn code(&self) -> String {
        let problem: Option<Value> = self.read().ok();
        problem.and_then(|p| Some(p.get("code")?.as_str()?.to_owned())).unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) struct SimContext {
    seed: u64,
    client: Client,
    secret: Secret,
    pub replicas: Vec<SocketAddr>,
    pub findings: Findings,
    pub figures: Figures,
    pub history: History,
    pub timeline: Timeline,
    /// Sockets of single chats, and what they know.
    pub subscribers: Mutex<Vec<Arc<Subscriber>>>,
    phase: watch::Sender<Phase>,
    dice: AtomicU64,
}

impl SimContext {
    pub(super) fn new(seed: u64, secret: Secret, replicas: Vec<SocketAddr>) -> Result<Self, Error> {
        let client = Client::builder().timeout(ATTEMPT).tcp_nodelay(true).build();
        Ok(Self {
            seed,
            client: client.map_err(|error| Error::Request {
                call: "an HTTP client",
                source: Box::new(beseda_client::Error::network(error)),
            })?,
            secret,
            replicas,
            findings: Findings::new(),
            figures: Figures::default(),
            history: History::default(),
            timeline: Timeline::default(),
            subscribers: Mutex::default(),
            phase: watch::Sender::new(Phase::Busy),
            dice: AtomicU64::new(1),
        })
    }

    /// Dice of one's own, from the run's seed.
    pub(super) fn dice(&self) -> StdRng {
        let number = self.dice.fetch_add(1, Ordering::Relaxed);
        StdRng::seed_from_u64(self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub(super) fn person(&self, id: &str) -> Result<Person, Error> {
        let token = sign(&self.secret, &Claims::new(id, Duration::from_secs(7 * 24 * 3_600)))?;
        Ok(Person { id: id.to_owned(), token })
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.phase() == Phase::Busy
    }

    /// Returns once the phase is `phase` or a later one.
    pub(super) async fn until(&self, phase: Phase) {
        let mut watching = self.phase.subscribe();
        // The sender is here: it can't be gone.
        let _ = watching.wait_for(|now| *now >= phase).await;
    }

    /// Returns at `moment`, if there is still something to do then: who settles stays.
    pub(super) async fn may_leave(&self, moment: tokio::time::Instant) {
        tokio::time::sleep_until(moment).await;
        if !self.is_busy() {
            std::future::pending().await
        }
    }

    /// Pauses, but not past the end of the busy phase.
    pub(super) async fn pause(&self, rng: &mut StdRng, millis: std::ops::Range<u64>) {
        let pause = Duration::from_millis(rng.random_range(millis));
        let _ = tokio::time::timeout(pause, self.until(Phase::Settling)).await;
    }

    pub(super) fn add_subscriber(&self, subscriber: &Arc<Subscriber>) {
        lock(&self.subscribers).push(Arc::clone(subscriber));
    }

    pub(super) fn any_replica(&self, rng: &mut StdRng) -> usize {
        rng.random_range(0..self.replicas.len())
    }

    /// One attempt at one replica. `None`: nobody knows what came of it.
    pub(super) async fn once(
        &self,
        replica: usize,
        method: &Method,
        path: &str,
        person: &Person,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let url = format!("http://{}{path}", self.replicas[replica]);
        let mut request = self.client.request(method.clone(), url).bearer_auth(&person.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let named = |name: &str| response.headers().contains_key(name);
        let (replayed, retry_after) = (named("idempotent-replayed"), named("retry-after"));
        let body = response.bytes().await.ok()?.to_vec();
        let answer = Answer { status, body, loose: false, replayed };
        match (status, answer.code().as_str()) {
            (503, "unavailable") if retry_after => None,
            (504, "timeout") => None,
            (429 | 500.., _) => {
                let (at, text) = (self.timeline.now(), answer.text());
                let what = format!("{method} {path} was answered {text} ({at})");
                self.findings.add(Kind::Answer, what);
                None
            }
            _ => Some(answer),
        }
    }

    /// A call with retries, each on a random replica, until there is an answer. `None` was noted:
    /// there was time enough.
    pub(super) async fn call(
        &self,
        rng: &mut StdRng,
        method: Method,
        path: &str,
        person: &Person,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let began = Instant::now();
        let mut loose = false;
        while began.elapsed() < GIVE_UP {
            let replica = self.any_replica(rng);
            if let Some(answer) = self.once(replica, &method, path, person, body).await {
                return Some(Answer { loose, ..answer });
            }
            loose = true;
            tick(&self.figures.retries);
            tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        }
        let at = self.timeline.now();
        self.findings.add(Kind::Late, format!("{method} {path}: no answer in {GIVE_UP:?} ({at})"));
        None
    }

    /// Notes an answer that is not documented here.
    pub(super) fn unexpected(&self, what: &str, answer: &Answer) {
        let (text, at) = (answer.text(), self.timeline.now());
        self.findings.add(Kind::Answer, format!("{what} was answered {text} ({at})"));
    }
}
