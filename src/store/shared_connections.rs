//! Connections that many short reads share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use deadpool_postgres::ClientWrapper;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{StoreError, connect::Connector};

/// Connections on which statements are pipelined: while Postgres runs one, the next ones have arrived, so
/// that it wakes up less often and answers several at once. A slow statement delays those behind it, so
/// each must read a bounded range of an index and wait for no lock.
#[derive(Debug)]
pub(super) struct SharedConnections {
    connector: Connector,
    /// Time-out of waiting for a permit, and for a connection that is being opened.
    ceiling: Duration,
    connections: Vec<Mutex<Option<Arc<ClientWrapper>>>>,
    next: AtomicUsize,
    /// See [`QUEUE`].
    places: Arc<Semaphore>,
}

/// Maximum of statements in flight per connection. Further ones wait for a permit instead, so that a
/// statement behind many others is not taken for a stuck one, and can still be cancelled.
const QUEUE: usize = 32;

impl SharedConnections {
    /// Opens no connection yet. `size` must be at least 1.
    pub(super) fn new(connector: Connector, size: usize, ceiling: Duration) -> Self {
        let connections = (0..size).map(|_| Mutex::new(None)).collect();
        let places = Arc::new(Semaphore::new(size * QUEUE));
        Self { connector, ceiling, connections, next: AtomicUsize::new(0), places }
    }

    pub(super) fn size(&self) -> usize {
        self.connections.len()
    }

    /// Takes a permit to queue a statement, which holds until it is dropped.
    pub(super) async fn queue(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let place = timeout(self.ceiling, Arc::clone(&self.places).acquire_owned()).await;
        // The only error is the time-out, because the semaphore is never closed.
        place.ok().and_then(Result::ok).ok_or(StoreError::Unavailable(None))
    }

    /// Returns the next connection in turn, and opens it if it is not open, or broken.
    pub(super) async fn get(&self) -> Result<Arc<ClientWrapper>, StoreError> {
        let turn = self.next.fetch_add(1, Relaxed) % self.connections.len();
        let opening = self.get_or_open(&self.connections[turn]);
        timeout(self.ceiling, opening)
            .await
            .unwrap_or_else(|_| Err(StoreError::no_answer(self.ceiling)))
    }

    async fn get_or_open(
        &self,
        connection: &Mutex<Option<Arc<ClientWrapper>>>,
    ) -> Result<Arc<ClientWrapper>, StoreError> {
        let mut connection = connection.lock().await;
        match &*connection {
            Some(open) if !open.is_closed() => Ok(Arc::clone(open)),
            _ => {
                let open = Arc::new(self.connector.open().await?);
                Ok(Arc::clone(connection.insert(open)))
            }
        }
    }

    /// Takes a stuck connection out of use; it closes once its last user has dropped it.
    pub(super) async fn give_up(&self, stuck: &Arc<ClientWrapper>) {
        for connection in &self.connections {
            connection.lock().await.take_if(|open| Arc::ptr_eq(open, stuck));
        }
    }
}
