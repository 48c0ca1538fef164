//! Migrations: forward only, embedded, one replica at a time.

use std::{collections::BTreeMap, time::Duration};

use refinery::Migration;
use tokio_postgres::Client;

use super::{
    StoreError,
    connect::connect,
    requirements,
    row::{Row, rows_of},
};
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
    migrations.get_migrations().iter().map(Migration::version).max().unwrap_or(0)
}

/// A database's schema, compared with this program's.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A migration of this number was applied, but with another name or text.
    Different {
        own: String,
    },
}

impl Standing {
    /// Judges the rows of [`APPLIED`].
    pub(super) fn of(applied: Result<Vec<Row>, StoreError>) -> Result<Self, StoreError> {
        let applied = match applied {
            Err(error) if error.is_undefined_table() => Vec::new(),
            applied => applied?,
        };
        let migrations = embedded::migrations::runner();
        let different = migrations.get_migrations().iter().find(|own| {
            let mut same_number = applied.iter().filter(|row| version(row) == own.version());
            same_number.any(|row| !is_applied(own, row))
        });
        if let Some(own) = different {
            return Ok(Self::Different { own: own.to_string() });
        }
        let (latest, version) = (latest_version(), applied.iter().map(version).max().unwrap_or(0));
        let oldest = applied.first().and_then(|row| row.get("compatible_from"));
        Ok(match oldest.unwrap_or(i32::MAX) {
            _ if version < latest => Self::Older(version),
            _ if version == latest => Self::Own,
            oldest if oldest <= latest => Self::Newer(version),
            oldest => Self::TooNew { version, oldest },
        })
    }

    /// Whether this program can run on it.
    pub(super) fn check(&self) -> Result<(), StoreError> {
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
            Self::Different { own } => Err(StoreError::Schema(format!(
                "{own} was applied to the database with another name or text, so its schema is not \
                 one of this program's: begin with a new database (`make clean-data` removes that of \
                 `make run`)"
            ))),
        }
    }
}

fn version(applied: &Row) -> i32 {
    applied.get("version")
}

/// Whether an applied migration is this one: the checksum covers its number, name and text.
fn is_applied(own: &Migration, applied: &Row) -> bool {
    applied.get::<Option<&str>>("checksum") == Some(&own.checksum().to_string())
}

/// How long a migration waits for a table's lock: meanwhile all other users of the table queue behind it.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";
/// Pause before a migration is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(3);
/// Maximum of attempts: a backup may take minutes, but an operator who waits wants to know the cause.
const LOCK_TRIES: u32 = 60;

/// Applies the missing migrations and returns their names. Safe to run at any time, by any number of
/// processes. While another session holds a table (a backup, for example), it lets others pass and tries
/// again, for 5 minutes. A newer schema that this program can run on stays as it is.
pub async fn migrate(config: &DatabaseConfig) -> Result<Vec<String>, StoreError> {
    let mut client = connect(config).await?;
    requirements::judge(&rows_of(client.query_typed(requirements::FACTS, &[]).await?))?;
    // Closing the connection releases the lock.
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
        Standing::Older(_) => {}
        Standing::Own => return Ok(Vec::new()),
        unfit @ (Standing::TooNew { .. } | Standing::Different { .. }) => unfit.check()?,
        Standing::Newer(version) => {
            tracing::info!(version, "a newer release has migrated, and left what this one needs");
            return Ok(Vec::new());
        }
    }
    let report = embedded::migrations::runner().set_grouped(true).run_async(client).await?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

async fn standing(client: &Client) -> Result<Standing, StoreError> {
    Standing::of(client.query_typed(APPLIED, &[]).await.map(rows_of).map_err(StoreError::from))
}

/// Lists the faults of the database and its migrations, a line each: none where the migrations are this
/// program's, and newer ones left what it needs. Changes nothing.
pub async fn check_migrations(config: &DatabaseConfig) -> Result<Vec<String>, StoreError> {
    let client = connect(config).await?;
    let mut amiss = Vec::new();
    match requirements::judge(&rows_of(client.query_typed(requirements::FACTS, &[]).await?)) {
        Err(StoreError::Schema(unfit)) => amiss.push(format!("unfit: {unfit}")),
        judged => judged?,
    }
    let applied =
        match client.query_typed(APPLIED, &[]).await.map(rows_of).map_err(StoreError::from) {
            Err(error) if error.is_undefined_table() => Vec::new(),
            applied => applied?,
        };
    let mut unknown: BTreeMap<i32, &Row> = applied.iter().map(|row| (version(row), row)).collect();
    let migrations = embedded::migrations::runner();
    let mut own: Vec<&Migration> = migrations.get_migrations().iter().collect();
    own.sort_unstable_by_key(|one| one.version());
    for one in own {
        match unknown.remove(&one.version()) {
            None => amiss.push(format!("missing: {one}")),
            Some(row) if is_applied(one, row) => {}
            // `migrate` refuses such a database.
            Some(_) => {
                amiss.push(format!("different: {one} was applied with another name or text"));
            }
        }
    }
    if let Standing::TooNew { oldest, .. } = standing(&client).await? {
        let newer = unknown.iter().map(|(version, row)| {
            let name: String = row.get("name");
            format!(
                "unknown: V{version}__{name} was applied by a newer release; on it only programs run \
                 that know schema {oldest}"
            )
        });
        amiss.extend(newer);
    }
    Ok(amiss)
}

/// Every applied migration, a dozen or so, beside the oldest schema whose program runs here: by way of JSON,
/// as a database from before the first release may not have the column.
pub(super) const APPLIED: &str = "\
-- store.applied_migrations
SELECT version, name, checksum,
       (SELECT (to_jsonb(i) ->> 'compatible_from')::int FROM instance i) AS compatible_from
  FROM refinery_schema_history";
