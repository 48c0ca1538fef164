//! What a message carries beside its text, as far as frames do not tell all of it.

use beseda_protocol::model::{Mentions, Message, MessageId, Quote, Reaction, Time, UserId};

/// Completes a version of a message that came by a frame with which reactions are the user's own: those that name
/// them, and, where more users reacted than are named, those that were their own before.
pub(super) fn keep_own_reactions(
    message: &mut Message,
    before: Option<&Message>,
    me: Option<&UserId>,
) {
    if message.my_reactions.is_some() {
        return;
    }
    let Some(me) = me else { return };
    let had = before.and_then(|before| before.my_reactions.as_deref()).unwrap_or_default();
    let is_own = |reaction: &&Reaction| {
        let named = i64::try_from(reaction.user_ids.len()).unwrap_or(i64::MAX);
        reaction.user_ids.contains(me) || reaction.count > named && had.contains(&reaction.emoji)
    };
    let own = message.reactions.iter().filter(is_own);
    message.my_reactions = Some(own.map(|reaction| reaction.emoji.clone()).collect());
}

/// Empties a message that was deleted; it keeps its place and its ids.
pub(super) fn bury(message: &mut Message, ev: i64, deleted_at: Option<Time>) {
    (message.ev, message.deleted_at) = (ev.max(message.ev), deleted_at);
    (message.text, message.metadata) = (String::new(), None);
    message.mentions = Mentions::default();
    (message.reply_to, message.pinned_at) = (None, None);
    (message.attachments, message.reactions) = (Vec::new(), Vec::new());
    message.my_reactions = Some(Vec::new());
}

/// Brings a message that quotes `answered` up to date: it gets no frame of its own.
pub(super) fn quote_again(message: &mut Message, answered: &Message) {
    if let Some(quote) = quote_of(message, answered.message_id) {
        *quote = Quote::of(answered);
    }
}

/// What the message quotes was deleted, and nothing else is known of it.
pub(super) fn bury_quote(message: &mut Message, answered: MessageId) {
    if let Some(quote) = quote_of(message, answered) {
        (quote.text, quote.deleted) = (String::new(), true);
    }
}

fn quote_of(message: &mut Message, answered: MessageId) -> Option<&mut Quote> {
    message.reply_to.as_deref_mut().filter(|quote| quote.message_id == answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reactions: &str, mine: &str) -> Message {
        serde_json::from_str(&format!(
            r#"{{"message_id":"01a20a33-0000-7000-8000-000000000001",
                "chat_id":"01a20a32-f544-7269-a867-60a8e5b5a762","seq":1,"ev":1,"type":"text","sender_id":"bob",
                "text":"hi","metadata":null,"mentions":[],"system":null,"client_msg_id":null,
                "created_at":"2026-11-23T20:57:01.000000Z","edited_at":null,"deleted_at":null,
                "reactions":{reactions}{mine}}}"#
        ))
        .expect("a message")
    }

    #[test]
    fn own_reactions_are_known_by_name_and_kept_where_not_all_are_named() {
        let alice = UserId::parse("alice").expect("an id");
        let all = r#"[{"emoji":"👍","count":2,"user_ids":["alice","bob"]},
                      {"emoji":"🎉","count":1,"user_ids":["bob"]},
                      {"emoji":"❤️","count":30,"user_ids":["bob"]},
                      {"emoji":":x:","count":30,"user_ids":["bob"]}]"#;
        let before = message("[]", r#","my_reactions":["🎉","❤️"]"#);
        let mut now = message(all, "");
        keep_own_reactions(&mut now, Some(&before), Some(&alice));
        assert_eq!(now.my_reactions, Some(vec!["👍".to_owned(), "❤️".to_owned()]));
        let mut told = message(all, r#","my_reactions":[":x:"]"#);
        keep_own_reactions(&mut told, Some(&before), Some(&alice));
        assert_eq!(told.my_reactions, Some(vec![":x:".to_owned()]), "an answer of REST knows");
    }

    #[test]
    fn a_quote_follows_its_message() {
        let mut answered = message("[]", "");
        let mut reply = message("[]", "");
        reply.reply_to = Some(Box::new(Quote::of(&answered)));
        bury(&mut answered, 5, None);
        assert_eq!((answered.ev, answered.text.as_str()), (5, ""));
        answered.deleted_at = Some(answered.created_at);
        quote_again(&mut reply, &answered);
        assert!(reply.reply_to.is_some_and(|quote| quote.deleted && quote.text.is_empty()));
    }
}
