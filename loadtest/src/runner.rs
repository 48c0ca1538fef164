//! Runs a scenario, and gives its report.

use std::{process::Command, sync::Arc};

use indicatif::ProgressBar;
use jiff::Timestamp;

use crate::{
    context::{Context, Findings},
    error::Error,
    report::{Figure, Machine, Report, counters::Counters},
    rest::Rest,
    scenario::Scenario,
    target::Target,
};

/// Runs a scenario against a target and returns its report.
pub(crate) async fn run(target: &Target, scenario: &Scenario) -> Result<Report, Error> {
    let began_at = Timestamp::now().to_string();
    let context = Context {
        target,
        common: scenario.common(),
        rest: Rest::new()?,
        counters: Arc::new(Counters::new(ProgressBar::new(0))),
        id: format!("{:08x}", rand::random::<u32>()),
    };
    let found = scenario.run(&context).await;
    context.counters.bar.finish_and_clear();
    let Findings { phases, figures } = found?;
    let of_phases = phases.iter().flat_map(|phase| phase.exceeded.iter().cloned());
    let exceeded = of_phases.chain(figures.iter().filter_map(Figure::excess)).collect();
    Ok(Report {
        scenario: scenario.name(),
        command: command(),
        version: env!("CARGO_PKG_VERSION"),
        commit: commit(),
        began_at,
        machine: Machine::this(),
        phases,
        figures,
        counts: context.counters.counts(),
        exceeded,
    })
}

/// The command line, without the secret.
fn command() -> String {
    let mut hide = false;
    let words =
        std::env::args().map(|word| match std::mem::replace(&mut hide, word == "--jwt-secret") {
            true => "…".to_owned(),
            false if word.starts_with("--jwt-secret=") => "--jwt-secret=…".to_owned(),
            false => word,
        });
    words.collect::<Vec<_>>().join(" ")
}

/// The commit of the working directory, if it is a checkout.
fn commit() -> Option<String> {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let output = git.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
