//! Reactions, pins, and what is found across chats.

use beseda_protocol::{
    model::{MessageId, Reaction},
    rest::{MessagePage, ReactionPage, Reactions, SearchAllPage},
};
use http::Method;

use super::Rest;
use crate::Error;

impl Rest {
    /// Reacts to a message with one emoji, or a name such as `:party:`; returns the message's reactions. A repeat
    /// changes nothing.
    pub async fn add_reaction(
        &self,
        chat: &str,
        id: MessageId,
        emoji: &str,
    ) -> Result<Vec<Reaction>, Error> {
        self.set_reaction(Method::PUT, chat, id, emoji).await
    }

    /// Takes back one's reaction; returns the message's reactions. A repeat changes nothing.
    pub async fn remove_reaction(
        &self,
        chat: &str,
        id: MessageId,
        emoji: &str,
    ) -> Result<Vec<Reaction>, Error> {
        self.set_reaction(Method::DELETE, chat, id, emoji).await
    }

    async fn set_reaction(
        &self,
        method: Method,
        chat: &str,
        id: MessageId,
        emoji: &str,
    ) -> Result<Vec<Reaction>, Error> {
        let path = ["chats", chat, "messages", &id.to_string(), "reactions", emoji];
        let Reactions { reactions } = self.ask(self.call(method, &path)).await?;
        Ok(reactions)
    }

    /// Who reacted to a message, by emoji, then in the order of the reactions; `limit` 1 to 100.
    pub async fn list_reactions(
        &self,
        chat: &str,
        id: MessageId,
        emoji: Option<&str>,
        limit: Option<u8>,
        cursor: Option<&str>,
    ) -> Result<ReactionPage, Error> {
        let path = ["chats", chat, "messages", &id.to_string(), "reactions"];
        let call = self.call(Method::GET, &path).query("emoji", emoji).query("limit", limit);
        self.ask(call.query("cursor", cursor)).await
    }

    /// Pins a message: either member of a direct chat, the owner and the admins of a group.
    pub async fn pin_message(&self, chat: &str, id: MessageId) -> Result<(), Error> {
        self.done(self.call(Method::PUT, &["chats", chat, "pins", &id.to_string()])).await
    }

    pub async fn unpin_message(&self, chat: &str, id: MessageId) -> Result<(), Error> {
        self.done(self.call(Method::DELETE, &["chats", chat, "pins", &id.to_string()])).await
    }

    /// A chat's pinned messages, the latest pin first; `limit` 1 to 100.
    pub async fn list_pins(
        &self,
        chat: &str,
        limit: Option<u8>,
        cursor: Option<&str>,
    ) -> Result<MessagePage, Error> {
        let call = self.call(Method::GET, &["chats", chat, "pins"]).query("limit", limit);
        self.ask(call.query("cursor", cursor)).await
    }

    /// Finds messages in all chats of the caller, newest first; `limit` 1 to 50.
    pub async fn search_all(
        &self,
        query: &str,
        limit: Option<u8>,
        cursor: Option<&str>,
    ) -> Result<SearchAllPage, Error> {
        let call = self.call(Method::GET, &["search"]).query("query", Some(query));
        self.ask(call.query("limit", limit).query("cursor", cursor)).await
    }

    /// The messages of all chats that mention the caller, newest first; `limit` 1 to 100.
    pub async fn list_mentions(
        &self,
        limit: Option<u8>,
        cursor: Option<&str>,
    ) -> Result<MessagePage, Error> {
        let call = self.call(Method::GET, &["mentions"]).query("limit", limit);
        self.ask(call.query("cursor", cursor)).await
    }
}
