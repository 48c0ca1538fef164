//! The chats of a run, and their two members.

use std::time::Duration;

use beseda::dev::{Claims, sign};
use beseda_protocol::{
    bounds::MAX_NAMED_MEMBERS,
    model::{ChatId, ChatKind, UserId},
    rest::{NewChat, NewMembers},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Url;

use crate::{context::Context, error::Error, rest::patiently};

/// Concurrent calls while a run is prepared: quick, but below the service's capacity.
pub(crate) const SETUP_AT_ONCE: usize = 16;

/// Longer than any run, so that no token expires in it.
const TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3_600);

#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub user: String,
    pub token: String,
    /// The user's replicas: their own first, then the fallbacks.
    pub urls: Vec<Url>,
}

#[derive(Debug, Clone)]
pub(crate) struct PairChat {
    pub number: u32,
    pub chat_id: ChatId,
    /// The chat's position when it was opened.
    pub seq: i64,
    pub ev: i64,
    pub sender: Person,
    /// Listens on the replica after the sender's, if there are several.
    pub reader: Person,
}

/// A chat whose members are listed apart.
pub(crate) type GroupChat = (PairChat, Vec<Person>);

/// Returns the ids of the sender and the reader of the chat with this number.
pub(crate) fn names(prefix: &str, number: u32) -> (String, String) {
    (format!("{prefix}-{number}-sender"), format!("{prefix}-{number}-reader"))
}

impl Context<'_> {
    /// Signs a user's token; `at`, modulo the replicas, selects the user's own replica.
    pub(crate) fn person(&self, user: &str, at: usize) -> Result<Person, Error> {
        UserId::parse(user).ok_or_else(|| Error::Prefix(self.common.prefix.clone()))?;
        let token = sign(&self.target.secret, &Claims::new(user, TOKEN_TTL))?;
        Ok(Person { user: user.to_owned(), token, urls: self.target.urls_for(at) })
    }

    /// Opens this many chats, or finds those of an earlier run.
    pub(crate) async fn chats(&self, count: u32) -> Result<Vec<PairChat>, Error> {
        let chats = stream::iter(0..count).map(|number| self.chat(number));
        chats.buffered(SETUP_AT_ONCE).try_collect().await
    }

    async fn chat(&self, number: u32) -> Result<PairChat, Error> {
        let (sender, reader) = names(&self.common.prefix, number);
        let sender = self.person(&sender, number as usize)?;
        let reader = self.person(&reader, number as usize + 1)?;
        let chat = self.rest.open_chat(&sender.urls[0], &sender.token, &reader.user).await?;
        let (seq, ev) = (chat.last_seq, chat.last_ev);
        Ok(PairChat { number, chat_id: chat.chat_id, seq, ev, sender, reader })
    }

    /// Makes a group of this many members, or finds that of an earlier run. Its owner sends.
    pub(crate) async fn group(&self, members: u32) -> Result<GroupChat, Error> {
        let prefix = &self.common.prefix;
        let person = |number: u32| {
            self.person(&format!("{prefix}-group-{members}-{number}"), number as usize)
        };
        let people: Vec<Person> = (0..members).map(person).collect::<Result<_, _>>()?;
        let ids: Vec<UserId> = people[1..].iter().map(|one| UserId::trusted(&one.user)).collect();
        let (owner, url) = (&people[0], &people[0].urls[0]);
        let client = self.rest.at(url, &owner.token);
        let mut parts = ids.chunks(MAX_NAMED_MEMBERS);
        let group = NewChat {
            kind: Some(ChatKind::Group),
            title: Some(format!("{members} members")),
            user_ids: Some(parts.next().unwrap_or_default().to_vec()),
            client_chat_id: Some(format!("loadtest-{members}")),
            ..NewChat::default()
        };
        let opened = patiently("POST /chats/", async || client.create_group(&group).await).await?;
        let chat_id = opened.chat.chat_id;
        for part in parts {
            let members = NewMembers { user_ids: part.to_vec(), role: None };
            let add = async || client.add_members(&chat_id.to_string(), &members).await;
            patiently("POST /chats/{chat}/members/", add).await?;
        }
        let chat = self.rest.get_chat(url, &owner.token, chat_id).await?;
        let (seq, ev) = (chat.last_seq, chat.last_ev);
        let (sender, reader) = (owner.clone(), people[people.len() - 1].clone());
        Ok((PairChat { number: 0, chat_id, seq, ev, sender, reader }, people))
    }
}
