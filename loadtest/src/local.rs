//! Starts an installation: Postgres with full durability, Redis, replicas as processes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use beseda::{
    config::Secret,
    dev::{Durability, Postgres, Redis},
    signals::Signals,
};
use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::{
    compare::{Comparison, Opponent},
    error::Error,
    preload::Preload,
    progress::say,
    report::{Report, usage::Process},
    runner,
    scenario::Scenario,
    target::{Stores, Target},
};

const DATABASE: &str = "loadtest";

/// Time-out for a replica to get ready; it migrates an empty database in under a second.
const READY: Duration = Duration::from_secs(30);

/// Time-out for the replicas to drain: their grace of 3 s, and 2 s more.
const STOP: Duration = Duration::from_secs(5);

/// Pause between two checks of a child process.
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The program under test. Default: `beseda` in the folder of this program.
    #[arg(long)]
    beseda: Option<PathBuf>,

    /// Folder that keeps the database for the next run. Default: a temporary one, removed at the end.
    #[arg(long)]
    data: Option<PathBuf>,

    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: u8,

    /// Fill an empty database first with CHATS chats of MESSAGES messages each. The scenarios use the
    /// first of these chats.
    #[arg(long, value_name = "CHATSxMESSAGES")]
    preload: Option<Preload>,

    /// Run the scenario against this program too, in turn and each with stores of its own, and compare
    /// what an operation costs: an older build, or any program that takes the same settings and calls.
    #[arg(long, value_name = "PROGRAM[=NAME]", conflicts_with = "data")]
    pub against: Option<Opponent>,

    /// Runs of each program with --against.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50), requires = "against")]
    rounds: u8,

    #[command(subcommand)]
    pub scenario: Scenario,
}

/// All processes of the installation. The order of the fields is the order of their drop.
struct Installation {
    replicas: Vec<Replica>,
    redis: Redis,
    postgres: Postgres,
}

struct Replica {
    child: Child,
    public: SocketAddr,
    internal: SocketAddr,
}

pub(crate) async fn run(options: &Options) -> Result<Report, Error> {
    options.scenario.common().expect_no_target()?;
    let program = program(options.beseda.as_deref())?;
    let mut signals = catch_signals()?;
    tokio::select! {
        outcome = run_program(options, &program) => outcome,
        () = signals.next() => Err(Error::Interrupted),
    }
}

/// Runs the scenario against both programs in turn.
pub(crate) async fn compare(options: &Options, other: &Opponent) -> Result<Comparison, Error> {
    let common = options.scenario.common();
    common.expect_no_target()?;
    if common.json.is_some() || common.html.is_some() {
        return Err(Error::Usage("--json and --html are of one run, and --against makes several"));
    }
    let own = program(options.beseda.as_deref())?;
    let theirs = program(Some(&other.program))?;
    let mut signals = catch_signals()?;
    let mut comparison = Comparison::new(other.name.clone());
    for round in 1..=options.rounds {
        say(&format!("round {round} of {}", options.rounds));
        let pair = async {
            // They begin in turn, because the first one finds a colder machine.
            let first_is_ours = round % 2 == 1;
            let (first, second) = if first_is_ours { (&own, &theirs) } else { (&theirs, &own) };
            let first = run_program(options, first).await?;
            let second = run_program(options, second).await?;
            Ok::<_, Error>(if first_is_ours { (first, second) } else { (second, first) })
        };
        let (ours, theirs) = tokio::select! {
            pair = pair => pair?,
            () = signals.next() => return Err(Error::Interrupted),
        };
        comparison.add(ours, theirs);
    }
    Ok(comparison)
}

fn catch_signals() -> Result<Signals, Error> {
    Signals::catch().map_err(|error| Error::Io("cannot catch signals", error))
}

/// Runs the scenario on an installation of this program.
async fn run_program(options: &Options, program: &Path) -> Result<Report, Error> {
    let folder = Folder::new(options.data.as_deref())?;
    let secret = Secret::from(format!("{:064x}", rand::random::<u128>()));
    run_in(options, program, folder.path(), &secret).await
}

/// The folder of an installation's files: kept if named, otherwise removed on drop.
#[derive(Debug)]
pub(crate) enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    pub(crate) fn new(named: Option<&Path>) -> Result<Self, Error> {
        if let Some(path) = named {
            return Ok(Self::Kept(path.to_owned()));
        }
        let folder = tempfile::Builder::new().prefix("beseda-loadtest-").tempdir();
        let folder = folder.map_err(|e| Error::Io("cannot create a temporary folder", e))?;
        Ok(Self::Temporary(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // As root the database is elsewhere, behind a symbolic link.
        if let Self::Temporary(folder) = self
            && let Ok(cluster) = std::fs::read_link(folder.path().join("postgres/cluster"))
        {
            let _ = std::fs::remove_dir_all(cluster);
        }
    }
}

async fn run_in(
    options: &Options,
    program: &Path,
    data: &Path,
    secret: &Secret,
) -> Result<Report, Error> {
    let installation = Installation::start(options, program, data, secret).await?;
    let target = installation.target(secret.clone());
    let filled = match options.preload {
        Some(preload) => {
            let prefix = &options.scenario.common().prefix;
            preload.fill(&installation.postgres.url(DATABASE), prefix).await
        }
        None => Ok(()),
    };
    let outcome = match filled {
        Ok(()) => runner::run(&target, &options.scenario).await,
        Err(error) => Err(error),
    };
    installation.stop().await;
    outcome
}

pub(crate) fn program(named: Option<&Path>) -> Result<PathBuf, Error> {
    let program = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .map_err(|error| Error::Io("this program does not know where it is", error))?
            .with_file_name("beseda"),
    };
    if program.is_file() { Ok(program) } else { Err(Error::NoProgram(program)) }
}

impl Installation {
    async fn start(
        options: &Options,
        program: &Path,
        data: &Path,
        secret: &Secret,
    ) -> Result<Self, Error> {
        say(&format!("starting Postgres, Redis and {} replicas", options.replicas));
        let (postgres_dir, redis_dir) = (data.join("postgres"), data.join("redis"));
        let (postgres, redis) = tokio::try_join!(
            Postgres::start(&postgres_dir, Durability::Full),
            Redis::start(&redis_dir, Durability::Full),
        )?;
        // Fails if a kept folder has the database already.
        let _ = postgres.create_database(DATABASE).await;
        let mut installation = Self { replicas: Vec::new(), redis, postgres };
        for _ in 0..options.replicas {
            let limits = options.scenario.limits();
            installation.start_replica(program, secret, data, limits).await?;
        }
        for (number, replica) in installation.replicas.iter_mut().enumerate() {
            replica.ready(number).await?;
        }
        Ok(installation)
    }

    async fn start_replica(
        &mut self,
        program: &Path,
        secret: &Secret,
        data: &Path,
        limits: &[(&str, &str)],
    ) -> Result<(), Error> {
        let (public, internal) = (free_address().await?, free_address().await?);
        let files = std::path::absolute(data.join("attachments"));
        let files = files.map_err(|error| Error::Io("cannot name the folder", error))?;
        let mut command = Command::new(program);
        // The caller's environment may have settings of another installation.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("BESEDA_") {
                command.env_remove(key);
            }
        }
        command
            .arg("serve")
            .env("DATABASE_URL", self.postgres.url(DATABASE))
            .env("REDIS_URL", self.redis.url())
            .env("BESEDA_JWT_HS256_SECRET", secret.expose())
            .env("BESEDA_LISTEN", public.to_string())
            .env("BESEDA_INTERNAL_LISTEN", internal.to_string())
            .env("BESEDA_ATTACHMENTS", format!("file://{}", files.display()))
            // As much as a run uploads.
            .env("BESEDA_ATTACHMENT_DAILY_BYTES", "1000000000000")
            .env("BESEDA_MIGRATE_ON_START", "on")
            .env("BESEDA_DRAIN_DELAY", "0s")
            .env("BESEDA_SHUTDOWN_GRACE", "3s")
            .env("BESEDA_LOG", "warn")
            .envs(limits.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            // Ctrl-C must reach this process alone, which stops the replicas in order.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn();
        let child = child.map_err(|source| Error::Spawn { path: program.to_owned(), source })?;
        self.replicas.push(Replica { child, public, internal });
        Ok(())
    }

    fn target(&self, secret: Secret) -> Target {
        let urls = self.replicas.iter().map(|replica| {
            let url = format!("http://{}/", replica.public);
            url.parse().unwrap_or_else(|_| unreachable!("an address makes a URL"))
        });
        let process = |name: &str, pid| Process { name: name.to_owned(), pid };
        let mut processes: Vec<Process> = Vec::new();
        processes.extend(
            self.replicas.iter().filter_map(|r| r.child.id()).map(|pid| process("service", pid)),
        );
        processes.extend(self.postgres.pid().map(|pid| process("postgres", pid)));
        processes.extend(self.redis.pid().map(|pid| process("redis", pid)));
        // Another database, so that baselines do not add to the service's tables.
        let baseline_url = self.postgres.url("postgres");
        let stores = Some(Stores { baseline_url, redis_port: self.redis.port() });
        Target { urls: urls.collect(), secret, processes, stores }
    }

    /// Stops the replicas together, then Redis, then Postgres.
    async fn stop(self) {
        let Self { mut replicas, redis, postgres } = self;
        for replica in &replicas {
            if let Some(pid) = replica.child.id() {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
            }
        }
        let ended = async {
            for replica in &mut replicas {
                let _ = replica.child.wait().await;
            }
        };
        if tokio::time::timeout(STOP, ended).await.is_err() {
            say("a replica did not end in time, and is killed");
        }
        drop(replicas);
        redis.stop().await;
        postgres.stop().await;
    }
}

impl Replica {
    /// Returns once the replica accepts connections on both ports.
    async fn ready(&mut self, number: usize) -> Result<(), Error> {
        let deadline = Instant::now() + READY;
        loop {
            if healthy(self.internal).await && TcpStream::connect(self.public).await.is_ok() {
                return Ok(());
            }
            let ended = matches!(self.child.try_wait(), Ok(Some(_)) | Err(_));
            if ended || Instant::now() > deadline {
                return Err(Error::NotReady(number));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn healthy(internal: SocketAddr) -> bool {
    let answer = reqwest::get(format!("http://{internal}/readyz")).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// Returns an address that is free now. If another process takes it first, the replica fails to start.
async fn free_address() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let address = listener.and_then(|listener| listener.local_addr());
    address.map_err(|error| Error::Io("no free port on 127.0.0.1", error))
}
