//! How many there may be at once of what lasts: of one key, and in all.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts what is open on a replica.
#[derive(Debug)]
pub(super) struct ConcurrencyLimit<K> {
    taken: Mutex<Taken<K>>,
    per_key: usize,
    in_all: usize,
}

#[derive(Debug)]
struct Taken<K> {
    by_key: HashMap<K, usize>,
    all: usize,
}

/// A place that is taken; dropping it gives it back.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash> {
    places: Arc<ConcurrencyLimit<K>>,
    key: K,
}

impl<K: Eq + Hash> ConcurrencyLimit<K> {
    pub(super) fn new(per_key: usize, in_all: usize) -> Self {
        let taken = Mutex::new(Taken { by_key: HashMap::new(), all: 0 });
        Self { taken, per_key, in_all }
    }

    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        // Numbers, which a panic elsewhere leaves right.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where there is no place left.
    pub(super) fn take(self: &Arc<Self>, key: K) -> Option<Permit<K>>
    where
        K: Clone,
    {
        let mut taken = self.taken();
        let here = taken.by_key.get(&key).copied().unwrap_or(0);
        if taken.all >= self.in_all || here >= self.per_key {
            return None;
        }
        taken.all += 1;
        taken.by_key.insert(key.clone(), here + 1);
        Some(Permit { places: Arc::clone(self), key })
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(here) = taken.by_key.get_mut(&self.key) {
            *here -= 1;
            if *here == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Arc::new(ConcurrencyLimit::new(2, 3));
        let (first, _second) = (places.take("a"), places.take("a"));
        assert!(first.is_some());
        // One of the same key, then what is full.
        assert!(places.take("a").is_none());
        let third = places.take("b");
        assert!(third.is_some());
        assert!(places.take("c").is_none());
        drop((first, third));
        assert!(places.take("a").is_some());
        assert_eq!(places.taken().by_key.len(), 1);
    }
}
