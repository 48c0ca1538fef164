//! What a push says.

use serde::Serialize;

use crate::{
    model::{ChatId, MessageId},
    store::PushNews,
};

/// Longest parts of a message in bytes of JSON. A push has 4,096 at most, of which FCM carries each part twice, for
/// both of its systems.
const MAX_TEXT: usize = 1_000;
const MAX_TITLE: usize = 300;
const MAX_NAME: usize = 200;

/// What a device is given, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Content {
    #[serde(flatten)]
    pub(super) what: What,
    /// The user's badge, as `GET /chats/unread/` has it.
    pub(super) badge: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum What {
    /// A message, which takes the place of what is shown of its chat.
    Message(Box<Told>),
    /// What is shown of the chat was read elsewhere, or is gone: take it back, silently.
    Read { chat_id: ChatId },
    /// Only the badge has changed, silently.
    Badge,
    /// An operator asks whether it arrives.
    Test { title: &'static str, text: &'static str },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Told {
    pub(super) chat_id: ChatId,
    pub(super) message_id: MessageId,
    pub(super) seq: i64,
    /// A group's title, or who wrote.
    pub(super) title: String,
    /// Who wrote in a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sender_name: Option<String>,
    /// Its beginning; only for devices with a preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    /// How many attachments it has.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) attachments: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &i32) -> bool {
    *count == 0
}

impl What {
    pub(super) fn message(chat_id: ChatId, news: &PushNews, preview: bool) -> Self {
        let sender = news.sender_name.as_deref().unwrap_or(news.sender_id.as_str());
        let sender = beginning(sender, MAX_NAME);
        let (title, sender_name) = match &news.title {
            Some(title) => (beginning(title, MAX_TITLE), Some(sender)),
            None => (sender, None),
        };
        Self::Message(Box::new(Told {
            chat_id,
            message_id: news.message_id,
            seq: news.seq,
            title,
            sender_name,
            text: preview.then(|| beginning(&news.text, MAX_TEXT)),
            attachments: news.attachments,
        }))
    }

    /// The chat that it is about: a push takes the place of an earlier one about the same.
    pub(super) fn chat_id(&self) -> Option<ChatId> {
        match self {
            Self::Message(told) => Some(told.chat_id),
            Self::Read { chat_id } => Some(*chat_id),
            Self::Badge | Self::Test { .. } => None,
        }
    }

    /// Whether the user is to see it at once.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self, Self::Message(_) | Self::Test { .. })
    }
}

/// The beginning of a text that has `most` bytes of JSON at most, with an ellipsis if it is cut.
fn beginning(text: &str, most: usize) -> String {
    const ELLIPSIS: char = '…';
    let (mut bytes, mut fits) = (0, 0);
    for (start, c) in text.char_indices() {
        bytes += match c {
            '"' | '\\' => 2,
            // `\u0000`
            c if c.is_control() => 6,
            c => c.len_utf8(),
        };
        if bytes > most {
            return text[..fits].chars().chain([ELLIPSIS]).collect();
        }
        if bytes + ELLIPSIS.len_utf8() <= most {
            fits = start + c.len_utf8();
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_it_fits_as_json() {
        assert_eq!(beginning("short", 5), "short");
        assert_eq!(beginning("a bit longer", 8), "a bit…");
        for text in
            ["привет ".repeat(300), "\"\\".repeat(900), "\u{1}".repeat(400), "🙂".repeat(400)]
        {
            let cut = beginning(&text, MAX_TEXT);
            let json = serde_json::to_string(&cut).expect("JSON").len() - 2;
            assert!(cut.ends_with('…') && json <= MAX_TEXT && json > MAX_TEXT - 16, "{json}");
        }
    }
}
