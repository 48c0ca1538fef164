//! Inboxes that follow chats of many members: a message of such a chat is published on the chat's own
//! channel only, however many members there are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Release},
    },
    time::Instant,
};

use futures_util::future::join_all;
use tokio::sync::OnceCell;

use super::{
    Hub, Queue,
    entry::{Entry, Follower},
    feed::{Feed, SUBSCRIBE_WAIT},
};
use crate::{broker::Channel, model::ChatId};

/// An inbox follows a chat; dropping it ends that.
#[derive(Debug)]
pub struct Follow {
    feed: Feed,
    chat_id: ChatId,
    told: Arc<AtomicBool>,
}

impl Follow {
    pub fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    /// Says that the chat is about to be read: later changes are told again.
    pub fn renew(&self) {
        self.told.store(false, Release);
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.feed.hub().remove_follower(self.chat_id, &self.told);
    }
}

impl Hub {
    /// Adds an inbox to the followers of a chat. The cell is set once Redis has acknowledged the chat's
    /// subscription; the flag is what [`Follower::told`] says.
    pub(crate) fn add_follower(
        &self,
        chat_id: ChatId,
        queue: &Queue,
    ) -> (Arc<OnceCell<()>>, Arc<AtomicBool>) {
        let mut shard = self.shard(chat_id);
        let entry = shard.entry(chat_id).or_insert_with(Entry::new);
        let told = Arc::<AtomicBool>::default();
        entry.followers.push(Follower { queue: queue.clone(), told: Arc::clone(&told) });
        (Arc::clone(&entry.subscribed), told)
    }

    pub(super) fn remove_follower(&self, chat_id: ChatId, told: &Arc<AtomicBool>) {
        if let Some(entry) = self.shard(chat_id).get_mut(&chat_id) {
            entry.followers.retain(|follower| !Arc::ptr_eq(&follower.told, told));
            if entry.is_unused() {
                entry.idle_since.get_or_insert_with(Instant::now);
            }
        }
    }
}

impl Feed {
    /// Follows chats for an inbox: from now on `queue` is told that one of them moved, or a comparison
    /// finds it.
    pub async fn follow_chats(
        &self,
        chats: impl IntoIterator<Item = ChatId>,
        queue: &Queue,
    ) -> Vec<Follow> {
        let following = chats.into_iter().map(|chat_id| async move {
            let (subscribed, told) = self.hub().add_follower(chat_id, queue);
            let follow = Follow { feed: self.clone(), chat_id, told };
            let subscribing = subscribed.get_or_try_init(|| self.subscribe(Channel::Chat(chat_id)));
            // As for a subscription to all changes.
            let _ = tokio::time::timeout(SUBSCRIBE_WAIT * 2, subscribing).await;
            follow
        });
        join_all(following).await
    }
}
