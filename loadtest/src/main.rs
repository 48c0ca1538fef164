//! Load tests for Beseda: opens chats, sends, listens on another replica, and checks what arrived.
//!
//! A run measures, and it also judges: a message lost, doubled or out of order, a wrong answer, a
//! counter that is not right at the end, or a limit that was not kept make it end with 1.
//!
//! [`scenario`] has a file for each thing that can be run, which needs three others: [`clients`] (who
//! sends, reads and listens), [`context`] (what a scenario works with, and how it is measured) and
//! [`report`] (what is counted, and what a run gives). [`runner`] runs a scenario against a [`target`];
//! [`local`] starts an installation for it; [`chaos`] stands by itself. `scripts/check-layers` keeps the order.

mod attack;
mod chaos;
mod clients;
mod context;
mod error;
mod local;
mod preload;
mod progress;
mod report;
mod rest;
mod runner;
mod scenario;
mod target;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::{error::Error, report::Report, scenario::Scenario, target::Common};

/// Load tests for Beseda, which also check that nothing is lost, doubled or out of order.
#[derive(Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    There(Scenario),
    /// Context one of these on an installation of its own: real Postgres and Redis, replicas as processes.
    Local(local::Options),
    /// Break an installation of its own in every way, by a seeded schedule, while people use it; then
    /// prove that nothing was lost, doubled, reordered, miscounted or told to strangers.
    Chaos(chaos::Options),
    /// What `hostile` starts; of no use by itself.
    #[command(hide = true)]
    Attack(attack::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command;
    // Each socket takes a file here and one there; what we start inherits this.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, opening too many says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    match dispatch(command).await {
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
    match command {
        Command::There(scenario) => {
            let report = runner::run(&scenario.common().target()?, &scenario).await?;
            publish(&report, scenario.common())
        }
        Command::Local(options) => {
            let report = local::run(&options).await?;
            publish(&report, options.scenario.common())
        }
        Command::Chaos(options) => {
            let report = chaos::run(&options).await?;
            print(&report.to_string())?;
            Ok(report.is_right())
        }
        Command::Attack(options) => attack::run(&options).await.map(|()| true),
    }
}

/// Gives the result wherever it was asked for.
fn publish(report: &Report, common: &Common) -> Result<bool, Error> {
    let write = |path: &Path, text: String| fs::write(path, text).map_err(Error::Output);
    match &common.json {
        Some(path) if path == Path::new("-") => print(&report.to_json()?)?,
        Some(path) => {
            write(path, report.to_json()?)?;
            print(&report.to_string())?;
        }
        None => print(&report.to_string())?,
    }
    if let Some(path) = &common.html {
        write(path, report.to_html())?;
    }
    Ok(report.is_right())
}

fn print(text: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{text}").map_err(Error::Output)
}
