//! The task that renews this replica's leases and sweeps those of dead replicas.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Leaving, Order, Shared, Transition,
    leases::{LEASE, Left, timestamp},
};
use crate::{beat, model::UserId};

/// Pause between two renewals of all leases. A lease outlives two failed ones.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// Average pause between two sweeps; jitter by half spreads them over the replicas. With a lease, it
/// stays below the documented minute.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Users in one sweep: one replica sweeps a dead replica's 10,000 users in a minute.
const SWEEP_LIMIT: i64 = 1_000;
/// Pause between two checks of the mark that reveals whether Redis was emptied.
const MARK_EVERY: Duration = Duration::from_secs(2);
/// How long a leave is delayed after its lease was missing: within [`MARK_EVERY`] the other replicas
/// notice that theirs are missing too.
const DOUBT: Duration = Duration::from_secs(5);
/// Most orders taken at once.
const BATCH: usize = 1_000;

pub(super) struct Keeper {
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Transition>,
    renew_at: Instant,
    mark_at: Instant,
    sweep_at: Instant,
    generation: Option<Arc<str>>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, events: mpsc::UnboundedSender<Transition>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            events,
            renew_at: now + RENEW_EVERY,
            mark_at: now,
            sweep_at: now + SWEEP_EVERY,
            generation: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Order>,
        end: CancellationToken,
    ) {
        // For users whose grace is over or who have no lease yet.
        let mut tick = beat::each(1);
        let mut orders = Vec::new();
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                n = inbox.recv_many(&mut orders, BATCH) => {
                    if n == 0 {
                        return;
                    }
                    let mut entered = Vec::new();
                    for order in orders.drain(..) {
                        match order {
                            Order::Enter(user) => entered.push(user),
                            Order::LeaveAll(done) => {
                                self.leave_all().await;
                                // The caller may have stopped waiting.
                                let _ = done.send(());
                                return;
                            }
                        }
                    }
                    self.renew(entered).await;
                }
                _ = tick.tick() => self.on_tick().await,
                () = sleep_until(self.sweep_at) => self.sweep().await,
            }
        }
    }

    async fn on_tick(&mut self) {
        self.leave_due().await;
        if !self.shared.leases.redis().is_up() {
            return;
        }
        let now = Instant::now();
        let mut all = now >= self.renew_at;
        let generation = self.shared.leases.redis().generation();
        if generation.is_some() && generation != self.generation {
            // Another server, perhaps with old data, does not have this replica's leases.
            self.generation = generation;
            all = true;
        }
        if now >= self.mark_at {
            self.mark_at = now + MARK_EVERY;
            all |= self.shared.leases.mark().await == Ok(false);
        }
        if all {
            self.renew_at = now + RENEW_EVERY;
        }
        let users: Vec<UserId> = {
            let locals = self.shared.locals();
            let due = locals.iter().filter(|(_, local)| all || local.leased.is_none());
            due.map(|(user, _)| user.clone()).collect()
        };
        self.renew(users).await;
    }

    /// Writes the leases of `users`. The next tick retries those that failed.
    async fn renew(&mut self, users: Vec<UserId>) {
        for users in users.chunks(BATCH) {
            let asked = Instant::now();
            let Ok(answers) = self.shared.leases.renew(users).await else { return };
            for (user, (unannounced, at)) in users.iter().zip(answers) {
                let mut locals = self.shared.locals();
                let Some(local) = locals.get_mut(user) else { continue };
                // A lease that can't have expired was lost with Redis, without an announcement that the
                // user went offline. One that may have expired may have been swept.
                let lost = local.leased.is_some_and(|leased| asked - leased < LEASE);
                local.leased = Some(asked);
                drop(locals);
                if unannounced && !lost {
                    self.announce(user.clone(), true, at);
                }
            }
        }
    }

    /// Ends the leases of users whose grace is over.
    async fn leave_due(&mut self) {
        let now = Instant::now();
        let due: Vec<(UserId, Leaving)> = {
            let locals = self.shared.locals();
            let leaving = locals.iter().filter_map(|(user, local)| Some((user, local.left?)));
            leaving.filter(|(_, l)| l.due <= now).map(|(u, l)| (u.clone(), l)).collect()
        };
        for due in due.chunks(BATCH) {
            let users: Vec<UserId> = due.iter().map(|(user, _)| user.clone()).collect();
            let Ok(left) = self.shared.leases.leave(&users).await else {
                self.give_up_leases(&users, now);
                return;
            };
            for ((user, leaving), left) in due.iter().zip(left) {
                self.on_left(user, *leaving, left);
            }
        }
    }

    fn on_left(&self, user: &UserId, leaving: Leaving, left: Left) {
        let mut locals = self.shared.locals();
        let Some(local) = locals.get_mut(user) else { return };
        if local.left.is_none() {
            // The user has returned, so the next tick writes the lease again.
            local.leased = None;
            if matches!(left, Left::Ended { .. }) {
                drop(locals);
                self.announce(user.clone(), false, leaving.at);
            }
            return;
        }
        if left == Left::Missing && local.leased.is_some() && !leaving.doubted {
            let due = Instant::now() + DOUBT;
            local.left = Some(Leaving { due, doubted: true, ..leaving });
            return;
        }
        let was_leased = local.leased.is_some();
        locals.remove(user);
        drop(locals);
        if matches!(left, Left::Ended { .. }) || (left == Left::Missing && was_leased) {
            self.announce(user.clone(), false, leaving.at);
        }
    }

    /// Forgets users whose leases have expired while Redis was unavailable; a sweep announces them.
    fn give_up_leases(&self, users: &[UserId], now: Instant) {
        let mut locals = self.shared.locals();
        for user in users {
            let over = |left: Leaving| left.due + LEASE <= now;
            if locals.get(user).is_some_and(|local| local.left.is_some_and(over)) {
                locals.remove(user);
            }
        }
    }

    async fn sweep(&mut self) {
        self.sweep_at = Instant::now() + SWEEP_EVERY.mul_f64(rand::random_range(0.5..1.5));
        let lease = SignedDuration::try_from(LEASE).unwrap_or_default();
        for (user, until) in self.shared.leases.sweep(SWEEP_LIMIT).await.unwrap_or_default() {
            // The user was last seen when the lease was last renewed.
            self.announce(user, false, timestamp(until) - lease);
        }
    }

    async fn leave_all(&mut self) {
        let users: Vec<(UserId, Option<Leaving>)> = {
            let locals = self.shared.locals();
            locals.iter().map(|(user, local)| (user.clone(), local.left)).collect()
        };
        let now = Timestamp::now();
        for users in users.chunks(BATCH) {
            let names: Vec<UserId> = users.iter().map(|(user, _)| user.clone()).collect();
            // The other leases expire.
            let Ok(left) = self.shared.leases.leave(&names).await else { break };
            for ((user, leaving), left) in users.iter().zip(left) {
                if matches!(left, Left::Ended { .. }) {
                    self.announce(user.clone(), false, leaving.map_or(now, |l| l.at));
                }
            }
        }
        self.shared.locals().clear();
    }

    fn announce(&self, user: UserId, online: bool, at: Timestamp) {
        // An error means that the replica is ending.
        let _ = self.events.send(Transition { user, online, at });
    }
}
