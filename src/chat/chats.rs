//! Chats: opening, listing, reading, deleting.

use std::collections::{HashMap, HashSet};

use beseda_protocol::rest::{HistoryView, ReadResult, UnreadChat, UnreadSummary, Window};

use super::Chats;
use crate::{
    broker::Channel,
    error::{Error, chain},
    model::{Chat, ChatId, Epoch, Head, Time, UserId},
    outbox::{Commit, counters},
    presence::Transition,
    protocol::{Publication, ServerFrame},
    store::{Changes, InboxPage, MutationKind, MutationResult, StoredChat},
    unread::Counter,
};

/// Chats to which one batch of presence changes is published at once: some 5 MB meanwhile.
const PRESENCE_CHATS: usize = 10_000;

impl Chats {
    /// Opens or finds the chat of two users, and returns it as the first of them sees it, with
    /// whether it was created. A caller that opens it for others has no limit.
    pub async fn open_chat(
        &self,
        pair: [&UserId; 2],
        creator: &UserId,
        for_others: bool,
    ) -> Result<(Chat, bool), Error> {
        if pair[0] == pair[1] {
            return Err(Error::SelfChat);
        }
        if !for_others && !self.store.has_room_for(pair, self.rooms_per_user).await? {
            return Err(Error::Forbidden("You have as many chats as one may have."));
        }
        let opened = self.store.open_chat(pair, creator, self.reject_unknown).await?;
        if opened.created {
            let mut commit =
                Commit { noted: opened.noted.into_iter().collect(), ..Commit::default() };
            for state in self.store.get_states(&[opened.chat_id]).await? {
                commit.add_state(&state);
            }
            self.outbox.publish_soon(commit).await;
        }
        // If the chat was deleted meanwhile, the caller gets `ChatNotFound` and may try again.
        let chat = self.get_chat(pair[0], opened.chat_id).await?;
        Ok((chat, opened.created))
    }

    pub async fn get_chat(&self, user: &UserId, chat_id: ChatId) -> Result<Chat, Error> {
        let chat = self.store.get_chat(chat_id, user).await?.ok_or(Error::ChatNotFound)?;
        Ok(self.show(vec![chat]).await.remove(0))
    }

    /// Reads the first of these chats as the user sees them, as many as fit into a page.
    pub async fn get_chats(
        &self,
        user: &UserId,
        chats: &[ChatId],
    ) -> Result<InboxPage<Chat>, Error> {
        let InboxPage { chats, total_unread, epoch } = self.store.get_chats(chats, user).await?;
        let ids: Vec<ChatId> = chats.iter().map(|(chat_id, _)| *chat_id).collect();
        let chats = chats.into_iter().filter_map(|(_, chat)| chat).collect();
        let mut shown = self.show(chats).await.into_iter().peekable();
        // `shown` has the same order, without the deleted chats.
        let one = |id| (id, shown.next_if(|chat| chat.chat_id == id));
        Ok(InboxPage { chats: ids.into_iter().map(one).collect(), total_unread, epoch })
    }

    /// Lists a page of chats after `after`, latest activity first, with the cursor of the next
    /// page.
    pub async fn list_chats(
        &self,
        user: &UserId,
        after: Option<(Time, ChatId)>,
        limit: i64,
    ) -> Result<(Vec<Chat>, Option<(Time, ChatId)>), Error> {
        let mut chats = self.store.list_chats(user, after, limit + 1).await?;
        let more = i64::try_from(chats.len()).is_ok_and(|count| count > limit);
        if more {
            chats.pop();
        }
        let chats = self.show(chats).await;
        let next = chats.last().filter(|_| more).map(|chat| (activity(chat), chat.chat_id));
        Ok((chats, next))
    }

    /// Adds presence, with one pipeline for all chats.
    async fn show(&self, chats: Vec<StoredChat>) -> Vec<Chat> {
        let visible: Vec<UserId> = chats
            .iter()
            .filter(|chat| !chat.blocked)
            .map(|chat| chat.chat.other_user.user_id.clone())
            .collect();
        let online = if visible.is_empty() {
            HashSet::default()
        } else {
            self.presence.online(&visible).await
        };
        chats
            .into_iter()
            .map(|StoredChat { mut chat, blocked }| {
                let other = &mut chat.other_user;
                other.online = !blocked && online.contains(&other.user_id);
                if other.online || blocked {
                    other.last_seen_at = None;
                }
                chat
            })
            .collect()
    }

    pub async fn get_history(
        &self,
        user: &UserId,
        chat_id: ChatId,
        window: Window,
        limit: i64,
    ) -> Result<HistoryView, Error> {
        let history = self
            .store
            .get_history(chat_id, user, window, limit)
            .await?
            .ok_or(Error::ChatNotFound)?;
        let Head { ev, seq, epoch, read_seq, peer_read_seq } = history.head;
        let (lo, hi) = (history.page.lo, history.page.hi);
        let has_more_before = lo > 1 && seq > 0;
        let has_more_after = hi < seq;
        Ok(HistoryView {
            results: history.page.messages,
            has_more_before,
            has_more_after,
            before: has_more_before.then(|| lo.min(seq + 1)),
            after: has_more_after.then(|| hi.max(0)),
            head_seq: seq,
            head_ev: ev,
            epoch,
            read_seq,
            peer_read_seq,
        })
    }

    /// Reads the head of a chat that the user is a member of.
    pub async fn get_head(&self, user: &UserId, chat_id: ChatId) -> Result<Head, Error> {
        self.store.get_head(chat_id, user).await?.ok_or(Error::ChatNotFound)
    }

    /// Reads at most `limit` changes of a chat after `after_ev`, with the head of the same
    /// snapshot.
    pub async fn get_changes(
        &self,
        user: &UserId,
        chat_id: ChatId,
        after_ev: i64,
        limit: i64,
    ) -> Result<Changes, Error> {
        let changes = self.store.get_changes(chat_id, Some(user), after_ev, limit).await?;
        changes.ok_or(Error::ChatNotFound)
    }

    /// Reads the `ev` of each of the user's chats, and their epoch.
    pub async fn list_heads(&self, user: &UserId) -> Result<(String, Vec<(ChatId, i64)>), Error> {
        Ok(self.store.list_heads(user).await?)
    }

    /// Reads the database's current epoch.
    pub async fn get_epoch(&self) -> Result<Epoch, Error> {
        Ok(self.store.get_epoch().await?)
    }

    /// Reads the counters of all chats from Redis, or from Postgres where Redis lacks some.
    pub async fn get_unread(&self, user: &UserId) -> Result<UnreadSummary, Error> {
        let mut all =
            self.unread.read_or_fill(user, async || self.load_counters(user).await).await?;
        all.sort_unstable_by_key(|counter| std::cmp::Reverse((counter.activity, counter.chat_id)));
        Ok(UnreadSummary {
            total: all.iter().map(|counter| counter.unread).sum(),
            chats: all
                .into_iter()
                .map(|counter| UnreadChat {
                    chat_id: counter.chat_id,
                    room_name: counter.room_name,
                    unread_count: counter.unread,
                    last_seq: counter.last_seq,
                    read_seq: counter.read_seq,
                })
                .collect(),
        })
    }

    async fn load_counters(&self, user: &UserId) -> Result<(Epoch, Vec<Counter>), Error> {
        let (epoch, states) = self.store.list_states(user).await?;
        let counters = states
            .iter()
            .flat_map(counters)
            .filter(|(member, _)| member == user)
            .map(|(_, counter)| counter)
            .collect();
        Ok((epoch, counters))
    }

    /// Moves the user's read marker forward; `None`: to the newest message.
    pub async fn mark_read(
        &self,
        user: &UserId,
        chat_id: ChatId,
        up_to_seq: Option<i64>,
    ) -> Result<ReadResult, Error> {
        // A `Mark` always results in a `Mark`.
        let MutationResult::Mark { room_name, read_seq, unread, .. } =
            self.mutate(user, chat_id, MutationKind::Mark { up_to_seq }).await?
        else {
            return Err(Error::ChatNotFound);
        };
        let total_unread = self.totals.get(user).await?;
        Ok(ReadResult { chat_id, room_name, read_seq, unread_count: unread, total_unread })
    }

    pub async fn delete_chat(
        &self,
        user: &UserId,
        admin: bool,
        chat_id: ChatId,
    ) -> Result<(), Error> {
        if !admin {
            // Read first: a row lock writes WAL, so a refusal would reveal by its time that the
            // chat exists.
            self.get_head(user, chat_id).await?;
        }
        let (members, noted) =
            self.store.delete_chat(chat_id, user, admin, self.delete_rule).await?;
        let mut commit = Commit::default();
        commit.add_deleted(&noted.epoch, chat_id, &members);
        commit.noted.push(noted);
        self.outbox.publish_soon(commit).await;
        // Purges most chats completely; the purger does the rest of a huge one, and what fails
        // here.
        if let Err(error) = self.store.purge_messages(chat_id).await {
            tracing::warn!(error = chain(&error), "messages of a deleted chat stay until purged");
        }
        Ok(())
    }

    /// Publishes presence changes to the users' chats in which nobody is blocked, and stores when
    /// the users were last seen.
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
            for (user_id, chat_id, blocked) in self.store.list_own_chats(&users, page).await? {
                chats.entry(user_id).or_default().push((chat_id, blocked));
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

    /// Publishes to these chats, except those in which somebody is blocked.
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
                    .filter(|(_, blocked)| !blocked)
                    .map(|(chat_id, _)| (Channel::Chat(*chat_id), publication.clone())),
            );
        }
        // Presence is best effort, so an unavailable Redis is no error.
        let _ = self.broker.publish(&publications).await;
    }
}

/// The time of a chat's last message, or of its creation.
fn activity(chat: &Chat) -> Time {
    chat.last_message.as_ref().map_or(chat.created_at, |message| message.created_at)
}
