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
    config::{Config, ConfigError, DatabaseConfig, LogConfig, secrets_from_files},
    error::chain,
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

/// After 10,000 disconnects 16 MB stay resident with this one, against 67 MB with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long `healthcheck` waits: an orchestrator's own limit is rarely above a few seconds.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// What a shell reports for a program that a SIGINT ended.
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
    /// Look at every chat in the database for what must not be; reads only. Ends with 0 where all is
    /// well, with 1 where something is wrong, with 2 where it could not look.
    Verify(DatabaseConfig),
    /// Ask about single things.
    #[command(subcommand)]
    Admin(Question),
    /// Two replicas with a private Postgres and Redis, to try and to develop; not for production.
    #[cfg(feature = "dev")]
    Dev(dev::Options),
    /// Print a token, as the host application would sign it; for trying out.
    #[cfg(feature = "dev")]
    Token(dev::TokenOptions),
    /// Talk to somebody, in a terminal or through a pipe: each line is a message.
    ///
    /// A line that can be no message (more than 4,000 characters, or not UTF-8) is refused by itself. From a
    /// pipe, the exit status is 1 if any line was refused, or is not known to have arrived.
    #[cfg(feature = "dev")]
    Chat(cli_chat::Options),
    /// Ask the replica on this machine whether it is ready: ends with 0 or 1.
    Healthcheck(HealthOptions),
    /// Print the OpenAPI document.
    Openapi,
}

#[derive(Args)]
struct MigrateOptions {
    #[command(flatten)]
    database: DatabaseConfig,

    /// Change nothing; say which migrations are missing, or differ from this program's, and end with 1
    /// if any do.
    #[arg(long)]
    check: bool,
}

#[derive(Args)]
struct HealthOptions {
    /// Where the replica serves health.
    #[arg(long, env = "BESEDA_INTERNAL_LISTEN", default_value = "0.0.0.0:9090")]
    internal_listen: SocketAddr,

    /// What to ask: `/readyz`, or `/healthz` for whether it lives at all.
    #[arg(long, default_value = "/readyz")]
    path: String,
}

/// The arguments, with secrets from files in place.
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
    // Whatever clap has to say, it says, and ends the process.
    Ok(Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit()))
}

fn main() -> ExitCode {
    let cli = match arguments() {
        Ok(cli) => cli,
        Err(error) => return fail(&error),
    };
    // To the end: what is left of the traces is sent when this goes.
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

/// A socket takes a file; shells start programs with a soft limit of 1,024 of them.
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
        Command::Verify(config) => return verify(&config).await,
        Command::Admin(question) => print(&admin::answer(question).await?)?,
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

/// Asks for no huge pages (prctl(2), `PR_SET_THP_DISABLE`): the allocator would have memory in pieces of
/// 2 MiB, cleared whole at the first touch. When ten thousand sockets come at once that was a quarter of
/// the processors' time and half of the memory, and messages are no cheaper for it.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay");
    }
}

async fn serve(config: Config) -> Result<ExitCode, BoxError> {
    // First of all: a signal during the start must not be lost.
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
    tracing::info!("draining; a second signal ends at once");
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

/// What `verify` ends with where it could not look: no verdict either way.
const NO_VERDICT: u8 = 2;

async fn verify(config: &DatabaseConfig) -> Result<ExitCode, BoxError> {
    match store::verify(config).await {
        Ok(verified) => {
            print(&verified.to_string())?;
            Ok(if verified.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            fail(&error);
            Ok(ExitCode::from(NO_VERDICT))
        }
    }
}

/// Plain HTTP by hand: images without a shell or curl can use it, and it costs no client.
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

/// A closed pipe is an error here, not a panic as with `println!`.
fn print(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Says what failed and why, down to the first cause.
fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "beseda: {}", chain(error));
    ExitCode::FAILURE
}
