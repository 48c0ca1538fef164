//! Messages to people with devices, some of whom read in time, some later, some never: what is pushed, how soon,
//! and whether each badge is right in the end.

use std::{
    future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use beseda_protocol::{model::MessageId, rest::NewMessage};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::latency::rate;
use crate::{
    clients::{
        chats::{GroupChat, Person, SETUP_AT_ONCE},
        push_service::{self, PushService, Totals},
        send::{open_loop, pace},
    },
    context::{Context, Findings, Metric, Plan},
    error::Error,
    report::{Figure, Phase, counters::add, delivery_log::Violation},
    rest::patiently,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// People who are written to.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    people: u32,

    /// People who write to each of them, in direct chats.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    chats_each: u32,

    /// Devices of each of those who are written to.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    devices: u32,

    /// Messages a second.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    rate: f64,

    /// Seconds of sending.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Members of a group to whom one message is sent while others write, who write alone first. 0: there is none.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    sleepers: u32,

    /// How many of them have a device. Default: all.
    #[arg(long, requires = "sleepers")]
    sleeping_devices: Option<u32>,

    /// Highest p99 from a send's begin to the push, in milliseconds.
    #[arg(long, value_name = "MS", help_heading = "Limits")]
    max_push_p99: Option<f64>,

    /// Highest ratio of a send's latency beside the sleepers to that alone: of its p50, p90 and p99.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_ratio: Option<f64>,
}

/// The replicas' delay, `BESEDA_PUSH_DELAY`: settings are given before there is a context.
const DELAY: Duration = Duration::from_secs(5);

/// Settings of the replicas of `local`.
pub(super) const SETTINGS: &[(&str, &str)] = {
    let [key, subject, private] = push_service::SETTINGS;
    &[("BESEDA_RATE_LIMITS", "off"), ("BESEDA_PUSH_DELAY", "5s"), key, subject, private]
};

/// Of a hundred messages, how many are read in time, and how many later.
const READ_IN_TIME: u32 = 30;
const READ_LATER: u32 = 30;

/// Clocks and queues: a message that was read less than this before its moment may be pushed.
const MARGIN: Duration = Duration::from_millis(500);

/// Longest wait for the last pushes.
const SETTLE: Duration = Duration::from_secs(60);

/// How long all badges must be right, and no push come.
const QUIET: Duration = Duration::from_secs(3);

/// Maximum number of messages on their way: some are read ten seconds later.
const AT_ONCE: usize = 20_000;

/// Length of what precedes a comparison: pushes of its messages have begun.
const WARM: Duration = Duration::from_secs(8);

/// A message that was sent.
struct Message {
    id: MessageId,
    reader: usize,
    begun: Instant,
    read_in_time: bool,
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let service = PushService::start().await?;
    let prefix = &context.common.prefix;
    let readers = (0..options.people)
        .map(|number| context.person(&format!("{prefix}-push-{number}"), number as usize));
    let readers: Vec<Person> = readers.collect::<Result<_, _>>()?;
    let senders = (0..options.chats_each)
        .map(|number| context.person(&format!("{prefix}-push-sender-{number}"), number as usize));
    let senders: Vec<Person> = senders.collect::<Result<_, _>>()?;
    context.counters.say("opening chats, registering devices");
    let pairs =
        readers.iter().flat_map(|reader| senders.iter().map(move |sender| (reader, sender)));
    let chats: Vec<String> = stream::iter(pairs)
        .map(|(reader, sender)| async move {
            let chat = context.rest.open_chat(&sender.urls[0], &sender.token, &reader.user).await?;
            Ok::<_, Error>(chat.chat_id.to_string())
        })
        .buffered(SETUP_AT_ONCE)
        .try_collect()
        .await?;
    for number in 0..options.devices {
        register(context, &service, &readers, number).await?;
    }
    let group = match options.sleepers {
        0 => None,
        members => {
            let (chat, people) = context.group(members + 1).await?;
            let with_devices = options.sleeping_devices.unwrap_or(members).min(members) as usize;
            register(context, &service, &people[1..=with_devices], 0).await?;
            Some((chat, people[1..=with_devices].to_vec()))
        }
    };

    let sent = Arc::new(Mutex::new(Vec::new()));
    let span = Duration::from_secs(options.seconds);
    let plan = |name| Plan {
        latencies: &[("POST", Metric::Answered)],
        ..Plan::messages(name, Some(span), &context.common.limits)
    };
    let flow = Flow { context, readers: &readers, senders: &senders, chats: &chats, sent: &sent };
    let mut phases = Vec::new();
    if group.is_some() {
        flow.send(options.rate, WARM).await;
        phases.push(context.measure(plan("alone"), flow.send(options.rate, span)).await?.1);
    }
    let work =
        async { tokio::join!(flow.send(options.rate, span), wake(context, group.as_ref())).1 };
    let (woken, phase) = context.measure(plan("push"), work).await?;
    woken?;
    phases.push(phase);
    context.counters.say("waiting for the last pushes");
    settle(context, &service, &readers, options.devices).await?;
    let sent = std::mem::take(&mut *sent.lock().unwrap_or_else(PoisonError::into_inner));
    let mut figures = judge(&service, &readers, options, &sent);
    if let Some((_, people)) = &group {
        let told = people.iter().filter(|one| service.device(&name(one, 0)).pushes > 0).count();
        figures.push(
            Figure::new("sleepers who were told", "", Some(told as f64))
                .at_least(Some(people.len() as f64)),
        );
        figures.extend(slowed(&phases, options.max_ratio));
    }
    Ok(Findings { phases, figures })
}

/// By how much the sleepers slow those who write.
fn slowed(phases: &[Phase], most: Option<f64>) -> Vec<Figure> {
    let latency = |phase: &Phase| phase.latencies.first().map(|(_, latency)| *latency);
    let [Some(alone), Some(beside)] =
        [phases.first(), phases.last()].map(|it| it.and_then(latency))
    else {
        return Vec::new();
    };
    [
        ("p50 of sends, beside sleepers to alone", beside.p50 / alone.p50),
        ("p90 of sends, beside sleepers to alone", beside.p90 / alone.p90),
        ("p99 of sends, beside sleepers to alone", beside.p99 / alone.p99),
    ]
    .map(|(name, ratio)| Figure::new(name, "", Some(ratio)).at_most(most))
    .into()
}

/// The name of a device at the push service.
fn name(person: &Person, number: u32) -> String {
    format!("{}-{number}", person.user)
}

async fn register(
    context: &Context<'_>,
    service: &PushService,
    people: &[Person],
    number: u32,
) -> Result<(), Error> {
    let registering = stream::iter(people).map(|person| async move {
        let (client, device) = (
            context.rest.at(&person.urls[0], &person.token),
            service.subscription(&name(person, number)),
        );
        let id = format!("device-{number}");
        let put = async || client.put_device(&id, &device).await;
        patiently("PUT /devices/{device_id}/", put).await.map(drop)
    });
    registering.buffer_unordered(SETUP_AT_ONCE).try_collect().await
}

/// One message to all sleepers, amid the others.
async fn wake(context: &Context<'_>, group: Option<&GroupChat>) -> Result<(), Error> {
    let Some((chat, _)) = group else { return Ok(()) };
    let client = context.rest.at(&chat.sender.urls[0], &chat.sender.token);
    let message = NewMessage { text: "wake up".to_owned(), ..NewMessage::default() };
    let chat = chat.chat_id.to_string();
    let send = async || client.send_message(&chat, &message).await;
    patiently("POST /chats/{chat}/messages/", send).await.map(drop)
}

struct Flow<'a> {
    context: &'a Context<'a>,
    readers: &'a [Person],
    senders: &'a [Person],
    /// By reader, then by sender.
    chats: &'a [String],
    sent: &'a Arc<Mutex<Vec<Message>>>,
}

impl Flow<'_> {
    async fn send(&self, rate: f64, span: Duration) {
        open_loop(pace(rate, span), future::pending(), AT_ONCE, |number, due| {
            let place = number % self.chats.len();
            let (reader, sender) = (place / self.senders.len(), place % self.senders.len());
            let at = |person: &Person| self.context.rest.at(&person.urls[0], &person.token);
            let (to, from) = (at(&self.readers[reader]), at(&self.senders[sender]));
            let (chat, sent) = (self.chats[place].clone(), Arc::clone(self.sent));
            let counters = Arc::clone(&self.context.counters);
            async move {
                let message =
                    NewMessage { text: format!("message {number}"), ..NewMessage::default() };
                let begun = Instant::now();
                let message = match from.send_message(&chat, &message).await {
                    Ok(message) => message,
                    Err(error) => {
                        add(&counters.failed);
                        return counters.note(&format!("a send failed: {error}"));
                    }
                };
                counters.answered.record(due.elapsed());
                let id = message.message_id;
                let lot = rand::random_range(0..100);
                let mut read_in_time = false;
                if lot < READ_IN_TIME {
                    tokio::time::sleep(DELAY.mul_f64(rand::random_range(0.0..0.8))).await;
                    let read = to.mark_read(&chat, Some(message.seq)).await;
                    read_in_time = read.is_ok() && begun.elapsed() + MARGIN < DELAY;
                }
                let note = Message { id, reader, begun, read_in_time };
                sent.lock().unwrap_or_else(PoisonError::into_inner).push(note);
                if (READ_IN_TIME..READ_IN_TIME + READ_LATER).contains(&lot) {
                    tokio::time::sleep(DELAY.mul_f64(rand::random_range(0.9..2.0))).await;
                    if let Err(error) = to.mark_read(&chat, Some(message.seq)).await {
                        counters.note(&format!("a mark failed: {error}"));
                    }
                }
            }
        })
        .await;
    }
}

/// Waits until every device shows its user's badge, and no push comes for a while. What is wrong then is a violation.
async fn settle(
    context: &Context<'_>,
    service: &PushService,
    readers: &[Person],
    devices: u32,
) -> Result<(), Error> {
    let deadline = Instant::now() + SETTLE;
    let (mut pushes, mut since) = (service.totals(), Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if service.totals() != pushes {
            (pushes, since) = (service.totals(), Instant::now());
        }
        if since.elapsed() < QUIET.max(DELAY + MARGIN) && Instant::now() < deadline {
            continue;
        }
        let mut wrong = Vec::new();
        for reader in readers {
            let client = context.rest.at(&reader.urls[0], &reader.token);
            let unread = patiently("GET /chats/unread/", async || client.unread().await).await?;
            for number in 0..devices {
                let shown = service.device(&name(reader, number)).badge;
                if shown != unread.badge {
                    wrong.push(format!(
                        "{} shows {shown}, not {}",
                        name(reader, number),
                        unread.badge
                    ));
                }
            }
        }
        if wrong.is_empty() || Instant::now() >= deadline {
            for what in wrong {
                context.counters.violation(&Violation::Unexpected { chat: 0, what });
            }
            return Ok(());
        }
        since = Instant::now();
    }
}

fn judge(
    service: &PushService,
    readers: &[Person],
    options: &Options,
    sent: &[Message],
) -> Vec<Figure> {
    let Totals { pushes, doubled, unreadable } = service.totals();
    let (mut lags, mut in_vain) = (Vec::new(), 0_u64);
    for (place, reader) in readers.iter().enumerate() {
        let devices = (0..options.devices).map(|number| service.device(&name(reader, number)));
        let devices: Vec<_> = devices.collect();
        for message in sent.iter().filter(|message| message.reader == place) {
            for told in devices.iter().filter_map(|device| device.told.get(&message.id)) {
                lags.push(told.duration_since(message.begun).as_secs_f64() * 1_000.0);
                in_vain += u64::from(message.read_in_time);
            }
        }
    }
    lags.sort_by(f64::total_cmp);
    let p99 = lags.get(lags.len().saturating_sub(1) * 99 / 100).copied();
    let in_time = sent.iter().filter(|message| message.read_in_time).count();
    vec![
        Figure::new("pushes", "", Some(pushes as f64)),
        Figure::new("pushed twice", "", Some(doubled as f64)).at_most(Some(0.0)),
        Figure::new("that no device can read", "", Some(unreadable as f64)).at_most(Some(0.0)),
        Figure::new("messages read in time", "", Some(in_time as f64)),
        // One in a thousand.
        Figure::new("pushes of these", "", Some(in_vain as f64))
            .at_most(Some(in_time as f64 / 1_000.0)),
        Figure::new("p99 from send to push", "ms", p99).at_most(options.max_push_p99),
    ]
}
