//! Reads on standbys. They are as exact as those on the primary: a standby is asked only after it has replayed all
//! that the primary had when the read began. That holds for rights, too, and for whatever the caller has just done.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use deadpool_postgres::ClientWrapper;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::{PgLsn, Type};

use super::{
    Param, SEARCHERS, Store, StoreError,
    connect::{Connector, Gate},
    in_flight::Held,
    row::Row,
    rows::epoch,
    shared_connections::SharedConnections,
};
use crate::{config::DatabaseConfig, error::chain, metrics::StandbyRead};

/// How long a read waits until a standby has what the primary has. One without load is behind by a few milliseconds,
/// and a longer wait would be seen.
const PATIENCE: Duration = Duration::from_millis(50);

/// Pause between two looks at how far a standby is.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How long such a look may take, with opening a connection, and a short read.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// How long a standby is left alone that was behind, and one that failed, so that few reads wait for one in vain.
const REST: Duration = Duration::from_secs(1);
const LONG_REST: Duration = Duration::from_secs(10);

/// Connections for searches and exports to one standby.
const LONG_READS: usize = SEARCHERS + 2;

/// Where a history of the database stands.
#[derive(Debug, PartialEq, Eq)]
struct Position {
    /// Which database it is: a restored copy has another one.
    system: i64,
    /// The timeline is a part of it: places of two timelines can't be compared.
    epoch: String,
    /// The place in the log.
    lsn: PgLsn,
}

impl Position {
    fn reaches(&self, wanted: &Self) -> bool {
        self.system == wanted.system && self.epoch == wanted.epoch && self.lsn >= wanted.lsn
    }
}

/// The standbys that a replica may read from.
#[derive(Debug)]
pub(super) struct Standbys {
    all: Vec<Standby>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Standby {
    /// For short reads.
    short: Lines,
    /// For searches and exports, each of which may keep the next one waiting.
    long: Lines,
}

/// Connections to a standby.
#[derive(Debug)]
struct Lines {
    shared: Arc<SharedConnections>,
    rests_until: Mutex<Option<Instant>>,
}

/// Why a standby was not read from.
enum Unused {
    /// It has not replayed all in time.
    Behind,
    Failed(StoreError),
}

impl Standbys {
    /// Opens no connection yet. `None`: there are no standbys.
    pub(super) fn new(config: &DatabaseConfig) -> Result<Option<Self>, StoreError> {
        let standby = |config: DatabaseConfig| {
            // One that is away keeps nobody from another.
            let gate = Arc::new(Gate::default());
            let shared = |size| {
                let connector = Connector::to_standby(&config, &gate)?;
                let shared = SharedConnections::new(connector, size, config.database_timeout);
                Ok::<_, StoreError>(Lines {
                    shared: Arc::new(shared),
                    rests_until: Mutex::new(None),
                })
            };
            Ok::<_, StoreError>(Standby {
                short: shared(config.database_readers.max(1))?,
                long: shared(LONG_READS)?,
            })
        };
        let urls = config.database_replica_urls.iter().flat_map(|urls| urls.split());
        let all = urls
            .map(|database_url| standby(DatabaseConfig { database_url, ..config.clone() }))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((!all.is_empty()).then_some(Self { all, next: AtomicUsize::new(0) }))
    }

    /// Returns the next one's in turn that do not rest.
    fn next(&self, size: Size) -> Option<&Lines> {
        let first = self.next.fetch_add(1, Relaxed);
        let turns = (0..self.all.len()).map(|turn| &self.all[(first + turn) % self.all.len()]);
        let mut lines = turns.map(|standby| match size {
            Size::Short => &standby.short,
            Size::Long => &standby.long,
        });
        let now = Instant::now();
        lines.find(|lines| {
            let rests_until = lines.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
            rests_until.is_none_or(|until| until <= now)
        })
    }
}

impl Lines {
    fn rest(&self, pause: Duration) {
        let mut rests_until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        *rests_until = Some(Instant::now() + pause);
    }
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind => f.write_str("it is behind"),
            Self::Failed(error) => f.write_str(&chain(error)),
        }
    }
}

/// How much a read takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Short,
    Long,
}

impl Store {
    /// Runs a read on a standby that has all that the primary has now; `None`: the primary has to be asked itself.
    pub(super) async fn ask_standby(
        &self,
        size: Size,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Option<Vec<Row>> {
        // A pooler may lead each statement to another server.
        let standbys = self.standbys.as_ref().filter(|_| self.prepared)?;
        let count = |outcome| self.metrics.count_standby_read(outcome);
        let Some(lines) = standbys.next(size) else {
            count(StandbyRead::Resting);
            return None;
        };
        let wanted = match self.position().await {
            Ok(Some(wanted)) => wanted,
            // The primary has to say itself that it is away.
            Ok(None) | Err(_) => return None,
        };
        let shared = &lines.shared;
        let reading = async {
            let opening = timeout(LOOK_LIMIT, shared.get()).await;
            let client = opening
                .unwrap_or_else(|_| Err(StoreError::no_answer(LOOK_LIMIT)))
                .map_err(Unused::Failed)?;
            self.wait_for(shared, &client, &wanted).await?;
            let asking = self.ask_on(shared, &client, sql, params);
            let answer = match size {
                Size::Short => timeout(LOOK_LIMIT, asking)
                    .await
                    .unwrap_or_else(|_| Err(StoreError::no_answer(LOOK_LIMIT))),
                Size::Long => asking.await,
            };
            answer.map_err(Unused::Failed)
        };
        match reading.await {
            Ok(rows) => {
                count(StandbyRead::Read);
                Some(rows)
            }
            Err(why) => {
                let (pause, outcome) = match &why {
                    Unused::Behind => (REST, StandbyRead::Behind),
                    Unused::Failed(_) => (LONG_REST, StandbyRead::Failed),
                };
                lines.rest(pause);
                count(outcome);
                tracing::debug!(%why, "a standby was not read from");
                None
            }
        }
    }

    /// Where the primary stands: all that anybody was told of lies before. `None`: its standbys can't tell yet whether
    /// they are on its timeline.
    async fn position(&self) -> Result<Option<Position>, StoreError> {
        let row = self.read(POSITION, &[]).await?;
        let Some(row) = row.first() else { return Ok(None) };
        let position =
            Position { lsn: row.get("lsn"), system: row.get("system"), epoch: row.get("epoch") };
        if row.get::<Option<&str>>("seen_epoch") == Some(&*position.epoch) {
            return Ok(Some(position));
        }
        self.query(NOTE_EPOCH, &[(&position.epoch, Type::TEXT)]).await?;
        Ok(None)
    }

    /// Waits until the server at the other end has what is wanted. That holds for this connection only, as a URL may
    /// lead to several servers, and for the next statement: a server that crashed begins behind what it had.
    async fn wait_for(
        &self,
        shared: &Arc<SharedConnections>,
        client: &Arc<ClientWrapper>,
        wanted: &Position,
    ) -> Result<(), Unused> {
        let until = Instant::now() + PATIENCE;
        loop {
            let looking = timeout(LOOK_LIMIT, self.ask_on(shared, client, REPLAYED, &[])).await;
            let rows = looking
                .unwrap_or_else(|_| Err(StoreError::no_answer(LOOK_LIMIT)))
                .map_err(Unused::Failed)?;
            let place = rows.first().and_then(|row| {
                // None: it is no standby any more.
                let lsn = row.get::<Option<PgLsn>>("lsn")?;
                let system = row.get("system");
                Some(Position { lsn, system, epoch: row.get::<Option<_>>("seen_epoch")? })
            });
            if place.is_some_and(|place| place.reaches(wanted)) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Unused::Behind);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Runs a statement on this connection.
    async fn ask_on(
        &self,
        shared: &Arc<SharedConnections>,
        client: &Arc<ClientWrapper>,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let started = std::time::Instant::now();
        let place = shared.queue().await?;
        let (client, shared) = (Arc::clone(client), Arc::clone(shared));
        self.ask(Held::Queued { client, shared, place }, sql, params, started).await
    }
}

/// What is flushed: a commit is flushed before anybody is told of it, or sees it.
const POSITION: &str = concat!(
    "-- store.position
SELECT pg_current_wal_flush_lsn() AS lsn, (SELECT system_identifier FROM pg_control_system()) AS system,
       seen_epoch, ",
    epoch!(),
    " FROM instance"
);

/// A standby that has it has replayed a commit of this timeline. One of a former primary never has. It waits for no
/// standby: just after a failover there may be none.
const NOTE_EPOCH: &str = "\
-- store.note_epoch
UPDATE instance SET seen_epoch = $1
 WHERE seen_epoch IS DISTINCT FROM $1 AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off'";

/// The snapshot is older than the place, so that both have been replayed.
const REPLAYED: &str = "\
-- store.replayed
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END AS lsn,
       (SELECT system_identifier FROM pg_control_system()) AS system, seen_epoch
  FROM instance";
