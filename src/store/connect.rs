//! Connections to Postgres. All commands read the URL here, and add the same settings to it.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use deadpool::managed::{self, QueueMode, RecycleError, RecycleResult};
use deadpool_postgres::{ClientWrapper, Runtime};
use percent_encoding::percent_decode_str;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{
    Client, Config, Connection, NoTls, Socket,
    config::{SslMode, TargetSessionAttrs},
    tls::TlsStream,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::StoreError;
use crate::{
    config::{DatabaseConfig, Secret, Switch},
    error::{Cause, chain},
};

/// Settings that all statements rely on, whatever the defaults of the database, the role or the URL.
/// Isolation must be read committed: a function locks a chat and must then see what was committed before
/// the lock. A time-out of idle sessions would cut the pool's connections.
const GIVEN: &str = "-c default_transaction_isolation=read\\ committed \
     -c standard_conforming_strings=on -c TimeZone=UTC -c DateStyle=ISO -c idle_session_timeout=0";

/// Planner settings. A statement is planned once per connection, since planning costs as much as running
/// it does, and only with index scans in the order of the index. Otherwise, a plan made without statistics
/// (for a young table) would scan the whole table, and keep doing so: a list of chats took 1.3 to 1.8 ms
/// instead of 0.9 ms. Nor are results of look-ups kept for the next one: each has another key, and keeping
/// them took a fifth of a list of 50. The rules that statements follow stand at the head of
/// `sql/V1__tables.sql`.
const PLANNING: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
     -c enable_bitmapscan=off -c enable_sort=off -c enable_hashjoin=off -c enable_mergejoin=off \
     -c enable_memoize=off -c jit=off";

/// Says that the connection is for reads from a standby; see `epoch!`.
const STANDBY: &str = "-c beseda.standby=on";

/// Removes the role's time limits from commands, because a migration may rewrite a table.
const UNLIMITED: &str =
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0";

/// Time-out for opening a TCP connection, unless the URL sets one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Name of our connections in `pg_stat_activity`, unless the URL sets one.
const APPLICATION_NAME: &str = "beseda";

/// First and longest pause after a failure to connect. Pauses spare a recovering server, which logs every
/// connection that it refuses; the longest one bounds how late its return is noticed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The same for a command that only waits for Postgres. They are longer because each attempt is logged.
const WAITING_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

pub(super) type Pool = managed::Pool<Connector>;
/// A connection of a pool.
pub(super) type Pooled = managed::Object<Connector>;

/// Everything needed to open a connection: the URL's settings with ours, and TLS.
struct Way {
    postgres: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Way {
    /// The URL's options override `usual`, and [`GIVEN`] overrides those of the URL.
    fn new(config: &DatabaseConfig, usual: &str) -> Result<Self, StoreError> {
        Self::to(config, usual, TargetSessionAttrs::ReadWrite)
    }

    fn to(
        config: &DatabaseConfig,
        usual: &str,
        attrs: TargetSessionAttrs,
    ) -> Result<Self, StoreError> {
        let mut postgres = parse_url(&config.database_url, attrs)?;
        if config.database_prepared == Switch::On {
            // Of repeated start-up options the last one counts. PgBouncer refuses start-up options, so with
            // it they must be set on the role, which is checked at start-up.
            let own = postgres.get_options().unwrap_or_default().to_owned();
            postgres.options(format!("{usual} {own} {GIVEN}"));
        }
        let tls = tls(config, &postgres, attrs)?;
        Ok(Self { postgres, tls })
    }

    async fn open(&self, ceiling: Duration) -> Result<(Client, JoinHandle<()>), StoreError> {
        let opening = async {
            Ok::<_, StoreError>(match &self.tls {
                Some(tls) => {
                    let (client, connection) = self.postgres.connect(tls.clone()).await?;
                    (client, tokio::spawn(drive(connection)))
                }
                None => {
                    let (client, connection) = self.postgres.connect(NoTls).await?;
                    (client, tokio::spawn(drive(connection)))
                }
            })
        };
        // The URL's time-out covers only the TCP connection, which a server that hangs still accepts.
        timeout(ceiling, opening).await.unwrap_or_else(|_| Err(StoreError::no_answer(ceiling)))
    }
}

/// Runs a connection's protocol until it ends.
async fn drive<T: TlsStream + Unpin>(connection: Connection<Socket, T>) {
    if let Err(error) = connection.await {
        let error = StoreError::from(error);
        tracing::warn!(error = chain(&error), "a connection to Postgres broke");
    }
}

/// Opens connections, for a pool or to be shared.
pub(super) struct Connector {
    way: Way,
    ceiling: Duration,
    gate: Arc<Gate>,
}

impl Connector {
    /// `settings` are start-up options in addition to those that all connections have.
    pub(super) fn new(
        config: &DatabaseConfig,
        settings: &str,
        gate: &Arc<Gate>,
    ) -> Result<Self, StoreError> {
        Self::to(config, settings, TargetSessionAttrs::ReadWrite, gate)
    }

    /// To a server that the URL names and that accepts no writes.
    pub(super) fn to_standby(
        config: &DatabaseConfig,
        gate: &Arc<Gate>,
    ) -> Result<Self, StoreError> {
        Self::to(config, STANDBY, TargetSessionAttrs::ReadOnly, gate)
    }

    fn to(
        config: &DatabaseConfig,
        settings: &str,
        attrs: TargetSessionAttrs,
        gate: &Arc<Gate>,
    ) -> Result<Self, StoreError> {
        let ceiling = config.database_timeout;
        let millis = ceiling.as_millis();
        let usual = format!(
            "-c statement_timeout={millis} -c lock_timeout={millis} \
             -c idle_in_transaction_session_timeout={millis} {PLANNING} {settings}"
        );
        Ok(Self { way: Way::to(config, &usual, attrs)?, ceiling, gate: Arc::clone(gate) })
    }

    pub(super) async fn open(&self) -> Result<ClientWrapper, StoreError> {
        let attempt = self.gate.attempt()?;
        // On the heap: this future has the whole handshake, some 14 kB, and is a part of each future that
        // uses a pool, although few open a connection.
        let opened = Box::pin(self.way.open(self.ceiling)).await;
        attempt.end(opened.as_ref().err());
        opened.map(|(client, driving)| ClientWrapper::new(client, driving))
    }

    /// Creates a pool of up to `size` connections. The one that was used last is used next, since each is a
    /// process of Postgres with plans and caches of its own.
    pub(super) fn pool(self, size: usize) -> Result<Pool, StoreError> {
        let ceiling = Some(self.ceiling);
        Pool::builder(self)
            .max_size(size)
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(ceiling)
            .create_timeout(ceiling)
            .recycle_timeout(ceiling)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Failed(Arc::new(error)))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl managed::Manager for Connector {
    type Type = ClientWrapper;
    type Error = StoreError;

    async fn create(&self) -> Result<ClientWrapper, StoreError> {
        self.open().await
    }

    async fn recycle(
        &self,
        client: &mut ClientWrapper,
        _: &managed::Metrics,
    ) -> RecycleResult<StoreError> {
        if client.is_closed() { Err(RecycleError::message("closed")) } else { Ok(()) }
    }
}

/// A circuit breaker: after a failure to connect it stays closed for a pause, and attempts fail at once
/// with the error that closed it. Otherwise every request would try to connect to a Postgres that is down,
/// and one that recovers would log each attempt. All connections of a replica share one gate.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<Closed>>);

#[derive(Debug)]
struct Closed {
    until: Instant,
    /// The pause is over and one attempt is in flight; all others still fail at once.
    tried: bool,
    /// The next pause, if the attempt fails.
    pause: Duration,
    why: Option<Cause>,
}

/// An attempt to open a connection.
struct Attempt<'a> {
    gate: &'a Gate,
    /// The gate is closed, and this is the only attempt that it lets through.
    alone: bool,
}

impl Gate {
    fn closed(&self) -> MutexGuard<'_, Option<Closed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self) -> Result<Attempt<'_>, StoreError> {
        match &mut *self.closed() {
            None => Ok(Attempt { gate: self, alone: false }),
            Some(closed) if closed.tried || Instant::now() < closed.until => {
                Err(StoreError::Unavailable(closed.why.clone()))
            }
            Some(closed) => {
                closed.tried = true;
                Ok(Attempt { gate: self, alone: true })
            }
        }
    }
}

impl Attempt<'_> {
    fn end(self, failed: Option<&StoreError>) {
        let mut closed = self.gate.closed();
        let Some(error) = failed else {
            *closed = None;
            return;
        };
        // Of concurrent failures only the first one closes the gate.
        if closed.is_none() || self.alone {
            let (first, longest) = PAUSES;
            let mut pause = closed.as_ref().map_or(first, |closed| closed.pause);
            let until = Instant::now() + back_off(&mut pause, longest);
            *closed = Some(Closed { until, tried: false, pause, why: error.cause() });
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // The attempt was cancelled, so that the next caller has to try.
        if self.alone
            && let Some(closed) = &mut *self.gate.closed()
        {
            closed.tried = false;
        }
    }
}

/// Returns this time's pause and doubles the next one. Jitter keeps replicas that lost the same server from
/// reconnecting all at once.
fn back_off(pause: &mut Duration, longest: Duration) -> Duration {
    let spread = pause.mul_f64(rand::random_range(0.5..1.5));
    *pause = (*pause * 2).min(longest);
    spread
}

/// Repeats `attempt` while Postgres is unavailable, for at most `database_wait`.
pub async fn patiently<T>(
    config: &DatabaseConfig,
    mut attempt: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (mut pause, longest) = WAITING_PAUSES;
    let deadline = Instant::now() + config.database_wait;
    loop {
        let outcome = attempt().await;
        let left = deadline.saturating_duration_since(Instant::now());
        match outcome {
            Err(error @ StoreError::Unavailable(_)) if !left.is_zero() => {
                let error = chain(&error);
                tracing::warn!(error, ?left, "Postgres is away: waiting for it");
                sleep(back_off(&mut pause, longest).min(left)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Opens a connection for a command, without time limits.
pub(super) async fn connect(config: &DatabaseConfig) -> Result<Client, StoreError> {
    let way = Way::new(config, UNLIMITED)?;
    Ok(way.open(config.database_timeout).await?.0)
}

/// Returns the TLS configuration, or `None` where the URL does not require TLS.
fn tls(
    config: &DatabaseConfig,
    postgres: &Config,
    attrs: TargetSessionAttrs,
) -> Result<Option<MakeRustlsConnect>, StoreError> {
    let ca = config.database_ca.as_deref();
    if postgres.get_ssl_mode() != SslMode::Require {
        // Without TLS the authority would be ignored, although the operator relies on it.
        return match ca {
            Some(_) => Err(StoreError::Schema(format!(
                "BESEDA_DATABASE_CA needs sslmode=verify-full in {}",
                setting_of(attrs)
            ))),
            None => Ok(None),
        };
    }
    let config =
        crate::tls::client_config(ca).map_err(|error| StoreError::Failed(Arc::new(error)))?;
    Ok(Some(MakeRustlsConnect::new(config)))
}

/// The setting that has the URLs of servers of this kind.
fn setting_of(attrs: TargetSessionAttrs) -> &'static str {
    match attrs {
        TargetSessionAttrs::ReadOnly => "DATABASE_REPLICA_URLS",
        _ => "DATABASE_URL",
    }
}

/// Parses the URL and adds defaults. Unless the URL says otherwise, the server must be of the kind that is wanted: of
/// several hosts, or behind a name that still leads to the old primary, may be one that accepts no writes. A replica
/// must not get stuck with that, nor read its stale data.
fn parse_url(url: &Secret, attrs: TargetSessionAttrs) -> Result<Config, StoreError> {
    let unreadable =
        |_| StoreError::Schema(format!("{} is not a PostgreSQL URL", setting_of(attrs)));
    let mut config: Config = with_known_sslmode(url.expose()).parse().map_err(unreadable)?;
    if config.get_target_session_attrs() == TargetSessionAttrs::Any {
        config.target_session_attrs(attrs);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name(APPLICATION_NAME);
    }
    Ok(config)
}

/// Replaces libpq's `verify-full` and `verify-ca` by `require`, because the parser knows only `disable`,
/// `prefer` and `require`. Our TLS always verifies the server completely.
fn with_known_sslmode(url: &str) -> Cow<'_, str> {
    // Like the parser: everything before the first `@` is name and password, even with a `?` in it.
    let credentials = url.find('@').unwrap_or_default();
    let Some(query) = url[credentials..].find('?').map(|at| credentials + at + 1) else {
        return Cow::Borrowed(url);
    };
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
    let options = url[query..].split('&').map(|option| match option.split_once('=') {
        Some((name, value))
            if decoded(name) == "sslmode"
                && matches!(&*decoded(value), "verify-full" | "verify-ca") =>
        {
            "sslmode=require"
        }
        _ => option,
    });
    Cow::Owned(url[..query].to_owned() + &options.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    fn parsed(url: &str) -> Config {
        parse_url(&Secret::from(url.to_owned()), TargetSessionAttrs::ReadWrite).unwrap()
    }

    #[test]
    fn a_password_is_left_as_it_is_whatever_it_looks_like() {
        for password in ["sslmode=verify-full", "x?sslmode=verify-full&y", "a/sslmode=verify-ca"] {
            let config = parsed(&format!("postgresql://me:{password}@db/chat?sslmode=verify-full"));
            assert_eq!(config.get_password(), Some(password.as_bytes()));
            assert_eq!(config.get_ssl_mode(), SslMode::Require);
            assert_eq!(config.get_hosts(), [Host::Tcp("db".to_owned())]);
        }
        let config = parsed("postgresql://me:sslmode=verify-full@db/chat");
        assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
    }

    #[test]
    fn the_names_of_libpq_are_known_where_they_are_the_mode() {
        for (query, mode) in [
            ("sslmode=verify-full", SslMode::Require),
            ("application_name=x&sslmode=verify-ca", SslMode::Require),
            ("ssl%6dode=verify%2Dfull&application_name=x", SslMode::Require),
            ("sslmode=disable", SslMode::Disable),
            ("application_name=sslmode=verify-full", SslMode::Prefer),
        ] {
            assert_eq!(parsed(&format!("postgres://db/chat?{query}")).get_ssl_mode(), mode);
        }
        let config = parsed("postgres://db/chat?application_name=sslmode%3Dverify-full");
        assert_eq!(config.get_application_name(), Some("sslmode=verify-full"));
        for unknown in ["sslmode=verify", "sslmode=verify-fully", "sslmode=verify-full=x"] {
            let url = Secret::from(format!("postgres://db/chat?{unknown}"));
            assert!(parse_url(&url, TargetSessionAttrs::ReadWrite).is_err(), "{unknown}");
        }
    }

    #[test]
    fn what_the_url_says_goes_before_ours() {
        let config = parsed("postgres://db/chat?connect_timeout=9&application_name=mine");
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(9)));
        assert_eq!(config.get_application_name(), Some("mine"));
        let config = parsed("postgres://db/chat?target_session_attrs=read-only");
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadOnly);
        let config = parsed("postgres://db/chat");
        assert_eq!(config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }
}
