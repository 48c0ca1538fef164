//! What must not happen and did; and what the service can't be blamed for, but tells how it went.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::progress::say;

/// Violations that are spelled out; the rest is counted.
const SPELLED_OUT: usize = 40;

/// The promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Something acknowledged is not there.
    Lost,
    /// Something came, or was written, twice.
    Doubled,
    /// Two saw the same number as different things, or something in another order.
    Order,
    /// A number is missing.
    Gap,
    /// Somebody got what is not theirs.
    Leak,
    /// What a client holds is not what the database holds.
    State,
    /// A counter is not the recount.
    Unread,
    /// Something was to be forgotten and is still there.
    Left,
    /// An answer or a frame that is not documented here.
    Answer,
    /// It came, but far too late; or not at all while there was time for it.
    Late,
    /// A replica ended by itself, or panicked.
    Crash,
}

#[derive(Debug, Default)]
struct Violations {
    by_kind: BTreeMap<Kind, u64>,
    spelled_out: Vec<String>,
}

/// Everybody's one list.
#[derive(Debug)]
pub(super) struct Findings {
    began: Instant,
    violations: Mutex<Violations>,
}

impl Findings {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), violations: Mutex::default() }
    }

    pub(super) fn add(&self, kind: Kind, what: impl AsRef<str>) {
        let mut violations = lock(&self.violations);
        *violations.by_kind.entry(kind).or_default() += 1;
        if violations.spelled_out.len() < SPELLED_OUT {
            let at = self.began.elapsed().as_secs_f64();
            let line = format!("{at:.3} s, {kind:?}: {}", what.as_ref());
            say(&format!("VIOLATION at {line}"));
            violations.spelled_out.push(line);
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(super) fn count(&self) -> u64 {
        lock(&self.violations).by_kind.values().sum()
    }

    /// The counts by kind, and the first ones in words.
    pub(super) fn all(&self) -> (BTreeMap<Kind, u64>, Vec<String>) {
        let violations = lock(&self.violations);
        (violations.by_kind.clone(), violations.spelled_out.clone())
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident: $label:literal,)*) => {
        /// What was done and what happened, counted.
        #[derive(Debug, Default)]
        pub(super) struct Figures { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Figures {
            /// In the order of the declaration.
            pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$(($label, self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

figures! {
    sends: "messages acknowledged",
    replays: "acknowledged messages sent once more",
    edits: "edits",
    deletions: "messages deleted",
    marks: "read markers set",
    chats_opened: "chats opened",
    chats_deleted: "chats deleted",
    probes: "probes of strangers refused",
    retries: "attempts that failed and were repeated",
    sockets: "sockets opened",
    resumes: "of these resumed",
    breaks: "sockets that broke or were closed by the service",
    frames: "frames",
    catchups: "gaps the service announced",
    inbox: "frames of inboxes",
    counted: "counters compared while running",
    stale: "of these behind at first",
}

/// One more.
pub(super) fn tick(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Plain values are kept under these locks: a panic in between leaves a violation too many at worst.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Microseconds since 1970: Postgres's clock is this machine's.
pub(super) fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
