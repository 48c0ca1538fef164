//! The inbox of a many-chats socket: sends which of the user's chats changed, with their unread
//! counts.

use std::collections::{BTreeSet, HashMap};

use crate::{
    context::Context,
    error::Error,
    model::{ChatId, UserId},
    protocol::{Frame, ServerFrame},
};

/// Maximum number of marked chats that are read at once; beyond it, the heads of all chats are
/// compared first.
const MAX_SINGLE_READS: usize = 20;

/// Chats read and sent at once: some milliseconds of Postgres. After a failover all are sent again,
/// and a user may have 20,000.
const PAGE: usize = 200;

/// Stands for an unknown `ev`; no chat has a negative one.
const VOID: i64 = -1;

/// The state of the user's chats as the client has received it.
#[derive(Debug, Default)]
pub(super) struct InboxChats {
    /// The last `ev` of each chat that was sent.
    told: HashMap<ChatId, i64>,
    /// The epoch of these numbers.
    epoch: String,
    /// Chats that a publication named as changed.
    marked: BTreeSet<ChatId>,
    /// Chats that the comparison of all heads found changed.
    moved: BTreeSet<ChatId>,
    all_marked: bool,
}

impl InboxChats {
    /// Reads the heads of all chats: what the client reads by REST after `hello` is at least as
    /// new.
    pub(super) async fn load(context: &Context, user_id: &UserId) -> Result<Self, Error> {
        let (epoch, heads) = context.chats.list_heads(user_id).await?;
        Ok(Self { told: heads.into_iter().collect(), epoch, ..Self::default() })
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
        self.must_compare() || !self.moved.is_empty()
    }

    fn must_compare(&self) -> bool {
        self.all_marked || self.marked.len() > MAX_SINGLE_READS
    }

    /// Finds which chats changed since they were sent.
    async fn compare(&mut self, context: &Context, user_id: &UserId) -> Result<(), Error> {
        let (epoch, heads) = context.chats.list_heads(user_id).await?;
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

    /// Enters another epoch, in which the same `ev` is another change: all chats are sent again.
    fn enter(&mut self, epoch: String) {
        if epoch != self.epoch {
            self.told.values_mut().for_each(|ev| *ev = VOID);
            self.all_marked = true;
            self.epoch = epoch;
        }
    }

    /// Sends marked chats that really changed, one page at most, so that memory is bounded: the
    /// caller flushes and calls again. Chats that cannot be read stay marked.
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
