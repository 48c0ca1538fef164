//! The operations of all clients and their answers, with which the database is compared. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use beseda_protocol::model::{AttachmentId, ChatId, ChatKind, MessageId};
use rand::{Rng, rngs::StdRng};

use super::{
    change::{Change, Party},
    findings::{lock, now_micros},
};

/// A message that a client sent or tried to send.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub chat_id: ChatId,
    pub sender: String,
    /// The text as sent or last edited.
    pub text: String,
    /// Texts of edits with an attempt of unknown outcome, which may take effect late.
    pub loose: Vec<String>,
    pub acknowledged: Option<Acknowledged>,
    pub deletion: Deletion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub message_id: MessageId,
    pub seq: i64,
    /// Microseconds since 1970.
    pub at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    Never,
    Tried,
    Acknowledged,
}

/// A chat with its members and state.
#[derive(Debug, Clone)]
pub(super) struct KnownChat {
    pub kind: ChatKind,
    /// The two; of a group all who may ever be members.
    pub members: Arc<[String]>,
    pub room_name: String,
    pub deletion: Deletion,
    /// True for a group that never had receipts.
    pub is_silent: bool,
}

impl KnownChat {
    pub(super) fn party(&self, own: &str) -> Party {
        Party { kind: self.kind, own: own.to_owned(), members: Arc::clone(&self.members) }
    }
}

/// What a member's client was given of a group, or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// A change while in step. `seq`: of a message; `about_members`: for owner and admins in a group without
    /// receipts.
    Live { ev: i64, seq: Option<i64>, about_members: bool },
    /// A change in a resume or a catch-up.
    Replayed { ev: i64, seq: Option<i64> },
    /// The chat as of this `ev`; with the lowest message of a page of history.
    State { ev: i64, seq: Option<i64> },
    /// The end of the membership, told to a client at this position.
    Gone { position: i64 },
    /// An operation refused as a stranger's between these two moments, in microseconds since 1970.
    Refused { from: i64, to: i64 },
}

#[derive(Debug, Default)]
struct State {
    chats: HashMap<ChatId, KnownChat>,
    /// By `client_msg_id`, which is unique in a run.
    sends: HashMap<String, Sent>,
    /// The highest acknowledged read marker.
    marks: HashMap<(ChatId, String), i64>,
    /// The highest acknowledged `seq`.
    tops: HashMap<ChatId, i64>,
    /// The change of each `ev`, as first seen.
    changes: HashMap<ChatId, BTreeMap<i64, Change>>,
    /// Pairs whose chat may have been opened by an attempt of unknown outcome.
    loose_pairs: HashSet<[String; 2]>,
    given: HashMap<(ChatId, String), Vec<Given>>,
    /// The revision and the number of each message that a client saw as it was created.
    created: HashMap<ChatId, BTreeSet<(i64, i64)>>,
    /// The latest acknowledged messages.
    recent: HashMap<ChatId, VecDeque<MessageId>>,
    reactions: HashMap<(MessageId, String, String), Wanted>,
    /// The contents of uploaded files.
    files: HashMap<AttachmentId, String>,
}

/// Whether a member's reaction must be there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub present: bool,
    /// An attempt of unknown outcome may take effect late, or two of the member's devices changed it at once.
    pub loose: bool,
    /// Changes that are not answered yet.
    under_way: u32,
}

/// Number of a chat's latest messages that are reacted to.
const RECENT: usize = 30;

#[derive(Debug, Default)]
pub(super) struct History(Mutex<State>);

impl History {
    pub(super) fn opened(&self, chat_id: ChatId, chat: KnownChat) {
        lock(&self.0).chats.entry(chat_id).or_insert(chat);
    }

    /// Records what a client was given of a group.
    pub(super) fn given(&self, chat_id: ChatId, user: &str, what: Given) {
        lock(&self.0).given.entry((chat_id, user.to_owned())).or_default().push(what);
    }

    pub(super) fn take_given(&self) -> HashMap<(ChatId, String), Vec<Given>> {
        std::mem::take(&mut lock(&self.0).given)
    }

    pub(super) fn may_be_open(&self, members: &[String; 2]) {
        lock(&self.0).loose_pairs.insert(members.clone());
    }

    pub(super) fn chat_deletion(&self, chat_id: ChatId, deletion: Deletion) {
        if let Some(chat) = lock(&self.0).chats.get_mut(&chat_id) {
            chat.deletion = deletion;
        }
    }

    pub(super) fn chat(&self, chat_id: ChatId) -> Option<KnownChat> {
        lock(&self.0).chats.get(&chat_id).cloned()
    }

    pub(super) fn chats(&self) -> HashMap<ChatId, KnownChat> {
        lock(&self.0).chats.clone()
    }

    pub(super) fn loose_pairs(&self) -> HashSet<[String; 2]> {
        lock(&self.0).loose_pairs.clone()
    }

    pub(super) fn sending(&self, id: &str, chat_id: ChatId, sender: &str, text: &str) {
        let sent = Sent {
            chat_id,
            sender: sender.to_owned(),
            text: text.to_owned(),
            loose: Vec::new(),
            acknowledged: None,
            deletion: Deletion::Never,
        };
        lock(&self.0).sends.insert(id.to_owned(), sent);
    }

    /// Records an acknowledgement; returns an earlier one that differs.
    pub(super) fn acknowledged(
        &self,
        id: &str,
        message_id: MessageId,
        seq: i64,
    ) -> Option<Acknowledged> {
        let state = &mut *lock(&self.0);
        let sent = state.sends.get_mut(id)?;
        let top = state.tops.entry(sent.chat_id).or_default();
        *top = (*top).max(seq);
        match sent.acknowledged {
            Some(before) => {
                ((before.message_id, before.seq) != (message_id, seq)).then_some(before)
            }
            None => {
                sent.acknowledged = Some(Acknowledged { message_id, seq, at: now_micros() });
                let recent = state.recent.entry(sent.chat_id).or_default();
                recent.push_back(message_id);
                if recent.len() > RECENT {
                    recent.pop_front();
                }
                None
            }
        }
    }

    pub(super) fn sends(&self) -> HashMap<String, Sent> {
        lock(&self.0).sends.clone()
    }

    pub(super) fn deletion_of(&self, id: &str) -> Deletion {
        lock(&self.0).sends.get(id).map_or(Deletion::Never, |sent| sent.deletion)
    }

    pub(super) fn deletion(&self, id: &str, deletion: Deletion) {
        if let Some(sent) = lock(&self.0).sends.get_mut(id) {
            sent.deletion = deletion;
        }
    }

    /// Records an acknowledged edit. `loose`: one of its attempts may still take effect.
    pub(super) fn edited(&self, id: &str, text: &str, loose: bool) {
        if let Some(sent) = lock(&self.0).sends.get_mut(id) {
            sent.text = text.to_owned();
            if loose {
                sent.loose.push(text.to_owned());
            }
        }
    }

    /// Records an edit that was refused after an attempt of unknown outcome.
    pub(super) fn may_be_edited(&self, id: &str, text: &str) {
        if let Some(sent) = lock(&self.0).sends.get_mut(id) {
            sent.loose.push(text.to_owned());
        }
    }

    pub(super) fn top(&self, chat_id: ChatId) -> i64 {
        lock(&self.0).tops.get(&chat_id).copied().unwrap_or(0)
    }

    /// Records an acknowledged marker; returns the highest one before.
    pub(super) fn marked(&self, chat_id: ChatId, user: &str, read_seq: i64) -> i64 {
        let state = &mut *lock(&self.0);
        let mark = state.marks.entry((chat_id, user.to_owned())).or_default();
        std::mem::replace(mark, read_seq.max(*mark))
    }

    pub(super) fn marks(&self) -> HashMap<(ChatId, String), i64> {
        lock(&self.0).marks.clone()
    }

    /// Records the change that a client saw as `ev`; returns what another client saw if that differs.
    pub(super) fn told(&self, chat_id: ChatId, ev: i64, change: &Change) -> Option<Change> {
        let state = &mut *lock(&self.0);
        let changes = state.changes.entry(chat_id).or_default();
        let first = changes.entry(ev).or_insert_with(|| change.clone());
        (first != change).then(|| first.clone())
    }

    /// Records that a client in step saw a message as it was created.
    pub(super) fn created(&self, chat_id: ChatId, ev: i64, seq: i64) {
        lock(&self.0).created.entry(chat_id).or_default().insert((ev, seq));
    }

    /// Returns the revision and the number of each message as it was created, as far as anybody saw it.
    pub(super) fn creations(&self, chat_id: ChatId) -> Vec<(i64, i64)> {
        lock(&self.0).created.get(&chat_id).into_iter().flatten().copied().collect()
    }

    /// Chooses one of a chat's latest messages.
    pub(super) fn any_message(&self, chat_id: ChatId, rng: &mut StdRng) -> Option<MessageId> {
        let state = lock(&self.0);
        let recent = state.recent.get(&chat_id)?;
        recent.get(rng.random_range(0..recent.len().max(1))).copied()
    }

    pub(super) fn uploaded(&self, id: AttachmentId, content: String) {
        lock(&self.0).files.insert(id, content);
    }

    pub(super) fn files(&self) -> HashMap<AttachmentId, String> {
        lock(&self.0).files.clone()
    }

    /// Records that a reaction is about to change.
    pub(super) fn reacting(&self, message_id: MessageId, emoji: &str, user: &str) {
        let key = (message_id, emoji.to_owned(), user.to_owned());
        let none = Wanted { present: false, loose: false, under_way: 0 };
        let wanted = &mut *lock(&self.0);
        let wanted = wanted.reactions.entry(key).or_insert(none);
        wanted.under_way += 1;
        wanted.loose |= wanted.under_way > 1;
    }

    /// Records what became of a reaction; `None`: nothing.
    pub(super) fn reacted(
        &self,
        message_id: MessageId,
        emoji: &str,
        user: &str,
        present: Option<bool>,
        loose: bool,
    ) {
        let key = (message_id, emoji.to_owned(), user.to_owned());
        if let Some(wanted) = lock(&self.0).reactions.get_mut(&key) {
            wanted.under_way -= 1;
            wanted.present = present.unwrap_or(wanted.present);
            wanted.loose |= loose;
        }
    }

    pub(super) fn reactions(&self) -> HashMap<(MessageId, String, String), Wanted> {
        lock(&self.0).reactions.clone()
    }

    pub(super) fn deletion_of_message(&self, message_id: MessageId) -> Deletion {
        let state = lock(&self.0);
        let is_it =
            |sent: &&Sent| sent.acknowledged.is_some_and(|one| one.message_id == message_id);
        state.sends.values().find(is_it).map_or(Deletion::Never, |sent| sent.deletion)
    }

    /// Returns the time of each message's acknowledgement.
    pub(super) fn acknowledgements(&self) -> HashMap<MessageId, i64> {
        let state = lock(&self.0);
        let known = state.sends.values().filter_map(|sent| sent.acknowledged);
        known.map(|known| (known.message_id, known.at)).collect()
    }
}
