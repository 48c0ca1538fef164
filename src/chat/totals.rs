//! What somebody has not read in all their chats: summed up when it is asked for, as a column for it would
//! be written with every message.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use crate::{error::Error, model::UserId, store::Store};

type Sum = Shared<BoxFuture<'static, Result<i64, Error>>>;

/// Sums, one at a time a user: somebody with 20,000 chats who marks one after the other takes a connection,
/// and not all of them.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    store: Store,
    in_flight: Arc<Mutex<HashMap<UserId, InFlight>>>,
}

#[derive(Debug)]
struct InFlight {
    running: Sum,
    /// Begins when that one has ended. Whoever asks meanwhile shares it: what they have just written is in
    /// it, and may not be in the running one.
    next: Option<Sum>,
}

impl Totals {
    pub(super) fn new(store: Store) -> Self {
        Self { store, in_flight: Arc::default() }
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<UserId, InFlight>> {
        // Each change is whole by itself.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Live messages of others that `user` has not read, with all that was committed before the call.
    pub(super) async fn get(&self, user: &UserId) -> Result<i64, Error> {
        let sum = {
            let mut in_flight = self.in_flight();
            match in_flight.get_mut(user) {
                Some(InFlight { running, next }) => {
                    next.get_or_insert_with(|| self.start(user, Some(running.clone()))).clone()
                }
                None => {
                    let running = self.start(user, None);
                    in_flight
                        .insert(user.clone(), InFlight { running: running.clone(), next: None });
                    running
                }
            }
        };
        sum.await
    }

    /// A task of its own, since it must end even where nobody waits for it any more.
    fn start(&self, user: &UserId, previous: Option<Sum>) -> Sum {
        let (totals, user) = (self.clone(), user.clone());
        let task = tokio::spawn(async move {
            if let Some(previous) = previous {
                // Whatever became of it.
                let _ = previous.await;
            }
            let sum = totals.store.sum_unread(&user).await;
            let mut in_flight = totals.in_flight();
            let next = in_flight.get_mut(&user).and_then(|theirs| theirs.next.take());
            match next {
                Some(running) => in_flight.insert(user, InFlight { running, next: None }),
                None => in_flight.remove(&user),
            };
            Ok(sum?)
        });
        async move { task.await.unwrap_or(Err(Error::Unavailable(None))) }.boxed().shared()
    }
}
