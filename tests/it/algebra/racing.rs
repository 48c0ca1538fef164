//! Eight connections race by a drawn schedule; what each was told, and what the tables say, is recounted in memory.

use std::{
    collections::HashMap,
    env,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use beseda::{
    config::SystemMessages,
    model::{ChatId, GroupSettings, HistoryRule, JoinRule, UserId},
    store::{MemberState, Store},
};
use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    create, limits,
    schedule::{FOUNDERS, Raced, Racer, Shared},
    tables::{self, Chat},
    user, writer,
};
use crate::harness::{Cluster, Psql, fill};

/// Connections that race.
const RACERS: u64 = 8;

/// How long they race unless `ALGEBRA_SECONDS` says otherwise: all in all the test then takes some 12 s.
const SECONDS: u64 = 8;

/// The seed of the schedules unless `ALGEBRA_SEED` says otherwise.
const SEED: u64 = 2026;

/// Who takes part; a group has at most two fewer.
const USERS: usize = 24;

/// Between two recounts while the race goes on.
const RECOUNT: Duration = Duration::from_millis(1_500);

/// What the race must have seen, or it has shown nothing.
const SEEN: [&str; 15] = [
    "message created",
    "message replayed",
    "message idempotency_mismatch",
    "message chat_not_found",
    "message edited",
    "message deleted",
    "messages erased",
    "mark told",
    "mark silent",
    "mark still",
    "add ok",
    "join ok",
    "put out ok",
    "change member ok",
    "set own ok",
];

fn setting<T: FromStr>(name: &str, default: T) -> T {
    let value = env::var(name).ok();
    value.map_or(default, |value| {
        value.parse().ok().unwrap_or_else(|| panic!("{name}: not a number"))
    })
}

/// Three direct chats and eleven groups: with receipts, with receipts that they may outgrow, without; two of them old
/// enough for `dead_blocks`, and one about to be.
async fn cast(cluster: &Cluster, store: &Store, users: &[String], rng: &mut StdRng) -> Vec<Raced> {
    let mut chats = Vec::new();
    for pair in users.chunks(2).take(3) {
        let (a, b) = (user(&pair[0]), user(&pair[1]));
        let id = store.open_direct([&a, &b], &a, false).await.expect("a chat").chat_id;
        chats.push(Raced { id, receipt_members: None, founders: pair.to_vec() });
    }
    for (n, receipt_members) in
        [1_000, 1_000, 8, 8, 3, 0, 0, 0, 0, 0, 1_000].into_iter().enumerate()
    {
        let first = rng.random_range(0..USERS);
        let members: Vec<&str> = (0..8).map(|k| &*users[(first + 3 * k) % USERS]).collect();
        let settings = GroupSettings {
            history: if n % 2 == 0 { HistoryRule::All } else { HistoryRule::Joined },
            join: if n % 3 == 0 { JoinRule::Invite } else { JoinRule::Open },
            ..GroupSettings::default()
        };
        let limits = limits(receipt_members, SystemMessages::Off);
        let id = create(store, &members, settings, limits).await;
        let founders: Vec<String> = members[..FOUNDERS].iter().map(|id| (*id).to_owned()).collect();
        chats.push(Raced { id, receipt_members: Some(receipt_members), founders });
    }
    let [.., young, old, older] = chats.as_slice() else { panic!("chats") };
    for (chat, dead, live) in [(young, 1_000, 200), (old, 1_100, 3_200), (older, 2_000, 2_150)] {
        age(cluster, store, chat, dead, live).await;
    }
    chats
}

/// Gives a chat a past: messages of two members, and between them tombstones.
async fn age(cluster: &Cluster, store: &Store, chat: &Raced, dead: i64, live: i64) {
    let id = chat.id.to_string();
    let [erased, writer, ..] = chat.founders.as_slice() else { panic!("founders") };
    for (author, count) in
        [(writer, live / 2), (erased, dead / 2), (writer, live / 2), (erased, dead / 2)]
    {
        cluster.psql(&fill::messages(&id, author, count, "'old'")).await;
    }
    store.erase_in_chat(chat.id, &user(erased)).await.expect("an answer");
}

/// One connection that keeps looking: a member's version never goes back, and every change raises it.
async fn follow(shared: Arc<Shared>, store: Store, seed: u64, until: Instant) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut seen: HashMap<(ChatId, UserId), MemberState> = HashMap::new();
    while Instant::now() < until && !shared.has_faults() {
        let chat_id = shared.chats[rng.random_range(0..shared.chats.len())].id;
        let members: Vec<_> = shared.users.iter().map(|id| (chat_id, user(id))).collect();
        let states = store.get_member_states(&members).await.expect("an answer");
        for state in states {
            let mut ledger = shared.ledger();
            let before = seen.insert((chat_id, state.user_id.clone()), state.clone());
            if let Some(before) = before
                && before != state
                && before.version() >= state.version()
            {
                ledger
                    .faults
                    .push(format!("a change raised no version: {before:?}, then {state:?}"));
            }
            ledger.was_told([state]);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Recounts the tables while they change, each time in one snapshot.
async fn recount(shared: Arc<Shared>, psql: Psql, until: Instant) {
    while Instant::now() + RECOUNT < until && !shared.has_faults() {
        tokio::time::sleep(RECOUNT).await;
        let chats = tables::read(&psql).await;
        let faults = chats.values().flat_map(Chat::recount);
        shared.ledger().faults.extend(faults.map(|fault| format!("while it raced: {fault}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_connections_race_and_every_number_stays_exact() {
    let (seconds, seed) = (setting("ALGEBRA_SECONDS", SECONDS), setting("ALGEBRA_SEED", SEED));
    let cluster = Cluster::start(1).await;
    let psql = Psql::connect(&cluster.database_url()).await;
    let users: Vec<String> = (0..USERS).map(|n| format!("u{n:02}")).collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let chats = cast(&cluster, &writer(&cluster), &users, &mut rng).await;
    let start = tables::exact(&psql).await;
    let heads = start.values().map(|chat| (chat.id, chat.last_seq)).collect();
    let shared = Arc::new(Shared::new(chats, users, heads));
    let until = Instant::now() + Duration::from_secs(seconds);
    let racers = (1..=RACERS).map(|n| {
        let mut racer = Racer::new(&shared, writer(&cluster), seed.wrapping_mul(1_000) + n);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            while Instant::now() < until && !shared.has_faults() {
                racer.step().await;
            }
        })
    });
    let mut racing: Vec<_> = racers.collect();
    racing.push(tokio::spawn(follow(Arc::clone(&shared), writer(&cluster), seed, until)));
    let apart = Psql::connect(&cluster.database_url()).await;
    racing.push(tokio::spawn(recount(Arc::clone(&shared), apart, until)));
    for ended in join_all(racing).await {
        ended.unwrap_or_else(|error| panic!("ALGEBRA_SEED={seed}: {error}"));
    }
    let end = tables::read(&psql).await;
    let ledger = std::mem::take(&mut *shared.ledger());
    let tally = ledger.tally.clone();
    println!("{tally:#?}");
    let faults: Vec<String> =
        end.values().flat_map(Chat::recount).chain(ledger.judge(&start, &end)).collect();
    let some = &faults[..faults.len().min(8)];
    assert!(faults.is_empty(), "ALGEBRA_SEED={seed}: {} faults, such as {some:#?}", faults.len());
    let unseen: Vec<_> = SEEN.into_iter().filter(|outcome| !tally.contains_key(*outcome)).collect();
    assert!(unseen.is_empty(), "ALGEBRA_SEED={seed}: never {unseen:?}: {tally:#?}");
    let crossed = |chat: &&Chat| start[&chat.id].dead <= 1_024 && chat.dead > 1_024;
    println!("{} chats came to be counted by blocks", end.values().filter(crossed).count());
}
