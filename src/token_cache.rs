//! Recently verified tokens, so that a signature is not verified with every request. Conditions
//! that can change meanwhile (erasure, expiry) are checked with every request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::auth::Identity;

/// Length of a generation. A token stays for two of them at most, so that tokens of a withdrawn key
/// are accepted for a minute at most.
const GENERATION: Duration = Duration::from_secs(30);

/// Maximum tokens in a generation, some 3 MB; beyond it the next one begins early.
const MAX_TOKENS: usize = 10_000;

/// By SHA-256 of the token, so that no token is kept.
type Tokens = HashMap<[u8; 32], Arc<Identity>>;

/// The cache. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TokenCache(Arc<Mutex<Generations>>);

#[derive(Debug)]
struct Generations {
    began: Instant,
    young: Tokens,
    old: Tokens,
}

impl Default for Generations {
    fn default() -> Self {
        Self { began: Instant::now(), young: Tokens::new(), old: Tokens::new() }
    }
}

impl Generations {
    /// Drops the old generation when it is due.
    fn advance(&mut self) {
        if self.young.len() >= MAX_TOKENS || self.began.elapsed() >= GENERATION {
            let over = self.began.elapsed() >= GENERATION * 2;
            self.old = std::mem::take(&mut self.young);
            if over {
                self.old.clear();
            }
            self.began = Instant::now();
        }
    }
}

impl TokenCache {
    fn with<T>(&self, act: impl FnOnce(&mut Generations) -> T) -> T {
        // A panic leaves a cache consistent.
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.advance();
        act(&mut generations)
    }

    /// Returns the identity of a recently verified token that has not expired since; beyond
    /// `leeway` the verifier reports the expiry.
    pub fn get(&self, token: &str, leeway: Duration) -> Option<Arc<Identity>> {
        let key = digest(token);
        let known = self.with(|g| g.young.get(&key).or_else(|| g.old.get(&key)).cloned())?;
        let now = jiff::Timestamp::now().as_second();
        (known.expires_at.saturating_add(leeway.as_secs().cast_signed()) > now).then_some(known)
    }

    /// Stores a token that was just verified.
    pub fn insert(&self, token: &str, identity: Arc<Identity>) {
        let key = digest(token);
        self.with(|g| g.young.insert(key, identity));
    }
}

fn digest(token: &str) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(digest.as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Profile, UserId};

    fn identity(expires_at: i64) -> Arc<Identity> {
        let user_id = UserId::parse("alice").expect("a valid id");
        let profile = Profile { user_id, name: None, avatar_url: None };
        Arc::new(Identity { profile, admin: false, expires_at, issued_at: None })
    }

    #[test]
    fn a_token_is_believed_until_it_expires_and_no_other_one_is() {
        let verified = TokenCache::default();
        let (now, leeway) = (jiff::Timestamp::now().as_second(), Duration::from_secs(30));
        verified.insert("live", identity(now + 60));
        verified.insert("in its leeway", identity(now - 10));
        verified.insert("over", identity(now - 31));
        assert!(verified.get("live", leeway).is_some());
        assert!(verified.get("in its leeway", leeway).is_some());
        assert!(verified.get("over", leeway).is_none());
        assert!(verified.get("live.", leeway).is_none());
    }

    #[test]
    fn a_token_is_forgotten_after_two_generations_and_their_size_is_bounded() {
        let verified = TokenCache::default();
        let (end, leeway) = (jiff::Timestamp::now().as_second() + 600, Duration::ZERO);
        let age = |by| verified.with(|g| g.began -= by);
        verified.insert("first", identity(end));
        age(GENERATION);
        assert!(verified.get("first", leeway).is_some());
        age(GENERATION);
        assert!(verified.get("first", leeway).is_none());
        verified.insert("idle", identity(end));
        age(GENERATION * 2);
        assert!(verified.get("idle", leeway).is_none());
        for number in 0..3 * MAX_TOKENS {
            verified.insert(&number.to_string(), identity(end));
        }
        assert!(verified.with(|g| g.young.len() + g.old.len()) <= 2 * MAX_TOKENS);
    }
}
