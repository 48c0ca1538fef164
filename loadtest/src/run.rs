//! A run: rooms, listeners, senders, the end, the judgement.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use beseda::{
    dev::{Claims, sign},
    model::{Chat, ChatId, UserId},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    cpu::Sample,
    error::Error,
    ledger::{Ledger, Violation},
    listener::Listener,
    load::{Load, Target, say},
    report::{Latency, Report},
    rest::{Rest, messages_endpoint},
    sender::{Outlet, Sender},
};

/// Rooms opened at once, and sockets: enough to be quick, not enough to be a load of its own.
const SETUP_AT_ONCE: usize = 16;

/// How long a socket may take to open.
const OPENING: Duration = Duration::from_secs(30);

/// Violations that are spelled out; the rest is counted.
const SPELLED_OUT: usize = 20;

/// The longest latency told apart, in microseconds: a minute.
const LONGEST_US: u64 = 60_000_000;

/// What happened, from all tasks.
#[derive(Debug)]
pub(crate) struct Tally {
    acknowledged: Mutex<Histogram<u64>>,
    arrived: Mutex<Histogram<u64>>,
    violations: Mutex<Violations>,
    pub rate_limited: AtomicU64,
    pub failed: AtomicU64,
    pub abandoned: AtomicU64,
    pub catchups: AtomicU64,
    pub reconnects: AtomicU64,
}

#[derive(Debug, Default)]
struct Violations {
    by_kind: BTreeMap<&'static str, u64>,
    spelled_out: Vec<String>,
    /// What is no violation, and explains some.
    notes: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters: a panic in between leaves one of them off by one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    fn new() -> Self {
        let histogram = || {
            let histogram = Histogram::new_with_max(LONGEST_US, 3);
            Mutex::new(histogram.unwrap_or_else(|_| unreachable!("the bounds are constants")))
        };
        Self {
            acknowledged: histogram(),
            arrived: histogram(),
            violations: Mutex::default(),
            rate_limited: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            catchups: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
        }
    }

    pub(crate) fn on_acknowledgement(&self, took: Duration) {
        lock(&self.acknowledged).saturating_record(micros(took));
    }

    pub(crate) fn on_arrival(&self, took: Duration) {
        lock(&self.arrived).saturating_record(micros(took));
    }

    pub(crate) fn violation(&self, violation: Violation) {
        let mut violations = lock(&self.violations);
        *violations.by_kind.entry(violation.kind()).or_default() += 1;
        if violations.spelled_out.len() < SPELLED_OUT {
            say(&format!("violation: {violation}"));
            violations.spelled_out.push(violation.to_string());
        }
    }

    pub(crate) fn note(&self, line: &str) {
        let mut violations = lock(&self.violations);
        violations.notes += 1;
        if violations.notes <= SPELLED_OUT {
            say(line);
        }
    }

    fn counts(&self) -> (u64, u64, u64) {
        let violations = lock(&self.violations).by_kind.values().sum();
        (lock(&self.acknowledged).len(), lock(&self.arrived).len(), violations)
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// A room under test.
struct Room {
    number: u32,
    chat_id: ChatId,
    /// Of the one who listens, and never reads.
    reader_token: String,
    unread_before: i64,
    seq_before: i64,
    outlet: Outlet,
    listen_at: Vec<reqwest::Url>,
}

/// Runs a load against a target and gives what came of it.
pub(crate) async fn run(target: &Target, load: &Load) -> Result<Report, Error> {
    let rest = Rest::new()?;
    say(&format!("opening {} rooms and their sockets", load.rooms));
    let rooms: Vec<Room> = stream::iter(0..load.rooms)
        .map(|number| open_room(number, target, load, &rest))
        .buffered(SETUP_AT_ONCE)
        .try_collect()
        .await?;
    let tally = Arc::new(Tally::new());
    let _listeners = listen(&rooms, &tally).await?;

    let used_before = Sample::take(&target.processes)?;
    let began = Instant::now();
    send_all(&rooms, load, &rest, &tally).await;
    let took = began.elapsed();
    settle(&rooms, load.settle()).await;
    let used = Sample::take(&target.processes)?.since(&used_before);

    rooms.iter().flat_map(|room| room.outlet.ledger.lost()).for_each(|lost| tally.violation(lost));
    recount(&rooms, target, &rest, &tally).await?;
    Ok(report(&tally, took, used))
}

async fn open_room(number: u32, target: &Target, load: &Load, rest: &Rest) -> Result<Room, Error> {
    // Each room's two on replicas that follow each other, the rooms going around.
    let mut urls = target.urls.clone();
    urls.rotate_left(number as usize % target.urls.len());
    let mut listen_at = urls.clone();
    listen_at.rotate_left(1 % target.urls.len());
    let token = |user: &str| sign(&target.secret, &Claims::new(user, load.token_ttl()));
    let name = |side| {
        let id = format!("{}-{number}-{side}", load.prefix);
        UserId::parse(&id).ok_or_else(|| Error::Prefix(load.prefix.clone()))
    };
    let (sender, reader) = (name("sender")?, name("reader")?);
    let (sender_token, reader_token) = (token(sender.as_str())?, token(reader.as_str())?);
    let opened = rest.open_chat(&urls[0], &sender_token, reader.as_str()).await?;
    let chat: Chat = rest.get_chat(&listen_at[0], &reader_token, opened.chat_id).await?;
    let endpoints = urls.iter().map(|url| messages_endpoint(url, chat.chat_id)).collect();
    Ok(Room {
        number,
        chat_id: chat.chat_id,
        reader_token,
        unread_before: chat.unread_count,
        seq_before: chat.last_seq,
        outlet: Outlet {
            room: number,
            endpoints,
            token: sender_token,
            ledger: Arc::new(Ledger::new(number, chat.last_seq, chat.last_ev)),
        },
        listen_at,
    })
}

/// Opens every room's socket, and returns once all of them are in step.
async fn listen(rooms: &[Room], tally: &Arc<Tally>) -> Result<JoinSet<()>, Error> {
    let mut listeners = JoinSet::new();
    for rooms in rooms.chunks(SETUP_AT_ONCE) {
        let mut opening = Vec::new();
        for room in rooms {
            let listener = Listener {
                room: room.number,
                chat_id: room.chat_id,
                urls: room.listen_at.clone(),
                token: room.reader_token.clone(),
                ledger: Arc::clone(&room.outlet.ledger),
                tally: Arc::clone(tally),
            };
            let (ready, is_ready) = oneshot::channel();
            listeners.spawn(listener.run(ready));
            opening.push((room.number, is_ready));
        }
        for (room, is_ready) in opening {
            let opened = tokio::time::timeout(OPENING, is_ready).await;
            opened
                .map_err(|_| Error::Socket { room, reason: "not within 30 s".to_owned() })?
                .map_err(|_| Error::Socket { room, reason: "its task ended".to_owned() })?;
        }
    }
    Ok(listeners)
}

/// Runs all senders to their end, saying every second how it goes.
async fn send_all(rooms: &[Room], load: &Load, rest: &Rest, tally: &Arc<Tally>) {
    let run_id = format!("{:08x}", rand::random::<u32>());
    let end = Instant::now() + load.duration();
    let mut senders = JoinSet::new();
    for number in 0..load.clients {
        // Rooms dealt out to the senders; more senders than rooms share them.
        let outlets: Vec<Outlet> = match load.clients < load.rooms {
            true => rooms.iter().skip(number as usize).step_by(load.clients as usize),
            false => rooms.iter().skip((number % load.rooms) as usize).step_by(rooms.len()),
        }
        .map(|room| room.outlet.clone())
        .collect();
        let sender = Sender {
            number,
            run_id: run_id.clone(),
            rest: rest.clone(),
            outlets,
            text: "x".repeat(load.bytes.into()),
            interval: load.interval(),
            tally: Arc::clone(tally),
        };
        senders.spawn(sender.run(end));
    }
    let progress = async {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        every.tick().await;
        let mut before = 0;
        for second in 1_u64.. {
            every.tick().await;
            let (acknowledged, arrived, violations) = tally.counts();
            say(&format!(
                "{second:3} s: {:6} messages/s, {acknowledged} acknowledged, {arrived} arrived, {violations} violations",
                acknowledged - before
            ));
            before = acknowledged;
        }
    };
    tokio::select! {
        () = async { while senders.join_next().await.is_some() {} } => {}
        () = progress => {}
    }
}

/// Waits until everything acknowledged has arrived, or until it is too late.
async fn settle(rooms: &[Room], limit: Duration) {
    let deadline = Instant::now() + limit;
    while rooms.iter().any(|room| room.outlet.ledger.is_waiting()) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What Postgres holds at the end must be what arrived, and the readers' counters must say so.
async fn recount(rooms: &[Room], target: &Target, rest: &Rest, tally: &Tally) -> Result<(), Error> {
    let chats = stream::iter(rooms).map(|room| async move {
        let at = &room.listen_at[room.number as usize % target.urls.len()];
        rest.get_chat(at, &room.reader_token, room.chat_id).await.map(|chat| (room, chat))
    });
    let chats: Vec<(&Room, Chat)> = chats.buffered(SETUP_AT_ONCE).try_collect().await?;
    for (room, chat) in chats {
        let arrivals = room.outlet.ledger.arrivals();
        for (what, found, expected) in [
            ("last_seq", chat.last_seq, room.seq_before + arrivals),
            ("unread_count", chat.unread_count, room.unread_before + arrivals),
        ] {
            if found != expected {
                let room = room.number;
                tally.violation(Violation::Count { room, what, found, expected });
            }
        }
    }
    Ok(())
}

fn report(tally: &Tally, took: Duration, used: Vec<(String, Duration)>) -> Report {
    let acknowledged = lock(&tally.acknowledged);
    let arrived = lock(&tally.arrived);
    let violations = lock(&tally.violations);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let messages = acknowledged.len();
    let per_thousand = |used: Duration| used.as_secs_f64() * 1_000.0 / messages.max(1) as f64;
    Report {
        seconds: took.as_secs_f64(),
        messages,
        arrived: arrived.len(),
        per_second: messages as f64 / took.as_secs_f64(),
        post_ms: Latency::of(&acknowledged),
        post_to_socket_ms: Latency::of(&arrived),
        cpu_seconds_per_1000: used
            .into_iter()
            .map(|(name, used)| (name, per_thousand(used)))
            .collect(),
        rate_limited: count(&tally.rate_limited),
        failed: count(&tally.failed),
        abandoned: count(&tally.abandoned),
        catchups: count(&tally.catchups),
        reconnects: count(&tally.reconnects),
        violations: violations.by_kind.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect(),
        first_violations: violations.spelled_out.clone(),
    }
}
