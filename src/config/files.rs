//! Secrets from files: `DATABASE_URL_FILE` names a file that holds the value of `DATABASE_URL`.
//! Orchestrators mount secrets as files, which no process list shows, unlike the environment.

use std::ffi::OsString;

use clap::{Arg, Command};

use super::ConfigError;

/// Lets every secret of `command` come from a file: an argument whose environment variable `NAME` is
/// hidden in the help also takes the content of the file that `NAME_FILE` names. A flag takes precedence;
/// `NAME` beside `NAME_FILE` is an error, because it would be unclear which one applies.
///
/// `variable` reads the environment. `command` must be the one that will run, because the files of other
/// commands may not exist.
pub fn secrets_from_files(
    command: Command,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Command, ConfigError> {
    let mut failed = None;
    let command = command.mut_args(|arg| match secret_of(&arg, variable) {
        // clap would take an empty variable, which here counts as not set.
        Ok(Some(secret)) => {
            arg.env(None::<&str>).required(false).hide_default_value(true).default_value(secret)
        }
        Ok(None) => arg,
        Err(error) => {
            failed = Some(error);
            arg
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let nested: Vec<String> =
        command.get_subcommands().map(|nested| nested.get_name().to_owned()).collect();
    nested.into_iter().try_fold(command, |command, name| {
        let nested = command.find_subcommand(&name).cloned().unwrap_or_default();
        let nested = secrets_from_files(nested, variable)?;
        Ok(command.mut_subcommand(name, |_| nested))
    })
}

fn secret_of(
    arg: &Arg,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<String>, ConfigError> {
    let Some(name) = arg.get_env().and_then(|name| name.to_str()) else { return Ok(None) };
    if !arg.is_hide_env_values_set() {
        return Ok(None);
    }
    let file_name = format!("{name}_FILE");
    let Some(path) = variable(&file_name).filter(|path| !path.is_empty()) else { return Ok(None) };
    if variable(name).is_some_and(|value| !value.is_empty()) {
        return Err(ConfigError::new(file_name, format!("set this or {name}, not both")));
    }
    let refuse = |reason: String| {
        ConfigError::new(file_name.clone(), format!("{}: {reason}", path.display()))
    };
    let text = std::fs::read_to_string(&path).map_err(|error| refuse(error.to_string()))?;
    // Editors and `echo` end a file with a line break, which is not part of the secret.
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() { Err(refuse("is empty".to_owned())) } else { Ok(Some(secret.to_owned())) }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::config::DatabaseConfig;

    /// Returns the value of `DATABASE_URL`, with these variables as the environment.
    fn url(variables: &[(&str, &str)], flags: &[&str]) -> Result<String, String> {
        let command = DatabaseConfig::augment_args(Command::new("test"))
            // Ignores the environment of the test process.
            .mut_args(
                |arg| if arg.get_id() == "database_url" { arg } else { arg.env(None::<&str>) },
            );
        let lookup = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        let command = secrets_from_files(command, &lookup).map_err(|error| error.to_string())?;
        let words = ["test"].iter().chain(flags);
        let matches = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
        let config = DatabaseConfig::from_arg_matches(&matches).map_err(|e| e.to_string())?;
        Ok(config.database_url.expose().to_owned())
    }

    #[test]
    fn a_secret_comes_from_its_file_unless_a_flag_says_otherwise() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgresql://db \r\n").unwrap();
        let path = file.path().to_str().unwrap();
        let variables = [("DATABASE_URL_FILE", path)];
        assert_eq!(url(&variables, &[]).as_deref(), Ok("postgresql://db "));
        assert_eq!(url(&variables, &["--database-url", "x"]).as_deref(), Ok("x"));
        let beside_nothing = [("DATABASE_URL_FILE", path), ("DATABASE_URL", "")];
        assert_eq!(url(&beside_nothing, &[]).as_deref(), Ok("postgresql://db "));
        assert!(url(&[("DATABASE_URL_FILE", "")], &[]).is_err(), "empty counts as not set");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_names_the_variable() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = empty.path().to_str().unwrap();
        for variables in [
            &[("DATABASE_URL_FILE", "/nowhere/at/all")][..],
            &[("DATABASE_URL_FILE", empty)],
            &[("DATABASE_URL_FILE", empty), ("DATABASE_URL", "x")],
        ] {
            let refused = url(variables, &[]).expect_err("no secret");
            assert!(refused.starts_with("DATABASE_URL_FILE: "), "{refused}");
        }
    }
}
