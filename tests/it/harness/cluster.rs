//! Replicas in this process, with their own database and Redis prefix.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use beseda::{
    app::{self, Listeners, Replica},
    config::{AttachmentConfig, AttachmentPlace, Config, DatabaseConfig, Secret, Switch},
    dev::Postgres,
    server,
    store::Store,
};
use clap::{CommandFactory, FromArgMatches, Parser, builder::Resettable};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, task::block_in_place};

use super::{
    CEILING, Client, SECRET, User, claims,
    client::{Addresses, Net},
    eventually, invariants,
    postgres::{Psql, Row},
    redis::Redis,
    sign,
    stack::{self, Stack},
};

/// Connections a replica opens: few, as many replicas share one Postgres.
const DATABASE_CONNECTIONS: usize = 10;

/// Replicas of one test. Dropping it ends them, and asserts the invariants unless the test has failed.
#[derive(Debug)]
pub(crate) struct Cluster {
    stack: Arc<Stack>,
    /// The database's server, if no longer that of the stack.
    moved: Option<Postgres>,
    database: String,
    config: Config,
    replicas: Vec<Option<Replica>>,
    /// The bytes of attachments.
    files: TempDir,
    net: Arc<Net>,
    psql: Psql,
    _permit: OwnedSemaphorePermit,
}

impl Cluster {
    pub(crate) async fn start(replicas: usize) -> Self {
        Self::with(replicas, |_| {}).await
    }

    /// Starts replicas with changed settings.
    pub(crate) async fn with(replicas: usize, set: impl FnOnce(&mut Config)) -> Self {
        Self::over(Stack::shared().await, replicas, set).await
    }

    /// Starts replicas with their own Postgres and Redis, which the test may stop, kill or freeze.
    pub(crate) async fn with_own_stack(replicas: usize, set: impl FnOnce(&mut Config)) -> Self {
        Self::over(Stack::own().await, replicas, set).await
    }

    async fn over(stack: Arc<Stack>, replicas: usize, set: impl FnOnce(&mut Config)) -> Self {
        let permit = stack::replica_permit(replicas).await;
        let database = format!("test_{:016x}", rand::random::<u64>());
        stack.postgres.create_database(&database).await.expect("a new database");
        let url = stack.postgres.url(&database);
        let mut config = config(&url, &stack.redis.url(), &format!("{database}:"));
        let files = tempfile::tempdir().expect("a folder");
        config.attachments.attachments = AttachmentPlace::Folder(files.path().to_owned());
        set(&mut config);
        let psql = Psql::connect(&url).await;
        let mut cluster = Self {
            stack,
            moved: None,
            database,
            config,
            replicas: Vec::new(),
            files,
            net: Arc::new(Net::new()),
            psql,
            _permit: permit,
        };
        // All at once, each of them ready to migrate: one does.
        let starting = (0..replicas).map(|_| launch(cluster.config.clone()));
        for (replica, addresses) in join_all(starting).await {
            cluster.replicas.push(Some(replica));
            cluster.net.add(addresses);
        }
        cluster
    }

    /// Starts another replica, and returns its index.
    pub(crate) async fn add_replica(&mut self) -> usize {
        self.add_replica_with(|_| {}).await
    }

    /// Starts another replica with changed settings, and returns its index.
    pub(crate) async fn add_replica_with(&mut self, set: impl FnOnce(&mut Config)) -> usize {
        let mut config = self.config.clone();
        set(&mut config);
        let (replica, addresses) = launch(config).await;
        self.replicas.push(Some(replica));
        self.net.add(addresses)
    }

    /// Returns the error, with all causes, with which a replica refuses such settings.
    pub(crate) async fn refusal(&self, set: impl FnOnce(&mut Config)) -> String {
        let mut config = self.config.clone();
        set(&mut config);
        let started = app::start(config, listeners()).await;
        let refusal = started.map(Replica::abort).expect_err("no replica starts");
        let first: &dyn std::error::Error = &refusal;
        let causes = std::iter::successors(Some(first), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    /// Drains a replica as SIGTERM does; returns when it has ended.
    pub(crate) fn drain(&mut self, replica: usize) -> impl Future<Output = ()> + Send + 'static {
        let replica = self.replicas[replica].take().expect("a replica that still runs");
        replica.drain()
    }

    /// Aborts a replica, like a crash.
    pub(crate) fn abort(&mut self, replica: usize) {
        self.replicas[replica].take().expect("a replica that still runs").abort();
    }

    /// Returns the numbers of chats and of sockets in a replica's hub.
    pub(crate) fn followed(&self, replica: usize) -> (usize, usize) {
        self.replicas[replica].as_ref().expect("a replica that still runs").followed()
    }

    /// Counts the sockets in the hubs of all running replicas.
    pub(super) fn followers(&self) -> usize {
        self.replicas.iter().flatten().map(|replica| replica.followed().1).sum()
    }

    /// Returns the folder of the attachments' bytes.
    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    /// Returns the Postgres and the Redis in use.
    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Returns the database's URL.
    pub(crate) fn database_url(&self) -> String {
        self.config.database.database_url.expose().to_owned()
    }

    pub(crate) fn database_config(&self) -> &DatabaseConfig {
        &self.config.database
    }

    pub(crate) fn attachment_config(&self) -> &AttachmentConfig {
        &self.config.attachments
    }

    /// The program's own way to its database.
    pub(crate) fn store(&self) -> Store {
        Store::new(&self.config.database, Arc::default()).expect("settings")
    }

    /// Returns the database's name.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// Makes the final checks use this server's database.
    pub(crate) async fn move_to(&mut self, postgres: Postgres) {
        let url = postgres.url(&self.database);
        self.psql = Psql::connect(&url).await;
        self.config.database.database_url = Secret::from(url);
        self.moved = Some(postgres);
    }

    /// Adds a replica that runs elsewhere, by its ports; returns its index. The cluster does not end it.
    pub(crate) fn add_foreign_replica(
        &mut self,
        public: SocketAddr,
        internal: SocketAddr,
    ) -> usize {
        self.replicas.push(None);
        self.net.add(Addresses { public, internal })
    }

    /// Returns a user with a token that is valid for an hour.
    pub(crate) fn user(&self, id: &str) -> User {
        self.user_claiming(&claims(id))
    }

    /// Returns a user whose token has these claims.
    pub(crate) fn user_claiming(&self, claims: &Value) -> User {
        let id = claims["sub"].as_str().unwrap_or_default();
        User::new(id, sign(claims), &self.net)
    }

    /// Returns the host application's server: scope `chat:admin`.
    pub(crate) fn host(&self) -> User {
        let mut claims = claims("host");
        claims["scope"] = "chat:admin".into();
        self.user_claiming(&claims)
    }

    /// Returns an anonymous client for a replica's public port.
    pub(crate) fn anyone(&self, replica: usize) -> Client {
        Client::anonymous(self.net.addresses(replica).public, &self.net)
    }

    /// Returns an operator's client for a replica's internal port.
    pub(crate) fn operator(&self, replica: usize) -> Client {
        Client::anonymous(self.net.addresses(replica).internal, &self.net)
    }

    /// How often a statement has run on a replica, as its metrics say.
    pub(crate) async fn statements(&self, replica: usize, name: &str) -> u64 {
        let metrics = self.operator(replica).request(Method::GET, "/metrics").await.text;
        let count = format!("beseda_store_query_seconds_count{{query=\"{name}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&count));
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// Runs SQL in the database.
    pub(crate) async fn psql(&self, sql: &str) -> Vec<Row> {
        self.psql.run(sql).await
    }

    /// Waits until a transaction waits for a lock.
    pub(crate) async fn until_one_waits(&self) {
        eventually(async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            match self.psql_value::<i64>(waiting).await {
                0 => Err("no lock is waited for".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// Returns the single value of a query.
    pub(crate) async fn psql_value<T: FromStr>(&self, sql: &str) -> T {
        let rows = self.psql(sql).await;
        let value = match rows.as_slice() {
            [row] => row.first().cloned().flatten(),
            _ => None,
        };
        let parsed = value.as_deref().and_then(|value| value.parse().ok());
        parsed.unwrap_or_else(|| panic!("{sql}: not one value, but {rows:?}"))
    }

    /// Returns the prefix of the keys and channels.
    pub(crate) fn redis_prefix(&self) -> &str {
        &self.config.redis_prefix
    }

    /// Connects to Redis, limited to the prefix.
    pub(crate) async fn redis(&self) -> Redis {
        Redis::connect(self.stack.redis.port(), &self.config.redis_prefix).await
    }

    /// Deletes all of the cluster's keys in Redis.
    pub(crate) async fn redis_flush(&self) {
        self.redis().await.flush().await;
    }

    /// Asserts the invariants, then ends the replicas. Called on drop.
    async fn teardown(&mut self) {
        invariants::check(self).await;
        let (database, stack) = (self.database.clone(), Arc::clone(&self.stack));
        let grace = self.config.shutdown_grace;
        let ending = self.replicas.iter_mut().filter_map(Option::take).map(Replica::drain);
        let ended = tokio::time::timeout(grace, join_all(ending)).await;
        assert!(ended.is_ok(), "a replica without sockets did not end within {grace:?}");
        let postgres = self.moved.as_ref().unwrap_or(&stack.postgres);
        postgres.drop_database(&database).await.expect("the database can be dropped");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.replicas.iter_mut().filter_map(Option::take).for_each(Replica::abort);
        } else {
            // Needs `#[tokio::test(flavor = "multi_thread")]`.
            block_in_place(|| Handle::current().block_on(self.teardown()));
        }
    }
}

/// Returns addresses with free ports.
fn listeners() -> Listeners {
    let listen = || server::listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    Listeners { public: listen(), internal: listen() }
}

/// Starts a replica and waits until it is connected to Redis: it starts without, and a test's first
/// publication would be late.
async fn launch(config: Config) -> (Replica, Addresses) {
    let replica = app::start(config, listeners()).await.expect("a replica starts");
    let addresses = Addresses { public: replica.public_addr(), internal: replica.internal_addr() };
    let operator = Client::anonymous(addresses.internal, &Arc::new(Net::new()));
    eventually(async || {
        let answer = operator.request(Method::GET, "/readyz").await;
        if answer.json["status"] == "ready" { Ok(()) } else { Err(answer.text) }
    })
    .await;
    (replica, addresses)
}

/// Returns the settings of tests, independent of the environment.
fn config(database_url: &str, redis_url: &str, prefix: &str) -> Config {
    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        config: Config,
    }
    let words = ["test", "--database-url", database_url, "--redis-url", redis_url];
    let secret = ["--redis-prefix", prefix, "--jwt-hs256-secret", SECRET];
    let command = Settings::command().mut_args(|arg| arg.env(Resettable::Reset));
    let matches = command.try_get_matches_from(words.into_iter().chain(secret));
    let settings = Settings::from_arg_matches(&matches.expect("settings")).expect("settings");
    let mut config = settings.config;
    config.database.database_connections = DATABASE_CONNECTIONS;
    config.limits.rate_limits = Switch::Off;
    config.migrate_on_start = Switch::On;
    // Where it is away in a test, that is what the test is about.
    config.database.database_wait = Duration::ZERO;
    config.drain_delay = Duration::ZERO;
    config.shutdown_grace = CEILING;
    config
}
