//! `loadtest chaos`: an installation of its own is broken in every way there is, by a schedule that a
//! seed fixes, while people use it; then what everybody was told is held against what is stored.
//!
//! Replicas are processes; each reaches Redis and Postgres through proxies of its own. Clients take
//! a random replica for every attempt, as behind a balancer that knows nothing of its health.

mod check;
mod counters;
mod faults;
mod findings;
mod follower;
mod history;
mod makers;
mod many;
mod model;
mod proxy;
mod replica;
mod report;
mod socket;
mod stack;
mod stored;
mod timeline;
mod world;
mod writers;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use beseda::{config::Secret, model::ChatId, signals::Signals};
use clap::{Args, ValueEnum};
use tokio::task::JoinSet;

pub(crate) use self::report::Report;
use self::{
    check::Judge,
    faults::Kind as Fault,
    findings::Kind,
    follower::{Follower, Seat},
    many::{Inbox, List},
    stack::Stack,
    world::{Person, Phase, World},
    writers::Writer,
};
use crate::{error::Error, load::say, local};

/// People who open and delete rooms all the time, in pairs; and those who are members of nothing.
const MAKERS: usize = 6;
const STRANGERS: usize = 2;

/// Of the members, those who also keep a socket of many chats.
const INBOXES: usize = 4;

/// Those who compare counters while all goes on.
const WATCHERS: usize = 2;

/// How often the replicas are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The program under test. Without it: `beseda` in this program's own folder.
    #[arg(long)]
    beseda: Option<PathBuf>,

    /// What the schedule of faults and the clients' choices come from; without it a random one,
    /// which is printed.
    #[arg(long)]
    seed: Option<u64>,

    /// How long to go on; all that was broken is healed after it.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..))]
    seconds: u64,

    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: u8,

    /// Kinds of faults, comma-separated; without it, all of them.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,

    /// People who talk, each with three others.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(7..=100))]
    people: u8,

    /// Where the data and the replicas' logs are kept. Without it: in a folder for temporary files,
    /// removed at the end.
    #[arg(long)]
    data: Option<PathBuf>,

    /// Write the result as JSON to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs it all and gives the judgement.
pub(crate) async fn run(options: &Options) -> Result<Report, Error> {
    let mut signals = Signals::catch().map_err(|error| Error::Io("cannot catch signals", error))?;
    let program = local::program(options.beseda.as_deref())?;
    let folder = local::Folder::new(options.data.as_deref())?;
    tokio::select! {
        outcome = run_in(options, &program, folder.path()) => outcome,
        () = signals.next() => Err(Error::Interrupted),
    }
}

async fn run_in(options: &Options, program: &Path, data: &Path) -> Result<Report, Error> {
    let seed = options.seed.unwrap_or_else(rand::random);
    say(&format!("seed {seed}"));
    let secret = Secret::from(format!("{:064x}", rand::random::<u128>()));
    let count = usize::from(options.replicas);
    let stack = Arc::new(Stack::start(program, data, &secret, count).await?);
    let replicas = stack.replicas().map(|replica| replica.public).collect();
    let world = Arc::new(World::new(seed, secret, replicas)?);

    let kinds = match options.faults.as_slice() {
        [] => Fault::value_variants(),
        kinds => kinds,
    };
    let span = Duration::from_secs(options.seconds);
    let plan = faults::plan(seed, span, kinds, count);
    let mut cast = Cast::gather(&world, &stack, usize::from(options.people)).await?;
    let breaking = faults::run(&world, &stack, plan);
    let busy = async {
        tokio::time::sleep(span).await;
        // While the last fault is at work: nothing comes after it that would heal what it broke.
        world.enter(Phase::Settling);
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(breaking, busy) } => {}
        () = supervise(&world, &stack) => {}
    }
    let seconds = world.findings.seconds();
    say(&format!("{seconds:7.1} s: all is healed; looking at what is left"));
    let judge =
        Judge { world: &world, stack: &stack, people: &cast.people, inboxes: &cast.inboxes };
    let settled = judge.judge().await?;
    world.enter(Phase::Over);
    cast.end().await;
    for (number, replica) in stack.replicas().enumerate() {
        for panic in replica.panics() {
            world.findings.add(Kind::Crash, format!("replica {number}: {panic}"));
        }
    }
    let report = Report::of(&world, seed, seconds, settled);
    stack.stop().await;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?).map_err(Error::Output)?;
    }
    Ok(report)
}

/// Looks after the replicas for ever: one that ends by itself is noted, and started again.
async fn supervise(world: &World, stack: &Stack) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut progress = tokio::time::interval(PROGRESS);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = progress.tick() => {
                let (_, sent) = world.figures.all()[0];
                let (at, violations) = (world.findings.seconds(), world.findings.count());
                say(&format!("{at:7.1} s: {sent} messages, {violations} violations"));
            }
        }
        for (number, replica) in stack.replicas().enumerate() {
            let Some(status) = replica.ended_by_itself() else { continue };
            let at = world.timeline.now();
            world.findings.add(Kind::Crash, format!("replica {number} ended: {status} ({at})"));
            if let Err(error) = replica.start().await {
                world.findings.add(Kind::Crash, error.to_string());
            }
        }
    }
}

/// Everybody who takes part.
struct Cast {
    people: Vec<Person>,
    inboxes: Vec<Arc<Inbox>>,
    tasks: JoinSet<()>,
}

impl Cast {
    /// Opens the lasting rooms, and sends everybody off.
    async fn gather(world: &Arc<World>, stack: &Arc<Stack>, count: usize) -> Result<Self, Error> {
        let named = |prefix: &str, count: usize| -> Result<Vec<Person>, Error> {
            (0..count).map(|number| world.person(&format!("{prefix}-{number}"))).collect()
        };
        let members = named("member", count)?;
        let (makers, strangers) = (named("maker", MAKERS)?, named("stranger", STRANGERS)?);
        let mut tasks = JoinSet::new();

        let mut rooms: Vec<Vec<ChatId>> = vec![Vec::new(); count];
        let mut rng = world.dice();
        for step in 1..=3 {
            for first in 0..count {
                let second = (first + step) % count;
                let pair = [&members[first], &members[second]];
                let Some(chat_id) = makers::open(world, &mut rng, pair).await else { continue };
                rooms[first].push(chat_id);
                rooms[second].push(chat_id);
                for person in pair {
                    let pair = pair.map(|person| person.id.clone());
                    let seat = Seat::new(world, &person.id, chat_id, pair);
                    let follower =
                        Follower { world: Arc::clone(world), person: person.clone(), seat };
                    tasks.spawn(follower.run());
                }
            }
        }
        for (person, rooms) in members.iter().zip(rooms) {
            tasks.spawn(Writer::new(world, person.clone(), rooms).run());
        }
        let mut inboxes = Vec::new();
        // Also of those whose rooms come and go.
        for person in members.iter().take(INBOXES / 2).chain(makers.iter().take(INBOXES / 2)) {
            let (person, list) = (person.clone(), Mutex::new(List::default()));
            let inbox = Arc::new(Inbox { person, list });
            inboxes.push(Arc::clone(&inbox));
            tasks.spawn(many::run(Arc::clone(world), inbox));
        }
        for pair in makers.chunks_exact(2) {
            let pair = [pair[0].clone(), pair[1].clone()];
            tasks.spawn(makers::make_rooms(Arc::clone(world), pair));
        }
        for person in strangers.iter().chain(&members[..1]) {
            tasks.spawn(makers::probe(Arc::clone(world), person.clone()));
        }
        let people: Vec<Person> = members.into_iter().chain(makers).chain(strangers).collect();
        for _ in 0..WATCHERS {
            let (world, stack) = (Arc::clone(world), Arc::clone(stack));
            tasks.spawn(counters::watch(world, stack, people.clone()));
        }
        Ok(Self { people, inboxes, tasks })
    }

    /// Waits for everybody; a panic of one of them is ours, and the run's end.
    async fn end(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}
