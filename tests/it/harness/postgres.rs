//! A look into the database, past the program.

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A row's values as text; null is `None`.
pub(crate) type Row = Vec<Option<String>>;

#[derive(Debug)]
pub(crate) struct Psql(Client);

impl Psql {
    pub(crate) async fn connect(url: &str) -> Self {
        let (client, connection) =
            tokio_postgres::connect(url, NoTls).await.expect("Postgres takes connections");
        tokio::spawn(connection);
        Self(client)
    }

    /// Runs statements and gives the rows of all of them.
    pub(crate) async fn run(&self, sql: &str) -> Vec<Row> {
        let messages =
            self.0.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
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
