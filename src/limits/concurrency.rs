//! A concurrency limit, per key and in total.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts the permits that are in use on a replica.
#[derive(Debug)]
pub(super) struct ConcurrencyLimit<K> {
    taken: Mutex<Taken<K>>,
    per_key: usize,
    total: usize,
}

#[derive(Debug)]
struct Taken<K> {
    by_key: HashMap<K, usize>,
    total: usize,
}

/// A permit in use; dropping it releases it.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash> {
    limit: Arc<ConcurrencyLimit<K>>,
    key: K,
}

impl<K: Eq + Hash> ConcurrencyLimit<K> {
    pub(super) fn new(per_key: usize, total: usize) -> Self {
        let taken = Mutex::new(Taken { by_key: HashMap::new(), total: 0 });
        Self { taken, per_key, total }
    }

    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        // No panic can happen while the numbers are inconsistent.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit; `None` at the limit.
    pub(super) fn take(self: &Arc<Self>, key: K) -> Option<Permit<K>>
    where
        K: Clone,
    {
        let mut taken = self.taken();
        let of_key = taken.by_key.get(&key).copied().unwrap_or(0);
        if taken.total >= self.total || of_key >= self.per_key {
            return None;
        }
        taken.total += 1;
        taken.by_key.insert(key.clone(), of_key + 1);
        Some(Permit { limit: Arc::clone(self), key })
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.limit.taken();
        taken.total -= 1;
        if let Some(of_key) = taken.by_key.get_mut(&self.key) {
            *of_key -= 1;
            if *of_key == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_permits_are_released() {
        let limit = Arc::new(ConcurrencyLimit::new(2, 3));
        let (first, _second) = (limit.take("a"), limit.take("a"));
        assert!(first.is_some());
        assert!(limit.take("a").is_none(), "the limit of the key");
        let third = limit.take("b");
        assert!(third.is_some());
        assert!(limit.take("c").is_none(), "the total limit");
        drop((first, third));
        assert!(limit.take("a").is_some());
        assert_eq!(limit.taken().by_key.len(), 1);
    }
}
