//! Options of every scenario: the target, the limits, the result.

use std::path::PathBuf;

use beseda::config::Secret;
use clap::Args;

use crate::{
    error::Error,
    report::{limits::Limits, usage::Process},
};

#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// URL (http://…) of a replica or balancer; repeat for each replica. Not with `local`.
    #[arg(long = "url", help_heading = "Where")]
    urls: Vec<reqwest::Url>,

    /// Secret of the HS256 tokens that the service accepts. Not with `local`.
    #[arg(
        long = "jwt-secret",
        env = "BESEDA_JWT_HS256_SECRET",
        hide_env_values = true,
        help_heading = "Where",
        value_parser = |raw: &str| Ok::<_, std::convert::Infallible>(Secret::from(raw.to_owned()))
    )]
    secret: Option<Secret>,

    /// Process whose CPU time and memory are measured, with its children. NAME is service, postgres, redis
    /// or any other; several processes may share one. Not with `local`.
    #[arg(long = "pid", value_name = "NAME=PID", help_heading = "Where")]
    processes: Vec<Process>,

    /// Prefix of the users' ids. The next run with the same prefix uses the same chats.
    #[arg(long, default_value = "loadtest", help_heading = "Where")]
    pub prefix: String,

    /// Write the result as JSON to this file; `-` prints it instead of the text.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub json: Option<PathBuf>,

    /// Write the result as an HTML page with plots to this file.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub html: Option<PathBuf>,

    #[command(flatten)]
    pub limits: Limits,
}

impl Common {
    /// Returns the installation that the options name.
    pub(crate) fn target(&self) -> Result<Target, Error> {
        if self.urls.is_empty() {
            return Err(Error::Usage("say --url for each replica, or begin with `loadtest local`"));
        }
        let secret = self.secret.clone();
        let secret =
            secret.ok_or(Error::Usage("say --jwt-secret, or set BESEDA_JWT_HS256_SECRET"))?;
        let processes = self.processes.clone();
        Ok(Target { urls: self.urls.clone(), secret, processes, stores: None })
    }

    /// Refuses options that name an installation: `local` starts its own.
    pub(crate) fn expect_no_target(&self) -> Result<(), Error> {
        if self.urls.is_empty() && self.processes.is_empty() {
            return Ok(());
        }
        Err(Error::Usage("--url and --pid name an installation, and `local` starts its own"))
    }
}

/// The installation under test.
#[derive(Debug)]
pub(crate) struct Target {
    /// At least one.
    pub urls: Vec<reqwest::Url>,
    pub secret: Secret,
    pub processes: Vec<Process>,
    /// Where baselines are measured; `None` if the installation was not started by this program.
    pub stores: Option<Stores>,
}

/// The Postgres and Redis of an installation of `local`.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    /// URL of a database beside the service's.
    pub baseline_url: String,
    pub redis_port: u16,
}

impl Target {
    /// Lists the replicas for the user with this number: the user's own first, then the fallbacks.
    pub(crate) fn urls_for(&self, number: usize) -> Vec<reqwest::Url> {
        let mut urls = self.urls.clone();
        urls.rotate_left(number % self.urls.len());
        urls
    }
}
