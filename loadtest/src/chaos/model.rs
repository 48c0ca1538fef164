//! A client's model of one chat, kept by the rules of the protocol; it reports violations. No I/O.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use beseda_protocol::model::{ChatId, Message, MessageId};
use serde::Deserialize;

use super::findings::Kind;

/// The floor of a client that knows no message of the chat: above all possible ones.
const NOTHING: i64 = i64::MAX / 2;

/// The fields of a server frame that are checked.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Frame {
    #[serde(rename = "type")]
    pub kind: String,
    pub id: Option<i64>,
    pub chat_id: Option<ChatId>,
    pub ev: i64,
    pub seq: i64,
    pub after_ev: i64,
    pub head_ev: i64,
    pub read_seq: i64,
    pub epoch: Option<String>,
    pub reason: Option<String>,
    pub code: Option<serde_json::Value>,
    pub user_id: Option<String>,
    pub message_id: Option<MessageId>,
    pub message: Option<Message>,
    pub chat: Option<beseda_protocol::model::Chat>,
    pub total_unread: Option<i64>,
}

impl fmt::Debug for Frame {
    /// Only present fields, as this is printed with violations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        for (name, number) in [
            ("ev", self.ev),
            ("seq", self.seq),
            ("after_ev", self.after_ev),
            ("head_ev", self.head_ev),
            ("read_seq", self.read_seq),
        ] {
            if number != 0 {
                write!(f, " {name}={number}")?;
            }
        }
        for (name, text) in [("reason", &self.reason), ("user", &self.user_id)] {
            if let Some(text) = text {
                write!(f, " {name}={text}")?;
            }
        }
        if let Some(code) = &self.code {
            write!(f, " code={code}")?;
        }
        if let Some(chat) = self.chat_id.or(self.chat.as_ref().map(|chat| chat.chat_id)) {
            write!(f, " chat={chat}")?;
        }
        if let Some(chat) = &self.chat {
            write!(f, " last_ev={} unread={}", chat.last_ev, chat.unread_count)?;
        }
        if let Some(message) = &self.message {
            write!(f, " seq={} text={:?}", message.seq, message.text)?;
        }
        Ok(())
    }
}

/// The change behind an `ev`: the same for all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Message { message_id: MessageId, seq: i64, text: String, edited: bool, deleted: bool },
    Read { user: String, read_seq: i64 },
}

/// A message in the client's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub message_id: MessageId,
    pub ev: i64,
    pub text: String,
    pub deleted: bool,
}

/// A violation of the protocol.
pub(super) type Broken = (Kind, String);

#[derive(Debug, Clone)]
pub(super) struct Model {
    chat_id: ChatId,
    members: [String; 2],
    /// All changes up to here were received.
    pub position: i64,
    pub epoch: Option<String>,
    /// True after `synced`: from then on numbers have no gaps.
    pub in_step: bool,
    /// By `seq`.
    pub messages: BTreeMap<i64, Known>,
    pub reads: HashMap<String, i64>,
    /// Messages up to here were never requested.
    pub floor: i64,
}

impl Model {
    /// Creates the model of a client that knows nothing and requests everything.
    pub(super) fn new(chat_id: ChatId, members: [String; 2]) -> Self {
        Self {
            chat_id,
            members,
            position: 0,
            epoch: None,
            in_step: false,
            messages: BTreeMap::new(),
            reads: HashMap::new(),
            floor: 0,
        }
    }

    /// Creates the model of a client that has read a page of history as of `head_ev`.
    pub(super) fn from_history(
        chat_id: ChatId,
        members: [String; 2],
        page: &[Message],
        (head_seq, head_ev, epoch): (i64, i64, String),
    ) -> Self {
        let mut model = Self::new(chat_id, members);
        model.position = head_ev;
        model.epoch = Some(epoch);
        model.floor = page.first().map_or(head_seq, |message| message.seq - 1);
        model.messages = page.iter().map(|message| (message.seq, known(message))).collect();
        model
    }

    fn is_member(&self, user: &str) -> bool {
        self.members.iter().any(|member| member == user)
    }

    /// Returns the highest `seq` that the client knows.
    fn top(&self) -> i64 {
        self.messages.last_key_value().map_or(self.floor, |(seq, _)| *seq)
    }

    /// Applies a frame of this chat. Returns its change; violations go to `broken`.
    pub(super) fn apply(
        &mut self,
        frame: &Frame,
        broken: &mut Vec<Broken>,
    ) -> Option<(i64, Change)> {
        match frame.kind.as_str() {
            "subscribed" => {
                self.in_step = false;
                if self.epoch.is_some() && self.epoch != frame.epoch {
                    broken.push((Kind::State, format!("another epoch: {frame:?}")));
                }
                self.epoch.clone_from(&frame.epoch);
                None
            }
            "synced" => {
                self.on_synced(frame.ev, broken);
                None
            }
            "catchup" => {
                if !self.in_step || frame.after_ev != self.position {
                    let at = self.position;
                    broken.push((
                        Kind::Order,
                        format!(
                            "catchup after {} at ev {at}, in step: {}",
                            frame.after_ev, self.in_step
                        ),
                    ));
                }
                self.in_step = false;
                None
            }
            "reset" => {
                // The database is never restored in these runs, and no client is that far behind.
                broken.push((Kind::State, format!("reset at ev {}: {frame:?}", self.position)));
                *self = Self::new(self.chat_id, self.members.clone());
                self.position = frame.head_ev;
                self.floor = NOTHING;
                None
            }
            "message.created" | "message.updated" => {
                let Some(message) = &frame.message else {
                    broken.push((Kind::Answer, format!("no message in {frame:?}")));
                    return None;
                };
                self.on_number(frame.ev, broken);
                self.on_message(&frame.kind, frame.ev, message, broken);
                Some((frame.ev, change(message)))
            }
            "message.deleted" => {
                self.on_number(frame.ev, broken);
                self.on_deleted(frame, broken)
            }
            "chat.read" => {
                self.on_number(frame.ev, broken);
                self.on_read(frame, broken)
            }
            _ => None,
        }
    }

    fn on_synced(&mut self, ev: i64, broken: &mut Vec<Broken>) {
        if self.in_step || ev < self.position {
            let (at, in_step) = (self.position, self.in_step);
            broken.push((Kind::Order, format!("synced {ev} at ev {at}, in step: {in_step}")));
        }
        self.position = ev;
        self.in_step = true;
        let known = i64::try_from(self.messages.range(self.floor + 1..).count());
        if self.floor < NOTHING && known != Ok(self.top() - self.floor) {
            let (top, floor) = (self.top(), self.floor);
            broken.push((
                Kind::Gap,
                format!("synced at {ev} with {known:?} messages of {} to {top}", floor + 1),
            ));
        }
    }

    /// Checks that numbers have no gaps in step, and ascend in a catch-up.
    fn on_number(&mut self, ev: i64, broken: &mut Vec<Broken>) {
        let at = self.position;
        if ev <= at {
            broken
                .push((Kind::Doubled, format!("ev {ev} after ev {at}, in step: {}", self.in_step)));
        } else if self.in_step && ev != at + 1 {
            broken.push((Kind::Gap, format!("ev {ev} after ev {at} in step")));
        }
        self.position = self.position.max(ev);
    }

    fn on_message(&mut self, kind: &str, ev: i64, message: &Message, broken: &mut Vec<Broken>) {
        let mut wrong = |kind: Kind, what: &str| {
            broken.push((kind, format!("{what}: ev {ev}, {message:?}")));
        };
        if message.chat_id != self.chat_id
            || !message.sender_id.as_ref().is_some_and(|id| self.is_member(id.as_str()))
        {
            wrong(Kind::Leak, "a message of another chat or person");
        }
        if message.ev != ev {
            wrong(Kind::Order, "a message with another ev than its frame");
        }
        let created = kind == "message.created";
        if message.deleted_at.is_some() || created == message.edited_at.is_some() {
            wrong(Kind::Answer, "a message in the wrong frame");
        }
        let (top, in_step, floor) = (self.top(), self.in_step, self.floor);
        match self.messages.get(&message.seq) {
            Some(known) if known.message_id != message.message_id => {
                wrong(Kind::Order, "another message has that seq");
            }
            Some(_) if created => wrong(Kind::Doubled, "created twice"),
            Some(known) if known.deleted => wrong(Kind::State, "edited after its deletion"),
            Some(_) => {}
            None if created && in_step && message.seq != top + 1 && floor < NOTHING => {
                wrong(Kind::Gap, &format!("created in step after seq {top}"));
            }
            None if !created && in_step && message.seq > floor => {
                wrong(Kind::Lost, "edited in step, never created");
            }
            None => {}
        }
        self.messages.insert(message.seq, known(message));
    }

    fn on_deleted(&mut self, frame: &Frame, broken: &mut Vec<Broken>) -> Option<(i64, Change)> {
        let &Frame { ev, seq, message_id: Some(message_id), .. } = frame else {
            broken.push((Kind::Answer, format!("no message_id in {frame:?}")));
            return None;
        };
        match self.messages.get(&seq) {
            Some(known) if known.message_id != message_id => {
                broken.push((Kind::Order, format!("another message has that seq: {frame:?}")));
            }
            Some(known) if known.deleted => {
                broken.push((Kind::Doubled, format!("deleted twice: {frame:?}")));
            }
            None if self.in_step && seq > self.floor => {
                broken.push((Kind::Lost, format!("deleted in step, never created: {frame:?}")));
            }
            _ => {}
        }
        let known = Known { message_id, ev, text: String::new(), deleted: true };
        self.messages.insert(seq, known);
        let text = String::new();
        Some((ev, Change::Message { message_id, seq, text, edited: false, deleted: true }))
    }

    fn on_read(&mut self, frame: &Frame, broken: &mut Vec<Broken>) -> Option<(i64, Change)> {
        let user = frame.user_id.clone().unwrap_or_default();
        if !self.is_member(&user) {
            broken.push((Kind::Leak, format!("a stranger's marker: {frame:?}")));
            return None;
        }
        let before = self.reads.insert(user.clone(), frame.read_seq).unwrap_or(0);
        if frame.read_seq <= before {
            broken.push((Kind::Order, format!("a marker went back from {before}: {frame:?}")));
        }
        Some((frame.ev, Change::Read { user, read_seq: frame.read_seq }))
    }
}

fn known(message: &Message) -> Known {
    Known {
        message_id: message.message_id,
        ev: message.ev,
        text: message.text.clone(),
        deleted: message.deleted_at.is_some(),
    }
}

fn change(message: &Message) -> Change {
    let deleted = message.deleted_at.is_some();
    Change::Message {
        message_id: message.message_id,
        seq: message.seq,
        text: message.text.clone(),
        edited: message.edited_at.is_some() && !deleted,
        deleted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn model() -> Model {
        Model::new(ChatId::nil(), ["alice".to_owned(), "bob".to_owned()])
    }

    fn created(ev: i64, seq: i64) -> Value {
        json!({"type": "message.created", "chat_id": ChatId::nil(), "ev": ev, "message": {
            "message_id": uuid(seq), "chat_id": ChatId::nil(), "seq": seq, "ev": ev,
            "type": "text", "sender_id": "alice", "text": "hi", "metadata": null, "mentions": [],
            "system": null, "client_msg_id": null,
            "created_at": "2026-01-01T00:00:00.000000Z", "edited_at": null, "deleted_at": null}})
    }

    fn uuid(seq: i64) -> String {
        format!("00000000-0000-8000-8000-{seq:012}")
    }

    fn broken(frames: &[Value]) -> Vec<Kind> {
        let (mut model, mut broken) = (model(), Vec::new());
        for frame in frames {
            let frame: Frame = serde_json::from_value(frame.clone()).unwrap();
            model.apply(&frame, &mut broken);
        }
        broken.into_iter().map(|(kind, _)| kind).collect()
    }

    fn synced(ev: i64) -> Value {
        json!({"type": "synced", "ev": ev})
    }

    #[test]
    fn a_resume_may_skip_what_was_superseded_and_live_may_not() {
        let read = json!({"type": "chat.read", "ev": 4, "user_id": "bob", "read_seq": 1});
        let good = [created(1, 1), created(3, 2), synced(3), read.clone(), created(5, 3)];
        assert_eq!(broken(&good), []);
        assert_eq!(broken(&[created(1, 1), synced(1), created(3, 2)]), [Kind::Gap]);
        assert_eq!(broken(&[created(1, 1), created(2, 3), synced(2)]), [Kind::Gap]);
    }

    #[test]
    fn what_comes_twice_or_goes_back_is_noted() {
        let twice = broken(&[created(1, 1), synced(1), created(1, 1)]);
        assert_eq!(twice, [Kind::Doubled, Kind::Doubled]);
        let read =
            |ev, seq| json!({"type": "chat.read", "ev": ev, "user_id": "bob", "read_seq": seq});
        assert_eq!(broken(&[synced(0), read(1, 5), read(2, 4)]), [Kind::Order]);
        assert_eq!(broken(&[synced(2), synced(3)]), [Kind::Order]);
    }

    #[test]
    fn a_catchup_begins_where_the_client_stands() {
        let catchup = |after| json!({"type": "catchup", "after_ev": after});
        assert_eq!(broken(&[synced(0), catchup(0), created(2, 1), synced(2)]), []);
        assert_eq!(broken(&[synced(0), catchup(1), synced(1)]), [Kind::Order]);
    }

    #[test]
    fn strangers_and_tombstones() {
        let read = json!({"type": "chat.read", "ev": 1, "user_id": "eve", "read_seq": 1});
        assert_eq!(broken(&[synced(0), read]), [Kind::Leak]);
        let deleted = |ev, seq| json!({"type": "message.deleted", "ev": ev, "message_id": uuid(seq), "seq": seq});
        assert_eq!(broken(&[deleted(2, 1), synced(2)]), [], "a tombstone never seen before");
        assert_eq!(broken(&[synced(0), deleted(1, 1)]), [Kind::Lost]);
    }
}
