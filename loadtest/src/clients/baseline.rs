//! Baselines: the same machine without the service, measured in the same run.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};
use tokio_postgres::{Client, NoTls, Statement};

use crate::{
    clients::send::{open_loop, pace},
    context::{Context, Metric, Plan},
    error::Error,
    report::{Phase, limits::Limits},
    target::{Stores, Target},
};

/// Clients of pgbench and of the pair: the size of a usual connection pool.
const CLIENTS: usize = 32;

/// A table with the minimum of columns.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS bare (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)";

pub(crate) fn stores(target: &Target) -> Result<&Stores, Error> {
    target.stores.as_ref().ok_or(Error::Usage("--baseline is for `loadtest local`"))
}

async fn connect(stores: &Stores) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(&stores.baseline_url, NoTls).await?;
    // The task ends with the client, which reports a broken connection.
    tokio::spawn(connection);
    Ok(client)
}

/// Measures pgbench's single-row commits a second; `None` if it is not installed.
pub(crate) async fn pgbench(
    stores: &Stores,
    bytes: u16,
    span: Duration,
) -> Result<Option<f64>, Error> {
    connect(stores).await?.batch_execute(TABLE).await?;
    let failed = |error| Error::Io("pgbench could not be run", error);
    let script = tempfile::NamedTempFile::new().map_err(failed)?;
    let insert = format!("INSERT INTO bare (text) VALUES (repeat('x', {bytes}));\n");
    std::fs::write(script.path(), insert).map_err(failed)?;
    let clients = CLIENTS.to_string();
    let output = Command::new("pgbench")
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--client", &clients])
        .args(["--time", &span.as_secs().max(1).to_string(), "--file"])
        .args([script.path().as_os_str(), stores.baseline_url.as_ref()])
        .kill_on_drop(true)
        .output()
        .await;
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    Ok(transactions(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses "tps = 4821.337 (without initial connection time)".
fn transactions(output: &str) -> Option<f64> {
    let line = output.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A row and a publication: the minimum cost of a durable, delivered message.
struct Pair {
    postgres: Client,
    insert: Statement,
    redis: BufReader<TcpStream>,
}

impl Pair {
    async fn open(stores: &Stores) -> Result<Self, Error> {
        let postgres = connect(stores).await?;
        let insert = postgres.prepare("INSERT INTO bare (text) VALUES ($1)").await?;
        let redis = TcpStream::connect((Ipv4Addr::LOCALHOST, stores.redis_port)).await;
        let redis = redis.and_then(|redis| redis.set_nodelay(true).map(|()| redis));
        let redis = redis.map_err(|error| Error::Io("Redis could not be reached", error))?;
        Ok(Self { postgres, insert, redis: BufReader::new(redis) })
    }

    async fn write(&mut self, text: &str) -> Result<(), Error> {
        self.postgres.execute(&self.insert, &[&text]).await?;
        let command = format!("PUBLISH bare {text}\r\n");
        let mut answer = String::new();
        let talk = async {
            self.redis.get_mut().write_all(command.as_bytes()).await?;
            self.redis.read_line(&mut answer).await
        };
        talk.await.map_err(|error| Error::Io("Redis did not answer", error))?;
        Ok(())
    }
}

/// Measures pairs at a fixed rate, each from its due time to the answer of Redis.
pub(crate) async fn pairs(
    context: &Context<'_>,
    stores: &Stores,
    rate: f64,
    bytes: u16,
    span: Duration,
) -> Result<Phase, Error> {
    connect(stores).await?.batch_execute(TABLE).await?;
    let mut pool = Vec::new();
    for _ in 0..CLIENTS {
        pool.push(Pair::open(stores).await?);
    }
    let pool = Arc::new(Mutex::new(pool));
    let text = Arc::new("x".repeat(bytes.into()));
    let plan = Plan {
        name: "bare INSERT and PUBLISH",
        unit: "pairs",
        counted: Metric::Answered,
        latencies: &[("both", Metric::Answered)],
        span: Some(span),
        limits: Limits::default(),
    };
    let work = open_loop(pace(rate, span), std::future::pending(), CLIENTS, |_, due: Instant| {
        let (pool, text, counters) =
            (Arc::clone(&pool), Arc::clone(&text), Arc::clone(&context.counters));
        let lock = move |pool: &Mutex<Vec<Pair>>| {
            pool.lock().unwrap_or_else(PoisonError::into_inner).pop()
        };
        async move {
            // There is a connection for each permit.
            let Some(mut pair) = lock(&pool) else { return };
            match pair.write(&text).await {
                Ok(()) => {
                    counters.answered.record(due.elapsed());
                    pool.lock().unwrap_or_else(PoisonError::into_inner).push(pair);
                }
                Err(error) => counters.note(&format!("a bare pair failed: {error}")),
            }
        }
    });
    let ((), phase) = context.measure(plan, work).await?;
    Ok(phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbench_says_its_rate() {
        let output = "latency average = 6.6 ms\ntps = 4821.337 (without initial connection time)\n";
        assert_eq!(transactions(output), Some(4821.337));
        assert_eq!(transactions("pgbench: error"), None);
    }
}
