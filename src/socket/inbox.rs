//! The inbox of a many-chats socket: sends which of the user's chats changed, with their unread
//! counts.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::{catch_up::RETRY, connection::Connection};
use crate::{
    context::Context,
    error::{Error, chain},
    hub::{Follow, Queue},
    model::{Chat, ChatId, ChatKind, UserId},
    protocol::{Frame, GoneReason, ServerFrame},
    store::{InboxHead, InboxPage},
};

/// Maximum number of marked chats that are read at once; beyond it, the heads of all chats are
/// compared first.
const MAX_SINGLE_READS: usize = 20;

/// Chats read and sent at once: some milliseconds of Postgres. After a failover all are sent again,
/// and a user may have 20,000.
const PAGE: usize = 200;

/// Least time between two frames about one chat: nobody reads a list faster.
const PAUSE: Duration = Duration::from_millis(250);

/// The same for a chat with more than [`MANY_MEMBERS`], where each frame is one of many.
const LONG_PAUSE: Duration = Duration::from_secs(1);
const MANY_MEMBERS: i32 = 1_000;

/// Least time between two reads for chats whose pauses have ended: those that end one after the other
/// are read together.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// Stands for an unknown version; no chat has a negative one.
const VOID: i64 = -1;

/// A chat as the client has received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    version: i64,
    unread: i64,
}

/// The state of the user's chats as the client has received it.
#[derive(Debug)]
pub(super) struct InboxChats {
    told: HashMap<ChatId, Told>,
    /// Unread messages of all chats in `told`.
    total_unread: i64,
    /// The epoch of these numbers.
    epoch: String,
    /// The groups, whose messages are told on their own channels only.
    followed: HashMap<ChatId, Follow>,
    /// Chats that a publication named as changed.
    marked: BTreeSet<ChatId>,
    /// Chats that the comparison of all heads found changed.
    moved: BTreeSet<ChatId>,
    all_marked: bool,
    /// Chats that were sent a moment ago, and until when they are not sent again.
    pausing: HashMap<ChatId, Instant>,
    read_at: Instant,
    queue: Queue,
}

impl InboxChats {
    fn new(queue: &Queue) -> Self {
        Self {
            told: HashMap::new(),
            total_unread: 0,
            epoch: String::new(),
            followed: HashMap::new(),
            marked: BTreeSet::new(),
            moved: BTreeSet::new(),
            all_marked: false,
            pausing: HashMap::new(),
            read_at: Instant::now(),
            queue: queue.clone(),
        }
    }

    /// Follows the user's groups and reads the heads of all chats: what the client reads by REST after
    /// `hello` is at least as new.
    pub(super) async fn load(
        context: &Context,
        user_id: &UserId,
        queue: &Queue,
    ) -> Result<Self, Error> {
        let mut inbox = Self::new(queue);
        let (mut epoch, mut heads) = context.chats.list_heads(user_id).await?;
        if inbox.follow(context, groups_of(&heads)).await {
            // Read again, since the first reading was before the groups were followed.
            (epoch, heads) = context.chats.list_heads(user_id).await?;
        }
        inbox.epoch = epoch;
        for head in heads {
            let InboxHead { chat_id, kind, version, unread } = head;
            if kind == ChatKind::Group && !inbox.followed.contains_key(&chat_id) {
                // Joined in between: it is followed with the first read.
                inbox.marked.insert(chat_id);
                continue;
            }
            inbox.tell(chat_id, Told { version, unread });
        }
        Ok(inbox)
    }

    /// Follows those of these groups that are not followed yet; returns whether there were any.
    async fn follow(&mut self, context: &Context, groups: Vec<ChatId>) -> bool {
        let new: Vec<ChatId> =
            groups.into_iter().filter(|chat_id| !self.followed.contains_key(chat_id)).collect();
        if new.is_empty() {
            return false;
        }
        let follows = context.feed.follow_chats(new, &self.queue).await;
        self.followed.extend(follows.into_iter().map(|follow| (follow.chat_id(), follow)));
        true
    }

    /// The epoch of the state that was sent.
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    pub(super) fn mark(&mut self, chat_id: ChatId) {
        self.marked.insert(chat_id);
    }

    pub(super) fn mark_all(&mut self) {
        self.all_marked = true;
    }

    /// Whether any chat must be read.
    pub(super) fn any_marked(&self) -> bool {
        self.all_marked || !self.marked.is_empty() || !self.moved.is_empty()
    }

    /// Whether the next read needs an admission permit: it compares all chats, or sends many.
    pub(super) fn needs_permit(&self) -> bool {
        let now = Instant::now();
        self.must_compare(now) || self.moved.len() > self.pausing_of(&self.moved, now)
    }

    fn must_compare(&self, now: Instant) -> bool {
        self.all_marked || self.marked.len() > MAX_SINGLE_READS + self.pausing_of(&self.marked, now)
    }

    fn is_pausing(&self, chat_id: ChatId, now: Instant) -> bool {
        self.pausing.get(&chat_id).is_some_and(|until| *until > now)
    }

    /// How many of these chats are not to be sent yet.
    fn pausing_of(&self, chats: &BTreeSet<ChatId>, now: Instant) -> usize {
        if chats.is_empty() {
            return 0;
        }
        let pausing = self.pausing.iter().filter(|(_, until)| **until > now);
        pausing.filter(|(chat_id, _)| chats.contains(chat_id)).count()
    }

    /// When a changed chat is to be read; `None`: there is none.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.any_marked() {
            return None;
        }
        let soon = self.read_at + READ_PAUSE;
        if self.marked.len() > self.pausing_of(&self.marked, Instant::now()) {
            return Some(soon);
        }
        let waits = |chat_id| self.marked.contains(chat_id) || self.moved.contains(chat_id);
        let ends = self.pausing.iter().filter(|(chat_id, _)| waits(chat_id));
        ends.map(|(_, until)| soon.max(*until)).min()
    }

    /// The chats to be read now, of those that changed.
    fn ready(&self, now: Instant) -> Vec<ChatId> {
        let changed = self.marked.union(&self.moved).copied();
        changed.filter(|chat_id| !self.is_pausing(*chat_id, now)).take(PAGE).collect()
    }

    /// Finds which chats changed since they were sent.
    async fn compare(&mut self, context: &Context, user_id: &UserId) -> Result<(), Error> {
        // Before the heads are read: later changes are told again.
        self.followed.values().for_each(Follow::renew);
        let (epoch, heads) = context.chats.list_heads(user_id).await?;
        self.enter(&epoch);
        let mut groups = groups_of(&heads);
        groups.retain(|chat_id| !self.followed.contains_key(chat_id));
        self.on_heads(heads);
        // These may have changed before they are followed.
        self.moved.extend(groups.iter().copied());
        self.follow(context, groups).await;
        Ok(())
    }

    /// Notes which chats changed, by the heads of all.
    fn on_heads(&mut self, heads: Vec<InboxHead>) {
        let heads: HashMap<ChatId, i64> =
            heads.into_iter().map(|head| (head.chat_id, head.version)).collect();
        let is_told =
            |chat_id, version| self.told.get(chat_id).is_some_and(|told| told.version == version);
        let moved = heads.iter().filter(|(chat_id, version)| !is_told(*chat_id, **version));
        let gone = self.told.keys().filter(|chat_id| !heads.contains_key(chat_id));
        self.moved = moved.map(|(chat_id, _)| chat_id).chain(gone).copied().collect();
        self.marked.clear();
        self.all_marked = false;
    }

    /// Enters another epoch, in which the same version is another change: all chats are sent again, and
    /// the hub may have ended some that are there.
    fn enter(&mut self, epoch: &str) {
        if *epoch != *self.epoch {
            self.told.values_mut().for_each(|told| told.version = VOID);
            self.followed.clear();
            self.all_marked = true;
            epoch.clone_into(&mut self.epoch);
        }
    }

    /// Notes a chat as it is sent; returns how it was sent before.
    fn tell(&mut self, chat_id: ChatId, told: Told) -> Option<Told> {
        let before = self.told.insert(chat_id, told);
        self.total_unread += told.unread - before.map_or(0, |before| before.unread);
        before
    }

    /// Sends marked chats that really changed, one page at most, so that memory is bounded: the
    /// caller flushes and calls again. Chats that cannot be read stay marked.
    async fn refresh(
        &mut self,
        context: &Context,
        user_id: &UserId,
        out: &mut Vec<Frame>,
    ) -> Result<(), Error> {
        if self.must_compare(Instant::now()) {
            self.compare(context, user_id).await?;
        }
        let now = Instant::now();
        self.pausing.retain(|_, until| *until > now);
        let asked = self.ready(now);
        if asked.is_empty() {
            return Ok(());
        }
        self.read_at = now;
        // Before the chats are read: later changes are told again.
        for follow in asked.iter().filter_map(|chat_id| self.followed.get(chat_id)) {
            follow.renew();
        }
        // Those that move together with other inboxes are read together with them.
        let is_few = asked.len() <= MAX_SINGLE_READS;
        let (groups, others): (Vec<ChatId>, Vec<ChatId>) =
            asked.into_iter().partition(|chat_id| is_few && self.followed.contains_key(chat_id));
        let mut new = Vec::new();
        if !groups.is_empty() {
            let page = context.chats.get_group_chats(user_id, groups).await?;
            new.extend(self.on_page(page, now, out));
        }
        if !others.is_empty() {
            let page = context.chats.get_chats(user_id, &others).await?;
            new.extend(self.on_page(page, now, out));
        }
        if self.follow(context, new.clone()).await {
            // Read again, since they were read before they were followed.
            self.marked.extend(new);
        }
        Ok(())
    }

    /// Sends a page of chats as they were read; returns the groups to be followed.
    fn on_page(
        &mut self,
        page: InboxPage<Chat>,
        now: Instant,
        out: &mut Vec<Frame>,
    ) -> Vec<ChatId> {
        self.enter(&page.epoch);
        let mut groups = Vec::new();
        for one in page.chats {
            let chat_id = one.chat_id;
            self.marked.remove(&chat_id);
            self.moved.remove(&chat_id);
            match one.chat {
                Ok(chat) => {
                    if chat.kind == ChatKind::Group && !self.followed.contains_key(&chat_id) {
                        groups.push(chat_id);
                    }
                    self.on_chat(&chat, one.version, now, out);
                }
                Err(reason) => self.on_gone(chat_id, reason, out),
            }
        }
        groups
    }

    fn on_chat(&mut self, chat: &Chat, version: i64, now: Instant, out: &mut Vec<Frame>) {
        let before = self.tell(chat.chat_id, Told { version, unread: chat.unread_count });
        let (total_unread, epoch) = (self.total_unread, self.epoch.as_str());
        let frame = match before {
            Some(before) if before.version == version => return,
            Some(_) => ServerFrame::ChatUpdated { chat, total_unread, epoch },
            None => ServerFrame::ChatCreated { chat, total_unread, epoch },
        };
        out.push(frame.encode());
        let pause = if chat.member_count > MANY_MEMBERS { LONG_PAUSE } else { PAUSE };
        self.pausing.insert(chat.chat_id, now + pause);
    }

    /// Tells that a chat is not the user's any more, unless that was told.
    pub(super) fn on_gone(&mut self, chat_id: ChatId, reason: GoneReason, out: &mut Vec<Frame>) {
        self.followed.remove(&chat_id);
        self.pausing.remove(&chat_id);
        if let Some(before) = self.told.remove(&chat_id) {
            self.total_unread -= before.unread;
            let (total_unread, epoch) = (Some(self.total_unread), self.epoch.as_str());
            out.push(ServerFrame::ChatDeleted { chat_id, total_unread, reason, epoch }.encode());
        }
    }
}

fn groups_of(heads: &[InboxHead]) -> Vec<ChatId> {
    let groups = heads.iter().filter(|head| head.kind == ChatKind::Group);
    groups.map(|head| head.chat_id).collect()
}

impl Connection {
    pub(super) fn mark_chat(&mut self, chat_id: ChatId) {
        if let Some(chats) = &mut self.chats {
            chats.mark(chat_id);
        }
    }

    pub(super) fn mark_all_chats(&mut self) {
        if let Some(chats) = &mut self.chats {
            chats.mark_all();
        }
    }

    pub(super) fn needs_inbox_permit(&self) -> bool {
        self.chats.as_ref().is_some_and(|chats| chats.needs_permit())
    }

    /// When changed chats that were sent a moment ago are to be sent again.
    pub(super) fn inbox_due(&self) -> Option<Instant> {
        // What waits for a permit or for a retry is read then.
        let chats = self.chats.as_ref().filter(|_| self.retry_at.is_none())?;
        if chats.needs_permit() { None } else { chats.due() }
    }

    /// Sends the chats that changed, where these are few and known. Otherwise the loop gets a
    /// permit first.
    pub(super) async fn refresh_chats(&mut self) {
        if !self.needs_inbox_permit() {
            self.read_chats().await;
        }
    }

    /// Sends a page of the chats that changed; a failed read is retried.
    pub(super) async fn read_chats(&mut self) {
        let Some(chats) = &mut self.chats else { return };
        let user_id = self.session.user_id();
        if let Err(error) = chats.refresh(&self.context, user_id, &mut self.out).await {
            tracing::warn!(error = chain(&error), "reading an inbox failed");
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }
}
