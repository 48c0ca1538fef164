//! `beseda dev`: two replicas with a private Postgres and Redis, in one process.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitStatus,
    time::Duration,
};

use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::net::TcpListener;
use url::Url;

use super::{
    Claims, DevError, Durability, Postgres, Redis,
    demo::{self, Group},
    folders, parent, sign, token,
};
use crate::{
    app::{self, Listeners, Replica},
    config::{Config, Secret},
    server,
    signals::Signals,
};

/// Default of `--data`.
pub(super) const DEFAULT_DATA: &str = "data";

/// Default port of the first replica; the second one takes the next.
const DEFAULT_PORT: u16 = 8080;

/// Ports above the wanted one that are tried before any free one.
const NEAR_PORTS: u16 = 20;

const DATABASE: &str = "beseda";

/// Users with a token at the start. Their ids are these names in lower case.
const DEMO_USERS: [&str; 3] = ["Alice", "Bob", "Carol"];

/// Life of their tokens: a week of development, across restarts.
const DEMO_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Life of the token that names the people of the demo's groups, at each start.
const HOST_TTL: Duration = Duration::from_secs(60);

/// Pause between two checks of whether the servers run.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Pause until a server that ended is restarted: long enough to watch the clients meanwhile.
const RESTART_PAUSE: Duration = Duration::from_secs(3);
/// Most attempts to restart a server.
const RESTARTS: u32 = 3;

/// Time-out of the replicas' end: longer than their grace.
const DRAIN_CEILING: Duration = Duration::from_secs(10);

/// Options of `beseda dev`. The settings of `serve` also apply, from the environment.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Folder of the database, the demo secret and the servers' logs.
    #[arg(long, env = "BESEDA_DEV_DATA", default_value = DEFAULT_DATA)]
    pub data: PathBuf,

    /// Port of the first replica. By default 8080, or the next free one.
    #[arg(long, env = "BESEDA_DEV_PORT")]
    pub port: Option<u16>,

    /// End when the parent process ends or is interrupted; for `make run`.
    #[arg(long, hide = true)]
    pub end_with_parent: bool,
}

/// The running stack. Fields are dropped in order: first the replicas, then their dependencies.
struct Stack {
    replicas: Vec<Replica>,
    redis: Redis,
    postgres: Postgres,
}

/// Starts two replicas with a private Postgres and Redis, prints how to use them, and serves until SIGINT
/// or SIGTERM; a second signal ends all at once.
///
/// # Errors
/// A part did not start, or a second signal came ([`DevError::Interrupted`]). In any case all children
/// are ended.
pub async fn run(options: Options) -> Result<(), DevError> {
    let mut signals = Signals::catch().map_err(DevError::io("cannot catch signals"))?;
    let mut parent_ended = pin!(async {
        match options.end_with_parent {
            true => parent::ended().await,
            false => std::future::pending().await,
        }
    });
    let mut asked_to_end = async || {
        tokio::select! {
            () = signals.next() => {}
            () = &mut parent_ended => {}
        }
    };
    // Held to the end, so that the folder is free only after everything has ended.
    let data = folders::create(&options.data)?;
    let _lock = folders::lock(&data)?;
    let stack = tokio::select! {
        // Dropping an unfinished start ends its children.
        () = asked_to_end() => return Ok(()),
        stack = start(&options, &data) => stack?,
    };
    let outcome = tokio::select! {
        () = asked_to_end() => Ok(()),
        error = stack.look_after() => Err(error),
    };
    say("Ending; once more ends at once.\n");
    tokio::select! {
        () = stack.stop() => outcome,
        () = signals.next() => Err(DevError::Interrupted),
    }
}

async fn start(options: &Options, data: &Path) -> Result<Stack, DevError> {
    let listeners = bind(options.port)?;
    let (postgres_dir, redis_dir) = (data.join("postgres"), data.join("redis"));
    let (postgres, redis) = tokio::try_join!(
        async {
            let postgres = Postgres::start(&postgres_dir, Durability::Full).await?;
            postgres.ensure_database(DATABASE).await?;
            Ok::<_, DevError>(postgres)
        },
        Redis::start(&redis_dir, Durability::Full),
    )?;
    let made = token::secret_of(data)?;
    let mut config = config(&postgres.url(DATABASE), &redis.url(), data)?;
    // Demo tokens are signed here, so public keys are not used; the host application's own secret is, so
    // that its tokens work too.
    config.auth.jwt_public_key = None;
    config.auth.jwt_jwks_url = None;
    config.auth.jwt_issuers = Vec::new();
    let secret = config.auth.jwt_hs256_secret.get_or_insert(made).clone();
    if config.push.vapid_key.is_none() {
        config.push.vapid_key = Some(token::vapid_key_of(data)?);
    }
    let users = demo_users(&config, &secret)?;
    config.demo_people =
        users.iter().map(|(name, token)| ((*name).to_owned(), token.clone().into())).collect();

    let mut stack = Stack { replicas: Vec::new(), redis, postgres };
    for listeners in listeners {
        let mut config = config.clone();
        config.listen = address(&listeners.public)?;
        config.internal_listen = address(&listeners.internal)?;
        stack.replicas.push(app::start(config, listeners).await?);
    }
    // The demo is of use without them, too.
    let groups = demo_groups(&stack, &config, &secret, &users).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "no groups in the demo");
        Vec::new()
    });
    let environment = environment(&stack.replicas, &users);
    token::write_private(&data.join("demo.env"), &environment)?;
    say(&welcome(&stack, &users, &groups, &environment, &options.data));
    Ok(stack)
}

impl Stack {
    /// Restarts servers that ended, for example because a developer killed them. Returns the error of one
    /// that does not start.
    async fn look_after(&self) -> DevError {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Some(status) = self.postgres.ended() {
                say(&lost("Postgres", status));
                if let Err(error) = again(async || self.postgres.restart().await).await {
                    return error;
                }
            }
            if let Some(status) = self.redis.ended() {
                say(&lost("Redis", status));
                if let Err(error) = again(async || self.redis.restart().await).await {
                    return error;
                }
            }
        }
    }

    /// Ends it all in order: the replicas together, then Redis, then Postgres.
    async fn stop(self) {
        let Self { replicas, redis, postgres } = self;
        let drained = tokio::time::timeout(DRAIN_CEILING, async {
            let draining: Vec<_> =
                replicas.into_iter().map(|replica| tokio::spawn(replica.drain())).collect();
            for replica in draining {
                let _ = replica.await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!("the replicas did not end in time");
        }
        redis.stop().await;
        postgres.stop().await;
    }
}

fn lost(server: &str, status: ExitStatus) -> String {
    format!("{server} has ended ({status}); it starts again in {} s.\n", RESTART_PAUSE.as_secs())
}

/// Retries a restart, because the children of a killed Postgres hold its memory for a moment.
async fn again(mut restart: impl AsyncFnMut() -> Result<(), DevError>) -> Result<(), DevError> {
    let mut left = RESTARTS;
    loop {
        tokio::time::sleep(RESTART_PAUSE).await;
        left -= 1;
        match restart().await {
            Err(_) if left > 0 => {}
            outcome => return outcome,
        }
    }
}

/// Reads the settings of `serve`, with defaults for development. The environment overrides them.
fn config(database_url: &str, redis_url: &str, data: &Path) -> Result<Config, DevError> {
    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        config: Config,
    }
    // A real path is an absolute one.
    let attachments = Url::from_file_path(data.join("attachments"))
        .map_or_else(|()| "off".to_owned(), String::from);
    let command = Settings::command()
        .mut_arg("attachments", |arg| arg.default_value(attachments))
        .mut_arg("migrate_on_start", |arg| arg.default_value("on"))
        // Push services want to know somebody to write to, and Apple's takes no local name.
        .mut_arg("vapid_subject", |arg| arg.default_value("mailto:developer@example.com"))
        // There is no load balancer, and a developer waits after Ctrl-C.
        .mut_arg("drain_delay", |arg| arg.default_value("0s"))
        .mut_arg("shutdown_grace", |arg| arg.default_value("2s"));
    let arguments = ["dev", "--database-url", database_url, "--redis-url", redis_url];
    let matches = command.try_get_matches_from(arguments)?;
    Ok(Settings::from_arg_matches(&matches)?.config)
}

/// Binds the listeners of both replicas.
fn bind(port: Option<u16>) -> Result<[Listeners; 2], DevError> {
    let first = match port {
        Some(port) => listen(port).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => DevError::PortTaken(port),
            _ => DevError::Io { what: format!("cannot listen on port {port}"), source: error },
        })?,
        None => listen_near(DEFAULT_PORT)?,
    };
    let next = address(&first)?.port().saturating_add(1);
    let second = listen_near(next)?;
    let internal = (listen_any()?, listen_any()?);
    Ok([
        Listeners { public: first, internal: internal.0 },
        Listeners { public: second, internal: internal.1 },
    ])
}

fn listen_near(port: u16) -> Result<TcpListener, DevError> {
    for port in port..port.saturating_add(NEAR_PORTS) {
        if let Ok(listener) = listen(port) {
            return Ok(listener);
        }
    }
    listen_any()
}

fn listen_any() -> Result<TcpListener, DevError> {
    listen(0).map_err(DevError::io("no free port on 127.0.0.1"))
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    server::listen((Ipv4Addr::LOCALHOST, port).into())
}

fn address(listener: &TcpListener) -> Result<SocketAddr, DevError> {
    listener.local_addr().map_err(DevError::io("a socket without an address"))
}

/// Signs a token for each demo user; returns names and tokens.
fn demo_users(config: &Config, secret: &Secret) -> Result<Vec<(&'static str, String)>, DevError> {
    let token_of = |name: &'static str| {
        let claims = Claims {
            name: Some(name.to_owned()),
            ..claims(config, &name.to_lowercase(), DEMO_TTL)
        };
        Ok((name, sign(secret, &claims)?))
    };
    DEMO_USERS.into_iter().map(token_of).collect()
}

fn claims(config: &Config, user: &str, ttl: Duration) -> Claims {
    Claims {
        iss: config.auth.jwt_issuer.clone(),
        aud: config.auth.jwt_audience.clone(),
        ..Claims::new(user, ttl)
    }
}

/// Sees to the demo users' groups.
async fn demo_groups(
    stack: &Stack,
    config: &Config,
    secret: &Secret,
    users: &[(&'static str, String)],
) -> Result<Vec<Group>, DevError> {
    let Some(replica) = stack.replicas.first() else { return Ok(Vec::new()) };
    let host =
        Claims { scope: Some("chat:admin".to_owned()), ..claims(config, "beseda-dev", HOST_TTL) };
    let host = sign(secret, &host)?;
    let users: Vec<_> =
        users.iter().map(|(name, token)| (name.to_lowercase(), token.as_str())).collect();
    demo::groups(replica.public_addr(), &host, &users).await
}

/// Formats variables for a shell: `A` and `B` are the replicas, tokens are named after their users.
fn environment(replicas: &[Replica], users: &[(&str, String)]) -> String {
    let replicas = ["A", "B"].into_iter().zip(replicas);
    let mut text: Vec<String> = replicas
        .map(|(name, replica)| format!("{name}=http://{}", replica.public_addr()))
        .collect();
    text.extend(users.iter().map(|(name, token)| format!("{}={token}", name.to_uppercase())));
    text.join("\n") + "\n"
}

fn welcome(
    stack: &Stack,
    users: &[(&str, String)],
    groups: &[Group],
    environment: &str,
    data: &Path,
) -> String {
    let mut text = String::from("\nBeseda is up.\n\n");
    for (name, replica) in ["A", "B"].into_iter().zip(&stack.replicas) {
        let (public, internal) = (replica.public_addr(), replica.internal_addr());
        let _ = writeln!(
            text,
            "Replica {name}  http://{public}/  (metrics: http://{internal}/metrics)"
        );
    }
    for (server, url, pid) in [
        ("Postgres", stack.postgres.url(DATABASE), stack.postgres.pid()),
        ("Redis", stack.redis.url(), stack.redis.pid()),
    ] {
        let _ = writeln!(text, "{server:9}  {url}  (pid {})", pid.unwrap_or_default());
    }
    text += "\nThe demo page, each link a user of its own, Bob on the other replica:\n";
    for ((name, token), replica) in users.iter().zip(stack.replicas.iter().cycle()) {
        let _ = writeln!(text, "{name:5}  http://{}/#token={token}", replica.public_addr());
    }
    if !groups.is_empty() {
        text += "\nTheir groups, of which Alice is the owner:\n";
    }
    for Group { title, room_name, member_count } in groups {
        let _ = writeln!(text, "{title:12}  {room_name}  ({member_count} members)");
    }
    let program = std::env::args().next().unwrap_or_else(|| "beseda".to_owned());
    let urls: Vec<String> = stack
        .replicas
        .iter()
        .map(|replica| format!("--url http://{}", replica.public_addr()))
        .collect();
    let mut data_option = String::new();
    if data != Path::new(DEFAULT_DATA) {
        data_option = format!(" --data {}", data.display());
    }
    text += "\nThe same in terminals of their own:\n";
    for (me, with, urls) in [
        ("alice", "bob", urls.join(" ")),
        ("bob", "alice", urls.iter().rev().cloned().collect::<Vec<_>>().join(" ")),
    ] {
        let _ = writeln!(text, "{program} chat {urls}{data_option} --as {me} --with {with}");
    }
    let mut kept = format!("Data is kept in {}", data.display());
    let cluster = stack.postgres.cluster();
    if !data.canonicalize().is_ok_and(|data| cluster.starts_with(data)) {
        // As root, if Postgres's account can't enter the folder.
        let _ = write!(kept, ", the database in {}", cluster.display());
    }
    let _ = write!(
        text,
        "\nFor a shell (also in {}, for `.`):\n{}\n\n{}\n\n{kept}. Ctrl-C ends it all.\n",
        data.join("demo.env").display(),
        environment.trim_end().replace('\n', "; "),
        concat!(
            r#"curl -sS "$A/api/v1/chats/" -H "Authorization: Bearer $ALICE" "#,
            r#"-H 'Content-Type: application/json' -d '{"user_id":"bob"}'"#
        ),
    );
    text
}

/// Prints to the terminal. A closed pipe is no reason to end.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AttachmentPlace;

    #[test]
    fn the_settings_suit_a_desk() {
        let config = config("postgresql://x", "redis://y", Path::new("/data")).unwrap();
        let folder = AttachmentPlace::Folder("/data/attachments".into());
        assert_eq!(config.attachments.attachments, folder);
        assert_eq!(config.migrate_on_start, crate::config::Switch::On);
        assert!(config.drain_delay < config.shutdown_grace);
        assert!(config.shutdown_grace < DRAIN_CEILING);
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_only_where_asked_for() {
        let taken = listen_any().unwrap();
        let port = address(&taken).unwrap().port();
        assert!(matches!(bind(Some(port)), Err(DevError::PortTaken(p)) if p == port));
        assert!(listen_near(port).is_ok());
    }
}
