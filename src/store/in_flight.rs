//! Statements in flight, whose callers may stop waiting for them.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::ClientWrapper;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, time::timeout};

use super::{connect::Pooled, shared_connections::SharedConnections};

/// What a statement occupies until it has ended.
#[derive(Debug)]
pub(super) enum Held {
    /// A connection of a pool.
    Own(Pooled),
    /// A permit for the queue of a shared connection.
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

    /// Takes the connection out of use, because the statement may still be running on it.
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

/// A statement in flight. When its caller goes away (the client hung up, the request timed out), Postgres
/// still runs it. So its connection is kept until it has ended: the next caller would have to wait for it,
/// and if the connection were closed, Postgres would notice only after the statement, and would have more
/// connections than configured until then.
#[derive(Debug)]
pub(super) struct InFlight {
    /// `None` once it has ended.
    held: Option<Held>,
    /// How long to wait for the end after the caller has gone; `None`: not at all.
    patience: Option<Duration>,
}

impl InFlight {
    pub(super) fn new(held: Held, patience: Option<Duration>) -> Self {
        Self { held: Some(held), patience }
    }

    /// Returns the connection, or `None` once the statement has ended.
    pub(super) fn client(&self) -> Option<&ClientWrapper> {
        self.held.as_ref().map(Held::client)
    }

    /// Releases the connection, because the statement has ended.
    pub(super) fn end(&mut self) {
        self.held = None;
    }

    /// Takes the connection out of use, because the statement is stuck.
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
                // Postgres answers in order, so this answer comes after the statement's own.
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
