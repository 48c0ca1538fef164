//! Migrations: forward only, embedded, one replica at a time.

use std::{collections::BTreeMap, error::Error as _, sync::Arc, time::Duration};

use tokio_postgres::{NoTls, error::SqlState};

use super::{StoreError, is_undefined_table, parse_url, tls};
use crate::config::DatabaseConfig;

mod embedded {
    refinery::embed_migrations!("sql");
}

/// The advisory lock that migrations run under: "beseda" in ASCII. Refinery itself takes none, and
/// two replicas that migrate at once would race.
const LOCK: i64 = 0x6265_7365_6461;

/// The schema version this program needs.
pub(super) fn latest_version() -> i32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0)
}

/// How long a migration waits for a table's lock: behind it, all that want the table wait too.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";
/// Pause before it is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(3);
/// How often: a backup may take minutes, but whoever waits wants to know why.
const LOCK_TRIES: u32 = 60;

/// Applies what is missing and returns the names of what was applied. Safe to run at any time, by
/// any number of processes. Where somebody holds a table, a backup say, it lets others go before and
/// tries again, for 5 minutes.
pub async fn migrate(config: &DatabaseConfig) -> Result<Vec<String>, StoreError> {
    let mut client = connect(config).await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    client.batch_execute(LOCK_TIMEOUT).await?;
    let mut tries = 1;
    let report = loop {
        let run = embedded::migrations::runner().set_grouped(true).run_async(&mut client).await;
        match run {
            Err(error) if tries < LOCK_TRIES && is_locked(&error) => {
                tracing::warn!(%error, tries, "somebody holds a table; migrations are tried again");
                tries += 1;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            run => break run,
        }
    };
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    let report = report.map_err(|error| StoreError::Failed(Arc::new(error)))?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Whether a lock was waited for in vain.
fn is_locked(error: &refinery::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<tokio_postgres::Error>();
        cause.and_then(tokio_postgres::Error::code) == Some(&SqlState::LOCK_NOT_AVAILABLE)
    })
}

/// What is amiss with the database's migrations, a line each; nothing where it has those that are here, as
/// they are here, and no others. Changes nothing.
pub async fn check_migrations(config: &DatabaseConfig) -> Result<Vec<String>, StoreError> {
    let client = connect(config).await?;
    let mut applied: BTreeMap<i32, (String, Option<String>)> =
        match client.query(APPLIED, &[]).await.map_err(StoreError::from) {
            Ok(rows) => rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect(),
            Err(StoreError::Failed(cause)) if is_undefined_table(&cause) => BTreeMap::new(),
            Err(error) => return Err(error),
        };
    let migrations = embedded::migrations::runner();
    let mut amiss = Vec::new();
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
    let newer = applied.iter().map(|(version, (name, _))| {
        format!("unknown: V{version}__{name} was applied, by a newer release than this")
    });
    amiss.extend(newer);
    Ok(amiss)
}

/// A connection of one's own, without the pool's limits on time.
pub(super) async fn connect(config: &DatabaseConfig) -> Result<tokio_postgres::Client, StoreError> {
    let postgres = parse_url(&config.database_url)?;
    if let Some(tls) = tls(config, &postgres)? {
        let (client, connection) = postgres.connect(tls).await?;
        tokio::spawn(connection);
        Ok(client)
    } else {
        let (client, connection) = postgres.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

const APPLIED: &str = "\
-- store.applied_migrations
SELECT version, name, checksum FROM refinery_schema_history";
