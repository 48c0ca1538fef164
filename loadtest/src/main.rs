//! Load tests for Beseda: opens rooms, sends, listens on another replica, and checks what arrived.
//!
//! A run measures, and it also judges: a message lost, doubled or out of order, or a counter that is
//! not right at the end, makes it end with 1.

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
    report::Report,
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
    let outcome = match Cli::parse().command {
        Command::Send(Send { urls, secret, processes, load }) => {
            run::run(&Target { urls, secret, processes }, &load).await.map(|report| (report, load))
        }
        Command::Local(options) => local::run(&options).await.map(|report| (report, options.load)),
    };
    match outcome.and_then(|(report, load)| Ok((print(&report, load.json)?, report))) {
        Ok(((), report)) if report.is_right() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "loadtest: {}", error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Report, json: bool) -> Result<(), Error> {
    let text = if json { report.to_json()? } else { report.to_string() };
    writeln!(io::stdout(), "{text}").map_err(Error::Output)
}
