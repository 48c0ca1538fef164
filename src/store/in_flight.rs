//! Statements that somebody asked for and may no longer wait for.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::ClientWrapper;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, time::timeout};

use super::{connect::Pooled, shared_connections::SharedConnections};

/// What a statement takes until it has ended.
#[derive(Debug)]
pub(super) enum Held {
    /// A connection of a pool.
    Own(Pooled),
    /// A place in the queue of one that is shared.
    Queued {
        client: Arc<ClientWrapper>,
        shared: Arc<SharedConnections>,
        place: OwnedSemaphorePermit,
    },
}

impl Held {
    fn client(&self) -> &ClientWrapper {
        match self {
            Self::Own(client) => client,
            Self::Queued { client, .. } => client,
        }
    }

    /// The statement may still run there: nobody else must queue behind it.
    async fn give_up(self) {
        match self {
            Self::Own(client) => drop(Pooled::take(client)),
            Self::Queued { client, shared, place } => {
                shared.give_up(&client).await;
                drop(place);
            }
        }
    }
}

/// A statement under way. Where its caller goes away (the client hung up, the request's time is over)
/// Postgres works on all the same: then what it holds is kept until it has ended, and not given to the
/// next one, who would wait for somebody else's statement. Nor is it closed, since Postgres would hear
/// of that only afterwards, and have more connections than it is meant to have meanwhile.
#[derive(Debug)]
pub(super) struct InFlight {
    /// `None` once it has ended.
    held: Option<Held>,
    /// How long the end is waited for; `None`: not at all.
    patience: Option<Duration>,
}

impl InFlight {
    pub(super) fn new(held: Held, patience: Option<Duration>) -> Self {
        Self { held: Some(held), patience }
    }

    /// `None` once it has ended.
    pub(super) fn client(&self) -> Option<&ClientWrapper> {
        self.held.as_ref().map(Held::client)
    }

    /// It has ended.
    pub(super) fn end(&mut self) {
        self.held = None;
    }

    /// It is stuck.
    pub(super) async fn give_up(&mut self) {
        if let Some(held) = self.held.take() {
            held.give_up().await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let patience = self.patience;
        let ending = async move {
            let ended = match patience {
                // Answers come in the order of statements: this one's after the other's.
                Some(patience) => timeout(patience, held.client().simple_query("")).await,
                None => return held.give_up().await,
            };
            if !matches!(ended, Ok(Ok(_))) {
                held.give_up().await;
            }
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(ending);
        }
    }
}
