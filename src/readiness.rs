//! Whether Postgres is there with the right schema, as anybody may ask: without a token, and as often
//! as they like.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use crate::store::{Store, StoreError};

/// How often Postgres is asked within [`WINDOW`]: several balancers with a check a second each get an
/// answer of that moment; whoever asks more often gets the last one.
const ASKS: u32 = 8;

/// So old may an answer be.
const WINDOW: Duration = Duration::from_secs(1);

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Postgres {
    Up,
    WrongSchema,
    Away,
}

/// What is known, and how it came.
#[derive(Debug)]
struct Known {
    postgres: Postgres,
    at: Instant,
    /// When the window of these asks began.
    window: Instant,
    asks: u32,
}

/// Asks Postgres for all who ask at the same time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    store: Store,
    /// Locked while Postgres is asked, so that one asks at a time.
    known: Arc<Mutex<Option<Known>>>,
}

impl Readiness {
    pub fn new(store: Store) -> Self {
        Self { store, known: Arc::default() }
    }

    pub async fn postgres(&self) -> Postgres {
        let (Self { store, known }, came) = (self.clone(), Instant::now());
        // A task of its own: who asks and hangs up must not leave a statement behind each time.
        let asking = tokio::spawn(async move {
            let mut known = known.lock().await;
            let (window, asks) = match &*known {
                // It was answered while we waited for our turn.
                Some(Known { postgres, at, .. }) if *at >= came => return *postgres,
                Some(Known { postgres, window, asks, .. }) if window.elapsed() < WINDOW => {
                    if *asks >= ASKS {
                        return *postgres;
                    }
                    (*window, asks + 1)
                }
                _ => (Instant::now(), 1),
            };
            let postgres = ask(&store).await;
            *known = Some(Known { postgres, at: Instant::now(), window, asks });
            postgres
        });
        // It panics as little as this does.
        asking.await.unwrap_or(Postgres::Away)
    }
}

async fn ask(store: &Store) -> Postgres {
    match store.check_schema().await {
        Ok(()) => Postgres::Up,
        Err(StoreError::Schema(reason)) => {
            tracing::warn!(reason, "not ready");
            Postgres::WrongSchema
        }
        Err(_) => Postgres::Away,
    }
}
