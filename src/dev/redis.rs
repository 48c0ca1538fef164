//! A private Redis.

use std::{
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    DevError, Durability,
    place::{self, Temporary},
    process::{self, POLL, READY_CEILING, Server},
};

/// The programs that can be it, best first; Valkey is what some distributions have instead.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// Environment variable: the program to use instead of those, so that the tests can run on each version.
const PROGRAM: &str = "BESEDA_DEV_REDIS";

/// Where Debian and macOS have programs that a bare `PATH` may miss.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];

/// Ports tried before giving up: each can have been taken since it was found free, and a cluster's
/// second port (10,000 higher) is one of those that the kernel gives to clients, of which tests have
/// thousands. An attempt takes some 25 ms.
const PORT_ATTEMPTS: usize = 40;

/// How long one attempt to reach it may take; the answer comes from this machine.
const PING_CEILING: Duration = Duration::from_secs(1);

/// A Redis server of our own on a loopback port, ended when this is dropped.
///
/// Bound to no runtime: tests share one, each with a runtime and a key prefix of its own.
#[derive(Debug)]
pub struct Redis {
    server: Mutex<Option<Server>>,
    port: u16,
    durability: Durability,
    program: PathBuf,
    arguments: Vec<String>,
    dir: PathBuf,
    log: PathBuf,
    _lock: File,
    temporary: Option<Temporary>,
}

impl Redis {
    /// Starts a server whose files are kept in `dir`, created where missing.
    ///
    /// # Errors
    /// No Redis is installed, `dir` is in use by another process, or the server did not come up
    /// (with the end of its log).
    pub async fn start(dir: &Path, durability: Durability) -> Result<Self, DevError> {
        Self::start_in(dir, durability, None, &[]).await
    }

    /// Starts a server for tests: in a new folder, without durability. Both end with this value, or
    /// with the process.
    ///
    /// # Errors
    /// As for [`Redis::start`].
    pub async fn temporary() -> Result<Self, DevError> {
        Self::temporary_with(&[]).await
    }

    /// The same with `arguments` before our own: the path of a file with settings, options.
    ///
    /// # Errors
    /// As for [`Redis::start`].
    pub async fn temporary_with(arguments: &[&str]) -> Result<Self, DevError> {
        let folder = Temporary::create(None)?;
        let path = folder.path().to_owned();
        Self::start_in(&path, Durability::None, Some(folder), arguments).await
    }

    async fn start_in(
        dir: &Path,
        durability: Durability,
        temporary: Option<Temporary>,
        arguments: &[&str],
    ) -> Result<Self, DevError> {
        let program = find_program()?;
        let dir = place::create(dir)?;
        let lock = place::lock(&dir)?;
        let log = dir.join("redis.log");
        File::create(&log).map_err(DevError::io(format!("cannot write {}", log.display())))?;
        let server = Mutex::new(None);
        let mut redis = Self {
            server,
            port: 0,
            durability,
            program,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            dir,
            log,
            _lock: lock,
            temporary,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            redis.port = process::free_port()?;
            match redis.launch().await {
                Err(DevError::Ended { log, .. })
                    if attempts < PORT_ATTEMPTS && log.contains("Address already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(redis),
            }
        }
    }

    /// `redis://…`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id, `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server().as_ref().map(Server::pid)
    }

    /// Ends it in order; it can be started again. No-op while stopped.
    pub async fn stop(&self) {
        let server = self.server().take();
        if let Some(server) = server {
            server.stop(Signal::SIGTERM).await;
        }
    }

    /// SIGKILL: what was not saved is lost. No-op while stopped.
    pub fn kill(&self) {
        drop(self.server().take());
    }

    /// How it ended, where nobody here has asked it to.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.server().as_mut().and_then(Server::ended)
    }

    /// Stops it, where it runs, and starts it on the same port.
    ///
    /// # Errors
    /// It did not come up again; it is then stopped.
    pub async fn restart(&self) -> Result<(), DevError> {
        self.stop().await;
        self.launch().await
    }

    /// Freezes it (SIGSTOP): connections stay open and nobody answers.
    pub fn pause(&self) -> Result<(), DevError> {
        self.signal(Signal::SIGSTOP)
    }

    /// Ends a pause (SIGCONT).
    pub fn resume(&self) -> Result<(), DevError> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), DevError> {
        let server = self.server();
        let server = server.as_ref().ok_or(DevError::NotRunning("Redis"))?;
        server.signal(signal);
        Ok(())
    }

    async fn launch(&self) -> Result<(), DevError> {
        let orphaned = match self.durability {
            Durability::Full => Signal::SIGTERM,
            Durability::None => Signal::SIGKILL,
        };
        let folder = self.temporary.as_ref().map(Temporary::path);
        let mut server =
            Server::spawn(self.command(), &self.log, Signal::SIGKILL, orphaned, folder)?;
        let began = Instant::now();
        loop {
            if let Some(status) = server.ended() {
                let log = process::log_tail(&self.log);
                return Err(DevError::Ended { server: "Redis", status, log });
            }
            if self.answers().await {
                *self.server() = Some(server);
                return Ok(());
            }
            if began.elapsed() > READY_CEILING {
                let log = process::log_tail(&self.log);
                return Err(DevError::NotReady { server: "Redis", waited: READY_CEILING, log });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it serves: while it still loads its file it answers something else than PONG.
    async fn answers(&self) -> bool {
        let ping = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            std::io::Result::Ok(answer == *b"+PONG")
        };
        matches!(timeout(PING_CEILING, ping).await, Ok(Ok(true)))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--daemonize", "no", "--appendonly", "no"]);
        command.arg("--dir").arg(&self.dir).current_dir(&self.dir);
        // All in it can be rebuilt; a snapshot (a minute after the first write, and at the end) only
        // makes the next start resemble a real restart: with old data.
        command.args(["--save", if self.durability == Durability::Full { "60 1" } else { "" }]);
        command
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find_program() -> Result<PathBuf, DevError> {
    let named = process::named_path(PROGRAM);
    let folders: Vec<_> =
        process::path_folders().into_iter().chain(FOLDERS.map(PathBuf::from)).collect();
    let installed = || {
        let mut paths =
            PROGRAMS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        paths.find(|path| path.is_file())
    };
    named.map_or_else(installed, |path| path.is_file().then_some(path)).ok_or(DevError::Missing {
        what: "redis-server",
        hint: "name the program in BESEDA_DEV_REDIS, or install the server \
                   (Debian, Ubuntu: apt-get install redis-server; \
                   Fedora: dnf install redis; macOS: brew install redis)",
    })
}
