//! What is known of the room, and what of it is to be shown. No I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    lines::Line,
    wire::{Frame, Message, Page, Person},
};

/// How many messages are remembered, so that none is shown twice and a change of one can be told;
/// what is older has long left the screen.
const MAX_REMEMBERED: usize = 10_000;

/// What a frame asks for, beside what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// A number is missing: resume from where everything is known.
    Resume,
    /// The position is void: read the history.
    ReadAgain,
}

#[derive(Debug)]
struct Remembered {
    ev: i64,
    sender: String,
    at: Timestamp,
    deleted: bool,
}

/// Messages are shown once, in the order of their `ev`; changes of them as lines of their own.
#[derive(Debug)]
pub(super) struct Room {
    me: String,
    other: String,
    messages: BTreeMap<i64, Remembered>,
    /// All changes up to here are known, of the history named `epoch`.
    pub(super) ev: i64,
    pub(super) epoch: Option<String>,
    /// Whether every `ev` comes now, one by one.
    pub(super) synced: bool,
    /// The newest message known.
    pub(super) last_seq: i64,
    /// The newest of one's own, and of the other's, that are shown.
    own_seq: i64,
    shown_seq: i64,
    read_seq: i64,
    peer_read_seq: i64,
    online: Option<bool>,
    typing: bool,
}

impl Room {
    pub(super) fn new(me: &str, other: &Person) -> Self {
        Self {
            me: me.to_owned(),
            other: other.user_id.clone(),
            messages: BTreeMap::new(),
            ev: 0,
            epoch: None,
            synced: false,
            last_seq: 0,
            own_seq: 0,
            shown_seq: 0,
            read_seq: 0,
            peer_read_seq: 0,
            online: None,
            typing: false,
        }
    }

    /// A new socket: takes in the pages that were read before it, which follow each other. What
    /// changed while they were read comes with the socket, so the first one's position counts.
    pub(super) fn begin(&mut self, pages: &[Page]) -> Vec<Line> {
        self.synced = false;
        let Some(first) = pages.first() else { return Vec::new() };
        let mut lines = Vec::new();
        if self.epoch.as_ref().is_some_and(|epoch| *epoch != first.epoch) {
            // Numbers mean other messages now.
            self.messages.clear();
            (self.last_seq, self.own_seq, self.shown_seq) = (0, 0, 0);
            lines.push(Line::note("the service lost its latest messages; this is what it has"));
        }
        if self.last_seq == 0 && first.has_more_before {
            lines.push(Line::note("there are earlier messages"));
        }
        self.epoch = Some(first.epoch.clone());
        (self.ev, self.read_seq) = (first.head_ev, first.read_seq);
        self.last_seq = self.last_seq.max(first.head_seq);
        self.peer_read_seq = first.peer_read_seq;
        let messages = pages.iter().flat_map(|page| &page.results);
        lines.extend(messages.filter_map(|message| self.take(message)));
        lines
    }

    /// Takes a frame of the socket.
    pub(super) fn on_frame(&mut self, frame: &Frame) -> (Vec<Line>, Need) {
        let mut lines = Vec::new();
        if let Frame::Message { ev, .. } | Frame::Deleted { ev, .. } | Frame::Read { ev, .. } =
            frame
        {
            if *ev <= self.ev {
                return (lines, Need::Nothing);
            }
            if self.synced && *ev > self.ev + 1 {
                return (lines, Need::Resume);
            }
            self.ev = *ev;
        }
        match frame {
            Frame::Subscribed { peer_read_seq, online } => {
                // What was superseded is left out from here to `synced`, so numbers are skipped.
                self.synced = false;
                lines.extend(self.peer_read(*peer_read_seq));
                lines.extend(self.present(online.contains(&self.other)));
            }
            Frame::Catchup {} => self.synced = false,
            Frame::Synced { ev } => {
                self.ev = self.ev.max(*ev);
                self.synced = true;
            }
            Frame::Reset {} => return (lines, Need::ReadAgain),
            Frame::Message { message, .. } => lines.extend(self.take(message)),
            Frame::Deleted { seq, .. } => lines.extend(self.delete(*seq)),
            Frame::Read { user_id, read_seq, .. } if *user_id == self.other => {
                lines.extend(self.peer_read(*read_seq));
            }
            Frame::Read { read_seq, .. } => self.marked(*read_seq),
            Frame::Typing { user_id, typing } if *user_id == self.other => {
                if *typing && !self.typing {
                    lines.push(Line::note(format!("{user_id} is typing")));
                }
                self.typing = *typing;
            }
            Frame::Presence { user_id, online } if *user_id == self.other => {
                lines.extend(self.present(*online));
            }
            _ => {}
        }
        (lines, Need::Nothing)
    }

    fn take(&mut self, message: &Message) -> Option<Line> {
        let known = self.messages.get(&message.seq);
        if known.is_some_and(|known| known.ev >= message.ev) {
            return None;
        }
        let was_shown = known.is_some();
        let deleted = message.deleted_at.is_some();
        let sender = message.sender_id.clone();
        let remembered = Remembered { ev: message.ev, sender, at: message.created_at, deleted };
        self.messages.insert(message.seq, remembered);
        if self.messages.len() > MAX_REMEMBERED {
            self.messages.pop_first();
        }
        self.last_seq = self.last_seq.max(message.seq);
        let shown =
            if message.sender_id == self.me { &mut self.own_seq } else { &mut self.shown_seq };
        *shown = (*shown).max(message.seq);
        if message.sender_id == self.other {
            self.typing = false;
        }
        if deleted {
            return was_shown
                .then(|| Line::Deleted { at: message.created_at, who: message.sender_id.clone() });
        }
        Some(Line::Said {
            at: message.created_at,
            who: message.sender_id.clone(),
            text: message.text.clone(),
            edited: message.edited_at.is_some(),
        })
    }

    fn delete(&mut self, seq: i64) -> Option<Line> {
        self.last_seq = self.last_seq.max(seq);
        let known = self.messages.get_mut(&seq).filter(|known| !known.deleted)?;
        (known.deleted, known.ev) = (true, self.ev);
        Some(Line::Deleted { at: known.at, who: known.sender.clone() })
    }

    /// Told once for one's newest message: a tick for each would drown the talk.
    fn peer_read(&mut self, read_seq: i64) -> Option<Line> {
        let news = self.peer_read_seq < self.own_seq && self.own_seq <= read_seq;
        self.peer_read_seq = self.peer_read_seq.max(read_seq);
        news.then(|| Line::note(format!("{} has read it", self.other)))
    }

    fn present(&mut self, online: bool) -> Option<Line> {
        if self.online.replace(online) == Some(online) {
            return None;
        }
        let state = if online { "online" } else { "offline" };
        Some(Line::note(format!("{} is {state}", self.other)))
    }

    /// Up to where what is shown is to be marked as read, if it is not.
    pub(super) fn to_mark(&self) -> Option<i64> {
        (self.shown_seq > self.read_seq).then_some(self.shown_seq)
    }

    pub(super) fn marked(&mut self, read_seq: i64) {
        self.read_seq = self.read_seq.max(read_seq);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn room() -> Room {
        let other = Person { user_id: "bob".to_owned(), name: None };
        let mut room = Room::new("alice", &other);
        let page = json!({
            "results": [message(1, 1, "bob", "one")], "has_more_before": false,
            "has_more_after": false, "head_seq": 1, "head_ev": 1, "epoch": "e", "read_seq": 0, "peer_read_seq": 0,
        });
        let shown = room.begin(&[serde_json::from_value(page).unwrap()]);
        assert_eq!(texts(&shown), ["bob: one"]);
        room
    }

    fn message(seq: i64, ev: i64, sender: &str, text: &str) -> serde_json::Value {
        json!({
            "seq": seq, "ev": ev, "sender_id": sender, "text": text, "created_at": "2026-11-23T20:57:21Z",
        })
    }

    fn created(seq: i64, ev: i64, sender: &str, text: &str) -> serde_json::Value {
        json!({ "type": "message.created", "ev": ev, "message": message(seq, ev, sender, text) })
    }

    fn take(room: &mut Room, frame: serde_json::Value) -> (Vec<String>, Need) {
        let (lines, need) = room.on_frame(&serde_json::from_value(frame).unwrap());
        (texts(&lines), need)
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        let text = |line: &Line| match line {
            Line::Said { who, text, edited, .. } => {
                format!("{who}{}: {text}", if *edited { " (edited)" } else { "" })
            }
            Line::Deleted { who, .. } => format!("{who}: deleted"),
            Line::Note(text) => text.clone(),
        };
        lines.iter().map(text).collect()
    }

    #[test]
    fn a_resumed_socket_shows_what_was_missed_once_and_a_hole_is_noticed() {
        let mut room = room();
        take(&mut room, json!({ "type": "subscribed", "peer_read_seq": 0, "online": ["bob"] }));
        // Between `subscribed` and `synced` numbers are skipped.
        let (shown, need) = take(&mut room, created(2, 4, "bob", "two"));
        assert_eq!((shown, need), (vec!["bob: two".to_owned()], Need::Nothing));
        take(&mut room, json!({ "type": "synced", "ev": 5 }));
        assert_eq!(take(&mut room, created(2, 4, "bob", "two")).0, Vec::<String>::new());
        assert_eq!(take(&mut room, created(3, 7, "bob", "three")), (vec![], Need::Resume));
        assert_eq!(room.ev, 5, "nothing of it was taken");
        let (_, need) = take(&mut room, json!({ "type": "reset", "head_ev": 9 }));
        assert_eq!(need, Need::ReadAgain);
        assert_eq!(take(&mut room, json!({ "type": "of the future", "ev": 1 })).1, Need::Nothing);
    }

    #[test]
    fn changes_of_what_is_shown_are_told_and_what_was_never_shown_is_not_missed() {
        let mut room = room();
        let mut edit = message(1, 2, "bob", "one, better");
        edit["edited_at"] = json!("2026-11-23T20:58:21Z");
        let frame = json!({ "type": "message.updated", "ev": 2, "message": edit });
        assert_eq!(take(&mut room, frame).0, ["bob (edited): one, better"]);
        let frame = json!({ "type": "message.deleted", "ev": 3, "seq": 1 });
        assert_eq!(take(&mut room, frame).0, ["bob: deleted"]);
        let frame = json!({ "type": "message.deleted", "ev": 4, "seq": 2 });
        assert!(take(&mut room, frame).0.is_empty(), "a tombstone of a message never seen");
        assert_eq!(room.last_seq, 2);
    }

    #[test]
    fn that_the_other_has_read_is_told_once_all_of_ones_own_is_read() {
        let mut room = room();
        take(&mut room, created(2, 2, "alice", "two"));
        take(&mut room, created(3, 3, "alice", "three"));
        let read = |ev, read_seq| json!({ "type": "chat.read", "ev": ev, "user_id": "bob", "read_seq": read_seq });
        assert!(take(&mut room, read(4, 2)).0.is_empty());
        assert_eq!(take(&mut room, read(5, 3)).0, ["bob has read it"]);
        let subscribed = json!({ "type": "subscribed", "peer_read_seq": 3, "online": ["bob"] });
        assert_eq!(take(&mut room, subscribed).0, ["bob is online"]);
    }

    #[test]
    fn what_is_shown_of_the_other_is_to_be_marked_and_ones_own_is_not() {
        let mut room = room();
        assert_eq!(room.to_mark(), Some(1));
        room.marked(1);
        take(&mut room, created(2, 2, "alice", "mine"));
        assert_eq!(room.to_mark(), None);
        take(&mut room, created(3, 3, "bob", "yours"));
        assert_eq!(room.to_mark(), Some(3));
        // Read on another device.
        take(&mut room, json!({ "type": "chat.read", "ev": 4, "user_id": "alice", "read_seq": 3 }));
        assert_eq!(room.to_mark(), None);
    }
}
