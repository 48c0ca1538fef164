//! Who is known: the bearers of valid tokens, and whether they were erased since.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    model::UserId,
    store::{Profile, Store},
};

/// How long a token's bearer counts as known, and as not erased, before Postgres is asked again.
/// All replicas are told of an erasure at once; this bounds what a lost word of it can do.
const ADMISSION_LIFETIME: Duration = Duration::from_secs(5);

/// Admissions remembered before the old ones are thrown out: some 50 MB at the very most.
const MAX_ADMISSIONS: usize = 100_000;

/// Remembers whom Postgres has just called known, so that a request costs no query for it.
#[derive(Debug, Clone)]
pub struct People {
    store: Store,
    admitted: Arc<Mutex<HashMap<UserId, (Profile, Instant)>>>,
}

impl People {
    pub fn new(store: Store) -> Self {
        Self { store, admitted: Arc::default() }
    }

    fn admitted(&self) -> MutexGuard<'_, HashMap<UserId, (Profile, Instant)>> {
        // A cache: a panic in between leaves nothing wrong in it.
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the bearer of a valid token known before anything is answered; refuses the erased.
    pub async fn admit(&self, profile: &Profile) -> Result<(), Error> {
        let known = self
            .admitted()
            .get(&profile.user_id)
            .is_some_and(|(known, at)| known == profile && at.elapsed() < ADMISSION_LIFETIME);
        if known {
            return Ok(());
        }
        if !self.store.admit_user(profile).await? {
            return Err(Error::TokenInvalid("its user was erased"));
        }
        let mut admitted = self.admitted();
        if admitted.len() >= MAX_ADMISSIONS {
            admitted.retain(|_, (_, at)| at.elapsed() < ADMISSION_LIFETIME);
        }
        admitted.insert(profile.user_id.clone(), (profile.clone(), Instant::now()));
        Ok(())
    }

    /// They were erased or named anew: ask Postgres at the next request.
    pub fn forget(&self, user_id: &UserId) {
        self.admitted().remove(user_id);
    }
}
