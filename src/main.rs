//! The program: parse arguments, build the runtime, dispatch.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use beseda::{
    admin::{self, Question},
    app::{self, Listeners},
    attachments,
    config::{
        AttachmentConfig, Config, ConfigError, DatabaseConfig, LogConfig, secrets_from_files,
    },
    error::chain,
    push::{self, PushTest},
    server,
    signals::Signals,
    store, telemetry,
};
#[cfg(feature = "dev")]
use beseda::{
    cli_chat,
    dev::{self, DevError},
};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// After 10,000 disconnects mimalloc keeps 16 MB resident, glibc's allocator 67 MB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time-out of `healthcheck`: an orchestrator rarely waits longer than a few seconds.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Exit status after a SIGINT, as shells report it.
const INTERRUPTED: u8 = 130;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A self-hosted, horizontally scalable one-to-one chat service.
#[derive(Parser)]
#[command(name = "beseda", version)]
struct Cli {
    #[command(flatten)]
    log: LogConfig,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as one replica, until SIGTERM or SIGINT.
    Serve(Box<Config>),
    /// Apply missing migrations to the database, and end.
    Migrate(MigrateOptions),
    /// Check the consistency of every chat in the database, without writing. The exit status is 0 if all
    /// is consistent, 1 if not, 2 if the check could not be made.
    Verify(Box<VerifyOptions>),
    /// Trace a message, or manage failed webhooks and pushes.
    #[command(subcommand)]
    Admin(Question),
    /// Push a test to one device, past all queues. Takes the settings of `serve` for push.
    PushTest(Box<PushTest>),
    /// Run two replicas with a private Postgres and Redis, for development; not for production.
    #[cfg(feature = "dev")]
    Dev(dev::Options),
    /// Print a token as the host application would sign it, for development.
    #[cfg(feature = "dev")]
    Token(dev::TokenOptions),
    /// Chat with a user, in a terminal or through a pipe: each line is a message.
    ///
    /// The line `/file PATH` sends a file. Messages arrive in the order of the lines, whatever replica dies.
    ///
    /// A line that can't be a message (more than 4,000 characters, or not UTF-8) is refused alone. From a
    /// pipe, the exit status is 1 if a line was refused or its delivery is unknown.
    #[cfg(feature = "dev")]
    Chat(cli_chat::Options),
    /// Check whether the replica on this machine is ready. The exit status is 0 or 1.
    Healthcheck(HealthOptions),
    /// Print the OpenAPI document.
    Openapi,
}

#[derive(Args)]
struct MigrateOptions {
    #[command(flatten)]
    database: DatabaseConfig,

    /// Change nothing: list the migrations that are missing or differ from this program's. The exit status
    /// is 1 if there are any.
    #[arg(long)]
    check: bool,
}

#[derive(Args)]
struct VerifyOptions {
    #[command(flatten)]
    database: DatabaseConfig,

    #[command(flatten)]
    stored: AttachmentConfig,

    /// Compare the store of attachments with the database too: bytes that no row names, rows whose bytes are
    /// missing. It lists the whole store.
    #[arg(long = "attachments")]
    with_attachments: bool,
}

#[derive(Args)]
struct HealthOptions {
    /// Address on which the replica serves its health.
    #[arg(long, env = "BESEDA_INTERNAL_LISTEN", default_value = "0.0.0.0:9090")]
    internal_listen: SocketAddr,

    /// Path to request: `/readyz`, or `/healthz` for liveness only.
    #[arg(long, default_value = "/readyz")]
    path: String,
}

/// Parses the arguments, with secrets read from files.
fn arguments() -> Result<Cli, ConfigError> {
    let mut command = Cli::command();
    let chosen = std::env::args_os()
        .find_map(|word| command.find_subcommand(word).map(|chosen| chosen.get_name().to_owned()));
    if let Some(chosen) = chosen {
        let mut failed = None;
        command = command.mut_subcommand(chosen, |chosen| {
            secrets_from_files(chosen.clone(), &|name: &str| std::env::var_os(name)).unwrap_or_else(
                |error| {
                    failed = Some(error);
                    chosen
                },
            )
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    // clap prints help and errors itself, and ends the process.
    Ok(Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit()))
}

fn main() -> ExitCode {
    let cli = match arguments() {
        Ok(cli) => cli,
        Err(error) => return fail(&error),
    };
    // Kept to the end: its drop sends the remaining traces.
    let _telemetry = match telemetry::init(cli.log.log_format, cli.log.otlp_endpoint.as_ref()) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(dispatch(cli.command)) {
        Ok(code) => code,
        #[cfg(feature = "dev")]
        Err(error) if matches!(error.downcast_ref(), Some(DevError::Interrupted)) => {
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => fail(&*error),
    }
}

/// Raises the limit on open files to the hard limit: each socket takes one, and shells set a soft limit
/// of 1,024.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

async fn dispatch(command: Command) -> Result<ExitCode, BoxError> {
    match command {
        Command::Serve(config) => return serve(*config).await,
        Command::Migrate(options) => return migrate(&options).await,
        Command::Verify(options) => return verify(&options).await,
        Command::Admin(question) => print(&admin::answer(question).await?)?,
        Command::PushTest(options) => print(&push::test(*options).await?)?,
        #[cfg(feature = "dev")]
        Command::Dev(options) => dev::run(options).await?,
        #[cfg(feature = "dev")]
        Command::Token(options) => print(&dev::token(options)?)?,
        #[cfg(feature = "dev")]
        Command::Chat(options) => cli_chat::run(options).await?,
        Command::Healthcheck(options) => healthcheck(&options)?,
        Command::Openapi => print(&beseda::api::openapi_json())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Disables huge pages (prctl(2), `PR_SET_THP_DISABLE`), of which the kernel clears 2 MiB at the first
/// touch. When ten thousand sockets connected at once, that took a quarter of the processor time and half
/// of the memory, and messages were no cheaper.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay");
    }
}

async fn serve(config: Config) -> Result<ExitCode, BoxError> {
    // First, because a signal during the start must not be lost.
    let mut signals = Signals::catch()?;
    use_small_pages();
    let listeners = Listeners {
        public: server::listen(config.listen)?,
        internal: server::listen(config.internal_listen)?,
    };
    let replica = tokio::select! {
        replica = app::start(config, listeners) => replica?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    tracing::info!(
        public = %replica.public_addr(),
        internal = %replica.internal_addr(),
        "serving"
    );
    signals.next().await;
    tracing::info!("draining; a second signal ends the process at once");
    tokio::select! {
        () = replica.drain() => Ok(ExitCode::SUCCESS),
        () = signals.next() => Ok(ExitCode::from(INTERRUPTED)),
    }
}

async fn migrate(options: &MigrateOptions) -> Result<ExitCode, BoxError> {
    if options.check {
        let amiss = store::patiently(&options.database, async || {
            store::check_migrations(&options.database).await
        });
        let amiss = amiss.await?;
        for line in &amiss {
            print(line)?;
        }
        return Ok(if amiss.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let applied =
        store::patiently(&options.database, async || store::migrate(&options.database).await);
    let applied = applied.await?;
    tracing::info!(?applied, "the schema is up to date");
    Ok(ExitCode::SUCCESS)
}

/// Exit status of `verify` if the check could not be made.
const NO_VERDICT: u8 = 2;

async fn verify(options: &VerifyOptions) -> Result<ExitCode, BoxError> {
    let verifying = async {
        let verified = store::verify(&options.database).await?;
        print(&verified.to_string())?;
        if !options.with_attachments {
            return Ok::<_, BoxError>(verified.findings.is_empty());
        }
        let bytes = attachments::verify(&options.stored, &options.database).await?;
        print(&bytes.to_string())?;
        Ok(verified.findings.is_empty() && bytes.is_well())
    };
    match verifying.await {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => {
            fail(&*error);
            Ok(ExitCode::from(NO_VERDICT))
        }
    }
}

/// Requests the replica's health, with HTTP written by hand, which needs no client library. Images without
/// a shell or curl can use it.
fn healthcheck(options: &HealthOptions) -> Result<(), BoxError> {
    let mut address = options.internal_listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let mut stream = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    stream.set_write_timeout(Some(HEALTH_TIMEOUT))?;
    let path = &options.path;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.strip_prefix("HTTP/1.1 200 ") {
        Some(_) => Ok(()),
        None => Err(format!("{path}: {}", answer.lines().next().unwrap_or("no answer")).into()),
    }
}

/// Prints a line. A closed pipe is an error, not a panic as with `println!`.
fn print(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Prints an error with all its causes.
fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "beseda: {}", chain(error));
    ExitCode::FAILURE
}
