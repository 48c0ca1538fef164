//! A group whose members write, mention each other and read; at the end everybody's counters are recounted.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use beseda_protocol::model::{Mentions, UserId};
use clap::Args;

use super::latency::rate;
use crate::{
    clients::{
        chats::Person,
        fanout_clients::FanoutClients,
        paired_chats::SETTLE,
        recount::check_counters,
        send::{open_loop, pace},
    },
    context::{Context, Findings, Plan},
    error::Error,
    report::{Figure, counters::add},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Members of the group; up to 32 have receipts, so that each mark goes to all sockets.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    members: u32,

    /// Sockets of members who are online, spread over all replicas; each needs a file descriptor at both
    /// ends.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    online: u32,

    /// Members who write, the owner among them.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    senders: u32,

    /// Messages a second of all senders; half of them mention somebody, one in twenty everybody.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    rate: f64,

    /// Read markers a second that members set, each in turn.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    marks: f64,

    /// Duration of the sends.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Length of a message's text, in bytes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4000))]
    bytes: u16,
}

/// Maximum number of sends, and of marks, in flight.
const AT_ONCE: usize = 200;

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let (members, online) = (options.members, options.online);
    context.counters.say(&format!("a group of {members}, of whom {online} are online"));
    let clients = FanoutClients::gather_group(context, members).await?;
    clients.expect_changes();
    clients.fill(online).await?;
    let span = Duration::from_secs(options.seconds);
    let marked = Arc::new(AtomicU64::new(0));
    let work = async {
        tokio::join!(write(&clients, options, span), mark(context, &clients, options, &marked));
    };
    let plan = Plan::messages("group", Some(span), &context.common.limits);
    let ((), phase) = context.measure(plan, work).await?;
    clients.judge(SETTLE).await?;
    let checked = check_counters(context, &clients.chats[0], clients.people(), SETTLE).await?;
    let marked = marked.load(Ordering::Relaxed);
    let figures = vec![
        Figure::new("read markers set", "", Some(marked as f64)),
        Figure::new("members whose counters were recounted", "", Some(checked as f64)),
    ];
    Ok(Findings { phases: vec![phase], figures })
}

async fn write(clients: &FanoutClients<'_>, options: &Options, span: Duration) {
    let (speaker, people) = (clients.speaker(), clients.people());
    let (senders, bytes) = (options.senders as usize, options.bytes);
    let sending = open_loop(pace(options.rate, span), future::pending(), AT_ONCE, |number, due| {
        let mentions = mentions(people, number);
        // In a large group only the owner, who is the first, mentions everybody.
        let sender = if mentions == Some(Mentions::All) { 0 } else { number % senders };
        let sender = people[sender % people.len()].clone();
        let speaker = speaker.clone();
        async move {
            speaker.send_as(&sender, mentions, number, due, bytes).await;
        }
    });
    sending.await;
}

/// Whom the message with this number mentions.
fn mentions(people: &[Person], number: usize) -> Option<Mentions> {
    let user = |number: usize| UserId::trusted(&people[number % people.len()].user);
    match number % 20 {
        0 => Some(Mentions::All),
        1..10 => Some(Mentions::Users(vec![user(number * 7), user(number * 13 + 1)])),
        _ => None,
    }
}

async fn mark(
    context: &Context<'_>,
    clients: &FanoutClients<'_>,
    options: &Options,
    marked: &Arc<AtomicU64>,
) {
    let (people, chat_id) = (clients.people(), clients.chats[0].chat_id.to_string());
    let due = pace(options.marks, Duration::from_secs(options.seconds));
    let marking = open_loop(due, future::pending(), AT_ONCE, |number, _: Instant| {
        let person = people[number % people.len()].clone();
        let (client, chat_id) = (context.rest.at(&person.urls[0], &person.token), chat_id.clone());
        let (counters, marked) = (Arc::clone(&context.counters), Arc::clone(marked));
        async move {
            match client.mark_read(&chat_id, None).await {
                Ok(_) => add(&marked),
                Err(error) => {
                    add(&counters.failed);
                    counters.note(&format!("a mark of {} failed: {error}", person.user));
                }
            }
        }
    });
    marking.await;
}
