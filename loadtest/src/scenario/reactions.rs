//! Sends at a fixed rate, first alone, then beside a crowd that reacts to one message of a large group.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use beseda_protocol::{model::MessageId, rest::NewMessage};
use clap::Args;

use super::latency::{Flow, rate};
use crate::{
    clients::{
        fanout_clients::FanoutClients,
        paired_chats::{PairedChats, SETTLE},
        send::{open_loop, pace},
    },
    context::{Context, Findings, Metric, Plan},
    error::Error,
    report::{Figure, Phase, counters::add},
    rest::patiently,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Members of the group.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    members: u32,

    /// Sockets of members who are online, spread over all replicas; each needs a file descriptor at both
    /// ends.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    online: u32,

    /// Reactions a second, of all members in turn, to one message.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    reactions: f64,

    /// Direct chats in which others write meanwhile.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    chats: u32,

    /// Their messages a second.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    rate: f64,

    /// Seconds of each phase: without and with the reactions.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Highest ratio of the p99 of sends beside the reactions to that without.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_ratio: Option<f64>,
}

/// Length of the texts, in bytes.
const BYTES: u16 = 100;

/// Maximum number of sends, and of reactions, in flight.
const AT_ONCE: u32 = 1_000;

const EMOJIS: [&str; 5] = ["👍", "❤️", "🎉", "😂", ":party:"];

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let (members, online) = (options.members, options.online);
    context.counters.say(&format!("a group of {members}, of whom {online} are online"));
    let clients = FanoutClients::gather_group(context, members).await?;
    clients.expect_changes();
    clients.fill(online).await?;
    let flow = Flow { chats: options.chats, rate: options.rate, bytes: BYTES, at_once: AT_ONCE };
    let chats = PairedChats::open(context, flow.chats).await?;
    let message_id = say(context, &clients).await?;
    let span = Duration::from_secs(options.seconds);
    let plan = |name| Plan {
        latencies: &[("POST", Metric::Answered), ("POST to socket", Metric::Arrived)],
        ..Plan::messages(name, Some(span), &context.common.limits)
    };
    // Warm up: connections are open and caches filled.
    flow.send(context, &chats, "warm", Duration::from_secs(3), future::pending()).await;
    let sending = flow.send(context, &chats, "alone", span, future::pending());
    let ((), alone) = context.measure(plan("alone"), sending).await?;
    let reacted = Arc::new(AtomicU64::new(0));
    let work = async {
        tokio::join!(
            flow.send(context, &chats, "beside", span, future::pending()),
            react(context, &clients, options, message_id, &reacted),
        );
    };
    let ((), beside) = context.measure(plan("beside"), work).await?;
    chats.judge(context).await?;
    clients.judge(SETTLE).await?;
    let ratio = Some(p99(&beside) / p99(&alone));
    let figures = vec![
        Figure::new("reactions set", "", Some(reacted.load(Ordering::Relaxed) as f64)),
        Figure::new("p99 of sends, beside reactions to alone", "", ratio)
            .at_most(options.max_ratio),
    ];
    Ok(Findings { phases: vec![alone, beside], figures })
}

/// The message that all react to.
async fn say(context: &Context<'_>, clients: &FanoutClients<'_>) -> Result<MessageId, Error> {
    let (owner, chat) = (&clients.people()[0], clients.chats[0].chat_id.to_string());
    let client = context.rest.at(&owner.urls[0], &owner.token);
    // As the sockets expect a text: with when it was due.
    let message = NewMessage { text: "0 who comes?".to_owned(), ..NewMessage::default() };
    let call = "POST /chats/{chat}/messages/";
    let sent = patiently(call, async || client.send_message(&chat, &message).await).await?;
    Ok(sent.message_id)
}

async fn react(
    context: &Context<'_>,
    clients: &FanoutClients<'_>,
    options: &Options,
    message_id: MessageId,
    reacted: &Arc<AtomicU64>,
) {
    let (people, chat) = (clients.people(), clients.chats[0].chat_id.to_string());
    let due = pace(options.reactions, Duration::from_secs(options.seconds));
    let reacting = open_loop(due, future::pending(), AT_ONCE as usize, |number, _: Instant| {
        let person = people[number % people.len()].clone();
        let emoji = EMOJIS[(number / people.len()) % EMOJIS.len()];
        let (client, chat) = (context.rest.at(&person.urls[0], &person.token), chat.clone());
        let (counters, reacted) = (Arc::clone(&context.counters), Arc::clone(reacted));
        async move {
            match client.add_reaction(&chat, message_id, emoji).await {
                Ok(_) => add(&reacted),
                Err(error) => {
                    add(&counters.failed);
                    counters.note(&format!("a reaction of {} failed: {error}", person.user));
                }
            }
        }
    });
    reacting.await;
}

/// The p99 from a send's due time to its answer.
fn p99(phase: &Phase) -> f64 {
    phase.latencies.first().map_or(f64::NAN, |(_, latency)| latency.p99)
}
