//! A socket while its task waits: whoever has a delivery for it may deliver in the task's place.
//!
//! Most deliveries need no more than a look at the session and a write that does not block. To wake the
//! task for these costs more than they do: it wakes with cold memory and asks for all that it waits for.
//! What needs more, a read from Postgres or a client that takes nothing, stays the task's.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};

use tokio_tungstenite::tungstenite;

use super::{connection::Connection, session::Effect, wire::WsMessage};
use crate::{
    context::AdmissionPermit,
    hub::{Delivery, Queue, Recipient},
};

/// What a socket's task goes on with.
pub(super) enum Event {
    Deliveries(Vec<Arc<Delivery>>),
    /// Boxed, because an idle socket would hold memory for it.
    Frame(Box<Option<Result<WsMessage, tungstenite::Error>>>),
    Alarm,
    Admitted(AdmissionPermit),
    /// Frames have to be written, or there is nothing but the look at all deadlines.
    Unsent,
}

/// Holds the connection while its task waits.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Option<Box<Connection>>>);

impl Waiting {
    /// Offers a connection to those who push into its queue, until dropped.
    pub(super) fn lend(queue: &Queue) -> Arc<Self> {
        let waiting = Arc::<Self>::default();
        // Weak, because the connection holds the queue.
        let recipient = Arc::downgrade(&waiting);
        queue.set_recipient(recipient as Weak<dyn Recipient>);
        waiting
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Connection>>> {
        // A panic leaves the connection as any other panic of its task would.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, connection: Box<Connection>) {
        *self.lock() = Some(connection);
    }

    pub(super) fn take(&self) -> Option<Box<Connection>> {
        self.lock().take()
    }

    /// Waits for deliveries and the client's frames. Cancel-safe.
    pub(super) async fn event(&self) -> Event {
        poll_fn(|context| match &mut *self.lock() {
            Some(connection) => connection.poll_event(context),
            // Only its task takes it, and that waits here.
            None => Poll::Pending,
        })
        .await
    }
}

impl Recipient for Waiting {
    fn deliver(&self) -> bool {
        match &mut *self.lock() {
            Some(connection) => connection.deliver(),
            // The task looks into the queue before it waits.
            None => true,
        }
    }
}

impl Connection {
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(deliveries) = self.inbox.poll_take(context) {
            return Poll::Ready(Event::Deliveries(deliveries));
        }
        if !(self.out.is_empty() && self.wire.is_clear()) {
            return Poll::Ready(Event::Unsent);
        }
        pin!(self.wire.recv()).poll(context).map(|frame| Event::Frame(Box::new(frame)))
    }

    /// Delivers what is in the queue, as far as that needs no wait. False: the task has to go on.
    fn deliver(&mut self) -> bool {
        // The task finds out when a socket keeps up again.
        if self.behind_since.is_some() || !self.wire.is_clear() {
            return false;
        }
        let deliveries = self.inbox.take_while(|delivery| {
            matches!(
                delivery,
                Delivery::Event { .. } | Delivery::Typing { .. } | Delivery::Presence { .. }
            )
        });
        // The effects of these leave the session as it was, so the task can apply them again.
        let applied =
            deliveries.iter().take_while(|delivery| self.on_delivery(delivery) == Effect::Nothing);
        let applied = applied.count();
        self.inbox.put_back(&deliveries[applied..]);
        self.send_now() && self.inbox.is_empty()
    }
}
