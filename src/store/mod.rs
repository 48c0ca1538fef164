//! Postgres, the truth. A method is one atomic unit: one statement, one snapshot, or one function
//! that locks. The SQL stands beside the code that binds it.

mod amendments;
mod chats;
mod erasure;
mod export;
mod messages;
mod migrate;
mod outbox;
mod reports;
mod rows;
mod shared;
mod trace;
mod underway;
mod users;
mod verify;
mod webhooks;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::future::join_all;
use tokio_postgres::{
    NoTls, Row,
    config::{SslMode, TargetSessionAttrs},
    error::SqlState,
    types::{ToSql, Type},
};

pub use self::{
    amendments::{Amended, Amendment, AmendmentKind, AmendmentOutcome, AmendmentResult},
    chats::{InboxPage, Opened, Room},
    messages::{Change, Changes, Draft, History, Page, SendOutcome, Window},
    migrate::{check_migrations, migrate},
    outbox::{Noted, Unpublished},
    rows::ChatState,
    trace::{Trail, trail},
    users::{Admission, Barred, Named, Profile, UserRow},
    verify::{Finding, Verified, verify},
    webhooks::{
        DeadLetter, Event, Lane, Notice, Settled, Waiting, WebhookBacklog, dead_letters,
        replay_dead_letters,
    },
};
use self::{
    shared::Shared,
    underway::{Held, Underway},
};
use crate::{
    config::{DatabaseConfig, Secret, Switch},
    error::{Cause, Error},
    metrics::Metrics,
    model::Epoch,
};

/// What the connections of group commit are opened with besides. A chat that somebody else holds must
/// not keep a batch of others waiting for long. `send_messages` makes up for this and for [`PLANNING`]
/// where there are no start-up options.
const WRITER_SETTINGS: &str = "-c lock_timeout=500ms";

/// How statements are planned: once a connection, since planning costs as much as running does, and by
/// looks into indexes only, in the order that these have. Without statistics (a young table) the planner
/// would like to read tables whole, and stay with it: a list of rooms took 1.3 to 1.8 ms so, and takes 0.9.
/// `sql/V8__one_plan.sql` has the rules for statements that make this enough.
const PLANNING: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
     -c enable_bitmapscan=off -c enable_sort=off -c enable_hashjoin=off -c enable_mergejoin=off \
     -c jit=off";

/// Connections that write edits, deletions and read markers, beside those of new messages.
pub const AMENDERS: usize = 1;

/// Connections for searches, which read more than all else: of their own, so that they hold up nobody, and
/// few, so that they leave Postgres to others.
pub const SEARCHERS: usize = 2;

/// Connections for all but writing that a replica opens before it serves: some, as one is shared by
/// those who come one after another.
const WARM_READS: usize = 3;

/// What a statement's time-out is given on top before the client gives the connection up: the
/// server's own answer is the better one.
const CLIENT_GRACE: Duration = Duration::from_secs(1);

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no usable connection to Postgres")]
    Away(#[source] Option<Cause>),
    /// One row's fault, its values' or its lock's: the rest of its batch may be fine.
    #[error("Postgres refused a row")]
    Data(#[source] Cause),
    #[error("a row was locked for too long")]
    Locked(#[source] Cause),
    #[error("a statement took too long")]
    Slow(#[source] Cause),
    #[error("Postgres failed")]
    Failed(#[source] Cause),
    #[error("{0}")]
    Schema(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away(cause) => Self::Unavailable(cause),
            StoreError::Locked(cause) | StoreError::Slow(cause) => Self::Unavailable(Some(cause)),
            StoreError::Data(cause) | StoreError::Failed(cause) => Self::Internal(cause),
            StoreError::Schema(_) => Self::internal(error),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            let broken = error.is_closed() || std::error::Error::source(&error).is_some();
            let cause: Cause = Arc::new(error);
            return if broken { Self::Away(Some(cause)) } else { Self::Failed(cause) };
        };
        // Classes of PostgreSQL's Appendix A: connection, resources, operator's intervention and
        // rollbacks pass by themselves; so do the time-outs of a lock and of a statement.
        let locked = *state == SqlState::LOCK_NOT_AVAILABLE;
        let slow = *state == SqlState::QUERY_CANCELED;
        let passing =
            matches!(&state.code()[..2], "08" | "53" | "57" | "40") || is_by_standby(state);
        let data = matches!(&state.code()[..2], "22" | "23");
        let cause: Cause = Arc::new(error);
        match (passing, data) {
            _ if locked => Self::Locked(cause),
            _ if slow => Self::Slow(cause),
            (true, _) => Self::Away(Some(cause)),
            (_, true) => Self::Data(cause),
            _ => Self::Failed(cause),
        }
    }
}

/// Whether a server refused that follows another one. [`parse_url`] keeps away from these; during a
/// failover one may be led to them all the same (by a pooler between).
fn is_by_standby(state: &SqlState) -> bool {
    *state == SqlState::READ_ONLY_SQL_TRANSACTION
        || *state == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
}

/// A value and its type: with the type given, a statement needs one round trip also unnamed.
type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The database, as one replica sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    reads: Pool,
    /// For group commit alone, one a lane, so that reads can never starve writes: those of new
    /// messages, and [`AMENDERS`].
    writes: Pool,
    /// [`SEARCHERS`].
    searches: Pool,
    /// For short reads; see there.
    shared: Arc<Shared>,
    /// The same for lists of rooms, which take longer the more rooms somebody has.
    lists: Arc<Shared>,
    prepared: bool,
    timeout: Duration,
    /// Messages and reports are noted as events for webhooks, and how long a message's waits; `None`:
    /// they are not, and cost nothing.
    webhook_delay: Option<Duration>,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Opens no connection yet: a replica also starts while Postgres is away.
    pub fn new(config: &DatabaseConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let (writers, readers) = (config.database_writers.max(1), config.database_readers.max(1));
        let writers = writers + AMENDERS;
        let prepared = config.database_prepared == Switch::On;
        // Without prepared statements none are shared.
        let others = SEARCHERS + if prepared { writers + 2 * readers } else { writers };
        let reads = config.database_connections.saturating_sub(others).max(1);
        let shared = || {
            let manager = manager(config, settings(config, "")?)?;
            Ok::<_, StoreError>(Arc::new(Shared::new(manager, readers, config.database_timeout)))
        };
        Ok(Self {
            reads: pool(config, reads, "")?,
            writes: pool(config, writers, WRITER_SETTINGS)?,
            searches: pool(config, SEARCHERS, "")?,
            shared: shared()?,
            lists: shared()?,
            prepared,
            timeout: config.database_timeout,
            webhook_delay: None,
            metrics,
        })
    }

    /// The same, which notes events for webhooks where `delay` is given: for how long a message's waits
    /// until it is looked at.
    pub fn with_webhooks(self, delay: Option<Duration>) -> Self {
        Self { webhook_delay: delay, ..self }
    }

    /// Whether Postgres answers and has the schema this program needs. One that is newer is refused
    /// at the start only: the releases before a migration live with it, so that a running replica
    /// stays ready while the next release is rolled out.
    pub async fn check(&self, starting: bool) -> Result<(), StoreError> {
        // Beside long reads, not behind them: a replica that can't list may still be sent to.
        let applied = match self.read(APPLIED_VERSION, &[]).await {
            Err(StoreError::Failed(cause)) if is_undefined_table(&cause) => Vec::new(),
            applied => applied?,
        };
        let version: i32 = applied.first().map_or(0, |row| row.get(0));
        match version.cmp(&migrate::latest_version()) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater if !starting => Ok(()),
            std::cmp::Ordering::Less => Err(StoreError::Schema(format!(
                "the database has schema {version}, this program needs {}: run `beseda migrate`",
                migrate::latest_version()
            ))),
            std::cmp::Ordering::Greater => Err(StoreError::Schema(format!(
                "the database has schema {version}, newer than this program knows ({})",
                migrate::latest_version()
            ))),
        }
    }

    /// The installation's secret: it keys tickets, derived message ids and content digests.
    pub async fn get_instance_secret(&self) -> Result<Vec<u8>, StoreError> {
        Ok(self.query_one(INSTANCE_SECRET, &[]).await?.get(0))
    }

    /// Names the history that positions belong to.
    pub async fn get_epoch(&self) -> Result<Epoch, StoreError> {
        Ok(rows::epoch_at(&self.query_one(EPOCH, &[]).await?, 0))
    }

    /// Opens the connections of the writers and some others, so that the first requests do not wait
    /// for that. What can't be had now is opened when it is needed.
    pub async fn warm_up(&self) {
        // No more than there can be: the next one would be waited for in vain.
        let reads = WARM_READS.min(self.reads.status().max_size);
        let wanted = [(&self.writes, self.writers() + AMENDERS), (&self.reads, reads)];
        let opening = wanted.map(|(pool, count)| join_all((0..count).map(|_| pool.get())));
        // All at once: each that is given back would be given out again.
        let shared = [&self.shared, &self.lists]
            .into_iter()
            .flat_map(|shared| (0..shared.size()).map(|_| shared.get()));
        tokio::join!(join_all(opening), join_all(shared));
    }

    /// How many batches of new messages can be written at once.
    pub fn writers(&self) -> usize {
        self.writes.status().max_size - AMENDERS
    }

    /// Connections in use and open, of all pools; those of short reads are none's alone.
    pub fn pool_usage(&self) -> (usize, usize) {
        let pools = [&self.reads, &self.writes, &self.searches].map(Pool::status);
        let size = pools.iter().map(|pool| pool.size).sum::<usize>();
        let available = pools.iter().map(|pool| pool.available).sum();
        (size.saturating_sub(available), size)
    }

    async fn query(&self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.run(&self.reads, sql, params).await
    }

    /// For short reads, many at once on a connection: see [`Shared`].
    async fn read(&self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.share(&self.shared, sql, params).await
    }

    /// The same for lists of rooms.
    async fn list(&self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.share(&self.lists, sql, params).await
    }

    async fn share(
        &self,
        shared: &Arc<Shared>,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        if !self.prepared {
            // A pooler may not take a statement before it has answered the last one.
            return self.query(sql, params).await;
        }
        let started = Instant::now();
        let queued = async { Ok::<_, StoreError>((shared.queue().await?, shared.get().await?)) };
        let (place, client) = queued.await.inspect_err(|_| self.waited(started))?;
        let held = Held::Queued { client, shared: Arc::clone(shared), place };
        self.ask(held, sql, params, started).await
    }

    async fn query_opt(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    async fn query_one(&self, sql: &'static str, params: &[Param<'_>]) -> Result<Row, StoreError> {
        self.query_opt(sql, params)
            .await?
            .ok_or_else(|| StoreError::Failed(Arc::new(MissingRow(statement_name(sql)))))
    }

    async fn run(
        &self,
        pool: &Pool,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let started = Instant::now();
        let client = pool.get().await.map_err(|error| {
            self.waited(started);
            StoreError::Away(Some(Arc::new(error)))
        })?;
        self.ask(Held::Own(client), sql, params, started).await
    }

    /// Also in vain: that is what shows a pool that is exhausted.
    fn waited(&self, started: Instant) {
        self.metrics.pool_wait.observe(started.elapsed().as_secs_f64());
    }

    /// Runs a statement on a connection that was asked for at `started`. The connection is given up where
    /// nothing good can come of it any more, as it is stuck, or leads to a standby.
    async fn ask(
        &self,
        held: Held,
        sql: &'static str,
        params: &[Param<'_>],
        started: Instant,
    ) -> Result<Vec<Row>, StoreError> {
        let limit = self.timeout + CLIENT_GRACE;
        // A pooler may not take a statement before it has answered the last one.
        let mut underway = Underway::new(held, self.prepared.then_some(limit));
        self.waited(started);
        let Some(client) = underway.client() else { return Err(StoreError::Away(None)) };
        let work = async {
            if self.prepared {
                let types: Vec<Type> = params.iter().map(|(_, kind)| kind.clone()).collect();
                let statement = client.prepare_typed_cached(sql, &types).await?;
                let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
                client.query(&statement, &values).await
            } else {
                client.query_typed(sql, params).await
            }
        };
        let outcome = tokio::time::timeout(limit, work).await;
        self.metrics.observe_query(statement_name(sql), started.elapsed());
        match outcome {
            Ok(Err(error)) if error.code().is_some_and(is_by_standby) => {}
            Ok(rows) => {
                underway.end();
                return Ok(rows?);
            }
            Err(_) => {}
        }
        underway.give_up().await;
        Err(StoreError::Away(None))
    }
}

/// A database that was never migrated.
fn is_undefined_table(cause: &Cause) -> bool {
    cause
        .downcast_ref::<tokio_postgres::Error>()
        .is_some_and(|error| error.code() == Some(&SqlState::UNDEFINED_TABLE))
}

#[derive(Debug, thiserror::Error)]
#[error("{0} gave no row")]
struct MissingRow(&'static str);

/// `-- store.lock_chats` on the first line names a statement in logs and metrics.
fn statement_name(sql: &'static str) -> &'static str {
    sql.lines().next().and_then(|line| line.strip_prefix("-- ")).unwrap_or("unnamed")
}

fn pool(config: &DatabaseConfig, size: usize, settings: &str) -> Result<Pool, StoreError> {
    let manager = manager(config, self::settings(config, settings)?)?;
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(config.database_timeout))
        .create_timeout(Some(config.database_timeout))
        .recycle_timeout(Some(config.database_timeout))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::Failed(Arc::new(error)))
}

/// `settings` come after the general ones, and so override them.
fn settings(config: &DatabaseConfig, settings: &str) -> Result<tokio_postgres::Config, StoreError> {
    let mut postgres = parse_url(&config.database_url)?;
    if config.database_prepared == Switch::On {
        // Start-up options; PgBouncer refuses them: there they belong to the role.
        let millis = config.database_timeout.as_millis();
        postgres.options(format!(
            "-c statement_timeout={millis} -c lock_timeout={millis} \
             -c idle_in_transaction_session_timeout={millis} {PLANNING} {settings}"
        ));
    }
    Ok(postgres)
}

fn manager(
    config: &DatabaseConfig,
    postgres: tokio_postgres::Config,
) -> Result<Manager, StoreError> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Ok(match tls(config, &postgres)? {
        Some(tls) => Manager::from_config(postgres, tls, recycling),
        None => Manager::from_config(postgres, NoTls, recycling),
    })
}

/// TLS where the URL requires it, `None` where not.
fn tls(
    config: &DatabaseConfig,
    postgres: &tokio_postgres::Config,
) -> Result<Option<tokio_postgres_rustls::MakeRustlsConnect>, StoreError> {
    let ca = config.database_ca.as_deref();
    if postgres.get_ssl_mode() != SslMode::Require {
        // Whoever names an authority believes that it is asked.
        return match ca {
            Some(_) => Err(StoreError::Schema(
                "BESEDA_DATABASE_CA needs sslmode=verify-full in DATABASE_URL".to_owned(),
            )),
            None => Ok(None),
        };
    }
    let config =
        crate::tls::client_config(ca).map_err(|error| StoreError::Failed(Arc::new(error)))?;
    Ok(Some(tokio_postgres_rustls::MakeRustlsConnect::new(config)))
}

/// Where nothing is said of the server, it is to be one that can be written to: of several hosts, or
/// behind a name that still leads to the old primary, which follows now. A replica must not get stuck
/// with it, nor take what it lags behind for the truth.
///
/// The parser knows `disable`, `prefer` and `require` only; ours verifies always, so the stricter
/// names of libpq mean the same.
fn parse_url(url: &Secret) -> Result<tokio_postgres::Config, StoreError> {
    url.expose()
        .replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require")
        .parse::<tokio_postgres::Config>()
        .map(|mut config| {
            if config.get_target_session_attrs() == TargetSessionAttrs::Any {
                config.target_session_attrs(TargetSessionAttrs::ReadWrite);
            }
            config.connect_timeout(Duration::from_secs(3)).application_name("beseda").to_owned()
        })
        .map_err(|_| StoreError::Schema("DATABASE_URL is not a PostgreSQL URL".to_owned()))
}

const APPLIED_VERSION: &str = "\
-- store.applied_version
SELECT coalesce(max(version), 0) FROM refinery_schema_history";

const INSTANCE_SECRET: &str = "\
-- store.instance_secret
SELECT secret FROM instance";

const EPOCH: &str = concat!("-- store.epoch\nSELECT ", rows::epoch!());
