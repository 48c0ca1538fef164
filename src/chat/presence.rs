//! Tells who came online and went offline, and counts who is.

use std::collections::{HashMap, HashSet};

use beseda_protocol::bounds::MAX_MEMBERS_OF_ONLINE_COUNT;

use super::Chats;
use crate::{
    broker::Channel,
    error::{Error, chain},
    model::{ChatId, Time, UserId},
    presence::Transition,
    protocol::{Publication, ServerFrame},
};

/// Chats to which one batch of presence changes is published at once: some 5 MB meanwhile.
const PRESENCE_CHATS: usize = 10_000;

impl Chats {
    /// Counts the members of a chat without receipts who are online; `None`: it has too many, or they could
    /// not be read. The caller must have checked membership.
    pub async fn count_online(&self, chat_id: ChatId, member_count: i32) -> Option<i32> {
        if member_count > MAX_MEMBERS_OF_ONLINE_COUNT {
            return None;
        }
        self.online_counts.get(chat_id).await
    }

    /// Publishes presence changes to the users' chats that show presence (direct ones in which nobody is
    /// blocked, groups with receipts), and stores when the users were last seen.
    pub async fn tell_presence(&self, transitions: &[Transition]) -> Result<(), Error> {
        // Keyed by user: the statement takes one row per user, and a later transition replaces an
        // earlier one.
        let gone: HashMap<UserId, Time> = transitions
            .iter()
            .filter(|transition| !transition.online)
            .map(|transition| (transition.user.clone(), Time(transition.at)))
            .collect();
        if !gone.is_empty() {
            let seen: Vec<_> = gone.into_iter().collect();
            if let Err(error) = self.store.note_last_seen(&seen).await {
                tracing::warn!(
                    error = chain(&error),
                    users = seen.len(),
                    "last-seen times are not stored"
                );
            }
        }
        let users: HashSet<&UserId> = transitions.iter().map(|one| &one.user).collect();
        let mut users: Vec<_> = users.into_iter().map(|user| (user, ChatId::nil())).collect();
        // In pages: thousands of users may connect at once, each with thousands of chats.
        while !users.is_empty() {
            let limit = (PRESENCE_CHATS / users.len()).max(1);
            let page = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut chats: HashMap<UserId, Vec<(ChatId, bool)>> = HashMap::new();
            for (user_id, chat_id, hidden) in self.store.list_own_chats(&users, page).await? {
                chats.entry(user_id).or_default().push((chat_id, hidden));
            }
            self.publish_presence(transitions, &chats).await;
            users.retain_mut(|(user, after)| match chats.get(user) {
                Some(theirs) if theirs.len() >= limit => {
                    *after = theirs.last().map_or(*after, |(chat_id, _)| *chat_id);
                    true
                }
                _ => false,
            });
        }
        Ok(())
    }

    /// Publishes to these chats, except those that hide presence.
    async fn publish_presence(
        &self,
        transitions: &[Transition],
        chats: &HashMap<UserId, Vec<(ChatId, bool)>>,
    ) {
        let mut publications = Vec::new();
        for Transition { user: user_id, online, at } in transitions {
            let last_seen_at = (!online).then_some(Time(*at));
            let frame = ServerFrame::Presence { user_id, online: *online, last_seen_at }.encode();
            let publication = Publication::Presence { user_id: user_id.clone(), frame }.encode();
            let theirs = chats.get(user_id).into_iter().flatten();
            publications.extend(
                theirs
                    .filter(|(_, hidden)| !hidden)
                    .map(|(chat_id, _)| (Channel::Chat(*chat_id), publication.clone())),
            );
        }
        // Presence is best effort, so an unavailable Redis is no error.
        let _ = self.broker.publish(&publications).await;
    }
}
