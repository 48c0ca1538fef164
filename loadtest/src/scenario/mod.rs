//! What can be run.

mod fanout;
mod history;
mod hostile;
mod idle;
mod inbox;
mod latency;
mod send;
mod soak;
mod storm;
mod unread;

use clap::{Args, Subcommand};

use crate::{
    error::Error,
    load::Common,
    run::{Findings, Run},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Send as fast as it is acknowledged: throughput, and what a message costs.
    Send(Asked<send::Options>),
    /// Send at a fixed rate: latency from the moment a message was due to the other's socket.
    Latency(Asked<latency::Options>),
    /// Send to very many sockets of one room, message by message and in bursts.
    Fanout(Asked<fanout::Options>),
    /// Open sockets on which nothing happens: what each one holds in memory.
    Idle(Asked<idle::Options>),
    /// Read histories page by page.
    History(Asked<history::Options>),
    /// Read lists of rooms.
    Inbox(Asked<inbox::Options>),
    /// Read unread counters.
    Unread(Asked<unread::Options>),
    /// Cut all sockets at once while sends go on: how soon all have resumed.
    Storm(Asked<storm::Options>),
    /// Send at a fixed rate, alone and then beside thousands of hostile sockets and a flood: what these
    /// cost the others. The service's limits must be on.
    Hostile(Asked<hostile::Options>),
    /// Send at a fixed rate for long, cutting sockets now and then: whether memory stays.
    Soak(Asked<soak::Options>),
}

/// What a scenario is asked with.
#[derive(Debug, Args)]
pub(crate) struct Asked<S: Args> {
    #[command(flatten)]
    options: S,
    #[command(flatten)]
    common: Common,
}

impl Scenario {
    pub(crate) fn name(&self) -> &'static str {
        self.parts().0
    }

    /// What the replicas of `local` are told of their limits. The load is few people's at one address,
    /// so that most scenarios are without; a rush of connections meets the rate of accepting.
    pub(crate) fn limits(&self) -> &'static [(&'static str, &'static str)] {
        const MANY: &str = "1000000";
        match self {
            Self::Hostile(_) => &[],
            Self::Storm(_) => &[
                ("BESEDA_RATE_SENDS", MANY),
                ("BESEDA_RATE_READS", MANY),
                ("BESEDA_RATE_ROOMS", MANY),
                ("BESEDA_RATE_CONNECTS", MANY),
                ("BESEDA_RATE_ADDRESSES", MANY),
                ("BESEDA_REQUESTS_PER_USER", MANY),
                ("BESEDA_SOCKETS_PER_USER", MANY),
                ("BESEDA_SOCKETS_PER_ADDRESS", MANY),
            ],
            _ => &[("BESEDA_RATE_LIMITS", "off")],
        }
    }

    pub(crate) fn common(&self) -> &Common {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, &Common) {
        match self {
            Self::Send(asked) => ("send", &asked.common),
            Self::Latency(asked) => ("latency", &asked.common),
            Self::Fanout(asked) => ("fanout", &asked.common),
            Self::Idle(asked) => ("idle", &asked.common),
            Self::History(asked) => ("history", &asked.common),
            Self::Inbox(asked) => ("inbox", &asked.common),
            Self::Unread(asked) => ("unread", &asked.common),
            Self::Storm(asked) => ("storm", &asked.common),
            Self::Hostile(asked) => ("hostile", &asked.common),
            Self::Soak(asked) => ("soak", &asked.common),
        }
    }

    pub(crate) async fn run(&self, run: &Run<'_>) -> Result<Findings, Error> {
        match self {
            Self::Send(asked) => send::run(run, &asked.options).await,
            Self::Latency(asked) => latency::run(run, &asked.options).await,
            Self::Fanout(asked) => fanout::run(run, &asked.options).await,
            Self::Idle(asked) => idle::run(run, &asked.options).await,
            Self::History(asked) => history::run(run, &asked.options).await,
            Self::Inbox(asked) => inbox::run(run, &asked.options).await,
            Self::Unread(asked) => unread::run(run, &asked.options).await,
            Self::Storm(asked) => storm::run(run, &asked.options).await,
            Self::Hostile(asked) => hostile::run(run, &asked.options).await,
            Self::Soak(asked) => soak::run(run, &asked.options).await,
        }
    }
}
