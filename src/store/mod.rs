//! Storage in Postgres, the source of truth. Each method is one atomic unit: a statement, a snapshot, or a
//! function that locks. The SQL stands beside the code that binds it.

mod annotations;
mod attachment_removals;
mod attachment_scans;
mod attachment_uploads;
mod attachments;
mod bans;
mod changes;
mod chats;
mod connect;
mod devices;
mod erasure;
mod error;
mod export;
mod group_webhooks;
mod groups;
mod history;
mod in_flight;
mod inbox;
mod invites;
mod member_state;
mod members;
mod membership;
mod messages;
mod migrate;
mod mutations;
mod outbox;
mod push;
mod push_admin;
mod refusals;
mod reports;
mod requirements;
mod row;
mod rows;
mod search;
mod shared_connections;
mod standbys;
mod states;
mod sync;
mod trace;
mod users;
mod usual_send;
mod verify;
mod webhooks;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio_postgres::types::{ToSql, Type};

pub use self::{
    annotations::{
        Annotated, AnnotatedBatch, Annotation, AnnotationKind, AnnotationOutcome, UserReaction,
    },
    attachment_removals::AttachmentBacklog,
    attachment_scans::DueScan,
    attachments::{
        AnnouncedAttachment, AttachmentState, Finding as AttachmentFinding, StoredAttachment,
    },
    changes::Changes,
    chats::{Actor, Deleted, Opened, Reader, TypingRule},
    connect::patiently,
    devices::{DeviceDraft, PushAddress, PushKeys, Registered},
    error::StoreError,
    group_webhooks::{Fanout, Recipients, Step},
    groups::{Changed, GroupLimits, NewGroup},
    history::{History, Page},
    inbox::{ChatCursor, ChatFilter, InboxChat, InboxPage, StoredChat},
    member_state::{ChatState, GroupHead, MemberState},
    members::{MemberCursor, MemberFilter, MemberList},
    membership::Removed,
    messages::{Draft, SendOutcome, SentBatch},
    migrate::{check_migrations, migrate},
    mutations::{Mutated, MutatedBatch, Mutation, MutationKind, MutationOutcome, MutationResult},
    outbox::{Noted, Unpublished},
    push::{PushBacklog, PushLane, PushMark, PushNews, PushOutcome, PushWork, Walked},
    push_admin::{DeadPush, DeadPushFate, FoundDevice, dead_pushes, end_dead_pushes, find_devices},
    search::{MessageCursor, Searchable, Text},
    states::InboxHead,
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
    row::{Row, rows_of},
    shared_connections::SharedConnections,
    standbys::{Size, Standbys},
};
use crate::{
    config::{DatabaseConfig, Switch},
    metrics::Metrics,
    model::Epoch,
};

/// Additional settings of the connections for group commit: a chat that another transaction has locked must
/// not delay the batch's other chats for long. Where start-up options are not possible, `send_messages`
/// sets this, and how statements are planned, by itself.
const WRITER_SETTINGS: &str = "-c lock_timeout=500ms";

/// Connections that write mutations, in addition to those that write new messages.
pub const MUTATION_WRITERS: usize = 1;

/// Connections for searches. A search reads more than any other call, so it must not delay other reads,
/// and few searches may load Postgres at once.
pub const SEARCHERS: usize = 2;

/// Read connections that a replica opens before it serves. A few suffice: successive requests reuse them.
const WARM_READS: usize = 3;

/// How much longer than the statement time-out the client waits before it gives up the connection, because
/// the server's own error says more and keeps the connection usable.
const CLIENT_GRACE: Duration = Duration::from_secs(1);

/// A value and its type. With the type given, even an unnamed statement needs one round trip only.
type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A replica's access to the database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    reads: Pool,
    /// One connection for each batch writer: those of new messages, and [`MUTATION_WRITERS`]. Nothing else
    /// uses them, so that reads cannot starve writes.
    writes: Pool,
    /// See [`SEARCHERS`].
    searches: Pool,
    /// For short reads.
    shared: Arc<SharedConnections>,
    /// For lists of chats, which take longer the more chats a user has, and would delay short reads.
    lists: Arc<SharedConnections>,
    /// For reads that are worth a question to the primary; `None`: there are none.
    standbys: Option<Arc<Standbys>>,
    prepared: bool,
    timeout: Duration,
    /// How long a message's webhook event waits before it is due. `None`: there are no webhooks, and no
    /// events are written.
    webhook_delay: Option<Duration>,
    /// How long a message stays unread before devices are told of it. `None`: there is no push, and nothing is
    /// noted for it.
    push_delay: Option<Duration>,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Opens no connection yet, because a replica also starts while Postgres is unavailable.
    pub fn new(config: &DatabaseConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let (writers, readers) = (config.database_writers.max(1), config.database_readers.max(1));
        let writers = writers + MUTATION_WRITERS;
        let prepared = config.database_prepared == Switch::On;
        // Without prepared statements no connections are shared.
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
            standbys: Standbys::new(config)?.map(Arc::new),
            prepared,
            timeout: config.database_timeout,
            webhook_delay: None,
            push_delay: None,
            metrics,
        })
    }

    /// Writes webhook events from now on if `delay` is given: how long a message's event waits before it is
    /// due.
    pub fn with_webhooks(self, delay: Option<Duration>) -> Self {
        Self { webhook_delay: delay, ..self }
    }

    /// Notes for push what has changed from now on if `delay` is given: how long a message stays unread before
    /// devices are told of it.
    pub fn with_push(self, delay: Option<Duration>) -> Self {
        Self { push_delay: delay, ..self }
    }

    /// Checks that the database meets the schema's requirements.
    pub async fn check_database(&self) -> Result<(), StoreError> {
        requirements::judge(&self.read(requirements::FACTS, &[]).await?)
    }

    /// Checks that Postgres answers and has a schema that this program can run on.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        // A shared connection does not queue behind long reads: a replica that cannot list chats may
        // still accept sends.
        Standing::of(self.read(migrate::APPLIED, &[]).await)?.check()
    }

    /// Returns the installation's secret, which keys tickets, derived message ids and content digests.
    pub async fn get_instance_secret(&self) -> Result<Vec<u8>, StoreError> {
        Ok(self.query_one(INSTANCE_SECRET, &[]).await?.get("secret"))
    }

    /// Returns the present epoch.
    pub async fn get_epoch(&self) -> Result<Epoch, StoreError> {
        Ok(rows::epoch_of(&self.query_one(EPOCH, &[]).await?))
    }

    /// Opens the connections of the writers and some others, so that the first requests need not wait for
    /// that. Connections that cannot be opened now are opened when they are needed.
    pub async fn warm_up(&self) {
        // More than the pool may hold would wait for the time-out.
        let reads = WARM_READS.min(self.reads.status().max_size);
        let wanted = [(&self.writes, self.writers() + MUTATION_WRITERS), (&self.reads, reads)];
        let opening = wanted.map(|(pool, count)| join_all((0..count).map(|_| pool.get())));
        // Concurrently, because one that is returned to the pool would be handed out again.
        let shared = [&self.shared, &self.lists]
            .into_iter()
            .flat_map(|shared| (0..shared.size()).map(|_| shared.get()));
        tokio::join!(join_all(opening), join_all(shared));
    }

    /// Returns how many batches of new messages can be written at once.
    pub fn writers(&self) -> usize {
        self.writes.status().max_size - MUTATION_WRITERS
    }

    /// Returns how many connections of the pools are in use, and how many are open. Shared connections are
    /// not counted, as no caller has one to itself.
    pub fn pool_usage(&self) -> (usize, usize) {
        let pools = [&self.reads, &self.writes, &self.searches].map(Pool::status);
        let size = pools.iter().map(|pool| pool.size).sum::<usize>();
        let available = pools.iter().map(|pool| pool.available).sum();
        (size.saturating_sub(available), size)
    }

    async fn query(&self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.run(&self.reads, sql, params).await
    }

    /// Runs a short read on one of the [`SharedConnections`].
    async fn read(&self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.share(&self.shared, sql, params).await
    }

    /// Runs a read of a page, on a standby where there is one.
    async fn read_page(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        match self.ask_standby(Size::Short, sql, params).await {
            Some(rows) => Ok(rows),
            None => self.read(sql, params).await,
        }
    }

    /// Runs a part of a search, on a standby where there is one.
    async fn search(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        match self.ask_standby(Size::Long, sql, params).await {
            Some(rows) => Ok(rows),
            None => self.run(&self.searches, sql, params).await,
        }
    }

    /// Runs a part of an export, on a standby where there is one.
    async fn export(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        match self.ask_standby(Size::Long, sql, params).await {
            Some(rows) => Ok(rows),
            None => self.query(sql, params).await,
        }
    }

    /// Runs a list of chats on a shared connection.
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
            // A pooler may refuse a statement before it has answered the previous one.
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

    /// Observes the wait for a connection, also where it ended in vain, since that shows an exhausted pool.
    fn waited(&self, started: Instant) {
        self.metrics.pool_wait.observe(started.elapsed().as_secs_f64());
    }

    /// Runs a statement on a connection that was requested at `started`. A connection that is stuck, or
    /// leads to a standby, is taken out of use.
    async fn ask(
        &self,
        held: Held,
        sql: &'static str,
        params: &[Param<'_>],
        started: Instant,
    ) -> Result<Vec<Row>, StoreError> {
        let limit = self.timeout + CLIENT_GRACE;
        // A pooler may refuse the empty statement that tells when this one has ended.
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
                return Ok(rows_of(rows?));
            }
            Err(_) => StoreError::no_answer(limit),
        };
        in_flight.give_up().await;
        Err(failed)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} returned no row")]
struct MissingRow(&'static str);

/// Returns a statement's name in logs and metrics, which its first line gives as `-- store.lock_chats`.
fn statement_name(sql: &'static str) -> &'static str {
    sql.lines().next().and_then(|line| line.strip_prefix("-- ")).unwrap_or("unnamed")
}

const INSTANCE_SECRET: &str = "\
-- store.instance_secret
SELECT secret FROM instance";

const EPOCH: &str = concat!("-- store.epoch\nSELECT ", rows::epoch!());
