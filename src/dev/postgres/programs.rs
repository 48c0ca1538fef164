//! Postgres's programs: where they are, how old, and how one is called.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::dev::{DevError, folders::Account, process};

/// The oldest supported major version: the oldest one that still receives fixes.
const OLDEST: u32 = 14;

/// Environment variable that names the folder of other programs than the newest ones, so that tests can
/// run with each major version.
const BINARIES: &str = "BESEDA_DEV_POSTGRES";

/// Finds the folder of the newest `postgres` and `initdb`, or of those that made `cluster`.
pub(super) fn find_binaries(made_by: Option<&str>, cluster: &Path) -> Result<PathBuf, DevError> {
    let named = process::named_path(BINARIES);
    let found = named
        .map_or_else(installed_folders, |folder| vec![folder])
        .into_iter()
        .filter(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .filter_map(|folder| Some((major_version(&folder)?, folder)));
    let wanted = made_by.map(str::trim);
    let best = found
        .filter(|(major, _)| match wanted {
            Some(wanted) => major.to_string() == wanted,
            None => *major >= OLDEST,
        })
        .max_by_key(|(major, _)| *major);
    match (best, wanted) {
        (Some((_, folder)), _) => Ok(folder),
        (None, Some(wanted)) => {
            Err(DevError::OtherVersion { path: cluster.to_owned(), found: wanted.to_owned() })
        }
        (None, None) => Err(DevError::Missing {
            what: "PostgreSQL 14 or newer",
            hint: "name the folder of its programs in BESEDA_DEV_POSTGRES, or install the server \
                   (Debian, Ubuntu: apt-get install postgresql; \
                   Fedora: dnf install postgresql-server; macOS: brew install postgresql)",
        }),
    }
}

/// Lists folders that may contain Postgres's programs.
fn installed_folders() -> Vec<PathBuf> {
    let mut folders = process::path_folders();
    for parent in ["/usr/lib/postgresql", "/usr", "/opt/homebrew/opt", "/usr/local/opt"] {
        // Debian's, Fedora's (/usr/pgsql-16), Homebrew's.
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path().join("bin")));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    folders
}

/// Parses the version, as in "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)".
pub(super) fn major_version(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Prepares one of Postgres's programs for `cluster`, without the caller's `PG…` variables.
pub(super) fn command(
    binaries: &Path,
    name: &str,
    cluster: &Path,
    account: Option<Account>,
) -> Command {
    let mut command = Command::new(binaries.join(name));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("PG") {
            command.env_remove(key);
        }
    }
    // English errors, because the caller searches for some.
    command.env("LC_ALL", "C").arg("-D").arg(cluster).current_dir(cluster);
    if let Some(account) = account {
        account.apply(&mut command);
    }
    command
}
