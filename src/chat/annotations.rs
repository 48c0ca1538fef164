//! Reactions and pins.

use beseda_protocol::bounds::MAX_EMOJI_NAME_CHARS;

use super::{Caller, Chats};
use crate::{
    error::Error,
    model::{ChatId, Message, MessageId, Reaction, Time, UserId},
    store::{Annotation, AnnotationKind, UserReaction},
};

/// Reads what one may react with: one emoji that is recommended for general interchange (RGI, Unicode TS 51), or a
/// name between colons for one of the client's own. An emoji is returned in its fully qualified form, so that one
/// with and one without a variation selector are the same.
pub(crate) fn parse_emoji(raw: &str) -> Result<String, &'static str> {
    let name = raw.strip_prefix(':').and_then(|rest| rest.strip_suffix(':'));
    let is_name = name.is_some_and(|name| {
        (1..=MAX_EMOJI_NAME_CHARS).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_+-".contains(&b))
    });
    if is_name {
        return Ok(raw.to_owned());
    }
    match emojis::get(raw) {
        Some(emoji) => Ok(emoji.as_str().to_owned()),
        None => Err("must be one emoji, or a name such as :party:"),
    }
}

impl Chats {
    /// Sets a reaction, or takes it back; returns the message's reactions.
    pub async fn set_reaction(
        &self,
        user: &UserId,
        chat_id: ChatId,
        message_id: MessageId,
        emoji: String,
        present: bool,
    ) -> Result<Vec<Reaction>, Error> {
        let kind = AnnotationKind::Reaction { emoji, present };
        let annotation = Annotation { chat_id, message_id, user: user.clone(), kind };
        Ok(self.writer.annotate(annotation).await?.message.reactions)
    }

    /// Pins a message, or unpins it.
    pub async fn set_pin(
        &self,
        caller: Caller<'_>,
        chat_id: ChatId,
        message_id: MessageId,
        present: bool,
    ) -> Result<(), Error> {
        let kind = AnnotationKind::Pin { present, host: caller.is_host };
        let user = caller.user.clone();
        self.writer.annotate(Annotation { chat_id, message_id, user, kind }).await.map(drop)
    }

    /// Who reacted to a message, past `after`.
    pub async fn list_reactions(
        &self,
        reader: &UserId,
        chat_id: ChatId,
        message_id: MessageId,
        emoji: Option<&str>,
        after: Option<&UserReaction>,
        limit: i64,
    ) -> Result<Vec<UserReaction>, Error> {
        self.store.list_reactions(chat_id, message_id, reader, emoji, after, limit).await
    }

    /// A chat's pinned messages, the latest pin first, past `after`.
    pub async fn list_pins(
        &self,
        reader: &UserId,
        chat_id: ChatId,
        after: Option<(Time, i64)>,
        limit: i64,
    ) -> Result<Vec<Message>, Error> {
        let pins = self.store.list_pins(chat_id, reader, after, limit).await?;
        pins.ok_or(Error::ChatNotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_emoji_or_a_name_is_a_reaction() {
        for (raw, read) in [
            ("👍", "👍"),
            ("❤️", "❤️"),
            ("❤", "❤️"),
            ("👩🏽‍🚀", "👩🏽‍🚀"),
            ("🇺🇦", "🇺🇦"),
            (":party_parrot+1:", ":party_parrot+1:"),
        ] {
            assert_eq!(parse_emoji(raw).ok().as_deref(), Some(read), "{raw}");
        }
        let long = format!(":{}:", "a".repeat(65));
        for raw in ["", "a", "👍👍", "👍 ", "::", ":", ":A:", ":a b:", "thumbsup", "1", "🇺", &long]
        {
            assert!(parse_emoji(raw).is_err(), "{raw}");
        }
    }
}
