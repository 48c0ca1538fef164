//! Violations, and counters of events that are allowed.

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

/// Number of violations that are printed; more are only counted.
const SPELLED_OUT: usize = 40;

/// The kind of a broken guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Something acknowledged is missing.
    Lost,
    /// Something was delivered or written twice.
    Doubled,
    /// Two clients saw different changes under one number, or another order.
    Order,
    /// A number is missing.
    Gap,
    /// Data reached a user who may not see it.
    Leak,
    /// A client's state differs from the database.
    State,
    /// A counter differs from the recount.
    Unread,
    /// Something deleted is still there.
    Left,
    /// An answer or a frame is not documented.
    Answer,
    /// Something arrived too late, or not within the time-out.
    Late,
    /// A replica ended unexpectedly, or panicked.
    Crash,
}

#[derive(Debug, Default)]
struct Violations {
    by_kind: BTreeMap<Kind, u64>,
    spelled_out: Vec<String>,
}

/// The findings that all clients share.
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

    /// Returns the counts by kind, and the first violations as text.
    pub(super) fn all(&self) -> (BTreeMap<Kind, u64>, Vec<String>) {
        let violations = lock(&self.violations);
        (violations.by_kind.clone(), violations.spelled_out.clone())
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident: $label:literal,)*) => {
        /// Counters of operations and events.
        #[derive(Debug, Default)]
        pub(super) struct Figures { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Figures {
            /// Lists the counters in the order of their declaration.
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
    annotations: "reactions and pins set or taken back",
    uploads: "files uploaded",
    marks: "read markers set",
    chats_opened: "chats opened",
    chats_deleted: "chats deleted",
    settings: "own settings of groups changed",
    groups_made: "groups created",
    joins: "members added, joined or unbanned",
    exits: "members who left, were removed or banned",
    rights: "roles, silences and titles changed",
    refusals: "operations of groups refused, as they may be",
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
    pushes: "messages pushed to devices",
    pushed_again: "of these once more, as their acknowledgement was not stored",
    read_in_time: "messages that a device need not be told of, read in time",
    pushed_in_vain: "of these pushed",
}

/// Adds one.
pub(super) fn tick(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Locks a mutex; poisoning is ignored: a panic leaves one violation too many at worst.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns microseconds since 1970, comparable with Postgres's clock, which is this machine's.
pub(super) fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
