//! The list of chats that a client of the inbox keeps.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use beseda_protocol::model::{Chat, ChatId, Notify};

use super::{context::Person, subscriber::Subscriber};

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
    pub subscribers: HashMap<ChatId, Arc<Subscriber>>,
}

#[derive(Debug)]
pub(super) struct Inbox {
    pub person: Person,
    pub list: Mutex<List>,
}
