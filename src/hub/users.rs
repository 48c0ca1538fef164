//! The sockets of each user on this replica.

use std::sync::Arc;

use super::{Delivery, Hub, Queue};
use crate::{
    model::{Time, UserId},
    protocol::Publication,
};

impl Hub {
    pub(crate) fn add_user(&self, user_id: &UserId, queue: &Queue, inbox: bool) {
        self.users().entry(user_id.clone()).or_default().push((queue.clone(), inbox));
    }

    /// Removes a user's socket. If it was the last one here, calls `unsubscribe` under the lock, so
    /// that it cannot overtake a later subscription.
    pub(crate) fn remove_user(&self, user_id: &UserId, queue: &Queue, unsubscribe: impl FnOnce()) {
        let mut users = self.users();
        let Some(queues) = users.get_mut(user_id) else { return };
        queues.retain(|(other, _)| !other.is(queue));
        if queues.is_empty() {
            users.remove(user_id);
            unsubscribe();
        }
    }

    /// The number of the user's sockets on this replica.
    pub fn count_user(&self, user_id: &UserId) -> usize {
        self.users().get(user_id).map_or(0, Vec::len)
    }

    /// Handles a publication on a user's channel.
    pub(crate) fn receive_for_user(&self, user_id: &UserId, publication: Publication) {
        match publication {
            Publication::ChatMoved { chat_id, .. } => {
                self.push_to_user(user_id, Delivery::ChatMoved { chat_id });
            }
            Publication::OwnRead { epoch, chat_id, frame } => {
                self.push_to_user(user_id, Delivery::OwnRead { chat_id, epoch, frame });
            }
            _ => {}
        }
    }

    /// Tells the sockets of an erased user to close.
    pub(crate) fn close_user(&self, user_id: &UserId) {
        self.push_to_user(user_id, Delivery::Erased);
    }

    /// Tells a user's sockets to close if their token was issued before `at`.
    pub(crate) fn revoke_user(&self, user_id: &UserId, at: Time) {
        self.push_to_user(user_id, Delivery::Revoked { at });
    }

    /// Tells a user's inboxes that any chat may have changed.
    pub(crate) fn poke_inbox(&self, user_id: &UserId) {
        self.push_to_user(user_id, Delivery::Inbox);
    }

    fn push_to_user(&self, user_id: &UserId, delivery: Delivery) {
        let shared = Arc::new(delivery);
        for (queue, _) in self.users().get(user_id).into_iter().flatten() {
            queue.push(&shared);
        }
    }

    /// The users with a socket on this replica.
    pub(crate) fn attached_users(&self) -> Vec<UserId> {
        self.users().keys().cloned().collect()
    }

    /// The users with an inbox socket on this replica.
    pub(crate) fn inbox_users(&self) -> Vec<UserId> {
        let users = self.users();
        let followed = users.iter().filter(|(_, queues)| queues.iter().any(|(_, inbox)| *inbox));
        followed.map(|(user_id, _)| user_id.clone()).collect()
    }
}
