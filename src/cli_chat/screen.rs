//! Decides what is shown of the chat, without I/O.

use std::collections::{BTreeMap, HashSet};

use beseda_protocol::{
    ReceivedFrame,
    model::{Chat, Message, UserId},
    rest::HistoryView,
};
use jiff::Timestamp;

use super::{lines::Line, names::Names};

/// Messages that are remembered, so that none is shown twice and a change can name its message. Older
/// ones have long left the screen.
const MAX_REMEMBERED: usize = 10_000;

#[derive(Debug)]
struct Remembered {
    ev: i64,
    /// None: the service itself.
    sender: Option<UserId>,
    at: Timestamp,
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
        let sender = message.sender_id.clone();
        let remembered = Remembered {
            ev: message.ev,
            sender: sender.clone(),
            at: message.created_at.0,
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
        let shown = if sender == self.me { &mut self.own_seq } else { &mut self.shown_seq };
        *shown = (*shown).max(message.seq);
        self.typing.remove(&sender);
        let who = self.names.of(&sender);
        if deleted {
            return was_shown.then_some(Line::Deleted { at, who });
        }
        Some(Line::Said {
            at,
            who,
            text: message.text.clone(),
            edited: message.edited_at.is_some(),
        })
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
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CHAT: &str = "01a20a32-f544-7269-a867-60a8e5b5a762";

    fn screen() -> Screen {
        let mut screen = Screen::new(UserId::trusted("alice"), &chat(json!({})));
        let shown = screen.begin(&page(1, "e", &[message(1, 1, "bob", "one")]));
        assert_eq!(texts(&shown), ["bob: one"]);
        screen
    }

    fn chat(change: Value) -> Chat {
        let bob = json!({
            "user_id": "bob", "name": null, "avatar_url": null, "online": false,
            "last_seen_at": null,
        });
        let mut chat = json!({
            "chat_id": CHAT, "room_name": "", "kind": "direct", "title": null, "avatar_url": null,
            "metadata": null, "member_count": 2, "role": "member", "settings": null,
            "first_seq": 1, "receipts": true, "notify": "all", "pinned": false, "archived": false,
            "created_at": "2026-11-23T20:57:21Z", "created_by": "bob", "last_seq": 0, "last_ev": 0,
            "read_seq": 0, "peer_read_seq": 0, "unread_count": 0, "unread_mentions": 0,
            "last_message": null, "other_user": bob, "blocked": false,
        });
        for (name, value) in change.as_object().unwrap() {
            chat[name] = value.clone();
        }
        serde_json::from_str(&chat.to_string()).unwrap()
    }

    fn group(receipts: bool) -> Screen {
        let chat = json!({
            "kind": "group", "title": "Sailing", "receipts": receipts, "other_user": null,
            "peer_read_seq": null,
        });
        let mut screen = Screen::new(UserId::trusted("alice"), &chat_with_settings(chat));
        screen.begin(&page(0, "e", &[]));
        screen
    }

    fn chat_with_settings(mut change: Value) -> Chat {
        change["settings"] = json!({
            "post": "members", "invite": "admins", "history": "all", "join": "invite",
            "slow_mode_s": 0,
        });
        chat(change)
    }

    fn system(seq: i64, ev: i64, event: Value) -> Value {
        let mut frame = created(seq, ev, "", "");
        frame["message"]["type"] = json!("system");
        frame["message"]["sender_id"] = json!(null);
        frame["message"]["system"] = event;
        frame
    }

    fn member(id: &str, name: &str) -> Value {
        json!({
            "user": { "user_id": id, "name": name, "avatar_url": null, "online": false,
                      "last_seen_at": null },
            "role": "member", "joined_at": "2026-11-23T20:57:21Z", "read_seq": null,
            "silenced_until": null,
        })
    }

    fn page(head: i64, epoch: &str, results: &[Value]) -> HistoryView {
        let page = json!({
            "results": results, "has_more_before": false, "has_more_after": false, "before": null,
            "after": null, "head_seq": head, "head_ev": head, "epoch": epoch, "read_seq": 0,
            "peer_read_seq": 0,
        });
        serde_json::from_str(&page.to_string()).unwrap()
    }

    fn message(seq: i64, ev: i64, sender: &str, text: &str) -> Value {
        json!({
            "message_id": format!("01a20a33-0000-7000-8000-{seq:012}"), "chat_id": CHAT,
            "seq": seq, "ev": ev, "type": "text", "sender_id": sender, "text": text,
            "metadata": null, "mentions": [], "system": null, "client_msg_id": null, "created_at": "2026-11-23T20:57:21Z", "edited_at": null,
            "deleted_at": null,
        })
    }

    fn created(seq: i64, ev: i64, sender: &str, text: &str) -> Value {
        json!({ "type": "message.created", "ev": ev, "message": message(seq, ev, sender, text) })
    }

    fn deleted(seq: i64, ev: i64) -> Value {
        let id = format!("01a20a33-0000-7000-8000-{seq:012}");
        json!({ "type": "message.deleted", "ev": ev, "seq": seq, "message_id": id, "deleted_at": null })
    }

    fn read(ev: i64, user: &str, read_seq: i64) -> Value {
        json!({ "type": "chat.read", "ev": ev, "user_id": user, "read_seq": read_seq })
    }

    fn take(screen: &mut Screen, mut frame: Value) -> Vec<String> {
        frame["chat_id"] = json!(CHAT);
        let frame = ReceivedFrame::decode(&frame.to_string()).unwrap();
        texts(&screen.on_frame(&frame))
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        let text = |line: &Line| match line {
            Line::Said { who, text, edited, .. } => {
                format!("{who}{}: {text}", if *edited { " (edited)" } else { "" })
            }
            Line::Deleted { who, .. } => format!("{who}: deleted"),
            Line::Told { what, .. } => format!("told: {what}"),
            Line::Note(text) => text.clone(),
        };
        lines.iter().map(text).collect()
    }

    #[test]
    fn a_message_is_shown_once_also_where_the_history_is_read_again() {
        let mut screen = screen();
        assert_eq!(take(&mut screen, created(2, 2, "bob", "two")), ["bob: two"]);
        let again = [message(1, 1, "bob", "one"), message(2, 2, "bob", "two")];
        let newest = page(2, "e", &again);
        assert_eq!(screen.shown_up_to(&newest), Some(2));
        assert!(screen.begin(&newest).is_empty());
        let lost = page(1, "f", &[message(1, 1, "bob", "one")]);
        assert_eq!(screen.shown_up_to(&lost), None, "numbers of another epoch");
        assert_eq!(texts(&screen.begin(&lost)).last().map(String::as_str), Some("bob: one"));
    }

    #[test]
    fn changes_of_what_is_shown_are_told_and_what_was_never_shown_is_not_missed() {
        let mut screen = screen();
        let mut edit = message(1, 2, "bob", "one, better");
        edit["edited_at"] = json!("2026-11-23T20:58:21Z");
        let frame = json!({ "type": "message.updated", "ev": 2, "message": edit });
        assert_eq!(take(&mut screen, frame), ["bob (edited): one, better"]);
        assert_eq!(take(&mut screen, deleted(1, 3)), ["bob: deleted"]);
        assert!(take(&mut screen, deleted(2, 4)).is_empty(), "a tombstone of a message never seen");
        assert_eq!((screen.last_seq, screen.ev), (2, 4));
    }

    #[test]
    fn that_the_other_has_read_is_told_once_all_of_ones_own_is_read() {
        let mut screen = screen();
        take(&mut screen, created(2, 2, "alice", "two"));
        take(&mut screen, created(3, 3, "alice", "three"));
        assert!(take(&mut screen, read(4, "bob", 2)).is_empty());
        assert_eq!(take(&mut screen, read(5, "bob", 3)), ["bob has read it"]);
        let subscribed = json!({
            "type": "subscribed", "head_ev": 5, "head_seq": 3, "epoch": "e", "read_seq": 0,
            "peer_read_seq": 3, "online": ["bob"],
        });
        assert_eq!(take(&mut screen, subscribed), ["bob is online"]);
    }

    #[test]
    fn what_is_shown_of_the_other_is_to_be_marked_and_ones_own_is_not() {
        let mut screen = screen();
        assert_eq!(screen.to_mark(), Some(1));
        screen.marked(1);
        take(&mut screen, created(2, 2, "alice", "mine"));
        assert_eq!(screen.to_mark(), None);
        take(&mut screen, created(3, 3, "bob", "yours"));
        assert_eq!(screen.to_mark(), Some(3));
        // Read on another device.
        take(&mut screen, read(4, "alice", 3));
        assert_eq!(screen.to_mark(), None);
    }

    #[test]
    fn in_a_group_names_stand_before_messages_and_changes_are_lines() {
        let mut screen = group(true);
        let frame = created(1, 1, "bob", "hello");
        let decoded = {
            let mut frame = frame.clone();
            frame["chat_id"] = json!(CHAT);
            ReceivedFrame::decode(&frame.to_string()).unwrap()
        };
        assert_eq!(screen.strangers(Some(&decoded), &[]), [UserId::trusted("bob")]);
        let joined = json!({
            "type": "member.joined", "ev": 1, "members": [member("bob", "Bob")], "by": "alice",
        });
        assert!(take(&mut screen, joined).is_empty(), "the service writes a message of it");
        assert!(screen.strangers(Some(&decoded), &[]).is_empty(), "a frame told the name");
        assert_eq!(take(&mut screen, frame), ["Bob: hello"]);
        let left = json!({ "event": "member.left", "user_ids": ["bob"], "by": "bob" });
        assert_eq!(take(&mut screen, system(2, 2, left)), ["told: Bob left"]);
        assert_eq!(screen.to_mark(), Some(1), "a system message is never unread");
        // Somebody else's marker is not one's own.
        assert!(take(&mut screen, read(3, "bob", 1)).is_empty());
        assert_eq!(screen.to_mark(), Some(1));
    }

    #[test]
    fn where_no_messages_tell_of_changes_the_frames_do() {
        let mut screen = group(false);
        let joined = json!({
            "type": "member.joined", "ev": 1, "members": [member("bob", "Bob")], "by": "bob",
        });
        assert_eq!(take(&mut screen, joined), ["Bob joined"]);
        let left = json!({
            "type": "member.left", "ev": 2, "user_id": "bob", "by": "alice", "reason": "removed",
        });
        assert_eq!(take(&mut screen, left), ["alice removed Bob"]);
    }
}
