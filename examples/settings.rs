//! Prints the settings as Markdown tables, one per group, from the same definitions as `--help`:
//! `scripts/docs-test --configuration` puts them into docs/run/configuration.md.

use std::io::{self, Write};

use beseda::{
    cli_chat,
    config::{Config, LogConfig},
    dev,
};
use clap::{Arg, Args, Command};

/// The tables in the order in which their first setting is declared: a heading, and its rows.
type Tables = Vec<(String, Vec<String>)>;

fn main() -> io::Result<()> {
    let mut tables = Tables::new();
    let serve = Config::augment_args(Command::new("serve"));
    collect(&mut tables, &LogConfig::augment_args(serve));
    collect(&mut tables, &dev::Options::augment_args(Command::new("dev")));
    collect(&mut tables, &cli_chat::Options::augment_args(Command::new("chat")));
    let mut out = io::stdout().lock();
    for (heading, rows) in tables {
        writeln!(out, "## {heading}\n\n| variable | default | meaning |\n|---|---|---|")?;
        writeln!(out, "{}\n", rows.join("\n"))?;
    }
    Ok(())
}

fn collect(tables: &mut Tables, command: &Command) {
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let Some(variable) = arg.get_env().and_then(|name| name.to_str()) else { continue };
        let heading = match arg.get_help_heading() {
            Some(heading) => heading.to_owned(),
            None => format!("beseda {}", command.get_name()),
        };
        let row = format!("| `{variable}` | {} | {} |", default(arg), meaning(arg, variable));
        match tables.iter_mut().find(|(known, _)| *known == heading) {
            Some((_, rows)) => rows.push(row),
            None => tables.push((heading, vec![row])),
        }
    }
}

fn default(arg: &Arg) -> String {
    let values: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    match (arg.is_required_set(), values.is_empty()) {
        (true, _) => "required".to_owned(),
        (false, true) => "none".to_owned(),
        (false, false) => format!("`{}`", values.join(",")),
    }
}

/// The help text, then the values that can be chosen, then the file that may hold a secret.
fn meaning(arg: &Arg, variable: &str) -> String {
    let help = arg.get_long_help().or(arg.get_help());
    let mut text = help.map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    if !text.ends_with('.') {
        text.push('.');
    }
    let choices: Vec<_> = arg
        .get_possible_values()
        .iter()
        .map(|choice| match choice.get_help() {
            Some(help) => format!("`{}` ({help})", choice.get_name()),
            None => format!("`{}`", choice.get_name()),
        })
        .collect();
    if !choices.is_empty() {
        text.push_str(&format!(" Values: {}.", choices.join(", ")));
    }
    if arg.is_hide_env_values_set() {
        text.push_str(&format!(" `{variable}_FILE` may name a file that holds it."));
    }
    text
}
