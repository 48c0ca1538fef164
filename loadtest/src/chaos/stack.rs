//! The installation: Postgres and Redis, a pair of proxies per replica, the replicas.

use std::{net::Ipv4Addr, path::Path, path::PathBuf, time::Duration};

use beseda::{
    config::Secret,
    dev::{Durability, Postgres, Redis},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::{Client, NoTls};

use super::{
    proxy::{Flow, Proxy},
    push,
    replica::Replica,
};
use crate::{clients::push_service, error::Error, progress::say};

const DATABASE: &str = "chaos";

/// The largest group with receipts: low, so that groups without them need not be large.
pub(super) const RECEIPT_MEMBERS: usize = 6;

/// Time-out of this program's own commands to Redis.
const REDIS_CEILING: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Member {
    replica: Replica,
    to_redis: Proxy,
    to_postgres: Proxy,
}

/// All processes and proxies. The order of the fields is the order of their drop.
#[derive(Debug)]
pub(super) struct Stack {
    members: Vec<Member>,
    pub redis: Redis,
    pub postgres: Postgres,
    redis_dump: PathBuf,
    /// The folder that has the bytes of attachments.
    pub attachments: PathBuf,
}

impl Stack {
    /// Postgres is durable, as in production: its crash recovery is under test too.
    pub(super) async fn start(
        program: &Path,
        data: &Path,
        secret: &Secret,
        replicas: usize,
    ) -> Result<Self, Error> {
        say(&format!("starting Postgres, Redis and {replicas} replicas"));
        let (postgres_dir, redis_dir) = (data.join("postgres"), data.join("redis"));
        let (postgres, redis) = tokio::try_join!(
            Postgres::start(&postgres_dir, Durability::Full),
            Redis::start(&redis_dir, Durability::Full),
        )?;
        postgres.create_database(DATABASE).await?;
        let attachments = data.join("attachments");
        let mut members = Vec::new();
        for number in 0..replicas {
            let to_redis = Proxy::start(redis.port()).await?;
            let to_postgres = Proxy::start(postgres.port()).await?;
            let through = |url: String, port: u16, proxy: &Proxy| {
                url.replace(&format!(":{port}"), &format!(":{}", proxy.port()))
            };
            let mut settings = vec![
                ("DATABASE_URL", through(postgres.url(DATABASE), postgres.port(), &to_postgres)),
                ("REDIS_URL", through(redis.url(), redis.port(), &to_redis)),
                ("BESEDA_JWT_HS256_SECRET", secret.expose().to_owned()),
                ("BESEDA_ATTACHMENTS", format!("file://{}", attachments.display())),
                ("BESEDA_RECEIPT_MEMBERS", RECEIPT_MEMBERS.to_string()),
                // A user here has a dozen sockets, which all come back at once.
                ("BESEDA_RATE_CONNECTS", "50".to_owned()),
                ("BESEDA_RATE_ROOMS", "50".to_owned()),
            ];
            let push = push_service::SETTINGS.iter().chain(&push::SETTINGS);
            settings.extend(push.map(|(name, value)| (*name, (*value).to_owned())));
            let log = data.join(format!("replica-{number}.log"));
            let replica = Replica::new(number, program, settings, log)?;
            replica.start().await?;
            members.push(Member { replica, to_redis, to_postgres });
        }
        let redis_dump = redis_dir.join("dump.rdb");
        Ok(Self { members, redis_dump, redis, postgres, attachments })
    }

    pub(super) fn replica(&self, number: usize) -> &Replica {
        &self.members[number].replica
    }

    pub(super) fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.members.iter().map(|member| &member.replica)
    }

    /// Sets the mode of one replica's proxy to Redis, or of all.
    pub(super) fn redis_flow(&self, replica: Option<usize>, flow: Flow) {
        self.chosen(replica).for_each(|member| member.to_redis.set(flow));
    }

    pub(super) fn postgres_flow(&self, replica: Option<usize>, flow: Flow) {
        self.chosen(replica).for_each(|member| member.to_postgres.set(flow));
    }

    fn chosen(&self, replica: Option<usize>) -> impl Iterator<Item = &Member> {
        let all = self.members.iter().enumerate();
        all.filter(move |(n, _)| replica.is_none_or(|only| only == *n)).map(|(_, member)| member)
    }

    /// Removes the file that Redis's next start would load.
    pub(super) fn forget_redis_dump(&self) {
        // No file has been saved yet.
        let _ = std::fs::remove_file(&self.redis_dump);
    }

    /// Runs a command, whose arguments need no quoting, without the proxies.
    pub(super) async fn redis_command(&self, command: &str) -> std::io::Result<()> {
        let asking = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.redis.port())).await?;
            stream.write_all(format!("{command}\r\n").as_bytes()).await?;
            let mut answer = [0; 256];
            let count = stream.read(&mut answer).await?;
            let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
            if answer.starts_with('+') || answer.starts_with(':') {
                return Ok(());
            }
            Err(std::io::Error::other(format!("{command} was answered {answer:?}")))
        };
        tokio::time::timeout(REDIS_CEILING, asking).await?
    }

    /// Connects to Postgres without the proxies.
    pub(super) async fn database(&self) -> Result<Client, tokio_postgres::Error> {
        let url = format!("{}?application_name=loadtest", self.postgres.url(DATABASE));
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        // The task ends with the client, which reports a broken connection.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Terminates all sessions but this one.
    pub(super) async fn kick_backends(&self) -> Result<(), tokio_postgres::Error> {
        let kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE application_name = 'beseda'";
        self.database().await?.batch_execute(kick).await
    }

    /// Stops everything in order.
    pub(super) async fn stop(&self) {
        for replica in self.replicas() {
            replica.signal(nix::sys::signal::Signal::SIGTERM).await;
        }
        for replica in self.replicas() {
            replica.stop().await;
        }
        self.redis.stop().await;
        self.postgres.stop().await;
    }
}
