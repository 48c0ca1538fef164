//! Load tests for Beseda: opens rooms, sends, listens on another replica, and checks what arrived.
//!
//! A run measures, and it also judges: a message lost, doubled or out of order, or a counter that is
//! not right at the end, makes it end with 1.

mod chaos;
mod cpu;
mod error;
mod ledger;
mod listener;
mod load;
mod local;
mod report;
mod rest;
mod run;
mod sender;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use beseda::config::Secret;
use clap::{Args, Parser, Subcommand};

use self::{
    cpu::Process,
    error::Error,
    load::{Load, Target},
};

/// Load tests for Beseda, which also check that nothing is lost, doubled or out of order.
#[derive(Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send into rooms of a running installation, and await every message on another replica.
    Send(Send),
    /// The same against an installation of its own: real Postgres and Redis, replicas as processes.
    Local(local::Options),
    /// Break an installation of its own in every way, by a seeded schedule, while people use it; then
    /// prove that nothing was lost, doubled, reordered, miscounted or told to strangers.
    Chaos(chaos::Options),
}

#[derive(Args)]
struct Send {
    /// Where a replica, or their balancer, is reached: http://…; once for each.
    #[arg(long = "url", required = true)]
    urls: Vec<reqwest::Url>,

    /// The secret that the service checks HS256 tokens with.
    #[arg(
        long = "jwt-secret",
        env = "BESEDA_JWT_HS256_SECRET",
        hide_env_values = true,
        value_parser = |raw: &str| Ok::<_, std::convert::Infallible>(Secret::from(raw.to_owned()))
    )]
    secret: Secret,

    /// A process whose CPU time is measured, with its children: NAME=PID; a name may come again.
    #[arg(long = "pid", value_name = "NAME=PID")]
    processes: Vec<Process>,

    #[command(flatten)]
    load: Load,
}

#[tokio::main]
async fn main() -> ExitCode {
    match dispatch(Cli::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "loadtest: {}", error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether what was found is right.
async fn dispatch(command: Command) -> Result<bool, Error> {
    let (report, json) = match command {
        Command::Send(Send { urls, secret, processes, load }) => {
            (run::run(&Target { urls, secret, processes }, &load).await?, load.json)
        }
        Command::Local(options) => (local::run(&options).await?, options.load.json),
        Command::Chaos(options) => {
            let report = chaos::run(&options).await?;
            print(&report.to_string())?;
            return Ok(report.is_right());
        }
    };
    print(&if json { report.to_json()? } else { report.to_string() })?;
    Ok(report.is_right())
}

fn print(text: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{text}").map_err(Error::Output)
}
