//! A user's unread total over all chats by Postgres, where Redis does not know it. It is summed on demand,
//! because a column for it would be written with every message.

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

/// Runs one sum at a time per user: a user with 20,000 chats who marks one after the other occupies
/// one connection, not all.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    store: Store,
    in_flight: Arc<Mutex<HashMap<UserId, InFlight>>>,
}

#[derive(Debug)]
struct InFlight {
    running: Sum,
    /// Begins when `running` has ended. All callers that come meanwhile share it: it includes their
    /// own writes, which the running sum may miss.
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

    /// Counts the live messages of others that `user` has not read, including all committed before
    /// the call.
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

    /// Starts a sum in a task of its own, because it must finish even if every caller has left.
    fn start(&self, user: &UserId, previous: Option<Sum>) -> Sum {
        let (totals, user) = (self.clone(), user.clone());
        let task = tokio::spawn(async move {
            if let Some(previous) = previous {
                // Its result does not matter here.
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
