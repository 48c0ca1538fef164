//! The inbox of a many-chats socket: what moved among the user's rooms, with its badges.

use std::collections::{BTreeSet, HashMap};

use crate::{
    context::Context,
    error::Error,
    model::{ChatId, UserId},
    protocol::{Frame, ServerFrame},
};

/// Most rooms read just because somebody said that they moved; of more, it is asked first which did.
const MAX_SINGLE_READS: usize = 20;

/// In place of the `ev` that was told: none that a room can have.
const VOID: i64 = -1;

/// What the client has been told of its rooms.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// The newest change of each room that the client knows of.
    told: HashMap<ChatId, i64>,
    /// The history that these belong to.
    epoch: String,
    marked: BTreeSet<ChatId>,
    all_marked: bool,
}

impl Rooms {
    /// Where all rooms stand now: what the client reads by REST after `hello` is at least as new.
    pub(super) async fn load(context: &Context, user_id: &UserId) -> Result<Self, Error> {
        let store = context.chats.store();
        let (epoch, states) = tokio::try_join!(store.get_epoch(), store.list_states(user_id))?;
        let told = states.into_iter().map(|state| (state.chat_id, state.last_ev)).collect();
        Ok(Self { told, epoch, ..Self::default() })
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
        self.all_marked || !self.marked.is_empty()
    }

    /// Whether all rooms have to be looked at to know which moved, for which a turn is needed.
    pub(super) fn must_read_all(&self) -> bool {
        self.all_marked || self.marked.len() > MAX_SINGLE_READS
    }

    /// Tells of the marked rooms that really moved. What can't be read stays marked.
    pub(super) async fn refresh(
        &mut self,
        context: &Context,
        user_id: &UserId,
        out: &mut Vec<Frame>,
    ) -> Result<(), Error> {
        if self.must_read_all() {
            let store = context.chats.store();
            let (epoch, states) = tokio::try_join!(store.get_epoch(), store.list_states(user_id))?;
            if epoch != self.epoch {
                // The same `ev` is another change there: all is told again.
                self.told.values_mut().for_each(|ev| *ev = VOID);
                self.epoch = epoch;
            }
            let now: HashMap<ChatId, i64> =
                states.into_iter().map(|state| (state.chat_id, state.last_ev)).collect();
            self.marked = now
                .iter()
                .filter(|(chat_id, ev)| self.told.get(chat_id) != Some(ev))
                .map(|(chat_id, _)| *chat_id)
                .chain(self.told.keys().filter(|chat_id| !now.contains_key(chat_id)).copied())
                .collect();
            self.all_marked = false;
        }
        if self.marked.is_empty() {
            return Ok(());
        }
        let marked: Vec<ChatId> = self.marked.iter().copied().collect();
        let page = context.chats.get_chats(user_id, &marked).await?;
        let (total_unread, epoch) = (page.total_unread, page.epoch.as_str());
        for (chat_id, chat) in page.chats {
            self.marked.remove(&chat_id);
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
