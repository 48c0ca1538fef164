//! The connection for commands, behind a circuit breaker.

mod server_info;
mod watchdog;

use std::{
    fmt,
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
    interfaces::{ClientLike, FredResult},
    types::Value,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use self::server_info::OLDEST_REDIS;
use self::watchdog::watch_over;
use super::{
    RedisError, RedisUnavailable,
    connection::{COMMAND_TIMEOUT, Live, Settings},
};

/// Prefixes of the errors by which Redis refuses writes while it serves reads.
const REFUSALS: [&str; 3] = ["OOM", "NOREPLICAS", "MISCONF"];

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
    /// The version of a server that is older than [`OLDEST_REDIS`].
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

    /// Whether keys are divided among servers.
    pub fn is_clustered(&self) -> bool {
        self.shared.settings.is_clustered()
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
