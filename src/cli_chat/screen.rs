//! Decides what is shown of the chat, without I/O.

use std::collections::{BTreeMap, HashSet};

use beseda_protocol::{
    ReceivedFrame,
    model::{Chat, Message, UserId},
    rest::HistoryView,
};
use jiff::Timestamp;

use super::{files, lines::Line, names::Names};

/// Messages that are remembered, so that none is shown twice and a change can name its message. Older
/// ones have long left the screen.
const MAX_REMEMBERED: usize = 10_000;

#[derive(Debug)]
struct Remembered {
    ev: i64,
    /// None: the service itself.
    sender: Option<UserId>,
    at: Timestamp,
    edited_at: Option<Timestamp>,
    deleted: bool,
}

/// Shows each message once, in the order of `ev`, and its changes as lines of their own.
#[derive(Debug)]
pub(super) struct Screen {
    me: UserId,
    /// Of a chat of two.
    other: Option<UserId>,
    pub(super) names: Names,
    /// Of a group, as it was told last.
    title: Option<String>,
    receipts: bool,
    messages: BTreeMap<i64, Remembered>,
    /// All changes up to here were shown, in the history `epoch`.
    pub(super) ev: i64,
    epoch: Option<String>,
    /// The newest message known.
    pub(super) last_seq: i64,
    /// The newest shown message of the user, and of the other member.
    own_seq: i64,
    shown_seq: i64,
    read_seq: i64,
    peer_read_seq: i64,
    /// Whether the other is online, if that is known.
    other_online: Option<bool>,
    /// Members of a group who are online.
    online: HashSet<UserId>,
    typing: HashSet<UserId>,
}

impl Screen {
    pub(super) fn new(me: UserId, chat: &Chat) -> Self {
        Self {
            me,
            other: chat.other_user.as_ref().map(|other| other.user_id.clone()),
            names: Names::default(),
            title: chat.title.clone(),
            receipts: chat.receipts,
            messages: BTreeMap::new(),
            ev: 0,
            epoch: None,
            last_seq: 0,
            own_seq: 0,
            shown_seq: 0,
            read_seq: 0,
            peer_read_seq: 0,
            other_online: None,
            online: HashSet::new(),
            typing: HashSet::new(),
        }
    }

    /// Returns members of the group whose names are not known, among those whom a frame or messages are about.
    pub(super) fn strangers(
        &self,
        frame: Option<&ReceivedFrame>,
        messages: &[Message],
    ) -> Vec<UserId> {
        if self.other.is_some() {
            return Vec::new();
        }
        let (message, about): (Option<&Message>, Vec<&UserId>) = match frame {
            Some(
                ReceivedFrame::MessageCreated { message, .. }
                | ReceivedFrame::MessageUpdated { message, .. },
            ) => (Some(message), Vec::new()),
            Some(ReceivedFrame::Subscribed { online, .. }) => (None, online.iter().collect()),
            Some(
                ReceivedFrame::Typing { user_id, .. } | ReceivedFrame::Presence { user_id, .. },
            ) => (None, vec![user_id]),
            Some(ReceivedFrame::MemberJoined { by, .. }) => (None, by.iter().collect()),
            Some(ReceivedFrame::MemberLeft { user_id, by, .. }) => {
                (None, by.iter().chain([user_id]).collect())
            }
            _ => (None, Vec::new()),
        };
        let senders = messages.iter().chain(message).flat_map(|message| {
            let event = message.system.iter();
            let whom = event.flat_map(|event| event.user_ids.iter().chain(&event.by));
            message.sender_id.iter().chain(whom)
        });
        let strangers: HashSet<&UserId> =
            senders.chain(about).filter(|user| !self.names.has(user)).collect();
        strangers.into_iter().cloned().collect()
    }

    /// Returns the `seq` up to which messages were shown; `None` before the first page.
    pub(super) fn shown_up_to(&self, page: &HistoryView) -> Option<i64> {
        self.epoch.as_ref().filter(|epoch| **epoch == page.epoch).map(|_| self.last_seq)
    }

    /// Begins with a page: the first one, or the newest after a reset.
    pub(super) fn begin(&mut self, page: &HistoryView) -> Vec<Line> {
        let mut lines = Vec::new();
        if self.epoch.as_ref().is_some_and(|epoch| *epoch != page.epoch) {
            // In another epoch, numbers name other messages.
            self.messages.clear();
            (self.last_seq, self.own_seq, self.shown_seq) = (0, 0, 0);
            lines.push(Line::note("the service lost its latest messages; this is what it has"));
        }
        if self.last_seq == 0 && page.has_more_before {
            lines.push(Line::note("there are earlier messages"));
        }
        self.epoch = Some(page.epoch.clone());
        (self.ev, self.read_seq) = (page.head_ev, page.read_seq);
        self.peer_read_seq = page.peer_read_seq.unwrap_or(0);
        lines.extend(self.take_all(&page.results));
        self.last_seq = self.last_seq.max(page.head_seq);
        lines
    }

    /// Shows missed messages.
    pub(super) fn take_all(&mut self, messages: &[Message]) -> Vec<Line> {
        messages.iter().filter_map(|message| self.take(message)).collect()
    }

    /// Shows a frame. The client passes each frame once and in order.
    pub(super) fn on_frame(&mut self, frame: &ReceivedFrame) -> Vec<Line> {
        if let Some((_, ev)) = frame.change() {
            self.ev = self.ev.max(ev);
        }
        let line = match frame {
            ReceivedFrame::Subscribed { peer_read_seq, online, .. } => {
                let read = self.peer_read(peer_read_seq.unwrap_or(0));
                let present = match self.other.clone() {
                    Some(other) => self.present(&other, online.contains(&other)),
                    None => self.gathered(online),
                };
                return read.into_iter().chain(present).collect();
            }
            ReceivedFrame::Synced { ev, .. } => {
                self.ev = self.ev.max(*ev);
                None
            }
            ReceivedFrame::MessageCreated { message, .. }
            | ReceivedFrame::MessageUpdated { message, .. } => self.take(message),
            ReceivedFrame::MessageDeleted { seq, .. } => self.delete(*seq),
            ReceivedFrame::ChatRead { user_id, read_seq, .. } if *user_id == self.me => {
                self.marked(*read_seq);
                None
            }
            ReceivedFrame::ChatRead { user_id, read_seq, .. } if self.is_other(user_id) => {
                self.peer_read(*read_seq)
            }
            ReceivedFrame::Typing { user_id, typing, .. } if *user_id != self.me => {
                if *typing {
                    let began = self.typing.insert(user_id.clone());
                    began.then(|| Line::note(format!("{} is typing", self.names.of(user_id))))
                } else {
                    self.typing.remove(user_id);
                    None
                }
            }
            ReceivedFrame::Presence { user_id, online, .. } if *user_id != self.me => {
                self.present(user_id, *online)
            }
            ReceivedFrame::MemberJoined { members, by, .. } => {
                members.iter().for_each(|member| self.names.note(&member.user));
                let users: Vec<_> =
                    members.iter().map(|member| member.user.user_id.clone()).collect();
                self.unless_written(|names| names.joined(&users, by.as_ref()))
            }
            ReceivedFrame::MemberLeft { user_id, by, reason, .. } => {
                self.online.remove(user_id);
                let users = std::slice::from_ref(user_id);
                self.unless_written(|names| names.left(users, by.as_ref(), *reason))
            }
            ReceivedFrame::ChatChanged(change) => {
                self.receipts = change.receipts;
                let title = Some(change.title.clone());
                let renamed = std::mem::replace(&mut self.title, title) != self.title;
                let title = &change.title;
                if renamed {
                    self.unless_written(|_| format!("the chat is called {title:?}"))
                } else {
                    None
                }
            }
            _ => None,
        };
        line.into_iter().collect()
    }

    fn take(&mut self, message: &Message) -> Option<Line> {
        let known = self.messages.get(&message.seq);
        if known.is_some_and(|known| known.ev >= message.ev) {
            return None;
        }
        let was_shown = known.is_some();
        let deleted = message.deleted_at.is_some();
        let edited_at = message.edited_at.map(|at| at.0);
        // Reactions and pins are not shown here.
        let same = !deleted && known.is_some_and(|known| known.edited_at == edited_at);
        let sender = message.sender_id.clone();
        let remembered = Remembered {
            ev: message.ev,
            sender: sender.clone(),
            at: message.created_at.0,
            edited_at,
            deleted,
        };
        self.messages.insert(message.seq, remembered);
        if self.messages.len() > MAX_REMEMBERED {
            self.messages.pop_first();
        }
        self.last_seq = self.last_seq.max(message.seq);
        let at = message.created_at.0;
        let Some(sender) = sender else {
            let event = message.system.as_ref().filter(|_| !was_shown)?;
            return Some(Line::Told { at, what: self.names.event(event) });
        };
        if same {
            return None;
        }
        let shown = if sender == self.me { &mut self.own_seq } else { &mut self.shown_seq };
        *shown = (*shown).max(message.seq);
        self.typing.remove(&sender);
        let who = self.names.of(&sender);
        if deleted {
            return was_shown.then_some(Line::Deleted { at, who });
        }
        Some(Line::Said { at, who, text: self.said(message), edited: message.edited_at.is_some() })
    }

    /// What a message says: what it answers, its text, and its files, in lines.
    fn said(&self, message: &Message) -> String {
        let quote = message.reply_to.as_ref().map(|quote| {
            let whom = quote.sender_id.as_ref().map(|sender| self.names.of(sender));
            let text: String = quote.text.lines().next().unwrap_or("…").chars().take(60).collect();
            format!("(to {}: {text})", whom.as_deref().unwrap_or("the chat"))
        });
        let text = Some(message.text.clone()).filter(|text| !text.is_empty());
        let files = message.attachments.iter().map(files::describe);
        quote.into_iter().chain(text).chain(files).collect::<Vec<_>>().join("\n")
    }

    fn delete(&mut self, seq: i64) -> Option<Line> {
        self.last_seq = self.last_seq.max(seq);
        let known = self.messages.get_mut(&seq).filter(|known| !known.deleted)?;
        (known.deleted, known.ev) = (true, self.ev);
        let who = self.names.of(known.sender.as_ref()?);
        Some(Line::Deleted { at: known.at, who })
    }

    /// Shown once, for the user's newest message: a tick for each would hide the messages.
    fn peer_read(&mut self, read_seq: i64) -> Option<Line> {
        let news = self.peer_read_seq < self.own_seq && self.own_seq <= read_seq;
        self.peer_read_seq = self.peer_read_seq.max(read_seq);
        let other = self.other.as_ref().filter(|_| news)?;
        Some(Line::note(format!("{other} has read it")))
    }

    fn is_other(&self, user: &UserId) -> bool {
        self.other.as_ref() == Some(user)
    }

    /// Takes who is online: the other of two, or a member of a group.
    fn present(&mut self, user: &UserId, online: bool) -> Option<Line> {
        let news = if self.is_other(user) {
            self.other_online.replace(online) != Some(online)
        } else if online {
            self.online.insert(user.clone())
        } else {
            self.online.remove(user)
        };
        let state = if online { "online" } else { "offline" };
        news.then(|| Line::note(format!("{} is {state}", self.names.of(user))))
    }

    /// Takes all members of a group who are online.
    fn gathered(&mut self, online: &[UserId]) -> Option<Line> {
        let now: HashSet<UserId> =
            online.iter().filter(|user| **user != self.me).cloned().collect();
        let mut names: Vec<String> =
            now.difference(&self.online).map(|user| self.names.of(user)).collect();
        names.sort();
        self.online = now;
        (!names.is_empty()).then(|| Line::note(format!("online: {}", names.join(", "))))
    }

    /// Shows a change of a group in which the service writes no messages of changes: in a small one they are
    /// lines already.
    fn unless_written(&self, say: impl FnOnce(&Names) -> String) -> Option<Line> {
        (!self.receipts).then(|| Line::note(say(&self.names)))
    }

    /// Returns the `seq` up to which shown messages are to be marked as read, if any.
    pub(super) fn to_mark(&self) -> Option<i64> {
        (self.shown_seq > self.read_seq).then_some(self.shown_seq)
    }

    pub(super) fn marked(&mut self, read_seq: i64) {
        self.read_seq = self.read_seq.max(read_seq);
    }
}

#[cfg(test)]
mod tests;
