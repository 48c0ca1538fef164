//! Recently admitted users: bearers of valid tokens who are neither erased nor revoked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    auth::{Identity, is_revoked},
    error::Error,
    model::{Profile, Time, UserId},
    store::Store,
};

/// How long an admission is believed before Postgres is asked again. Erasures and revocations are
/// published to all replicas at once; this bounds the effect of a lost publication.
const ADMISSION_LIFETIME: Duration = Duration::from_secs(5);

/// Caches admissions, so that a request costs no query for them.
#[derive(Debug, Clone)]
pub struct AdmissionCache {
    store: Store,
    admitted: Arc<Mutex<HashMap<UserId, Admitted>>>,
}

#[derive(Debug)]
struct Admitted {
    profile: Profile,
    /// Kept because another token of the same user may be older.
    revoked_at: Option<Time>,
    at: Instant,
}

impl Admitted {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < ADMISSION_LIFETIME
    }
}

impl AdmissionCache {
    pub fn new(store: Store) -> Self {
        Self { store, admitted: Arc::default() }
    }

    fn admitted(&self) -> MutexGuard<'_, HashMap<UserId, Admitted>> {
        // A panic leaves a cache consistent.
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits the bearer of a valid token; refuses erased users and revoked tokens.
    pub async fn admit(&self, identity: &Identity) -> Result<(), Error> {
        const REVOKED: Error = Error::TokenInvalid("it was revoked");
        let Identity { profile, issued_at, .. } = identity;
        let known = self
            .admitted()
            .get(&profile.user_id)
            .filter(|known| known.profile == *profile && known.is_fresh())
            .map(|known| known.revoked_at);
        if let Some(revoked_at) = known {
            return if is_revoked(*issued_at, revoked_at) { Err(REVOKED) } else { Ok(()) };
        }
        let found = self.store.admit_bearer(profile, *issued_at).await?;
        if found.erased {
            return Err(Error::TokenInvalid("its user was erased"));
        }
        if is_revoked(*issued_at, found.revoked_at) {
            return Err(REVOKED);
        }
        let mut admitted = self.admitted();
        // Expired entries are dropped before the map grows. If they were less than half, the map
        // grows, since the next scan would find few again.
        let capacity = admitted.capacity();
        if admitted.len() == capacity {
            admitted.retain(|_, known| known.is_fresh());
            if admitted.len() > capacity / 2 {
                admitted.reserve(capacity);
            }
        }
        let (profile, revoked_at) = (profile.clone(), found.revoked_at);
        let known = Admitted { profile, revoked_at, at: Instant::now() };
        admitted.insert(known.profile.user_id.clone(), known);
        Ok(())
    }

    /// Drops a user who was erased, revoked or renamed.
    pub fn forget(&self, user_id: &UserId) {
        self.admitted().remove(user_id);
    }
}
