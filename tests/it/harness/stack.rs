//! Postgres and Redis as children of this process, shared by all tests in it.
//!
//! A static is never dropped: each child's guard notices the end of this process, and ends its child.

use std::sync::Arc;

use beseda::dev::{Postgres, Redis};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Replicas alive at once: their connections must stay below the `max_connections` of one Postgres.
const MAX_REPLICAS: u32 = 20;

/// A Postgres and a Redis.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
}

impl Stack {
    /// Starts one for a single test, which may stop, kill or freeze it.
    pub(crate) async fn own() -> Arc<Self> {
        let (postgres, redis) = tokio::join!(Postgres::temporary(), Redis::temporary());
        Arc::new(Self {
            postgres: postgres.expect("PostgreSQL is installed"),
            redis: redis.expect("Redis is installed"),
        })
    }

    pub(crate) async fn shared() -> Arc<Self> {
        static SHARED: OnceCell<Arc<Stack>> = OnceCell::const_new();
        Arc::clone(SHARED.get_or_init(Self::own).await)
    }
}

/// Waits until so many more replicas fit beside those of other tests.
pub(crate) async fn replica_permit(replicas: usize) -> OwnedSemaphorePermit {
    static PERMITS: OnceCell<Arc<Semaphore>> = OnceCell::const_new();
    let permits =
        PERMITS.get_or_init(async || Arc::new(Semaphore::new(MAX_REPLICAS as usize))).await;
    let wanted = u32::try_from(replicas).unwrap_or(MAX_REPLICAS).min(MAX_REPLICAS);
    Arc::clone(permits).acquire_many_owned(wanted).await.expect("never closed")
}
