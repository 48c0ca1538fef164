//! For clients that keep a store: every change of a chat, however old, and the chats that changed.

use beseda_protocol::rest::ChangePage;
use serde_json::value::RawValue;

use super::{Chats, chats::cut};
use crate::{
    error::Error,
    model::{Chat, ChatId, UserId},
    protocol::{ServerFrame, change_frame},
    store::{Changes, SyncCursor},
};

/// Chats that changed since a client was here.
#[derive(Debug)]
pub struct Synced {
    pub chats: Vec<Chat>,
    /// Those that are the user's no longer.
    pub gone: Vec<ChatId>,
    pub next: SyncCursor,
    pub more: bool,
    /// Whether a list of all chats begins here.
    pub reset: bool,
}

impl Chats {
    /// Lists what changed in a chat after `after_ev` as the frames that a resume gives. A page that ends with
    /// changes that are not for the user ends with `skipped`, so that each page leads on.
    pub async fn list_changes(
        &self,
        user: &UserId,
        chat_id: ChatId,
        after_ev: i64,
        limit: i64,
    ) -> Result<ChangePage, Error> {
        let Changes { head, mut changes, more, up_to, .. } =
            self.get_changes(user, chat_id, after_ev, limit).await?;
        self.presence.show(&mut changes, head.receipts).await;
        let told = changes.last().map_or(after_ev, |change| change.ev());
        let skipped = (told < up_to).then(|| ServerFrame::Skipped { chat_id, ev: up_to }.encode());
        let frames = changes.iter().map(|change| change_frame(chat_id, change)).chain(skipped);
        // Frames are JSON, so none is left out.
        let json = |frame: beseda_protocol::frame::Frame| {
            RawValue::from_string(String::from_utf8(frame.into()).ok()?).ok()
        };
        let results = frames.filter_map(json).collect();
        Ok(ChangePage { results, has_more: more, head_ev: head.ev, epoch: head.epoch })
    }

    /// Lists the user's chats that changed since a cursor was given: their own settings, silent marks and
    /// counters too. At most `limit`, fewer where last messages are large.
    pub async fn sync(
        &self,
        user: &UserId,
        cursor: Option<&SyncCursor>,
        limit: i64,
    ) -> Result<Synced, Error> {
        let mut list = self.store.list_changed(user, cursor, limit + 1).await?;
        let mut more = cut(&mut list.chats, limit);
        let changed: Vec<ChatId> =
            list.chats.iter().filter(|(_, gone)| !gone).map(|(chat_id, _)| *chat_id).collect();
        let mut synced = Vec::with_capacity(changed.len());
        if !changed.is_empty() {
            synced = self.get_chats(user, &changed).await?.chats;
        }
        // The page ends where they are too large.
        if let Some(unread) = changed.get(synced.len()) {
            list.chats.truncate(list.chats.iter().position(|(id, _)| id == unread).unwrap_or(0));
            more = true;
        }
        let mut gone: Vec<ChatId> =
            list.chats.iter().filter(|(_, gone)| *gone).map(|(chat_id, _)| *chat_id).collect();
        let mut chats = Vec::with_capacity(synced.len());
        for one in synced {
            match one.chat {
                Ok(chat) => chats.push(chat),
                // Since the list was read.
                Err(_) => gone.push(one.chat_id),
            }
        }
        let last = list.chats.last().map(|(chat_id, _)| *chat_id);
        let next = list.cursor_after(last.filter(|_| more));
        Ok(Synced { chats, gone, next, more, reset: list.reset })
    }
}
