//! Chats: opening, listing, reading, deleting.

use std::collections::HashSet;

use beseda_protocol::{
    frame::GoneReason,
    rest::{HistoryView, ReadResult, Window},
};

use super::{Caller, Chats};
use crate::{
    error::{Error, chain},
    model::{Chat, ChatId, Epoch, Head, UserId},
    outbox::Commit,
    protocol::MAX_REPLAY,
    store::{
        Changes, ChatCursor, ChatFilter, Deleted, InboxChat, InboxHead, InboxPage, MutationKind,
        MutationResult, Noted, Reader, StoredChat,
    },
};

impl Chats {
    /// Opens or finds the direct chat of two users, and returns it as the first of them sees it, with
    /// whether it was created. A caller that opens it for others has no limit.
    pub async fn open_direct(
        &self,
        pair: [&UserId; 2],
        creator: &UserId,
        for_others: bool,
    ) -> Result<(Chat, bool), Error> {
        if pair[0] == pair[1] {
            return Err(Error::SelfChat);
        }
        if !for_others {
            self.check_room_for(pair[0], Some(pair[1])).await?;
        }
        let opened = self.store.open_direct(pair, creator, self.reject_unknown).await?;
        if opened.created {
            let members = pair.map(|user| (opened.chat_id, user.clone()));
            self.outbox.publish_members(&members, opened.noted).await;
        }
        // If the chat was deleted meanwhile, the caller gets `ChatNotFound` and may try again.
        let chat = self.get_own_chat(pair[0], opened.chat_id).await?;
        Ok((chat, opened.created))
    }

    /// Refuses a user who has as many chats as one may have, unless `other` is somebody with whom they
    /// have one already.
    pub(super) async fn check_room_for(
        &self,
        user: &UserId,
        other: Option<&UserId>,
    ) -> Result<(), Error> {
        if self.store.has_room_for(user, other, self.rooms_per_user).await? {
            Ok(())
        } else {
            Err(Error::Forbidden("You have as many chats as one may have."))
        }
    }

    /// Reads a chat as its member sees it.
    pub(super) async fn get_own_chat(&self, user: &UserId, chat_id: ChatId) -> Result<Chat, Error> {
        self.get_chat(Caller { user, is_host: false }, chat_id).await
    }

    /// Reads a chat as the caller sees it. The host application, where it is no member, sees all but
    /// messages.
    pub async fn get_chat(&self, caller: Caller<'_>, chat_id: ChatId) -> Result<Chat, Error> {
        let mut chat = self.store.get_chat(chat_id, Reader::Member(caller.user)).await?;
        if chat.is_none() && caller.is_host {
            chat = self.store.get_chat(chat_id, Reader::Host).await?;
        }
        Ok(self.show(vec![chat.ok_or(Error::ChatNotFound)?]).await.remove(0))
    }

    /// Reads the first of these chats as the user sees them, as many as fit into a page; for those that
    /// are no longer the user's, the reason.
    pub async fn get_chats(
        &self,
        user: &UserId,
        chats: &[ChatId],
    ) -> Result<InboxPage<Chat>, Error> {
        let InboxPage { chats, epoch } = self.store.get_chats(chats, user).await?;
        let (mut found, mut rest) = (Vec::new(), Vec::with_capacity(chats.len()));
        for InboxChat { chat_id, version, chat } in chats {
            rest.push((chat_id, version, chat.map(|chat| found.push(chat))));
        }
        let mut shown = self.show(found).await.into_iter();
        let mut page = Vec::with_capacity(rest.len());
        for (chat_id, version, outcome) in rest {
            // `shown` has those that were found, in the same order.
            let chat = match outcome {
                Ok(()) => shown.next().ok_or(GoneReason::Deleted),
                Err(reason) => Err(reason),
            };
            page.push(InboxChat { chat_id, version, chat });
        }
        Ok(InboxPage { chats: page, epoch })
    }

    /// Reads these groups, a few, as the user sees them; for those that are no longer the user's, the reason.
    pub async fn get_group_chats(
        &self,
        user: &UserId,
        groups: Vec<ChatId>,
    ) -> Result<InboxPage<Chat>, Error> {
        let InboxPage { chats, epoch } = self.group_reads.get(user, groups).await?;
        // No group shows the presence of anybody.
        let chats = chats.into_iter().map(|InboxChat { chat_id, version, chat }| InboxChat {
            chat_id,
            version,
            chat: chat.map(|stored| stored.chat),
        });
        Ok(InboxPage { chats: chats.collect(), epoch })
    }

    /// Lists a page of chats after `after`, pinned ones first, then latest activity first, with the
    /// cursor of the next page. All of it is Postgres's: whoever reads the list after `hello` is told
    /// of later changes only, so it must be at least as new as what the socket has begun with.
    pub async fn list_chats(
        &self,
        user: &UserId,
        filter: ChatFilter,
        after: Option<ChatCursor>,
        limit: i64,
    ) -> Result<(Vec<Chat>, Option<ChatCursor>), Error> {
        let mut chats = self.store.list_chats(user, filter, after, limit + 1).await?;
        let more = cut(&mut chats, limit);
        let next = chats.last().filter(|_| more).map(|StoredChat { chat, activity, .. }| {
            ChatCursor { pinned: chat.pinned, activity: *activity, chat_id: chat.chat_id }
        });
        Ok((self.show(chats).await, next))
    }

    /// Adds presence, with one pipeline for all chats.
    async fn show(&self, chats: Vec<StoredChat>) -> Vec<Chat> {
        let visible: Vec<UserId> = chats
            .iter()
            .filter(|chat| chat.show_presence)
            .filter_map(|chat| Some(chat.chat.other_user.as_ref()?.user_id.clone()))
            .collect();
        let online = if visible.is_empty() {
            HashSet::default()
        } else {
            self.presence.online(&visible).await
        };
        chats
            .into_iter()
            .map(|StoredChat { mut chat, show_presence, .. }| {
                if let Some(other) = &mut chat.other_user {
                    other.online = show_presence && online.contains(&other.user_id);
                    if other.online || !show_presence {
                        other.last_seen_at = None;
                    }
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
        let Head { ev, seq, epoch, reader, peer_read_seq, .. } = history.head;
        let (lo, hi, first) = (history.page.lo, history.page.hi, reader.first_seq);
        let has_more_before = lo > first && seq >= first;
        let has_more_after = hi < seq;
        Ok(HistoryView {
            results: history.page.messages,
            has_more_before,
            has_more_after,
            before: has_more_before.then(|| lo.min(seq + 1)),
            after: has_more_after.then(|| hi.max(first - 1)),
            head_seq: seq,
            head_ev: ev,
            epoch,
            read_seq: reader.read_seq,
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

    /// Whether more rows have changed since than a socket is given.
    pub async fn is_too_far(
        &self,
        chat_id: ChatId,
        after_ev: i64,
        head: &Head,
    ) -> Result<bool, Error> {
        // Each row has one of the numbers between.
        Ok(head.ev - after_ev > MAX_REPLAY
            && self.store.has_changed_more(chat_id, after_ev, MAX_REPLAY).await?)
    }

    /// Reads the version of each of the user's chats, and their epoch.
    pub async fn list_heads(&self, user: &UserId) -> Result<(String, Vec<InboxHead>), Error> {
        Ok(self.store.list_heads(user).await?)
    }

    /// Reads why a chat is no longer the user's.
    pub async fn get_gone_reason(
        &self,
        user: &UserId,
        chat_id: ChatId,
    ) -> Result<GoneReason, Error> {
        Ok(self.store.get_gone_reason(chat_id, user).await?)
    }

    /// Reads the database's current epoch.
    pub async fn get_epoch(&self) -> Result<Epoch, Error> {
        Ok(self.store.get_epoch().await?)
    }

    /// Moves the user's read marker forward; `None`: to the newest message.
    pub async fn mark_read(
        &self,
        user: &UserId,
        chat_id: ChatId,
        up_to_seq: Option<i64>,
    ) -> Result<ReadResult, Error> {
        // A `Mark` always results in a `Mark`.
        let MutationResult::Mark { state, .. } =
            self.mutate(user, chat_id, MutationKind::Mark { up_to_seq }).await?
        else {
            return Err(Error::ChatNotFound);
        };
        let total_unread = self.get_total(user, &state).await?;
        Ok(ReadResult {
            chat_id,
            room_name: state.room_name,
            read_seq: state.read_seq,
            unread_count: state.unread,
            total_unread,
        })
    }

    /// Deletes a chat: a direct one by the setting's rule, a group by its owner; any by the host
    /// application.
    pub async fn delete_chat(&self, caller: Caller<'_>, chat_id: ChatId) -> Result<(), Error> {
        if !caller.is_host {
            // Read first: a row lock writes WAL, so a refusal would reveal by its time that the
            // chat exists.
            self.get_head(caller.user, chat_id).await?;
        }
        let Deleted { members, noted, .. } =
            self.store.delete_chat(chat_id, caller.actor(), self.delete_rule).await?;
        self.publish_deleted(chat_id, &members, noted).await;
        Ok(())
    }

    /// Tells of a chat that is gone, and begins to remove what is left of it. Of a group the chat's own
    /// channel tells all members.
    pub(super) async fn publish_deleted(&self, chat_id: ChatId, members: &[UserId], noted: Noted) {
        let mut commit = Commit::default();
        commit.add_deleted(&noted.epoch, chat_id, members);
        commit.noted.push(noted);
        self.outbox.publish_soon(commit).await;
        // Purges most chats completely; the purger does the rest of a huge one, and what fails
        // here.
        if let Err(error) = self.store.purge_chat(chat_id).await {
            tracing::warn!(error = chain(&error), "a deleted chat's rows stay until purged");
        }
    }
}

/// Cuts a page that was read with one row more than `limit`; true: there is more.
pub(super) fn cut<T>(page: &mut Vec<T>, limit: i64) -> bool {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = page.len() > wanted;
    page.truncate(wanted);
    more
}
