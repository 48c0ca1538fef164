//! Migrations: forward only, embedded, one replica at a time.

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use tokio_postgres::{Client, Row};

use super::{StoreError, connect::connect, requirements};
use crate::{config::DatabaseConfig, error::chain};

mod embedded {
    refinery::embed_migrations!("sql");
}

/// The advisory lock that migrations run under: "beseda" in ASCII. Refinery itself takes none, and
/// two replicas that migrate at once would race.
const LOCK: i64 = 0x6265_7365_6461;

/// The schema that comes with this program.
fn latest_version() -> i32 {
    let migrations = embedded::migrations::runner();
    migrations.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0)
}

/// Where a database's schema stands beside this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Older(i32),
    Own,
    /// A newer release has migrated, and left what this program needs.
    Newer(i32),
    /// A newer release has taken away what programs need that do not know schema `oldest`.
    TooNew {
        version: i32,
        oldest: i32,
    },
}

impl Standing {
    /// As [`APPLIED_VERSION`] gives it.
    pub(super) fn of(applied: Result<Vec<Row>, StoreError>) -> Result<Self, StoreError> {
        let applied = match applied {
            Err(error) if error.is_undefined_table() => Vec::new(),
            applied => applied?,
        };
        let (version, oldest): (i32, Option<i32>) =
            applied.first().map_or((0, None), |row| (row.get(0), row.get(1)));
        let latest = latest_version();
        Ok(match (version.cmp(&latest), oldest.unwrap_or(i32::MAX)) {
            (Ordering::Less, _) => Self::Older(version),
            (Ordering::Equal, _) => Self::Own,
            (Ordering::Greater, oldest) if oldest <= latest => Self::Newer(version),
            (Ordering::Greater, oldest) => Self::TooNew { version, oldest },
        })
    }

    /// Whether this program can run on it.
    pub(super) fn check(self) -> Result<(), StoreError> {
        let latest = latest_version();
        match self {
            Self::Own | Self::Newer(_) => Ok(()),
            Self::Older(version) => Err(StoreError::Schema(format!(
                "the database has schema {version}, this program needs {latest}: run `beseda \
                 migrate`"
            ))),
            Self::TooNew { version, oldest } => Err(StoreError::Schema(format!(
                "the database has schema {version}, which takes a program that knows schema {oldest}: \
                 this one knows {latest} and is too old"
            ))),
        }
    }
}

/// How long a migration waits for a table's lock: behind it, all that want the table wait too.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";
/// Pause before it is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(3);
/// How often: a backup may take minutes, but whoever waits wants to know why.
const LOCK_TRIES: u32 = 60;

/// Applies what is missing and returns the names of what was applied. Safe to run at any time, by
/// any number of processes. Where somebody holds a table, a backup say, it lets others go before and
/// tries again, for 5 minutes. A newer schema that this program can run on stays as it is.
pub async fn migrate(config: &DatabaseConfig) -> Result<Vec<String>, StoreError> {
    let mut client = connect(config).await?;
    requirements::judge(&client.query_typed(requirements::FACTS, &[]).await?)?;
    // Goes with the connection.
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    client.batch_execute(LOCK_TIMEOUT).await?;
    let mut tries = 1;
    loop {
        match apply_missing(&mut client).await {
            Err(error @ StoreError::Locked(_)) if tries < LOCK_TRIES => {
                let error = chain(&error);
                tracing::warn!(error, tries, "somebody holds a table; migrations are tried again");
                tries += 1;
                tokio::time::sleep(LOCK_PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
            }
            outcome => return outcome,
        }
    }
}

async fn apply_missing(client: &mut Client) -> Result<Vec<String>, StoreError> {
    match standing(client).await? {
        // Where all are there, it is seen whether they are the same.
        Standing::Older(_) | Standing::Own => {}
        newer @ Standing::TooNew { .. } => newer.check()?,
        Standing::Newer(version) => {
            tracing::info!(version, "a newer release has migrated, and left what this one needs");
            return Ok(Vec::new());
        }
    }
    let report = embedded::migrations::runner().set_grouped(true).run_async(client).await?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

async fn standing(client: &Client) -> Result<Standing, StoreError> {
    Standing::of(client.query_typed(APPLIED_VERSION, &[]).await.map_err(StoreError::from))
}

/// What is amiss with the database and its migrations, a line each; nothing where it has those that are
/// here, as they are here, and no others but such as this program can live with. Changes nothing.
pub async fn check_migrations(config: &DatabaseConfig) -> Result<Vec<String>, StoreError> {
    let client = connect(config).await?;
    let mut amiss = Vec::new();
    match requirements::judge(&client.query_typed(requirements::FACTS, &[]).await?) {
        Err(StoreError::Schema(unfit)) => amiss.push(format!("unfit: {unfit}")),
        judged => judged?,
    }
    let applied = client.query_typed(APPLIED, &[]).await.map_err(StoreError::from);
    let mut applied: BTreeMap<i32, (String, Option<String>)> = match applied {
        Ok(rows) => rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect(),
        Err(error) if error.is_undefined_table() => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    let migrations = embedded::migrations::runner();
    for one in migrations.get_migrations() {
        match applied.remove(&one.version()) {
            None => amiss.push(format!("missing: {one}")),
            Some((_, checksum)) if checksum == Some(one.checksum().to_string()) => {}
            // The checksum is of the name, the number and the text. `migrate` refuses to go on then.
            Some(_) => {
                amiss.push(format!("different: {one} was applied with another name or text"));
            }
        }
    }
    if let Standing::TooNew { oldest, .. } = standing(&client).await? {
        let newer = applied.iter().map(|(version, (name, _))| {
            format!(
                "unknown: V{version}__{name} was applied by a newer release; on it only programs run \
                 that know schema {oldest}"
            )
        });
        amiss.extend(newer);
    }
    Ok(amiss)
}

/// By way of JSON, as older schemas have no such column.
pub(super) const APPLIED_VERSION: &str = "\
-- store.applied_version
SELECT coalesce(max(version), 0),
       (SELECT (to_jsonb(i) ->> 'compatible_from')::int FROM instance i)
  FROM refinery_schema_history";

const APPLIED: &str = "\
-- store.applied_migrations
SELECT version, name, checksum FROM refinery_schema_history";
