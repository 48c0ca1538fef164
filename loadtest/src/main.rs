//! Load tests for Beseda: opens chats, sends, listens on another replica, and checks what arrived.
//!
//! A run measures and judges: it exits with 1 after a lost, doubled or reordered message, a wrong
//! answer, a wrong counter at the end, or an exceeded limit.
//!
//! [`scenario`] has one file per scenario, which uses three modules: [`clients`] (senders, readers,
//! listeners), [`context`] (shared state and measurement) and [`report`] (counters and the result).
//! [`runner`] runs a scenario against a [`target`]; [`local`] starts an installation for it; [`chaos`] is
//! independent of these. `scripts/check-layers` checks the order.

mod attack;
mod chaos;
mod clients;
mod compare;
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
    /// Run a scenario on an installation of its own: real Postgres and Redis, replicas as processes.
    Local(local::Options),
    /// Inject faults into an installation of its own by a seeded schedule while clients use it, then check
    /// that nothing was lost, doubled, reordered, miscounted or leaked.
    Chaos(chaos::Options),
    /// The attackers' process, which `hostile` starts.
    #[command(hide = true)]
    Attack(attack::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command;
    // Each socket needs a file descriptor at both ends; child processes inherit the limit.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If this fails, the error appears when a socket cannot be opened.
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

/// Runs the command; true if nothing was violated or exceeded.
async fn dispatch(command: Command) -> Result<bool, Error> {
    match command {
        Command::There(scenario) => {
            let report = runner::run(&scenario.common().target()?, &scenario).await?;
            publish(&report, scenario.common())
        }
        Command::Local(options) => {
            if let Some(other) = &options.against {
                let comparison = local::compare(&options, other).await?;
                print(&comparison.to_string())?;
                return Ok(comparison.is_right());
            }
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

/// Writes the result to the terminal and the files that the options name.
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
