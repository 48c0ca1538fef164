//! What every scenario takes: where to, how to judge, where the result goes.

use std::path::PathBuf;

use beseda::config::Secret;
use clap::Args;

use crate::{
    error::Error,
    report::{limits::Limits, usage::Process},
};

#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Where a replica, or their balancer, is reached: http://…; once for each. Not with `local`.
    #[arg(long = "url", help_heading = "Where")]
    urls: Vec<reqwest::Url>,

    /// The secret that the service checks HS256 tokens with. Not with `local`.
    #[arg(
        long = "jwt-secret",
        env = "BESEDA_JWT_HS256_SECRET",
        hide_env_values = true,
        help_heading = "Where",
        value_parser = |raw: &str| Ok::<_, std::convert::Infallible>(Secret::from(raw.to_owned()))
    )]
    secret: Option<Secret>,

    /// A process whose CPU time and memory are measured, with its children: NAME=PID, the name being
    /// service, postgres, redis or any other; one may come again. Not with `local`.
    #[arg(long = "pid", value_name = "NAME=PID", help_heading = "Where")]
    processes: Vec<Process>,

    /// What the ids of the users begin with. Chats are used again by the next run.
    #[arg(long, default_value = "loadtest", help_heading = "Where")]
    pub prefix: String,

    /// Write the result as JSON to this file; `-`: to standard output, instead of the text.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub json: Option<PathBuf>,

    /// Write the result as a page with plots to this file.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub html: Option<PathBuf>,

    #[command(flatten)]
    pub limits: Limits,
}

impl Common {
    /// The installation that was named.
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

    /// For an installation of one's own, which says all that itself.
    pub(crate) fn expect_no_target(&self) -> Result<(), Error> {
        if self.urls.is_empty() && self.processes.is_empty() {
            return Ok(());
        }
        Err(Error::Usage("--url and --pid name an installation, and `local` starts its own"))
    }
}

/// Against what.
#[derive(Debug)]
pub(crate) struct Target {
    /// At least one.
    pub urls: Vec<reqwest::Url>,
    pub secret: Secret,
    pub processes: Vec<Process>,
    /// Where baselines are measured; `None` where the installation is not ours to fill.
    pub stores: Option<Stores>,
}

/// What the installation stands on.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    /// Of a database beside the service's.
    pub baseline_url: String,
    pub redis_port: u16,
}

impl Target {
    /// The replicas as the user of this number takes them: their own first.
    pub(crate) fn urls_for(&self, number: usize) -> Vec<reqwest::Url> {
        let mut urls = self.urls.clone();
        urls.rotate_left(number % self.urls.len());
        urls
    }
}
