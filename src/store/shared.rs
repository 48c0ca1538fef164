//! Connections that many short reads share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use deadpool::managed::Manager as _;
use deadpool_postgres::{ClientWrapper, Manager};
use tokio::sync::Mutex;
use tokio_postgres::Error;

/// Connections on which statements queue one behind the other: while Postgres works on one it has the
/// next ones at hand, wakes up less often, and answers several at once. For statements only that read
/// a bounded range by an index and wait for no lock, as a slow one holds up those behind it.
#[derive(Debug)]
pub(super) struct Shared {
    manager: Manager,
    connections: Vec<Mutex<Option<Arc<ClientWrapper>>>>,
    next: AtomicUsize,
}

impl Shared {
    /// Opens none yet. `size` must be at least 1.
    pub(super) fn new(manager: Manager, size: usize) -> Self {
        let connections = (0..size).map(|_| Mutex::new(None)).collect();
        Self { manager, connections, next: AtomicUsize::new(0) }
    }

    pub(super) fn size(&self) -> usize {
        self.connections.len()
    }

    /// One of the connections, in turn; opened where it isn't yet, or has broken. Opening one can take
    /// as long as Postgres likes: the caller sets a limit.
    pub(super) async fn get(&self) -> Result<Arc<ClientWrapper>, Error> {
        let turn = self.next.fetch_add(1, Relaxed) % self.connections.len();
        let mut connection = self.connections[turn].lock().await;
        match &*connection {
            Some(open) if !open.is_closed() => Ok(Arc::clone(open)),
            _ => {
                let open = Arc::new(self.manager.create().await?);
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
