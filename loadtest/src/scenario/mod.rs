//! The scenarios, and their command line.

mod attachments;
mod channel;
mod fanout;
mod group;
mod history;
mod hostile;
mod idle;
mod inbox;
mod latency;
mod push;
mod reactions;
mod send;
mod soak;
mod storm;
mod unread;

use clap::{Args, Subcommand};

use crate::{
    context::{Context, Findings},
    error::Error,
    target::Common,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Send in a closed loop: throughput, and the cost of a message.
    Send(ScenarioArgs<send::Options>),
    /// Send at a fixed rate: latency from a message's due time to the other member's socket.
    Latency(ScenarioArgs<latency::Options>),
    /// Send to very many sockets of one chat, message by message and in bursts.
    Fanout(ScenarioArgs<fanout::Options>),
    /// Write, mention and read in a group with members on- and offline: every counter is recounted at the end.
    Group(ScenarioArgs<group::Options>),
    /// Write to a very large group: time until a message is with everybody who is online.
    Channel(ScenarioArgs<channel::Options>),
    /// Send at a fixed rate, first alone, then beside a crowd that reacts to one message of a group: its effect on
    /// latency.
    Reactions(ScenarioArgs<reactions::Options>),
    /// Send to people with devices: what is pushed, how soon, and whether each badge is right in the end.
    Push(ScenarioArgs<push::Options>),
    /// Open idle sockets: memory of the service per socket.
    Idle(ScenarioArgs<idle::Options>),
    /// Read histories page by page.
    History(ScenarioArgs<history::Options>),
    /// Read lists of chats.
    Inbox(ScenarioArgs<inbox::Options>),
    /// Read unread counters.
    Unread(ScenarioArgs<unread::Options>),
    /// Upload large attachments: bytes a second, and memory that must not grow with them.
    Attachments(ScenarioArgs<attachments::Options>),
    /// Cut all sockets at once during sends: time until all have resumed.
    Storm(ScenarioArgs<storm::Options>),
    /// Send at a fixed rate, first alone, then beside thousands of hostile sockets and a flood: their effect
    /// on latency. The service's limits must be on.
    Hostile(ScenarioArgs<hostile::Options>),
    /// Send at a fixed rate for hours and cut sockets now and then: growth of memory.
    Soak(ScenarioArgs<soak::Options>),
}

/// A scenario's own options and the common ones.
#[derive(Debug, Args)]
pub(crate) struct ScenarioArgs<S: Args> {
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
            Self::Push(_) => push::SETTINGS,
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
            Self::Send(args) => ("send", &args.common),
            Self::Latency(args) => ("latency", &args.common),
            Self::Fanout(args) => ("fanout", &args.common),
            Self::Group(args) => ("group", &args.common),
            Self::Channel(args) => ("channel", &args.common),
            Self::Reactions(args) => ("reactions", &args.common),
            Self::Push(args) => ("push", &args.common),
            Self::Idle(args) => ("idle", &args.common),
            Self::History(args) => ("history", &args.common),
            Self::Inbox(args) => ("inbox", &args.common),
            Self::Unread(args) => ("unread", &args.common),
            Self::Attachments(args) => ("attachments", &args.common),
            Self::Storm(args) => ("storm", &args.common),
            Self::Hostile(args) => ("hostile", &args.common),
            Self::Soak(args) => ("soak", &args.common),
        }
    }

    pub(crate) async fn run(&self, context: &Context<'_>) -> Result<Findings, Error> {
        match self {
            Self::Send(args) => send::run(context, &args.options).await,
            Self::Latency(args) => latency::run(context, &args.options).await,
            Self::Fanout(args) => fanout::run(context, &args.options).await,
            Self::Group(args) => group::run(context, &args.options).await,
            Self::Channel(args) => channel::run(context, &args.options).await,
            Self::Reactions(args) => reactions::run(context, &args.options).await,
            Self::Push(args) => push::run(context, &args.options).await,
            Self::Idle(args) => idle::run(context, &args.options).await,
            Self::History(args) => history::run(context, &args.options).await,
            Self::Inbox(args) => inbox::run(context, &args.options).await,
            Self::Unread(args) => unread::run(context, &args.options).await,
            Self::Attachments(args) => attachments::run(context, &args.options).await,
            Self::Storm(args) => storm::run(context, &args.options).await,
            Self::Hostile(args) => hostile::run(context, &args.options).await,
            Self::Soak(args) => soak::run(context, &args.options).await,
        }
    }
}
