//! A replica as a process that can be killed, stopped, frozen and restarted.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
};

use crate::error::Error;

/// Time-out for a replica to get ready; Postgres may be unavailable meanwhile.
const READY: Duration = Duration::from_secs(60);

/// The replica's configured time from SIGTERM to its end, and the tolerance beyond.
const GRACE: &str = "4s";
const STOP: Duration = Duration::from_secs(8);

/// Pause between two checks of a child process.
const POLL: Duration = Duration::from_millis(20);

/// Pause before the restart of a replica that failed to start, as in an orchestrator.
const AGAIN: Duration = Duration::from_millis(300);

/// Ports below the ephemeral range: another process could take an ephemeral one during a replica's
/// restart.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

#[derive(Debug)]
pub(super) struct Replica {
    number: usize,
    program: PathBuf,
    settings: Vec<(&'static str, String)>,
    log: PathBuf,
    pub public: SocketAddr,
    internal: SocketAddr,
    child: Mutex<Option<Child>>,
}

impl Replica {
    pub(super) fn new(
        number: usize,
        program: &Path,
        settings: Vec<(&'static str, String)>,
        log: PathBuf,
    ) -> Result<Self, Error> {
        let (public, internal) = (free_address()?, free_address()?);
        let program = program.to_owned();
        Ok(Self { number, program, settings, log, public, internal, child: Mutex::new(None) })
    }

    /// Starts the replica, repeatedly if necessary, and returns once it is ready.
    pub(super) async fn start(&self) -> Result<(), Error> {
        let mut child = self.child.lock().await;
        let deadline = Instant::now() + READY;
        loop {
            let mut started = self.spawn()?;
            if self.ready(&mut started, deadline).await {
                *child = Some(started);
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::NotReady(self.number));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn spawn(&self) -> Result<Child, Error> {
        let failed = |source| Error::Spawn { path: self.program.clone(), source };
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let mut command = Command::new(&self.program);
        // The caller's environment may have settings of another installation.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("BESEDA_") {
                command.env_remove(key);
            }
        }
        command
            .arg("serve")
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .env("BESEDA_LISTEN", self.public.to_string())
            .env("BESEDA_INTERNAL_LISTEN", self.internal.to_string())
            .env("BESEDA_MIGRATE_ON_START", "on")
            // The load is that of few users.
            .env("BESEDA_RATE_LIMITS", "off")
            .env("BESEDA_DELETE_CHAT", "member")
            // Short, so that half-open sockets are detected within a short run.
            .env("BESEDA_SOCKET_HEARTBEAT", "5s")
            .env("BESEDA_DRAIN_DELAY", "500ms")
            .env("BESEDA_SHUTDOWN_GRACE", GRACE)
            .env("BESEDA_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Ctrl-C must reach this process alone, which stops the replicas in order.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().map_err(failed)
    }

    async fn ready(&self, child: &mut Child, deadline: Instant) -> bool {
        loop {
            if self.is_ready().await && TcpStream::connect(self.public).await.is_ok() {
                return true;
            }
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) || Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn is_ready(&self) -> bool {
        let answer = reqwest::get(format!("http://{}/readyz", self.internal)).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Sends a signal to the process, if there is one.
    pub(super) async fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.lock().await.as_ref().and_then(Child::id) {
            // The process has not been reaped, so its id is still its own.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    pub(super) async fn kill(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            let _ = child.kill().await;
        }
    }

    /// Stops the replica with SIGTERM. Returns the time after which it had to be killed, if so.
    pub(super) async fn stop(&self) -> Option<Duration> {
        self.signal(Signal::SIGTERM).await;
        let mut child = self.child.lock().await.take()?;
        if tokio::time::timeout(STOP, child.wait()).await.is_ok() {
            return None;
        }
        let _ = child.kill().await;
        Some(STOP)
    }

    /// Returns the status of an unexpected end; `None` while it runs or after it was stopped.
    pub(super) fn ended_by_itself(&self) -> Option<String> {
        let mut child = self.child.try_lock().ok()?;
        let status = child.as_mut()?.try_wait().ok().flatten()?;
        *child = None;
        Some(status.to_string())
    }

    /// Returns the panics in its log.
    pub(super) fn panics(&self) -> Vec<String> {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        text.lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect()
    }
}

/// Returns a loopback address that is free now.
fn free_address() -> Result<SocketAddr, Error> {
    let mut last = None;
    for _ in 0..200 {
        let port = rand::random_range(PORTS);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok((Ipv4Addr::LOCALHOST, port).into()),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| std::io::Error::other("none tried"));
    Err(Error::Io("no free port on 127.0.0.1", error))
}
