//! The inbox of a many-chats socket: what moved among the user's chats, with its badges.

use std::collections::{BTreeSet, HashMap};

use crate::{
    context::Context,
    error::Error,
    model::{ChatId, UserId},
    protocol::{Frame, ServerFrame},
};

/// Most chats read just because somebody said that they moved; of more, it is asked first which did.
const MAX_SINGLE_READS: usize = 20;

/// InboxChats read and told at once: some milliseconds of Postgres. After a failover all are told again, and a
/// person may have 20,000.
const PAGE: usize = 200;

/// In place of the `ev` that was told: none that a chat can have.
const VOID: i64 = -1;

/// What the client has been told of its chats.
#[derive(Debug, Default)]
pub(super) struct InboxChats {
    /// The newest change of each chat that the client knows of.
    told: HashMap<ChatId, i64>,
    /// The history that these belong to.
    epoch: String,
    /// Somebody said that they moved.
    marked: BTreeSet<ChatId>,
    /// They did, as a look at all of them has shown.
    moved: BTreeSet<ChatId>,
    all_marked: bool,
}

impl InboxChats {
    /// Where all chats stand now: what the client reads by REST after `hello` is at least as new.
    pub(super) async fn load(context: &Context, user_id: &UserId) -> Result<Self, Error> {
        let (epoch, heads) = context.chats.store().list_heads(user_id).await?;
        Ok(Self { told: heads.into_iter().collect(), epoch, ..Self::default() })
    }

    /// The history that what was told belongs to.
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    pub(super) fn mark(&mut self, chat_id: ChatId) {
        self.marked.insert(chat_id);
    }

    pub(super) fn mark_all(&mut self) {
        self.all_marked = true;
    }

    /// Whether there is anything to be read.
    pub(super) fn any_marked(&self) -> bool {
        self.all_marked || !self.marked.is_empty() || !self.moved.is_empty()
    }

    /// Whether reading on takes a turn: all chats have to be looked at, or many to be told.
    pub(super) fn needs_turn(&self) -> bool {
        self.must_compare() || !self.moved.is_empty()
    }

    fn must_compare(&self) -> bool {
        self.all_marked || self.marked.len() > MAX_SINGLE_READS
    }

    /// Finds which chats have moved since they were told.
    async fn compare(&mut self, context: &Context, user_id: &UserId) -> Result<(), Error> {
        let (epoch, heads) = context.chats.store().list_heads(user_id).await?;
        self.enter(epoch);
        let heads: HashMap<ChatId, i64> = heads.into_iter().collect();
        let told = &self.told;
        let moved = heads.iter().filter(|(chat_id, ev)| told.get(chat_id) != Some(ev));
        let gone = told.keys().filter(|chat_id| !heads.contains_key(chat_id));
        self.moved = moved.map(|(chat_id, _)| chat_id).chain(gone).copied().collect();
        self.marked.clear();
        self.all_marked = false;
        Ok(())
    }

    /// In another history the same `ev` is another change: all is told again.
    fn enter(&mut self, epoch: String) {
        if epoch != self.epoch {
            self.told.values_mut().for_each(|ev| *ev = VOID);
            self.all_marked = true;
            self.epoch = epoch;
        }
    }

    /// Tells of marked chats that really moved, a page at most, so that what is held is bounded however
    /// many there are: the caller writes it out and comes again. What can't be read stays marked.
    pub(super) async fn refresh(
        &mut self,
        context: &Context,
        user_id: &UserId,
        out: &mut Vec<Frame>,
    ) -> Result<(), Error> {
        if self.must_compare() {
            self.compare(context, user_id).await?;
        }
        let asked: Vec<ChatId> = self.marked.union(&self.moved).take(PAGE).copied().collect();
        if asked.is_empty() {
            return Ok(());
        }
        let page = context.chats.get_chats(user_id, &asked).await?;
        self.enter(page.epoch);
        let (total_unread, epoch) = (page.total_unread, self.epoch.as_str());
        for (chat_id, chat) in page.chats {
            self.marked.remove(&chat_id);
            self.moved.remove(&chat_id);
            let Some(chat) = &chat else {
                if self.told.remove(&chat_id).is_some() {
                    let total_unread = Some(total_unread);
                    out.push(ServerFrame::ChatDeleted { chat_id, total_unread, epoch }.encode());
                }
                continue;
            };
            let known = self.told.insert(chat_id, chat.last_ev);
            let frame = match known {
                Some(ev) if ev == chat.last_ev => continue,
                Some(_) => ServerFrame::ChatUpdated { chat, total_unread, epoch },
                None => ServerFrame::ChatCreated { chat, total_unread, epoch },
            };
            out.push(frame.encode());
        }
        Ok(())
    }
}
