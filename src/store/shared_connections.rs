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

/// Connections on which statements queue one behind the other: while Postgres works on one it has the
/// next ones at hand, wakes up less often, and answers several at once. For statements only that read
/// a bounded range by an index and wait for no lock, as a slow one holds up those behind it.
#[derive(Debug)]
pub(super) struct SharedConnections {
    connector: Connector,
    /// For waiting for a place, and for a connection that somebody else opens.
    ceiling: Duration,
    connections: Vec<Mutex<Option<Arc<ClientWrapper>>>>,
    next: AtomicUsize,
    /// See [`QUEUE`].
    places: Arc<Semaphore>,
}

/// Statements that a connection may have before it. More wait outside, so that one that has to wait
/// for its turn is not taken for one that is stuck, and can still be given up.
const QUEUE: usize = 32;

impl SharedConnections {
    /// Opens none yet. `size` must be at least 1.
    pub(super) fn new(connector: Connector, size: usize, ceiling: Duration) -> Self {
        let connections = (0..size).map(|_| Mutex::new(None)).collect();
        let places = Arc::new(Semaphore::new(size * QUEUE));
        Self { connector, ceiling, connections, next: AtomicUsize::new(0), places }
    }

    pub(super) fn size(&self) -> usize {
        self.connections.len()
    }

    /// A place in the queue of a connection, until dropped.
    pub(super) async fn queue(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let place = timeout(self.ceiling, Arc::clone(&self.places).acquire_owned()).await;
        // Too late; the semaphore itself is never closed.
        place.ok().and_then(Result::ok).ok_or(StoreError::Unavailable(None))
    }

    /// One of the connections, in turn; opened where it isn't yet, or has broken.
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

    /// Hands a connection out no more that is stuck; it ends with its last user.
    pub(super) async fn give_up(&self, stuck: &Arc<ClientWrapper>) {
        for connection in &self.connections {
            connection.lock().await.take_if(|open| Arc::ptr_eq(open, stuck));
        }
    }
}
