//! The list of chats that a client of the inbox keeps.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use beseda_protocol::model::{Chat, ChatId, Notify};

use super::{context::Person, findings::lock, subscriber::Subscriber};

/// A chat in a list: what must be equal to the database at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub last_ev: i64,
    pub unread: i64,
    pub mentions: i64,
    pub read_seq: i64,
    pub first_seq: i64,
    pub member_count: i32,
    pub notify: Notify,
    pub pinned: bool,
    pub archived: bool,
}

impl Shown {
    pub(super) fn of(chat: &Chat) -> Self {
        Self {
            last_ev: chat.last_ev,
            unread: chat.unread_count,
            mentions: chat.unread_mentions,
            read_seq: chat.read_seq,
            first_seq: chat.first_seq,
            member_count: chat.member_count,
            notify: chat.notify,
            pinned: chat.pinned,
            archived: chat.archived,
        }
    }
}

/// The client's view of its chats.
#[derive(Debug, Default)]
pub(super) struct List {
    /// True if the list was read after the inbox was live, and the socket is still open.
    pub live: bool,
    pub chats: HashMap<ChatId, Shown>,
    /// The last sum received on this connection.
    pub total: Option<i64>,
    /// Each chat as last told on this connection.
    pub told: HashMap<ChatId, Shown>,
    /// The newest message of each chat as told on this connection, by its revision, and since when its
    /// subscription has not told it, in microseconds since 1970.
    pub awaited: HashMap<ChatId, (i64, i64)>,
    pub subscribers: HashMap<ChatId, Arc<Subscriber>>,
}

#[derive(Debug)]
pub(super) struct Inbox {
    pub person: Person,
    pub list: Mutex<List>,
}

impl List {
    /// Notes that the inbox told of a message.
    pub(super) fn awaits(&mut self, chat: &Chat, now: i64) {
        let Some(message) = &chat.last_message else { return };
        let position = self.subscribers.get(&chat.chat_id).map(|one| lock(&one.model).position);
        let before = self.awaited.get(&chat.chat_id);
        let before = before.filter(|(ev, _)| position.is_none_or(|position| position < *ev));
        let since = before.map_or(now, |(_, since)| *since);
        self.awaited.insert(chat.chat_id, (message.ev, since));
    }

    /// Takes a chat whose subscription is in step and did not tell of a message since before `moment`.
    pub(super) fn take_silent(&mut self, moment: i64) -> Option<(ChatId, i64, i64)> {
        let silent = self.awaited.iter().find_map(|(chat_id, (ev, since))| {
            let model = lock(&self.subscribers.get(chat_id)?.model);
            let is_silent = model.in_step && model.position < *ev && *since < moment;
            is_silent.then_some((*chat_id, *ev, model.position))
        })?;
        self.awaited.remove(&silent.0);
        Some(silent)
    }
}
