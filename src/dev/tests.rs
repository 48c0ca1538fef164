//! Tests with real child processes.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};
use tokio_postgres::NoTls;

use super::{DevError, Durability, Postgres, Redis};

/// Runs one statement and returns its first column of its first row.
async fn ask(url: &str, statement: &str) -> Result<String, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client.query_one(statement, &[]).await?.get(0))
}

async fn command(redis: &Redis, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn postgres_keeps_what_was_committed_over_a_crash_and_a_restart() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let postgres = Postgres::start(folder.path(), Durability::Full).await.unwrap();
    postgres.create_database("it's \"odd\"").await.unwrap();
    postgres.create_database("one").await.unwrap();
    let (url, pid) = (postgres.url("one"), postgres.pid());
    ask(&url, "SELECT lower('Ж')").await.map(|lower| assert_eq!(lower, "ж")).unwrap();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE t AS SELECT 'kept' AS v").await.unwrap();

    postgres.kill();
    assert_eq!(postgres.pid(), None);
    assert!(ask(&url, "SELECT v FROM t").await.is_err());
    postgres.restart().await.unwrap();
    assert_eq!(ask(&url, "SELECT v FROM t").await.unwrap(), "kept");
    assert_ne!(postgres.pid(), pid);

    let again = Postgres::start(folder.path(), Durability::Full).await;
    assert!(matches!(again, Err(DevError::InUse(_))), "{again:?}");
    let cluster = postgres.cluster().to_owned();
    // A copied folder has its own lock, but if the database lies elsewhere, both folders share it.
    let copy = tempfile::tempdir_in("/var/tmp").unwrap();
    std::os::unix::fs::symlink(&cluster, copy.path().join("cluster")).unwrap();
    let copied = Postgres::start(copy.path(), Durability::Full).await;
    assert!(matches!(&copied, Err(DevError::InUse(path)) if *path == cluster), "{copied:?}");
    assert_eq!(ask(&url, "SELECT v FROM t").await.unwrap(), "kept");
    drop(postgres);
    let postgres = Postgres::start(folder.path(), Durability::Full).await.unwrap();
    assert_eq!(ask(&postgres.url("one"), "SELECT v FROM t").await.unwrap(), "kept");
    postgres.stop().await;
    // If this runs as root, whom Postgres refuses, the cluster lies outside of the folder.
    std::fs::remove_dir_all(cluster).unwrap();
}

#[tokio::test]
async fn a_temporary_postgres_leaves_nothing() {
    let postgres = Postgres::temporary().await.unwrap();
    let cluster = postgres.cluster().to_owned();
    assert_eq!(ask(&postgres.url("postgres"), "SHOW fsync").await.unwrap(), "off");
    assert!(cluster.exists());
    drop(postgres);
    assert!(!cluster.exists());
}

#[tokio::test]
async fn redis_can_be_frozen_killed_and_restarted() {
    let redis = Redis::temporary().await.unwrap();
    assert_eq!(command(&redis, "SET k v").await, "+OK\r\n");
    redis.pause().unwrap();
    let late = timeout(Duration::from_millis(200), command(&redis, "GET k")).await;
    assert!(late.is_err());
    redis.resume().unwrap();
    assert_eq!(command(&redis, "GET k").await, "$1\r\nv\r\n");

    let port = redis.port();
    redis.kill();
    assert!(matches!(redis.pause(), Err(DevError::NotRunning(_))));
    redis.restart().await.unwrap();
    assert_eq!(redis.port(), port);
    assert_eq!(command(&redis, "GET k").await, "$-1\r\n");
    redis.pause().unwrap();
    redis.stop().await;
    assert_eq!(redis.pid(), None);
}
