//! A private Postgres server.

mod programs;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio_postgres::NoTls;

use self::programs::{command, find_binaries, major_version};
use super::{
    DevError, Durability,
    folders::{self, Account, Temporary},
    process::{self, POLL, READY_CEILING, Server},
};

/// The superuser, who owns everything. It has no password, because the server listens on loopback only.
const ROLE: &str = "beseda";

/// Connections: two replicas of `beseda dev` take 32, a test binary runs many replicas at once.
const MAX_CONNECTIONS: u32 = 200;

/// Most attempts to start, each on another port, which can be taken after it was found free.
const PORT_ATTEMPTS: usize = 5;

/// How long a server left by a killed run may take to end, after each of three ever harder signals.
const STALE_CEILING: Duration = Duration::from_secs(5);

/// Names in the server's folder: the database's files, and the mark that `initdb` has finished.
const CLUSTER: &str = "cluster";
const CLUSTER_READY: &str = "cluster.ready";

/// A Postgres server on a loopback port, ended when this value is dropped.
///
/// It is bound to no runtime, so that tests share it, each with its own runtime.
#[derive(Debug)]
pub struct Postgres {
    server: Mutex<Option<Server>>,
    port: u16,
    durability: Durability,
    binaries: PathBuf,
    account: Option<Account>,
    cluster: PathBuf,
    log: PathBuf,
    _locks: [File; 2],
    temporary: Option<Temporary>,
}

impl Postgres {
    /// Starts a server whose files are kept in `dir`, created where missing. As root it runs under
    /// an account of its own; where that can't reach `dir`, the files lie under `/var/tmp`, with a
    /// link to them in `dir`.
    ///
    /// # Errors
    /// No PostgreSQL 14 or newer is installed; `dir` is in use by another process or was made by
    /// another version; or the server did not come up (with the end of its log).
    pub async fn start(dir: &Path, durability: Durability) -> Result<Self, DevError> {
        Self::start_in(dir, durability, Account::unprivileged()?, None, None).await
    }

    /// Starts a server for tests: in a new folder, without durability. Both end with this value, or
    /// with the process.
    ///
    /// # Errors
    /// As for [`Postgres::start`].
    pub async fn temporary() -> Result<Self, DevError> {
        Self::temporary_from(None).await
    }

    /// Starts a standby for tests: a copy of this one that follows it, and can be read.
    ///
    /// # Errors
    /// As for [`Postgres::start`]; or the copy could not be made.
    pub async fn standby(&self) -> Result<Self, DevError> {
        Self::temporary_from(Some(self.port)).await
    }

    /// Promotes a standby to a primary, on a new timeline.
    pub async fn promote(&self) -> Result<(), DevError> {
        // Returns when it is done.
        Ok(self.execute("SELECT pg_promote()").await?)
    }

    async fn temporary_from(primary: Option<u16>) -> Result<Self, DevError> {
        let account = Account::unprivileged()?;
        let folder = Temporary::create(account)?;
        let path = folder.path().to_owned();
        Self::start_in(&path, Durability::None, account, Some(folder), primary).await
    }

    async fn start_in(
        dir: &Path,
        durability: Durability,
        account: Option<Account>,
        temporary: Option<Temporary>,
        primary: Option<u16>,
    ) -> Result<Self, DevError> {
        let dir = folders::create(dir)?;
        let lock = folders::lock(&dir)?;
        let cluster = folders::owned(&dir, CLUSTER, account)?;
        let cluster_lock = folders::lock_itself(&cluster)?;
        // Files that another account made in an earlier run can only be used by that account.
        let account = folders::owner(&cluster, account)?;
        let ready = dir.join(CLUSTER_READY);
        let made_by = fs::read_to_string(&ready).ok();
        // The link's target may have been deleted.
        let made_by = made_by.filter(|_| cluster.join("PG_VERSION").exists());
        let binaries = find_binaries(made_by.as_deref(), &cluster)?;
        end_stale(&cluster).await;
        if made_by.is_none() {
            let major = create(&binaries, &cluster, account, primary).await?;
            fs::write(&ready, major.to_string())
                .map_err(DevError::io(format!("cannot write {}", ready.display())))?;
        }
        let log = dir.join("postgres.log");
        // The log of one run at a time; a restart adds to it.
        File::create(&log).map_err(DevError::io(format!("cannot write {}", log.display())))?;
        let mut postgres = Self {
            server: Mutex::new(None),
            port: 0,
            durability,
            binaries,
            account,
            cluster,
            log,
            _locks: [lock, cluster_lock],
            temporary,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            postgres.port = process::free_port()?;
            match postgres.launch().await {
                Err(DevError::Ended { log, .. })
                    if attempts < PORT_ATTEMPTS && log.contains("Address already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(postgres),
            }
        }
    }

    /// Returns the URL of `database`, `postgresql://…`, for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns its port, which a restart keeps.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process id, `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server().as_ref().map(Server::pid)
    }

    /// Returns the real folder of the database's files.
    pub fn cluster(&self) -> &Path {
        &self.cluster
    }

    /// Creates an empty database; one of that name is an error.
    pub async fn create_database(&self, name: &str) -> Result<(), DevError> {
        Ok(self.execute(&format!("CREATE DATABASE {}", quoted(name))).await?)
    }

    /// Creates a database, unless there is one of that name.
    pub(super) async fn ensure_database(&self, name: &str) -> Result<(), DevError> {
        match self.execute(&format!("CREATE DATABASE {}", quoted(name))).await {
            Err(error)
                if error.code() == Some(&tokio_postgres::error::SqlState::DUPLICATE_DATABASE) =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Drops a database, cutting the connections it has.
    pub async fn drop_database(&self, name: &str) -> Result<(), DevError> {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
        Ok(self.execute(&statement).await?)
    }

    /// Ends it in order, cutting connections ("fast"); it can be started again. No-op while stopped.
    pub async fn stop(&self) {
        let server = self.server().take();
        if let Some(server) = server {
            server.stop(Signal::SIGINT).await;
        }
    }

    /// Ends it as a crash would ("immediate"): the next start recovers from the log. Blocks its
    /// thread for some milliseconds.
    pub fn kill(&self) {
        // SIGKILL would leave its children to find out by themselves.
        drop(self.server().take());
    }

    /// Returns its exit status, if it ended by itself.
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

    async fn execute(&self, statement: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url("postgres"), NoTls).await?;
        let (result, _) = tokio::join!(
            async move {
                let result = client.batch_execute(statement).await;
                // Ends the connection beside us.
                drop(client);
                result
            },
            connection
        );
        result
    }

    async fn launch(&self) -> Result<(), DevError> {
        let (at_once, orphaned) = (
            Signal::SIGQUIT,
            match self.durability {
                Durability::Full => Signal::SIGINT,
                Durability::None => Signal::SIGQUIT,
            },
        );
        let folder = self.temporary.as_ref().map(Temporary::path);
        let mut server = Server::spawn(self.command(), &self.log, at_once, orphaned, folder)?;
        let began = Instant::now();
        loop {
            if let Some(status) = server.ended() {
                let log = process::log_tail(&self.log);
                return Err(DevError::Ended { server: "Postgres", status, log });
            }
            if self.execute("SELECT").await.is_ok() {
                *self.server() = Some(server);
                return Ok(());
            }
            if began.elapsed() > READY_CEILING {
                let log = process::log_tail(&self.log);
                return Err(DevError::NotReady { server: "Postgres", waited: READY_CEILING, log });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn command(&self) -> Command {
        let mut command = command(&self.binaries, "postgres", &self.cluster, self.account);
        let mut set = |setting: &str| {
            command.args(["-c", setting]);
        };
        set("listen_addresses=127.0.0.1");
        set(&format!("port={}", self.port));
        // A Unix socket's path is limited to 107 bytes, and none is needed.
        set("unix_socket_directories=");
        set(&format!("max_connections={MAX_CONNECTIONS}"));
        set("logging_collector=off");
        set("timezone=UTC");
        set("log_timezone=UTC");
        if self.durability == Durability::None {
            // A commit still waits for the kernel: the server may crash, the machine may not.
            set("fsync=off");
            set("full_page_writes=off");
        }
        command
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Creates the database's files, new ones or a copy of the primary on that port. Returns their major
/// version.
async fn create(
    binaries: &Path,
    cluster: &Path,
    account: Option<Account>,
    primary: Option<u16>,
) -> Result<u32, DevError> {
    // An interrupted run may have left files, and the program requires an empty folder.
    for entry in fs::read_dir(cluster).into_iter().flatten().flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
    // The usual locale of servers, which may be missing on other systems than Linux.
    let locale = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };
    let (program, mut command) = match primary {
        None => {
            let mut command = command(binaries, "initdb", cluster, account);
            command.args(["--auth=trust", "--encoding=UTF8", &format!("--locale={locale}")]);
            ("initdb", command)
        }
        Some(port) => {
            let mut command = command(binaries, "pg_basebackup", cluster, account);
            command.args(["--host=127.0.0.1", &format!("--port={port}")]);
            command.args(["--checkpoint=fast", "--write-recovery-conf"]);
            ("pg_basebackup", command)
        }
    };
    command.args(["--username", ROLE, "--no-sync"]);
    let mut command = tokio::process::Command::from(command);
    let output = command.process_group(0).kill_on_drop(true).output().await;
    let output = output.map_err(DevError::io(format!("cannot run {program}")))?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        return Err(DevError::Ended { server: program, status: output.status, log });
    }
    Ok(major_version(binaries).unwrap_or_default())
}

/// Ends the server that a killed run has left on these files.
async fn end_stale(cluster: &Path) {
    let Ok(text) = fs::read_to_string(cluster.join("postmaster.pid")) else { return };
    let Some(raw) = text.lines().next().and_then(|line| line.trim().parse().ok()) else { return };
    let pid = Pid::from_raw(raw);
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
        let deadline = Instant::now() + STALE_CEILING;
        let mut told = false;
        while Instant::now() < deadline {
            // Checked each time, because the id may belong to another program by now.
            if !runs_on(pid, cluster) {
                return;
            }
            if !told {
                tracing::warn!(%pid, %signal, "ending a Postgres that an earlier run left");
                told = kill(pid, signal).is_ok();
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whether `pid` is a server on these files, by its command line.
fn runs_on(pid: Pid, cluster: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).or_else(|_| {
        let arguments = ["-o", "command=", "-p", &pid.to_string()];
        Command::new("ps").args(arguments).output().map(|output| output.stdout)
    });
    line.is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*cluster.to_string_lossy()))
}
