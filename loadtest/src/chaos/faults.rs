//! The kinds of faults, their schedule, and how they are injected and healed.

use std::{fmt, sync::Arc, time::Duration};

use clap::ValueEnum;
use nix::sys::signal::Signal;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::{sync::Mutex, task::JoinSet};

use super::{context::SimContext, findings, proxy::Flow, stack::Stack};
use crate::progress::say;

/// Pause between two faults, in milliseconds: long enough for most recoveries, so that a delay has one
/// cause.
const REST_MS: std::ops::Range<u64> = 1_500..4_500;

/// Probability that a fault overlaps with one of another part of the installation.
const COMPANY: f64 = 0.2;

/// Duration of the last cut; the clients stop in the middle of it.
const LAST_CUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    /// SIGKILL, then a new process.
    ReplicaKill,
    /// SIGTERM, then a new process after the drain.
    ReplicaStop,
    /// SIGSTOP, later SIGCONT.
    ReplicaFreeze,
    /// SIGKILL; later a restart without data.
    RedisKill,
    /// SIGKILL; a restart with the data of a second before.
    RedisOldData,
    /// SIGSTOP, later SIGCONT.
    RedisFreeze,
    /// FLUSHALL.
    RedisFlush,
    /// CLIENT KILL TYPE normal, then pubsub.
    RedisKick,
    /// Connections of one replica or of all break, new ones too.
    RedisCut,
    /// Connections stay open, but no data passes.
    RedisSilent,
    /// All answers are delayed.
    RedisSlow,
    /// pg_terminate_backend on all sessions.
    PostgresKick,
    /// Stop in immediate mode, then crash recovery.
    PostgresCrash,
    PostgresCut,
    PostgresSilent,
    PostgresSlow,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("?", |value| value.get_name()))
    }
}

/// The part of the installation that a fault affects; each has one fault at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Replica,
    Redis,
    Postgres,
}

impl Kind {
    fn part(self) -> Part {
        match self {
            Self::ReplicaKill | Self::ReplicaStop | Self::ReplicaFreeze => Part::Replica,
            Self::RedisKill
            | Self::RedisOldData
            | Self::RedisFreeze
            | Self::RedisFlush
            | Self::RedisKick
            | Self::RedisCut
            | Self::RedisSilent
            | Self::RedisSlow => Part::Redis,
            Self::PostgresKick
            | Self::PostgresCrash
            | Self::PostgresCut
            | Self::PostgresSilent
            | Self::PostgresSlow => Part::Postgres,
        }
    }

    /// True if the fault may affect one replica alone, or its connections to Redis or Postgres.
    fn has_victim(self) -> bool {
        !matches!(
            self,
            Self::RedisKill
                | Self::RedisOldData
                | Self::RedisFreeze
                | Self::RedisFlush
                | Self::RedisKick
                | Self::PostgresKick
                | Self::PostgresCrash
        )
    }

    /// Duration in milliseconds, without the restart of a process.
    fn lasting(self) -> std::ops::Range<u64> {
        match self {
            Self::RedisFlush | Self::RedisKick | Self::PostgresKick => 0..1,
            Self::ReplicaKill | Self::ReplicaStop => 0..1_500,
            Self::ReplicaFreeze | Self::RedisFreeze => 1_000..3_000,
            Self::PostgresCrash => 0..1_000,
            Self::RedisKill | Self::RedisOldData => 200..3_000,
            Self::RedisCut | Self::RedisSilent | Self::RedisSlow => 500..3_000,
            Self::PostgresCut | Self::PostgresSilent | Self::PostgresSlow => 500..2_500,
        }
    }
}

/// One fault of the schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Planned {
    /// Time since the start of the run.
    at: Duration,
    kind: Kind,
    lasting: Duration,
    /// The affected replica; `None` for all.
    replica: Option<usize>,
    /// The delay, for faults that have one.
    delay: Duration,
}

/// Makes the schedule of a seed. All kinds occur before one occurs again, in a new order each time. The
/// last fault is active when the clients stop, so that no later message repairs what it broke.
pub(super) fn plan(seed: u64, span: Duration, kinds: &[Kind], replicas: usize) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut plan = Vec::new();
    let mut bag: Vec<Kind> = Vec::new();
    let mut at = Duration::from_millis(1_000);
    let draw = |kind: Kind, at, rng: &mut StdRng| {
        let everybody = !kind.has_victim() || kind.part() != Part::Replica && rng.random_bool(0.5);
        Planned {
            at,
            kind,
            lasting: Duration::from_millis(rng.random_range(kind.lasting())),
            replica: (!everybody).then(|| rng.random_range(0..replicas)),
            delay: Duration::from_millis(match kind.part() {
                Part::Postgres => rng.random_range(20..150),
                _ => rng.random_range(50..600),
            }),
        }
    };
    while at < span {
        if bag.is_empty() {
            bag = kinds.to_vec();
            bag.shuffle(&mut rng);
        }
        let Some(kind) = bag.pop() else { break };
        let fault = draw(kind, at, &mut rng);
        plan.push(fault);
        let others: Vec<Kind> =
            kinds.iter().copied().filter(|other| other.part() != kind.part()).collect();
        if !others.is_empty() && rng.random_bool(COMPANY) {
            let other = others[rng.random_range(0..others.len())];
            let during = at + fault.lasting.mul_f64(rng.random_range(0.0..1.0));
            plan.push(draw(other, during, &mut rng));
        }
        at += fault.lasting + Duration::from_millis(rng.random_range(REST_MS));
    }
    if let Some(last) = plan.iter_mut().max_by_key(|fault| fault.at) {
        last.at = span.saturating_sub(Duration::from_millis(rng.random_range(100..600)));
        if kinds.contains(&Kind::RedisCut) {
            // One replica misses the others' last publications, and Redis does not repeat them: only the
            // comparison with Postgres can find the gap.
            *last = Planned {
                at: span.saturating_sub(LAST_CUT / 2),
                lasting: LAST_CUT,
                replica: Some(rng.random_range(0..replicas)),
                ..draw(Kind::RedisCut, last.at, &mut rng)
            };
        }
    }
    plan
}

/// Executes a schedule; returns when all is healed.
pub(super) async fn run(context: &Arc<SimContext>, stack: &Arc<Stack>, plan: Vec<Planned>) {
    let began = tokio::time::Instant::now();
    let parts: Arc<[Mutex<()>; 3]> = Arc::default();
    let mut running = JoinSet::new();
    for fault in plan {
        let (context, stack, parts) = (Arc::clone(context), Arc::clone(stack), Arc::clone(&parts));
        running.spawn(async move {
            tokio::time::sleep_until(began + fault.at).await;
            let _turn = parts[fault.kind.part() as usize].lock().await;
            let (at, lasting) = (context.findings.seconds(), fault.lasting.as_millis());
            let whom = fault.replica.map_or("all".to_owned(), |number| format!("replica {number}"));
            say(&format!("{at:7.1} s: {} for {lasting} ms ({whom})", fault.kind));
            let span = context.timeline.begin(fault.kind);
            if let Err(error) = inject(&context, &stack, fault).await {
                let what = format!("{} could not be carried out: {error}", fault.kind);
                context.findings.add(findings::Kind::Crash, what);
            }
            context.timeline.end(span);
        });
    }
    while running.join_next().await.is_some() {}
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn inject(context: &SimContext, stack: &Stack, fault: Planned) -> Outcome {
    let lasting = tokio::time::sleep(fault.lasting);
    // Faults of a replica always name one.
    let replica = fault.replica.unwrap_or_default();
    match fault.kind {
        Kind::ReplicaKill => {
            stack.replica(replica).kill().await;
            lasting.await;
            stack.replica(replica).start().await?;
        }
        Kind::ReplicaStop => {
            if let Some(took) = stack.replica(replica).stop().await {
                let what =
                    format!("replica {replica} was told to end and still ran {took:?} later");
                context.findings.add(findings::Kind::Late, what);
            }
            lasting.await;
            stack.replica(replica).start().await?;
        }
        Kind::ReplicaFreeze => {
            stack.replica(replica).signal(Signal::SIGSTOP).await;
            lasting.await;
            stack.replica(replica).signal(Signal::SIGCONT).await;
        }
        Kind::RedisKill => {
            stack.redis.kill();
            stack.forget_redis_dump();
            lasting.await;
            stack.redis.restart().await?;
        }
        Kind::RedisOldData => {
            stack.redis_command("SAVE").await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            stack.redis.kill();
            lasting.await;
            stack.redis.restart().await?;
        }
        Kind::RedisFreeze => {
            stack.redis.pause()?;
            lasting.await;
            stack.redis.resume()?;
        }
        Kind::RedisFlush => stack.redis_command("FLUSHALL").await?,
        Kind::RedisKick => {
            stack.redis_command("CLIENT KILL TYPE normal").await?;
            stack.redis_command("CLIENT KILL TYPE pubsub").await?;
        }
        Kind::PostgresKick => stack.kick_backends().await?,
        Kind::PostgresCrash => {
            // The call blocks, which must not stop other tasks.
            tokio::task::block_in_place(|| stack.postgres.kill());
            lasting.await;
            stack.postgres.restart().await?;
        }
        Kind::RedisCut | Kind::RedisSilent | Kind::RedisSlow => {
            let flow = flow(fault);
            stack.redis_flow(fault.replica, flow);
            lasting.await;
            stack.redis_flow(fault.replica, Flow::Pass);
        }
        Kind::PostgresCut | Kind::PostgresSilent | Kind::PostgresSlow => {
            let flow = flow(fault);
            stack.postgres_flow(fault.replica, flow);
            lasting.await;
            stack.postgres_flow(fault.replica, Flow::Pass);
        }
    }
    Ok(())
}

fn flow(fault: Planned) -> Flow {
    match fault.kind {
        Kind::RedisCut | Kind::PostgresCut => Flow::Cut,
        Kind::RedisSilent | Kind::PostgresSilent => Flow::Silent,
        _ => Flow::Slow(fault.delay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_with_every_kind_in_it() {
        let (kinds, span) = (Kind::value_variants(), Duration::from_secs(120));
        let first = plan(7, span, kinds, 3);
        assert_eq!(first, plan(7, span, kinds, 3));
        assert_ne!(first, plan(8, span, kinds, 3));
        for kind in kinds {
            assert!(first.iter().any(|fault| fault.kind == *kind), "{kind}");
        }
        let last = first.iter().max_by_key(|fault| fault.at).unwrap();
        assert!(last.kind == Kind::RedisCut && last.replica.is_some());
        assert!(last.at < span && last.at + last.lasting > span);
    }

    #[test]
    fn one_kind_alone_has_no_company() {
        let only = plan(7, Duration::from_secs(20), &[Kind::RedisFlush], 3);
        assert!(only.len() > 3 && only.iter().all(|fault| fault.kind == Kind::RedisFlush));
    }
}
