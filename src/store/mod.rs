//! Postgres, the truth. A method is one atomic unit: one statement, one snapshot, or one function
//! that locks. The SQL stands beside the code that binds it.

mod bans;
mod changes;
mod chats;
mod connect;
mod erasure;
mod error;
mod export;
mod groups;
mod history;
mod in_flight;
mod inbox;
mod invites;
mod members;
mod membership;
mod messages;
mod migrate;
mod mutations;
mod outbox;
mod refusals;
mod reports;
mod requirements;
mod rows;
mod shared_connections;
mod states;
mod sync;
mod trace;
mod users;
mod verify;
mod webhooks;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

pub use self::{
    changes::Changes,
    chats::{Actor, Deleted, Opened, Reader, TypingRule},
    connect::patiently,
    error::StoreError,
    groups::{Changed, GroupLimits, NewGroup},
    history::{History, Page},
    inbox::{ChatCursor, ChatFilter, InboxChat, InboxPage, StoredChat},
    members::{MemberCursor, MemberFilter, MemberList},
    membership::Removed,
    messages::{Draft, SendOutcome, SentBatch},
    migrate::{check_migrations, migrate},
    mutations::{Mutated, MutatedBatch, Mutation, MutationKind, MutationOutcome, MutationResult},
    outbox::{Noted, Unpublished},
    states::{ChatState, InboxHead, MemberState},
    sync::{Mark, OpenRound, SyncCursor, SyncList},
    trace::{Trail, trail},
    users::{Barred, Named, UserRow},
    verify::{Finding, Verified, verify},
    webhooks::{
        DeadLetter, Event, Lane, Notice, Settled, Waiting, WebhookBacklog, dead_letters,
        replay_dead_letters,
    },
};
use self::{
    connect::{Connector, Gate, Pool},
    error::is_by_standby,
    in_flight::{Held, InFlight},
    migrate::Standing,
    shared_connections::SharedConnections,
};
use crate::{
    config::{DatabaseConfig, Switch},
    metrics::Metrics,
    model::Epoch,
};

/// What the connections of group commit are opened with besides. A chat that somebody else holds must
/// not keep a batch of others waiting for long. `send_messages` makes up for this and for how statements
/// are planned where there are no start-up options.
const WRITER_SETTINGS: &str = "-c lock_timeout=500ms";

/// Connections that write edits, deletions and read markers, beside those of new messages.
pub const MUTATION_WRITERS: usize = 1;

/// Connections for searches, which read more than all else: of their own, so that they hold up nobody, and
/// few, so that they leave Postgres to others.
pub const SEARCHERS: usize = 2;

/// Connections for all but writing that a replica opens before it serves: some, as one is shared by
/// those who come one after another.
const WARM_READS: usize = 3;

/// What a statement's time-out is given on top before the client gives the connection up: the
/// server's own answer is the better one.
const CLIENT_GRACE: Duration = Duration::from_secs(1);

/// A value and its type: with the type given, a statement needs one round trip also unnamed.
type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The database, as one replica sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    reads: Pool,
    /// For group commit alone, one a lane, so that reads can never starve writes: those of new
    /// messages, and [`MUTATION_WRITERS`].
    writes: Pool,
    /// [`SEARCHERS`].
    searches: Pool,
    /// For short reads; see there.
    shared: Arc<SharedConnections>,
    /// The same for lists of chats, which take longer the more chats somebody has.
    lists: Arc<SharedConnections>,
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
        let writers = writers + MUTATION_WRITERS;
        let prepared = config.database_prepared == Switch::On;
        // Without prepared statements none are shared.
        let others = SEARCHERS + if prepared { writers + 2 * readers } else { writers };
        let reads = config.database_connections.saturating_sub(others).max(1);
        let gate = Arc::new(Gate::default());
        let connector = |settings| Connector::new(config, settings, &gate);
        let shared = || {
            let shared = SharedConnections::new(connector("")?, readers, config.database_timeout);
            Ok::<_, StoreError>(Arc::new(shared))
        };
        Ok(Self {
            reads: connector("")?.pool(reads)?,
            writes: connector(WRITER_SETTINGS)?.pool(writers)?,
            searches: connector("")?.pool(SEARCHERS)?,
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

    /// Whether the database is one that the schema can lie in.
    pub async fn check_database(&self) -> Result<(), StoreError> {
        requirements::judge(&self.read(requirements::FACTS, &[]).await?)
    }

    /// Whether Postgres answers and has a schema that this program can run on.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        // Beside long reads, not behind them: a replica that can't list may still be sent to.
        Standing::of(self.read(migrate::APPLIED, &[]).await)?.check()
    }

    /// The installation's secret: it keys tickets, derived message ids and content digests.
    pub async fn get_instance_secret(&self) -> Result<Vec<u8>, StoreError> {
        Ok(self.query_one(INSTANCE_SECRET, &[]).await?.get("secret"))
    }

    /// Names the history that positions belong to.
    pub async fn get_epoch(&self) -> Result<Epoch, StoreError> {
        Ok(rows::epoch_of(&self.query_one(EPOCH, &[]).await?))
    }

    /// Opens the connections of the writers and some others, so that the first requests do not wait
    /// for that. What can't be had now is opened when it is needed.
    pub async fn warm_up(&self) {
        // No more than there can be: the next one would be waited for in vain.
        let reads = WARM_READS.min(self.reads.status().max_size);
        let wanted = [(&self.writes, self.writers() + MUTATION_WRITERS), (&self.reads, reads)];
        let opening = wanted.map(|(pool, count)| join_all((0..count).map(|_| pool.get())));
        // All at once: each that is given back would be given out again.
        let shared = [&self.shared, &self.lists]
            .into_iter()
            .flat_map(|shared| (0..shared.size()).map(|_| shared.get()));
        tokio::join!(join_all(opening), join_all(shared));
    }

    /// How many batches of new messages can be written at once.
    pub fn writers(&self) -> usize {
        self.writes.status().max_size - MUTATION_WRITERS
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

    /// For short reads, many at once on a connection: see [`SharedConnections`].
    async fn read(&self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.share(&self.shared, sql, params).await
    }

    /// The same for lists of chats.
    async fn list(&self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.share(&self.lists, sql, params).await
    }

    async fn share(
        &self,
        shared: &Arc<SharedConnections>,
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
            StoreError::from(error)
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
        let mut in_flight = InFlight::new(held, self.prepared.then_some(limit));
        self.waited(started);
        let Some(client) = in_flight.client() else { return Err(StoreError::Unavailable(None)) };
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
        let failed = match outcome {
            Ok(Err(error)) if error.code().is_some_and(is_by_standby) => error.into(),
            Ok(rows) => {
                in_flight.end();
                return Ok(rows?);
            }
            Err(_) => StoreError::no_answer(limit),
        };
        in_flight.give_up().await;
        Err(failed)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} gave no row")]
struct MissingRow(&'static str);

/// `-- store.lock_chats` on the first line names a statement in logs and metrics.
fn statement_name(sql: &'static str) -> &'static str {
    sql.lines().next().and_then(|line| line.strip_prefix("-- ")).unwrap_or("unnamed")
}

const INSTANCE_SECRET: &str = "\
-- store.instance_secret
SELECT secret FROM instance";

const EPOCH: &str = concat!("-- store.epoch\nSELECT ", rows::epoch!());
