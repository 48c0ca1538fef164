//! Settings of Postgres.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{ConfigError, Secret, Switch};

/// The settings of Postgres, which every command that uses the database takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Postgres")]
pub struct DatabaseConfig {
    /// Address of Postgres: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. With
    /// `?sslmode=verify-full` the connection uses TLS. Of several hosts, comma-separated, the one that
    /// accepts writes is used. `?options=-c%20search_path%3Dchat` puts all tables into the schema
    /// `chat`, for every command.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// Addresses of standbys (streaming replication), divided by spaces or lines, each written like
    /// `DATABASE_URL`. Histories, searches and exports are read there, in turn, from one that has all that
    /// the primary has.
    #[arg(long, env = "DATABASE_REPLICA_URLS", hide_env_values = true)]
    pub database_replica_urls: Option<StandbyUrls>,

    /// PEM file with the authorities that may have signed Postgres's certificate. Without it, the
    /// system's authorities apply.
    #[arg(long, env = "BESEDA_DATABASE_CA")]
    pub database_ca: Option<PathBuf>,

    /// Maximum number of connections to Postgres per replica: its writers, twice its readers, one for
    /// mutations (edits, deletions, read markers), two for searches, and two or more for everything
    /// else.
    #[arg(long, env = "BESEDA_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: usize,

    /// Connections that write new messages, each one batch at a time. Fewer make larger batches, which
    /// cost less; more hide the latency of a distant Postgres.
    #[arg(long, env = "BESEDA_DATABASE_WRITERS", default_value_t = 1)]
    pub database_writers: usize,

    /// Connections that all short reads share, and as many again that lists of chats share. Fewer cost
    /// Postgres and the service less; more use more of Postgres's cores.
    #[arg(long, env = "BESEDA_DATABASE_READERS", default_value_t = 2)]
    pub database_readers: usize,

    /// Time limit of one statement, and of a request's wait for a connection or a lock.
    #[arg(long, env = "BESEDA_DATABASE_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub database_timeout: Duration,

    /// How long `serve` and `migrate` wait at their start for a Postgres that does not answer. Each
    /// attempt logs its cause.
    #[arg(long, env = "BESEDA_DATABASE_WAIT", default_value = "1m", value_parser = humantime::parse_duration)]
    pub database_wait: Duration,

    /// Use named prepared statements, and set time-outs as start-up options. Set `off` behind PgBouncer
    /// in transaction mode, whatever its version.
    #[arg(long, env = "BESEDA_DATABASE_PREPARED", value_enum, default_value = "on")]
    pub database_prepared: Switch,
}

/// Addresses of standbys.
#[derive(Debug, Clone)]
pub struct StandbyUrls(Secret);

impl StandbyUrls {
    /// Returns each address.
    pub fn split(&self) -> impl Iterator<Item = Secret> {
        self.0.expose().split_whitespace().map(|url| Secret::from(url.to_owned()))
    }
}

impl From<String> for StandbyUrls {
    fn from(urls: String) -> Self {
        Self(urls.into())
    }
}

impl DatabaseConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let Self { database_connections, database_writers, database_readers, .. } = *self;
        if database_writers < 1 {
            return Err(ConfigError::new("BESEDA_DATABASE_WRITERS", "must be at least 1"));
        }
        if database_readers < 1 {
            return Err(ConfigError::new("BESEDA_DATABASE_READERS", "must be at least 1"));
        }
        if database_connections
            < database_writers.saturating_add(database_readers.saturating_mul(2)).saturating_add(5)
        {
            return Err(ConfigError::new(
                "BESEDA_DATABASE_CONNECTIONS",
                "must leave at least 5 beside the writers and twice the readers",
            ));
        }
        Ok(())
    }
}
