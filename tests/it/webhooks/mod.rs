//! Events that are sent to the host application's server, here a real one.

mod addresses;
mod attempts;
mod events;
pub(crate) mod receiver;

use std::process::Output;

use tokio::process::Command;

use crate::harness::{Cluster, eventually};

/// Nothing waits to be sent any more.
pub(crate) async fn all_is_decided(cluster: &Cluster) {
    eventually(async || match cluster.psql("SELECT * FROM webhooks WHERE dead_at IS NULL").await {
        rows if rows.is_empty() => Ok(()),
        rows => Err(format!("{rows:?}")),
    })
    .await;
}

/// The real program, as an operator runs it.
pub(crate) async fn admin(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
    command.args(["admin", "webhooks"]).args(words);
    command.env_clear().env("DATABASE_URL", cluster.database_url());
    command.output().await.expect("the program runs")
}

pub(crate) fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
