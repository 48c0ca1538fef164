//! Presence across all replicas, by leases in Redis: a counter would be wrong after a crash.
//!
//! A replica with sockets of a user holds one lease, in the hash `presence:{user_id}` (replica → expiry
//! by Redis's clock). The hash exists exactly while the user is announced as online, so the replica that
//! creates or empties it, atomically, announces the transition. The sorted set `presence-leases` lets
//! every replica find expired leases.

mod keeper;
mod leases;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use self::{keeper::Keeper, leases::Leases};
use crate::{
    broker::RedisClient,
    model::{Change, Member, UserId},
};

/// How long a user stays online after their last socket: a reload of a page or a change of networks is
/// no absence.
pub const GRACE: Duration = Duration::from_secs(3);

/// A user came online or went offline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub user: UserId,
    pub online: bool,
    /// When it happened; for one who went offline, when they were last seen.
    pub at: Timestamp,
}

/// A user with sockets on this replica, now or within the grace.
#[derive(Debug, Default)]
struct Local {
    sockets: usize,
    /// When the lease was last written, by this replica's clock.
    leased: Option<Instant>,
    /// When the last socket closed, and when the lease ends for it.
    left: Option<Leaving>,
}

#[derive(Debug, Clone, Copy)]
struct Leaving {
    at: Timestamp,
    due: Instant,
    /// The lease was missing, so other replicas get time to renew theirs.
    doubted: bool,
}

type Locals = HashMap<UserId, Local>;

struct Shared {
    locals: Mutex<Locals>,
    leases: Leases,
}

enum Order {
    Enter(UserId),
    LeaveAll(oneshot::Sender<()>),
}

/// This replica's part in presence. Cheap to clone; after the last clone is dropped, its leases expire.
#[derive(Clone)]
pub struct Presence {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    _end: Arc<DropGuard>,
}

impl Presence {
    /// Starts to renew leases and to sweep expired ones. Each transition goes to `events` of one replica
    /// only, which must publish it. Must be called within a Tokio runtime.
    pub fn start(
        redis: RedisClient,
        replica_id: Uuid,
        events: mpsc::UnboundedSender<Transition>,
    ) -> Self {
        let leases = Leases::new(redis, replica_id);
        let shared = Arc::new(Shared { locals: Mutex::default(), leases });
        let (orders, inbox) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        tokio::spawn(Keeper::new(Arc::clone(&shared), events).run(inbox, end.clone()));
        Self { shared, orders, _end: Arc::new(end.drop_guard()) }
    }

    /// Counts a socket of `user` until the guard is dropped.
    pub fn enter(&self, user: &UserId) -> PresenceGuard {
        let first = {
            let mut locals = self.shared.locals();
            let local = locals.entry(user.clone()).or_default();
            local.sockets += 1;
            // Within the grace the lease still exists.
            let returned = local.left.take().is_some() && local.leased.is_some();
            local.sockets == 1 && !returned
        };
        if first {
            // An error means that the replica is ending.
            let _ = self.orders.send(Order::Enter(user.clone()));
        }
        PresenceGuard { shared: Arc::clone(&self.shared), user: user.clone() }
    }

    /// Returns those of `users` who are online; while Redis is unavailable, those with sockets here.
    pub async fn online(&self, users: &[UserId]) -> HashSet<UserId> {
        let mut online: HashSet<UserId> = {
            let locals = self.shared.locals();
            users.iter().filter(|user| locals.contains_key(*user)).cloned().collect()
        };
        let unknown: Vec<&UserId> = users.iter().filter(|user| !online.contains(*user)).collect();
        if !unknown.is_empty()
            && let Ok(live) = self.shared.leases.live(&unknown).await
        {
            online.extend(live.into_iter().cloned());
        }
        online
    }

    /// Notes in changes of a chat's members who of them is online. Nobody is told of presence in a chat
    /// without receipts.
    pub async fn show(&self, changes: &mut [Change], receipts: bool) {
        let mut members: Vec<&mut Member> = Vec::new();
        for change in changes.iter_mut().filter(|_| receipts) {
            match change {
                Change::Joined { members: joined, .. } => members.extend(joined),
                Change::Updated { member, .. } => members.push(member),
                _ => {}
            }
        }
        if members.is_empty() {
            return;
        }
        let ids: Vec<UserId> = members.iter().map(|member| member.user.user_id.clone()).collect();
        let online = self.online(&ids).await;
        for Member { user, .. } in members {
            user.online = online.contains(&user.user_id);
            user.last_seen_at = user.last_seen_at.filter(|_| !user.online);
        }
    }

    /// Ends all leases of this replica without grace, and its part in presence: the end of a drain, after
    /// the sockets moved to other replicas.
    pub async fn leave_all(&self) {
        let (done, finished) = oneshot::channel();
        if self.orders.send(Order::LeaveAll(done)).is_ok() {
            let _ = finished.await;
        }
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

/// Counts one socket of a user. When the last one is dropped, [`GRACE`] begins.
pub struct PresenceGuard {
    shared: Arc<Shared>,
    user: UserId,
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let mut locals = self.shared.locals();
        // Absent after `leave_all`.
        let Some(local) = locals.get_mut(&self.user) else { return };
        local.sockets = local.sockets.saturating_sub(1);
        if local.sockets == 0 {
            let due = Instant::now() + GRACE;
            local.left = Some(Leaving { at: Timestamp::now(), due, doubted: false });
        }
    }
}

impl fmt::Debug for PresenceGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceGuard").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Shared {
    fn locals(&self) -> MutexGuard<'_, Locals> {
        self.locals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
