//! The list of chats, latest activity first.

use std::collections::BTreeMap;

use beseda_protocol::{
    ReceivedFrame,
    model::{Chat, ChatId, Message, Time, UserId},
    rest::ChatPage,
};

/// The chats that are known. A [`Chat`] is as new as its `last_ev`; the person in it (name, presence)
/// has no number, and is taken as it comes.
#[derive(Debug, Clone, Default)]
pub struct ChatList {
    chats: BTreeMap<ChatId, Chat>,
    /// Unread messages in all chats, those that are not loaded included.
    pub total_unread: i64,
    /// The cursor of what is not loaded yet.
    pub next: Option<String>,
}

impl ChatList {
    pub fn get(&self, chat_id: ChatId) -> Option<&Chat> {
        self.chats.get(&chat_id)
    }

    /// Latest activity first.
    pub fn list(&self) -> Vec<&Chat> {
        let mut chats: Vec<&Chat> = self.chats.values().collect();
        chats.sort_by_key(|chat| std::cmp::Reverse((activity(chat), chat.chat_id)));
        chats
    }

    pub fn len(&self) -> usize {
        self.chats.len()
    }

    pub fn is_empty(&self) -> bool {
        self.chats.is_empty()
    }

    /// Takes the top of the list as the server has it. What should be in it and is not, is gone.
    pub(super) fn set_top(&mut self, page: ChatPage, total_unread: i64) {
        let oldest = page.next.as_ref().and(page.results.last()).map(activity);
        let is_listed = |chat: &Chat| page.results.iter().any(|one| one.chat_id == chat.chat_id);
        self.chats.retain(|_, chat| {
            is_listed(chat) || oldest.is_some_and(|oldest| activity(chat) < oldest)
        });
        page.results.into_iter().for_each(|chat| self.put(chat));
        (self.next, self.total_unread) = (page.next, total_unread);
    }

    pub(super) fn put(&mut self, chat: Chat) {
        match self.chats.get_mut(&chat.chat_id) {
            Some(known) if known.last_ev > chat.last_ev => known.other_user = chat.other_user,
            _ => {
                self.chats.insert(chat.chat_id, chat);
            }
        }
    }

    pub(super) fn remove(&mut self, chat_id: ChatId) {
        self.chats.remove(&chat_id);
    }

    pub(super) fn clear(&mut self) {
        self.chats.clear();
    }

    pub(super) fn set_unread(&mut self, chat_id: ChatId, unread: i64, total: i64) {
        if let Some(chat) = self.chats.get_mut(&chat_id) {
            chat.unread_count = unread;
        }
        self.total_unread = total;
    }

    /// Follows a frame, ahead of the server's word on the whole chat. Whether something changed.
    pub(super) fn apply(&mut self, frame: &ReceivedFrame) -> bool {
        if let ReceivedFrame::Presence { user_id, online, last_seen_at } = frame {
            return self.set_presence(user_id, *online, *last_seen_at);
        }
        let Some((chat_id, ev)) = frame.change() else { return false };
        let Some(chat) = self.chats.get_mut(&chat_id) else { return false };
        let changed = match frame {
            ReceivedFrame::MessageCreated { message, .. }
            | ReceivedFrame::MessageUpdated { message, .. } => take_last(chat, message),
            ReceivedFrame::MessageDeleted { message_id, deleted_at, .. } => {
                let last = chat.last_message.as_mut().filter(|last| last.message_id == *message_id);
                last.is_some_and(|last| {
                    (last.ev, last.deleted_at) = (ev, *deleted_at);
                    (last.text, last.metadata) = (String::new(), None);
                    true
                })
            }
            ReceivedFrame::ChatRead { user_id, read_seq, .. } => {
                let marker = match *user_id == chat.other_user.user_id {
                    true => &mut chat.peer_read_seq,
                    false => &mut chat.read_seq,
                };
                *marker = (*marker).max(*read_seq);
                true
            }
            _ => false,
        };
        if changed {
            chat.last_ev = chat.last_ev.max(ev);
        }
        changed
    }

    fn set_presence(&mut self, user_id: &UserId, online: bool, last_seen_at: Option<Time>) -> bool {
        let mut changed = false;
        for user in self.chats.values_mut().map(|chat| &mut chat.other_user) {
            if user.user_id == *user_id && user.online != online {
                (user.online, user.last_seen_at) = (online, last_seen_at);
                changed = true;
            }
        }
        changed
    }
}

fn take_last(chat: &mut Chat, message: &Message) -> bool {
    let is_newer = chat
        .last_message
        .as_ref()
        .is_none_or(|last| (message.seq, message.ev) > (last.seq, last.ev));
    if is_newer {
        chat.last_seq = chat.last_seq.max(message.seq);
        chat.last_message = Some(message.clone());
    }
    is_newer
}

fn activity(chat: &Chat) -> Time {
    chat.last_message.as_ref().map_or(chat.created_at, |message| message.created_at)
}
