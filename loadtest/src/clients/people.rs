//! Users with many chats.

use beseda_protocol::{
    model::{ChatId, ChatKind, UserId},
    rest::NewChat,
};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    clients::{
        chats::{Person, SETUP_AT_ONCE},
        send::{Post, send},
    },
    context::Context,
    error::Error,
    rest::patiently,
};

#[derive(Debug, Args)]
pub(crate) struct Circle {
    /// Users who read.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub people: u32,

    /// Chats of each user, with one unread message in each.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub chats_each: u32,

    /// How many of these chats are groups, in which all of these users are.
    #[arg(long, default_value_t = 0)]
    pub groups_each: u32,
}

/// Creates users with chats, each with an unread message.
pub(crate) async fn with_chats(
    context: &Context<'_>,
    circle: &Circle,
) -> Result<Vec<Person>, Error> {
    let Circle { people, chats_each, groups_each } = *circle;
    let groups_each = groups_each.min(chats_each);
    let message = format!("opening {chats_each} chats for each of {people} people");
    context.counters.say(&message);
    let prefix = &context.common.prefix;
    // The id has the numbers of chats, so that no user of another run has more than asked for.
    let person = |number: u32| {
        context.person(&format!("{prefix}-{chats_each}-{groups_each}-{number}"), number as usize)
    };
    let people: Vec<Person> = (0..people).map(person).collect::<Result<_, _>>()?;
    let all: Vec<UserId> = people.iter().map(|person| UserId::trusted(&person.user)).collect();
    let grouping = stream::iter(0..groups_each).map(|number| {
        let group = NewChat {
            kind: Some(ChatKind::Group),
            title: Some(format!("group {number}")),
            user_ids: Some(all.clone()),
            client_chat_id: Some(format!("{chats_each}-{groups_each}-{number}")),
            ..NewChat::default()
        };
        async move {
            let friend = context.person(&format!("{prefix}-friend-{number}"), number as usize)?;
            let client = context.rest.at(&friend.urls[0], &friend.token);
            let create = async || client.create_group(&group).await;
            let opened = patiently("POST /chats/", create).await?;
            greet(context, &friend, opened.chat.chat_id, opened.chat.last_seq).await;
            Ok::<_, Error>(())
        }
    });
    grouping.buffer_unordered(SETUP_AT_ONCE).try_collect::<()>().await?;
    let pairs = people
        .iter()
        .flat_map(|person| (groups_each..chats_each).map(move |friend| (person, friend)));
    let opening = stream::iter(pairs).map(|(person, friend)| async move {
        let friend = context.person(&format!("{prefix}-friend-{friend}"), friend as usize)?;
        let url = &friend.urls[0];
        let chat = context.rest.open_chat(url, &friend.token, &person.user).await?;
        greet(context, &friend, chat.chat_id, chat.last_seq).await;
        Ok::<_, Error>(())
    });
    opening.buffer_unordered(SETUP_AT_ONCE).try_collect::<()>().await?;
    Ok(people)
}

/// Writes the first message of a chat, unless it has one.
async fn greet(context: &Context<'_>, friend: &Person, chat_id: ChatId, last_seq: i64) {
    if last_seq == 0 {
        let post = Post {
            chat: 0,
            chat_id,
            urls: std::slice::from_ref(&friend.urls[0]),
            token: &friend.token,
            text: "are you there?",
            mentions: None,
            client_msg_id: "first",
            due: std::time::Instant::now(),
        };
        send(&context.rest, &context.counters, post).await;
    }
}
