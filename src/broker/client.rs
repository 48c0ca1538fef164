//! The connection for commands, behind a circuit breaker.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fred::{
    clients::{Client, Pipeline},
    error::ErrorKind,
    interfaces::{ClientLike, FredResult, KeysInterface},
    types::{Expiration, InfoKind, Value, config::Options},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    RedisError, RedisUnavailable,
    connection::{COMMAND_TIMEOUT, Live, Settings},
};

/// Pause between two pings. With the time-out of a command, a silent Redis is noticed within half a
/// second, even while no commands are sent.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Pause between two checks of whether the connection is up. A check sends nothing.
const CONNECT_POLL: Duration = Duration::from_millis(50);
/// Unanswered pings after which the connection is replaced, about 2 s: a server that stalled for a
/// moment is worth waiting for, and no command waits meanwhile.
const FAILURES_TO_GIVE_UP: u32 = 4;
/// Rounds of the watchdog (15 s) after which the server's identity is read again: a master's
/// replication id can change under an open connection.
const IDENTITY_ROUNDS: u32 = 75;

/// The oldest Redis that knows all commands in use: `ZADD … GT`, `SET … GET`. An older one refuses only
/// these, and users of a dead replica would stay online.
const OLDEST: (u32, u32) = (6, 2);
/// [`OLDEST`] as text.
pub(super) const OLDEST_REDIS: &str = "6.2";

/// Prefixes of the errors by which Redis refuses writes while it serves reads.
const REFUSALS: [&str; 3] = ["OOM", "NOREPLICAS", "MISCONF"];
/// Expiry of the probe's key, in seconds. Any time will do.
const PROBE_SECONDS: i64 = 10;

/// A Redis client for commands. Cheap to clone; dropping the last clone closes the connection.
#[derive(Clone)]
pub struct RedisClient {
    shared: Arc<Shared>,
    _end: Arc<DropGuard>,
}

struct Shared {
    settings: Settings,
    prefix: String,
    live: ArcSwap<Live>,
    /// Whether the circuit breaker lets commands through.
    open: watch::Sender<bool>,
    /// Its lock also guards the question whether the live connection is a new one.
    generation: Mutex<Option<Arc<str>>>,
    /// The version of a server that is older than [`OLDEST`].
    outdated: Mutex<Option<String>>,
    /// Wakes the watchdog after a suspicious error.
    suspicion: Notify,
    /// The connection is alive but leads to the wrong server.
    misled: AtomicBool,
    /// The server answers but refuses writes: it is out of memory, or misses replicas.
    refusing: AtomicBool,
    end: CancellationToken,
}

impl RedisClient {
    /// Begins to connect and returns at once, because Redis may be unavailable at any time.
    /// `ca` is a PEM file of the authorities to trust instead of the system's.
    /// Must be called within a Tokio runtime.
    pub fn connect(url: &str, ca: Option<&Path>, prefix: &str) -> Result<Self, RedisError> {
        let settings = Settings::parse(url, ca)?;
        let live = ArcSwap::from_pointee(Live::open(&settings));
        let end = CancellationToken::new();
        let shared = Arc::new(Shared {
            settings,
            prefix: prefix.to_owned(),
            live,
            open: watch::Sender::new(false),
            generation: Mutex::new(None),
            outdated: Mutex::new(None),
            suspicion: Notify::new(),
            misled: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            end: end.clone(),
        });
        tokio::spawn(watch_over(Arc::clone(&shared)));
        Ok(Self { shared, _end: Arc::new(end.drop_guard()) })
    }

    /// Returns the full name of a key or channel.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.shared.prefix)
    }

    /// Whether the circuit breaker is closed. While it is open, every call fails at once.
    pub fn is_up(&self) -> bool {
        *self.shared.open.borrow()
    }

    /// Waits until Redis is up, `ceiling` at most. Fails where the server is too old to be used.
    pub async fn wait(&self, ceiling: Duration) -> Result<(), RedisError> {
        let mut up = self.subscribe_state();
        let settled = up.wait_for(|up| *up || self.shared.outdated().is_some());
        // After the ceiling the replica starts without Redis.
        let _ = tokio::time::timeout(ceiling, settled).await;
        match self.shared.outdated().clone() {
            Some(version) => Err(RedisError::TooOld(version)),
            None => Ok(()),
        }
    }

    /// Watches [`RedisClient::is_up`]. A single late answer changes it.
    pub fn subscribe_state(&self) -> watch::Receiver<bool> {
        self.shared.open.subscribe()
    }

    /// Identifies the data set: changes when Redis is another process than before, or another
    /// replica was promoted. `None` while unknown. A read belongs to this generation only if it is the
    /// same before and after the read.
    pub fn generation(&self) -> Option<Arc<str>> {
        self.shared.generation().clone()
    }

    /// Closes the connection for good; every later call fails.
    pub async fn shutdown(&self) {
        self.shared.end.cancel();
        self.shared.close();
        // QUIT lets queued commands arrive first; a stuck socket ends with its task.
        let live = self.shared.live.load_full();
        let _ = tokio::time::timeout(COMMAND_TIMEOUT, live.client().quit()).await;
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Returns the prefix of every channel's name. Unlike keys, channels do not belong to a numbered
    /// database: without the number in the prefix, `/1` would receive the publications of `/0`.
    pub(crate) fn channel_prefix(&self) -> String {
        format!("{}db{}:", self.shared.prefix, self.shared.settings.database())
    }

    /// Begins a pipeline. fred's own fail-fast does not cover pipelines, so the breaker is asked first.
    pub(crate) fn pipeline(&self) -> Result<Pipeline<Client>, RedisUnavailable> {
        let live = self.shared.live.load();
        if self.is_up() && live.is_connected() {
            Ok(live.client().pipeline())
        } else {
            Err(RedisUnavailable)
        }
    }

    /// Sends a pipeline of `expected` commands and returns the result of each.
    pub(crate) async fn send(
        &self,
        pipeline: &Pipeline<Client>,
        expected: usize,
    ) -> Result<Vec<FredResult<Value>>, RedisUnavailable> {
        if expected == 0 {
            return Ok(Vec::new());
        }
        let results: Vec<FredResult<Value>> = pipeline.try_all().await;
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            self.judge(error);
        }
        // A lost connection gives one error for all commands.
        if results.len() == expected { Ok(results) } else { Err(RedisUnavailable) }
    }

    fn judge(&self, error: &fred::error::Error) {
        match error.kind() {
            // One time-out opens the breaker, so that no other command waits in vain.
            ErrorKind::Timeout => {
                self.shared.close();
                self.shared.suspicion.notify_one();
            }
            ErrorKind::IO | ErrorKind::Canceled => self.shared.suspicion.notify_one(),
            _ if error.details().starts_with("READONLY") => {
                self.shared.misled.store(true, Relaxed);
                self.shared.suspicion.notify_one();
            }
            // Without writes the copies in Redis become stale, so they must not be read either.
            _ if REFUSALS.iter().any(|refusal| error.details().starts_with(refusal)) => {
                self.shared.close();
                self.shared.refusing.store(true, Relaxed);
                self.shared.suspicion.notify_one();
            }
            _ => {}
        }
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The known generation, cleared if the connection is a new one.
    fn generation(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        let mut known = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        if self.live.load().take_reconnected() {
            *known = None;
            self.suspicion.notify_one();
        }
        known
    }

    fn outdated(&self) -> MutexGuard<'_, Option<String>> {
        self.outdated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the breaker until a ping is answered.
    fn close(&self) {
        self.open.send_if_modified(|open| std::mem::replace(open, false));
    }

    fn let_through(&self) {
        // A ping may be answered during the shutdown, which is final.
        self.open
            .send_if_modified(|open| !self.end.is_cancelled() && !std::mem::replace(open, true));
    }

    fn reopen(&self) {
        let fresh = self.live.load().reopen(&self.settings);
        self.live.store(Arc::new(fresh));
        *self.generation() = None;
    }
}

/// The watchdog: pings Redis, opens and closes the breaker, replaces a stuck connection and learns the
/// generation.
async fn watch_over(shared: Arc<Shared>) {
    let (mut failures, mut rounds) = (0, 0);
    // The state that was logged last: a single late answer is not worth a line.
    let mut said_up = false;
    // The reason that was logged last: attempts repeat it.
    let mut said_why = None;
    loop {
        let live = shared.live.load_full();
        let misled = shared.misled.swap(false, Relaxed);
        let refused = shared.refusing.load(Relaxed);
        if refused && live.is_connected() && !probe(&shared, &live).await {
            // Only a successful write closes the breaker again.
            shared.close();
            say(&mut said_up, false);
        } else if live.ping_all().await && !misled {
            shared.refusing.store(false, Relaxed);
            failures = 0;
            rounds += 1;
            if rounds >= IDENTITY_ROUNDS || shared.generation().is_none() {
                rounds = 0;
                learn_generation(&shared, &live).await;
            }
            let outdated = shared.outdated().clone();
            if let Some(version) = outdated {
                shared.close();
                say(&mut said_up, false);
                let cause = RedisError::TooOld(version).to_string();
                if said_why.as_ref() != Some(&cause) {
                    tracing::error!(cause, "Redis can't be used");
                    said_why = Some(cause);
                }
            } else {
                shared.let_through();
                say(&mut said_up, true);
                said_why = None;
            }
        } else if !live.is_connected() {
            failures = 0;
            shared.close();
            say(&mut said_up, false);
            if let Some(cause) = live.take_error().filter(|cause| Some(cause) != said_why.as_ref())
            {
                tracing::warn!(cause, "no connection to Redis");
                said_why = Some(cause);
            }
            *shared.generation() = None;
            if live.is_over() {
                shared.reopen();
            }
        } else {
            failures += 1;
            shared.close();
            if failures >= FAILURES_TO_GIVE_UP || misled {
                failures = 0;
                say(&mut said_up, false);
                shared.reopen();
            }
        }
        let pause = if live.is_connected() { WATCH_INTERVAL } else { CONNECT_POLL };
        drop(live);
        tokio::select! {
            () = shared.end.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = shared.suspicion.notified() => {}
        }
    }
}

fn say(said_up: &mut bool, up: bool) {
    match (std::mem::replace(said_up, up), up) {
        (false, true) => tracing::info!("Redis is up"),
        (true, false) => tracing::warn!("Redis is unavailable: going on without it"),
        _ => {}
    }
}

/// Whether the server accepts writes.
async fn probe(shared: &Shared, live: &Live) -> bool {
    let key = format!("{}probe", shared.prefix);
    let expiry = Some(Expiration::EX(PROBE_SECONDS));
    live.client().set::<(), _, _>(key, 1, expiry, None, false).await.is_ok()
}

/// Stores the server's identity, and whether its version is too old. If the connection was replaced
/// meanwhile, the identity is left to the next round.
async fn learn_generation(shared: &Shared, live: &Live) {
    // From here on, `generation()` clears only for a connection newer than the one asked.
    drop(shared.generation());
    let servers = ask_servers(live.client()).await.unwrap_or_default();
    let outdated = servers.iter().find(|server| is_outdated(&server.version));
    let outdated = outdated.map(|server| server.version.clone());
    // Wakes `wait`, which looks at both.
    shared.open.send_if_modified(|_| {
        let changed = *shared.outdated() != outdated;
        *shared.outdated() = outdated;
        changed
    });
    let identity = identity(servers);
    let mut known = shared.generation.lock().unwrap_or_else(PoisonError::into_inner);
    *known = if live.take_reconnected() { None } else { identity.map(Arc::from) };
}

/// A server's answer to INFO.
struct ServerInfo {
    /// The process (`run_id`) and its replication history (`master_replid`): a process that was demoted
    /// and promoted again has missed the writes in between.
    identity: String,
    version: String,
}

/// Asks all servers that hold data; `None` unless all of them answer.
async fn ask_servers(client: &Client) -> Option<Vec<ServerInfo>> {
    if !client.is_clustered() {
        let info = client.info::<String>(Some(InfoKind::Default)).await.ok()?;
        return Some(vec![parse(&info)?]);
    }
    let mut masters = Vec::new();
    for server in client.active_connections() {
        let options = Options { cluster_node: Some(server), ..Options::default() };
        let info = client.with_options(&options).info::<String>(Some(InfoKind::Default)).await;
        masters.push(parse(&info.ok()?)?);
    }
    Some(masters)
}

fn identity(servers: Vec<ServerInfo>) -> Option<String> {
    let mut identities: Vec<String> = servers.into_iter().map(|server| server.identity).collect();
    if identities.len() < 2 {
        return identities.pop();
    }
    identities.sort_unstable();
    // The hash is stable within one build; a difference between builds only costs a refill.
    let mut hasher = DefaultHasher::new();
    identities.hash(&mut hasher);
    Some(format!("{:016x}", hasher.finish()))
}

fn parse(info: &str) -> Option<ServerInfo> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(ServerInfo {
        identity: format!("{}.{}", field("run_id:")?, field("master_replid:")?),
        version: field("redis_version:").unwrap_or_default().to_owned(),
    })
}

/// Whether a version is older than [`OLDEST`]. An unreadable one is not.
fn is_outdated(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for old in ["5.0.14", "6.0.16", "6.1.240"] {
            assert!(is_outdated(old), "{old}");
        }
        for new in ["6.2.0", "6.10", "7.0.15", "7.2.4", "8.0.0-rc1", "10.0.0", "", "unknown"] {
            assert!(!is_outdated(new), "{new}");
        }
    }
}
