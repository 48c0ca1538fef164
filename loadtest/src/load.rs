//! What is asked for.

use std::{io::Write, time::Duration};

use beseda::config::Secret;
use clap::Args;

use crate::cpu::Process;

/// How long the last messages may take to arrive once nothing is sent any more: the service itself
/// looks for what was lost every five seconds, so that three times this is an honest failure.
const SETTLE: Duration = Duration::from_secs(15);

/// How much, and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Rooms, each of two people; the second one listens on the replica after the first one's.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub rooms: u32,

    /// Senders, each of which sends its next message when the one before was acknowledged.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,

    /// How long to send.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,

    /// Messages a second, all senders together; without it, as many as are acknowledged.
    #[arg(long)]
    pub rate: Option<f64>,

    /// Length of a message's text, in bytes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub bytes: u16,

    /// What the ids of the users begin with. Rooms are used again by the next run.
    #[arg(long, default_value = "loadtest")]
    pub prefix: String,

    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Load {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    pub(crate) fn settle(&self) -> Duration {
        SETTLE
    }

    /// The time between two messages of one sender; `None`: without a pause.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        Some(Duration::from_secs_f64(f64::from(self.clients) / rate))
    }

    /// Longer than the run can take, so that no token expires in it.
    pub(crate) fn token_ttl(&self) -> Duration {
        self.duration() + Duration::from_secs(3_600)
    }
}

/// Against what.
#[derive(Debug)]
pub(crate) struct Target {
    /// At least one.
    pub urls: Vec<reqwest::Url>,
    pub secret: Secret,
    pub processes: Vec<Process>,
}

/// To whoever watches. Progress is no result: a closed stderr is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
