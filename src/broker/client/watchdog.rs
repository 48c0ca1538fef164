//! The watchdog: pings Redis, opens and closes the breaker, replaces a stuck connection and learns the
//! generation.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use fred::{interfaces::KeysInterface, types::Expiration};

use super::{
    Shared,
    server_info::{ask_servers, identity, is_outdated},
};
use crate::{
    beat,
    broker::{RedisError, connection::Live},
};

/// Pause between two checks of whether the connection is up. A check sends nothing.
const CONNECT_POLL: Duration = Duration::from_millis(50);
/// Unanswered pings after which the connection is replaced, about 2 s: a server that stalled for a
/// moment is worth waiting for, and no command waits meanwhile.
const FAILURES_TO_GIVE_UP: u32 = 4;
/// Beats (15 s) after which the server's identity is read again: a master's
/// replication id can change under an open connection.
const IDENTITY_ROUNDS: u32 = 75;
/// Expiry of the probe's key, in seconds. Any time will do.
const PROBE_SECONDS: i64 = 10;

/// Runs until the client is shut down.
pub(super) async fn watch_over(shared: Arc<Shared>) {
    let (mut failures, mut rounds) = (0, 0);
    // A silent Redis is noticed even while no commands are sent.
    let mut beat = beat::each(1);
    // The state that was logged last: a single late answer is not worth a line.
    let mut said_up = false;
    // The reason that was logged last: attempts repeat it.
    let mut said_why = None;
    loop {
        let live = shared.live.load_full();
        let misled = shared.misled.swap(false, Relaxed);
        let refused = shared.refusing.load(Relaxed);
        if refused && live.is_connected() && !probe(&shared, &live).await {
            // Only a successful write closes the breaker again.
            shared.close();
            say(&mut said_up, false);
        } else if live.ping_all().await && !misled {
            shared.refusing.store(false, Relaxed);
            failures = 0;
            rounds += 1;
            if rounds >= IDENTITY_ROUNDS || shared.generation().is_none() {
                rounds = 0;
                learn_generation(&shared, &live).await;
            }
            let outdated = shared.outdated().clone();
            if let Some(version) = outdated {
                shared.close();
                say(&mut said_up, false);
                let cause = RedisError::TooOld(version).to_string();
                if said_why.as_ref() != Some(&cause) {
                    tracing::error!(cause, "Redis can't be used");
                    said_why = Some(cause);
                }
            } else {
                shared.let_through();
                say(&mut said_up, true);
                said_why = None;
            }
        } else if !live.is_connected() {
            failures = 0;
            shared.close();
            say(&mut said_up, false);
            if let Some(cause) = live.take_error().filter(|cause| Some(cause) != said_why.as_ref())
            {
                tracing::warn!(cause, "no connection to Redis");
                said_why = Some(cause);
            }
            *shared.generation() = None;
            if live.is_over() {
                shared.reopen();
            }
        } else {
            failures += 1;
            shared.close();
            if failures >= FAILURES_TO_GIVE_UP || misled {
                failures = 0;
                say(&mut said_up, false);
                shared.reopen();
            }
        }
        let connecting = !live.is_connected();
        drop(live);
        tokio::select! {
            () = shared.end.cancelled() => return,
            _ = beat.tick() => {}
            () = tokio::time::sleep(CONNECT_POLL), if connecting => {}
            () = shared.suspicion.notified() => {}
        }
    }
}

fn say(said_up: &mut bool, up: bool) {
    match (std::mem::replace(said_up, up), up) {
        (false, true) => tracing::info!("Redis is up"),
        (true, false) => tracing::warn!("Redis is unavailable: going on without it"),
        _ => {}
    }
}

/// Whether the server accepts writes.
async fn probe(shared: &Shared, live: &Live) -> bool {
    let key = format!("{}probe", shared.prefix);
    let expiry = Some(Expiration::EX(PROBE_SECONDS));
    live.client().set::<(), _, _>(key, 1, expiry, None, false).await.is_ok()
}

/// Stores the server's identity, and whether its version is too old. If the connection was replaced
/// meanwhile, the identity is left to the next round.
async fn learn_generation(shared: &Shared, live: &Live) {
    // From here on, `generation()` clears only for a connection newer than the one asked.
    drop(shared.generation());
    let servers = ask_servers(live.client()).await.unwrap_or_default();
    let outdated = servers.iter().find(|server| is_outdated(&server.version));
    let outdated = outdated.map(|server| server.version.clone());
    // Wakes `wait`, which looks at both.
    shared.open.send_if_modified(|_| {
        let changed = *shared.outdated() != outdated;
        *shared.outdated() = outdated;
        changed
    });
    let identity = identity(servers);
    let mut known = shared.generation.lock().unwrap_or_else(PoisonError::into_inner);
    *known = if live.take_reconnected() { None } else { identity.map(Arc::from) };
}
