//! The state that all clients share: the replicas, calls to them, and the history.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use beseda::{
    config::Secret,
    dev::{Claims, sign},
};
use beseda_protocol::{
    model::{Chat, ChatKind},
    rest::UploadLink,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    findings::{Figures, Findings, Kind, lock, tick},
    history::{Deletion, History, KnownChat},
    subscriber::Subscriber,
    timeline::Timeline,
};
use crate::error::Error;

/// Time-out of one attempt, before the next replica: a frozen one does not answer.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Longest time of retries. No fault lasts nearly as long.
const GIVE_UP: Duration = Duration::from_secs(45);

/// Pause before the next attempt, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..250;

/// The phase of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Clients use the service.
    Busy,
    /// No new operations; sockets stay open and reconnect.
    Settling,
    /// Clients end.
    Over,
}

/// A user with a token that outlives the run.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub id: String,
    pub token: String,
}

/// A final answer: neither 5xx nor 429.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// True if an earlier attempt may have taken effect, or may do so later.
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
    /// Sockets of single chats, with their state.
    pub subscribers: Mutex<Vec<Arc<Subscriber>>>,
    /// Ids of all who may be members of groups.
    everybody: OnceLock<Arc<[String]>>,
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
            everybody: OnceLock::new(),
            phase: watch::Sender::new(Phase::Busy),
            dice: AtomicU64::new(1),
        })
    }

    /// Returns a random generator derived from the run's seed.
    pub(super) fn dice(&self) -> StdRng {
        let number = self.dice.fetch_add(1, Ordering::Relaxed);
        StdRng::seed_from_u64(self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub(super) fn person(&self, id: &str) -> Result<Person, Error> {
        let token = sign(&self.secret, &Claims::new(id, Duration::from_secs(7 * 24 * 3_600)))?;
        Ok(Person { id: id.to_owned(), token })
    }

    /// Makes a user whose token is the host application's own.
    pub(super) fn host(&self, id: &str) -> Result<Person, Error> {
        let mut claims = Claims::new(id, Duration::from_secs(7 * 24 * 3_600));
        claims.scope = Some("chat:admin".to_owned());
        Ok(Person { id: id.to_owned(), token: sign(&self.secret, &claims)? })
    }

    /// Sets who may be members of groups, once and before there are any.
    pub(super) fn set_everybody(&self, people: &[&Person]) {
        let ids = people.iter().map(|person| person.id.clone()).collect();
        // A second call would be a mistake of this program, and changes nothing.
        let _ = self.everybody.set(ids);
    }

    pub(super) fn everybody(&self) -> Arc<[String]> {
        self.everybody.get().map(Arc::clone).unwrap_or_default()
    }

    /// Returns what is known of a chat that a member was told of, perhaps before whoever opens it is.
    pub(super) fn known_chat(&self, own: &str, chat: &Chat) -> KnownChat {
        let members = match (chat.kind, &chat.other_user) {
            (ChatKind::Direct, Some(other)) => {
                [own, other.user_id.as_str()].map(str::to_owned).into()
            }
            _ => self.everybody(),
        };
        KnownChat {
            kind: chat.kind,
            members,
            room_name: chat.room_name.clone(),
            deletion: Deletion::Never,
            is_silent: false,
        }
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
        // The sender is in `self`, so the channel is open.
        let _ = watching.wait_for(|now| *now >= phase).await;
    }

    /// Returns at `moment` if the run is still busy then; never otherwise.
    pub(super) async fn may_leave(&self, moment: tokio::time::Instant) {
        tokio::time::sleep_until(moment).await;
        if !self.is_busy() {
            std::future::pending().await
        }
    }

    /// Pauses, at most until the end of the busy phase.
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

    /// Makes one attempt at one replica. `None` if the outcome is unknown.
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

    /// Retries a call, each time on a random replica, until there is an answer. `None` after the time-out,
    /// which is reported.
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

    /// Uploads a text by a link, each time to a random replica, until there is an answer.
    pub(super) async fn upload(
        &self,
        rng: &mut StdRng,
        link: &UploadLink,
        content: &str,
    ) -> Option<Answer> {
        let path = link.url.splitn(4, '/').nth(3).unwrap_or_default();
        let began = Instant::now();
        while began.elapsed() < GIVE_UP {
            let replica = self.any_replica(rng);
            let url = format!("http://{}/{path}", self.replicas[replica]);
            let mut request = self.client.put(url).body(content.to_owned());
            for (name, value) in &link.headers {
                request = request.header(name, value);
            }
            if let Ok(response) = request.send().await
                && let status @ 200..=499 = response.status().as_u16()
                && status != 429
                && let Ok(body) = response.bytes().await
            {
                return Some(Answer { status, body: body.to_vec(), loose: false, replayed: false });
            }
            tick(&self.figures.retries);
            tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        }
        let at = self.timeline.now();
        self.findings.add(Kind::Late, format!("an upload: no answer in {GIVE_UP:?} ({at})"));
        None
    }

    /// Reports an answer that is not documented.
    pub(super) fn unexpected(&self, what: &str, answer: &Answer) {
        let (text, at) = (answer.text(), self.timeline.now());
        self.findings.add(Kind::Answer, format!("{what} was answered {text} ({at})"));
    }
}
