//! How many sockets there may be, from one address and in all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::net::neighbourhood;

/// Counts the open sockets of a replica, those that have not said who they are included.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<Taken>,
    per_address: usize,
    in_all: usize,
}

#[derive(Debug, Default)]
struct Taken {
    by_address: HashMap<IpAddr, usize>,
    all: usize,
}

/// A socket's place; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(per_address: usize, in_all: usize) -> Self {
        Self { taken: Mutex::default(), per_address, in_all }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Numbers, which a panic elsewhere leaves right.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where there is no place left.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = neighbourhood(address);
        let mut taken = self.taken();
        let here = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= self.in_all || here >= self.per_address {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, here + 1);
        Some(Place { places: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Arc::new(Places::new(2, 3));
        let ip = |raw: &str| raw.parse().expect("an address");
        let (first, _second) = (places.take(ip("2001:db8::1")), places.take(ip("2001:db8::2")));
        assert!(first.is_some());
        // The same network, then a replica that is full.
        assert!(places.take(ip("2001:db8::3")).is_none());
        let third = places.take(ip("192.0.2.1"));
        assert!(third.is_some());
        assert!(places.take(ip("192.0.2.2")).is_none());
        drop((first, third));
        assert!(places.take(ip("2001:db8::3")).is_some());
        assert_eq!(places.taken().by_address.len(), 1);
    }
}
