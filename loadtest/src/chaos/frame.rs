//! The frames of the service, as far as they are checked.

use std::fmt;

use beseda_protocol::{
    frame::GoneReason,
    model::{Chat, ChatId, Member, Message, MessageId},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The fields of a server frame that are checked.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Frame {
    #[serde(rename = "type")]
    pub kind: String,
    pub id: Option<i64>,
    pub chat_id: Option<ChatId>,
    /// 0 where it is null: a read marker that takes no revision.
    #[serde(deserialize_with = "number")]
    pub ev: i64,
    pub seq: i64,
    pub after_ev: i64,
    pub head_ev: i64,
    pub read_seq: i64,
    pub epoch: Option<String>,
    pub reason: Option<String>,
    pub code: Option<Value>,
    pub user_id: Option<String>,
    pub message_id: Option<MessageId>,
    pub message: Option<Message>,
    pub chat: Option<Chat>,
    pub total_unread: Option<i64>,
    pub members: Vec<Member>,
    pub member: Option<Box<Member>>,
    pub title: Option<String>,
    /// A bool in `chat.changed`, a list in `subscribed`.
    pub receipts: Value,
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Frame {
    /// Returns why the chat is gone; unknown reasons count as a deletion, as in any client.
    pub(super) fn gone_reason(&self) -> GoneReason {
        let reason = self.reason.clone().map(Value::String);
        reason.and_then(|reason| serde_json::from_value(reason).ok()).unwrap_or_default()
    }
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
        for member in self.members.iter().chain(self.member.as_deref()) {
            write!(f, " {}={:?}", member.user.user_id, member.role)?;
        }
        Ok(())
    }
}
