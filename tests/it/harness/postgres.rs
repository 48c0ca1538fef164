//! Reads the database without the program.

use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A row's values as text; `None` for null.
pub(crate) type Row = Vec<Option<String>>;

/// A connection, reopened after it broke: a test may restart Postgres.
#[derive(Debug)]
pub(crate) struct Psql {
    url: String,
    client: Mutex<Client>,
}

impl Psql {
    pub(crate) async fn connect(url: &str) -> Self {
        Self { url: url.to_owned(), client: Mutex::new(connect(url).await) }
    }

    /// As [`Psql::connect`], for a server that may refuse.
    pub(crate) async fn try_connect(url: &str) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { url: url.to_owned(), client: Mutex::new(try_connect(url).await?) })
    }

    /// Runs statements and returns the rows of all of them.
    pub(crate) async fn run(&self, sql: &str) -> Vec<Row> {
        let mut client = self.client.lock().await;
        if client.is_closed() {
            *client = connect(&self.url).await;
        }
        let messages =
            client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
                }
                _ => None,
            })
            .collect()
    }
}

async fn connect(url: &str) -> Client {
    try_connect(url).await.expect("Postgres takes connections")
}

async fn try_connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
