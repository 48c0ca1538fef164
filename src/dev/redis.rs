//! A private Redis server.

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
    folders::{self, Temporary},
    process::{self, POLL, READY_CEILING, Server},
};

/// Names of the server's program, best first. Some distributions have Valkey instead of Redis.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// Environment variable that names another program, so that tests can run with each version.
const PROGRAM: &str = "BESEDA_DEV_REDIS";

/// Folders of programs in Debian and macOS that a bare `PATH` may miss.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];

/// Most attempts to start, each on another port: a port can be taken after it was found free, and a
/// cluster's second port (10,000 higher) is in the range for outgoing connections, of which tests have
/// thousands. An attempt takes about 25 ms.
const PORT_ATTEMPTS: usize = 40;

/// Time-out of a ping, which stays on this machine.
const PING_CEILING: Duration = Duration::from_secs(1);

/// A Redis server on a loopback port, ended when this value is dropped.
///
/// It is bound to no runtime, so that tests share it, each with its own runtime and key prefix.
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
        let dir = folders::create(dir)?;
        let lock = folders::lock(&dir)?;
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

    /// Returns its URL, `redis://…`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns its port, which a restart keeps.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the server's process id; `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server().as_ref().map(Server::pid)
    }

    /// Ends it in order; it can be started again. Does nothing while it is stopped.
    pub async fn stop(&self) {
        let server = self.server().take();
        if let Some(server) = server {
            server.stop(Signal::SIGTERM).await;
        }
    }

    /// Kills it (SIGKILL); unsaved data is lost. Does nothing while it is stopped.
    pub fn kill(&self) {
        drop(self.server().take());
    }

    /// Returns its exit status, if it ended by itself.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.server().as_mut().and_then(Server::ended)
    }

    /// Stops it, if it runs, and starts it on the same port.
    ///
    /// # Errors
    /// It did not come up again; it is then stopped.
    pub async fn restart(&self) -> Result<(), DevError> {
        self.stop().await;
        self.launch().await
    }

    /// Freezes it (SIGSTOP): connections stay open without answers.
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

    /// Whether it serves. While it loads its file, its answer is not PONG.
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
        // All data in it can be rebuilt. A snapshot (a minute after the first write, and at the end) only
        // makes the next start resemble a real restart, with old data.
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
