//! Who is known: the bearers of valid tokens, and whether they were erased, or their tokens revoked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    auth::{Identity, is_revoked},
    error::Error,
    model::{Time, UserId},
    store::{Profile, Store},
};

/// How long a token's bearer counts as known, and as neither erased nor revoked, before Postgres is
/// asked again. All replicas are told of these at once; this bounds what a lost word can do.
const ADMISSION_LIFETIME: Duration = Duration::from_secs(5);

/// Remembers whom Postgres has just called known, so that a request costs no query for it.
#[derive(Debug, Clone)]
pub struct AdmissionCache {
    store: Store,
    admitted: Arc<Mutex<HashMap<UserId, Admitted>>>,
}

#[derive(Debug)]
struct Admitted {
    profile: Profile,
    /// Another token of theirs may be older.
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
        // A cache: a panic in between leaves nothing wrong in it.
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the bearer of a valid token known before anything is answered; refuses the erased, and
    /// tokens revoked since they were issued.
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
        // Before it grows: what is no longer believed is thrown out. Where that was less than half,
        // there are so many, and looking again soon would find no more.
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

    /// They were erased, revoked or named anew: ask Postgres at the next request.
    pub fn forget(&self, user_id: &UserId) {
        self.admitted().remove(user_id);
    }
}
