//! A socket while its task waits: whoever has a delivery for it may deliver in the task's place.
//!
//! Most deliveries need no more than a look at the session and a write that does not block. To wake the
//! task for these costs more than they do: it wakes with cold memory and asks for all that it waits for.
//! What needs more, a read from Postgres or a client that takes nothing, stays the task's.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, Weak},
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

    pub(super) fn put(&self, connection: Box<Connection>) {
        if let Ok(mut held) = self.0.lock() {
            *held = Some(connection);
        }
    }

    /// `None`: a delivery panicked. What it had taken is lost to the socket, which has to end, as it does
    /// where its own task panics.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        self.0.lock().ok()?.take()
    }

    /// Waits for deliveries and the client's frames. Cancel-safe.
    pub(super) async fn event(&self) -> Event {
        poll_fn(|context| match self.0.lock().as_deref_mut() {
            Ok(Some(connection)) => connection.poll_event(context),
            // Only its task takes it, and that waits here.
            Ok(None) => Poll::Pending,
            Err(_) => Poll::Ready(Event::Unsent),
        })
        .await
    }
}

impl Recipient for Waiting {
    fn deliver(&self) -> bool {
        match self.0.lock().as_deref_mut() {
            Ok(Some(connection)) => connection.deliver(),
            // The task looks into the queue before it waits.
            Ok(None) => true,
            Err(_) => false,
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_delivery_that_panicked_ends_the_socket() {
        let waiting = Arc::<Waiting>::default();
        assert!(waiting.event().now_or_never().is_none() && waiting.deliver());
        let panicking = Arc::clone(&waiting);
        let panicked = std::thread::spawn(move || {
            let _held = panicking.0.lock();
            panic!("this panic is the test");
        });
        assert!(panicked.join().is_err());
        assert!(!waiting.deliver(), "its task must be woken");
        assert!(waiting.event().now_or_never().is_some(), "its task waits for ever");
        assert!(waiting.take().is_none());
    }
}
