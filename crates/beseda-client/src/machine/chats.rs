//! The list of chats, latest activity first.

use std::collections::BTreeMap;

use beseda_protocol::{
    ReceivedFrame,
    model::{Chat, ChatId, Message, Time, User, UserId},
    rest::{ChatPage, ReadResult},
};

/// A point in the order of what the socket said. A call is made at one, and its answer changes nothing
/// that a frame said after it: the answer may be the older of the two.
pub type Moment = u64;

/// The chats that are known. Between two versions of a [`Chat`] the higher `last_ev` counts; the member
/// in it (name, presence) has no such number, so the latest one counts. Numbers of an earlier epoch
/// mean nothing: the database went back in time.
#[derive(Debug, Clone, Default)]
pub struct ChatList {
    known: BTreeMap<ChatId, Known>,
    /// When a frame said that a chat is gone.
    gone: BTreeMap<ChatId, Moment>,
    now: Moment,
    epoch: Option<String>,
    epoch_began: Moment,
    total_told: Moment,
    /// Unread messages in all chats, those that are not loaded included.
    pub total_unread: i64,
    /// The cursor of what is not loaded yet.
    pub next: Option<String>,
}

#[derive(Debug, Clone)]
struct Known {
    chat: Chat,
    /// When a frame gave the whole chat; 0: never.
    told: Moment,
    /// When a frame gave the member's presence; 0: never.
    seen: Moment,
    /// Of an earlier epoch: any other version replaces it.
    is_past: bool,
}

impl ChatList {
    pub fn get(&self, chat_id: ChatId) -> Option<&Chat> {
        self.known.get(&chat_id).map(|known| &known.chat)
    }

    /// Latest activity first.
    pub fn list(&self) -> Vec<&Chat> {
        let mut chats: Vec<&Chat> = self.known.values().map(|known| &known.chat).collect();
        chats.sort_by_key(|chat| std::cmp::Reverse((activity(chat), chat.chat_id)));
        chats
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The moment to remember with a call that is made now.
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// Whether a call of that moment was answered by a history that is over.
    pub(super) fn is_past(&self, asked: Moment) -> bool {
        asked < self.epoch_began
    }

    /// Takes the epoch that a frame names. Returns true if it is another one: all must be read anew.
    pub(super) fn enter(&mut self, epoch: &str) -> bool {
        let is_other = self.epoch.as_ref().is_some_and(|known| known != epoch);
        self.epoch = Some(epoch.to_owned());
        if is_other {
            self.epoch_began = self.tick();
            self.gone.clear();
            // Shown until they are read anew.
            self.known.values_mut().for_each(|known| known.is_past = true);
        }
        is_other
    }

    // ---- answers ----

    /// Takes the top of the list as the server has it. A chat that belongs in it and is missing is gone.
    pub(super) fn set_top(&mut self, page: ChatPage, total_unread: i64, asked: Moment) {
        if self.is_past(asked) {
            return;
        }
        let oldest = page.next.as_ref().and(page.results.last()).map(activity);
        let is_listed = |chat: &Chat| page.results.iter().any(|one| one.chat_id == chat.chat_id);
        self.known.retain(|_, Known { chat, told, is_past, .. }| {
            let is_below = || oldest.is_some_and(|oldest| activity(chat) < oldest);
            is_listed(chat) || *told > asked || (!*is_past && is_below())
        });
        page.results.into_iter().for_each(|chat| self.put(chat, asked));
        self.next = page.next;
        self.set_total(total_unread, asked);
    }

    fn put(&mut self, mut chat: Chat, asked: Moment) {
        if self.gone.get(&chat.chat_id).is_some_and(|gone| *gone > asked) {
            return;
        }
        let Some(known) = self.known.get_mut(&chat.chat_id) else {
            let known = Known { told: 0, seen: 0, is_past: false, chat };
            self.known.insert(known.chat.chat_id, known);
            return;
        };
        if known.seen > asked {
            copy_presence(&mut chat.other_user, &known.chat.other_user);
        }
        let is_told_later = known.told > asked && known.chat.last_ev == chat.last_ev;
        if !known.is_past && (known.chat.last_ev > chat.last_ev || is_told_later) {
            known.chat.other_user = chat.other_user;
        } else {
            (known.chat, known.is_past) = (chat, false);
        }
    }

    fn set_total(&mut self, total: i64, asked: Moment) {
        if self.total_told <= asked {
            self.total_unread = total;
        }
    }

    /// Takes what is left unread after a mark.
    pub(super) fn set_read(&mut self, result: &ReadResult, asked: Moment) {
        if self.is_past(asked) {
            return;
        }
        if let Some(known) = self.known.get_mut(&result.chat_id).filter(|one| one.told <= asked) {
            known.chat.unread_count = result.unread_count;
            known.chat.read_seq = known.chat.read_seq.max(result.read_seq);
        }
        self.set_total(result.total_unread, asked);
    }

    // ---- frames ----

    /// Takes a whole chat from a frame. With `keep_presence` the member's presence stays as it is known.
    pub(super) fn tell(&mut self, mut chat: Chat, total_unread: i64, keep_presence: bool) {
        let told = self.tick();
        (self.total_unread, self.total_told) = (total_unread, told);
        self.gone.remove(&chat.chat_id);
        let Some(known) = self.known.get_mut(&chat.chat_id) else {
            self.known.insert(chat.chat_id, Known { chat, told, seen: 0, is_past: false });
            return;
        };
        if keep_presence {
            copy_presence(&mut chat.other_user, &known.chat.other_user);
        }
        if !known.is_past && known.chat.last_ev > chat.last_ev {
            known.chat.other_user = chat.other_user;
        } else {
            known.chat = chat;
        }
        (known.told, known.is_past) = (told, false);
    }

    /// `total_unread`: in the chats that are left, where the server said it.
    pub(super) fn remove(&mut self, chat_id: ChatId, total_unread: Option<i64>) {
        let told = self.tick();
        self.known.remove(&chat_id);
        self.gone.insert(chat_id, told);
        if let Some(total) = total_unread {
            (self.total_unread, self.total_told) = (total, told);
        }
    }

    /// Follows a frame, ahead of the server's word on the whole chat. Returns whether something changed.
    pub(super) fn apply(&mut self, frame: &ReceivedFrame) -> bool {
        if let ReceivedFrame::Presence { user_id, online, last_seen_at } = frame {
            return self.set_presence(user_id, *online, *last_seen_at);
        }
        let Some((chat_id, ev)) = frame.change() else { return false };
        let Some(Known { chat, .. }) = self.known.get_mut(&chat_id) else { return false };
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
                // The count of unread messages comes with the whole chat, under the same number.
                return true;
            }
            _ => false,
        };
        if changed {
            chat.last_ev = chat.last_ev.max(ev);
        }
        changed
    }

    /// Takes who is online in a chat. Returns whether the other member's presence changed.
    pub(super) fn set_online(&mut self, chat_id: ChatId, online: &[UserId]) -> bool {
        let Some(other) = self.get(chat_id).map(|chat| chat.other_user.user_id.clone()) else {
            return false;
        };
        let is_online = online.contains(&other);
        self.set_presence(&other, is_online, None)
    }

    fn set_presence(&mut self, user_id: &UserId, online: bool, last_seen_at: Option<Time>) -> bool {
        let (seen, mut changed) = (self.tick(), false);
        for known in self.known.values_mut() {
            let user = &mut known.chat.other_user;
            if user.user_id != *user_id {
                continue;
            }
            known.seen = seen;
            if user.online != online {
                (user.online, user.last_seen_at) = (online, last_seen_at);
                changed = true;
            }
        }
        changed
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }
}

fn copy_presence(user: &mut User, known: &User) {
    (user.online, user.last_seen_at) = (known.online, known.last_seen_at);
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
