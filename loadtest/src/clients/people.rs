//! Users with many chats.

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    clients::{
        chats::{Person, SETUP_AT_ONCE},
        send::{Post, send},
    },
    context::Context,
    error::Error,
};

#[derive(Debug, Args)]
pub(crate) struct Circle {
    /// Users who read.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub people: u32,

    /// Chats of each user, with one unread message in each.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub chats_each: u32,
}

/// Creates users with chats, each with an unread message.
pub(crate) async fn with_chats(
    context: &Context<'_>,
    circle: &Circle,
) -> Result<Vec<Person>, Error> {
    let Circle { people, chats_each } = *circle;
    context.counters.say(&format!("opening {chats_each} chats for each of {people} people"));
    let prefix = &context.common.prefix;
    // The id has the number of chats, so that no user of another run has more than asked for.
    let person =
        |number: u32| context.person(&format!("{prefix}-{chats_each}-{number}"), number as usize);
    let people: Vec<Person> = (0..people).map(person).collect::<Result<_, _>>()?;
    let pairs =
        people.iter().flat_map(|person| (0..chats_each).map(move |friend| (person, friend)));
    let opening = stream::iter(pairs).map(|(person, friend)| async move {
        let friend = context.person(&format!("{prefix}-friend-{friend}"), friend as usize)?;
        let url = &friend.urls[0];
        let chat = context.rest.open_chat(url, &friend.token, &person.user).await?;
        if chat.last_seq == 0 {
            let post = Post {
                chat: 0,
                chat_id: chat.chat_id,
                urls: std::slice::from_ref(url),
                token: &friend.token,
                text: "are you there?",
                mentions: None,
                client_msg_id: "first",
                due: std::time::Instant::now(),
            };
            send(&context.rest, &context.counters, post).await;
        }
        Ok::<_, Error>(())
    });
    opening.buffer_unordered(SETUP_AT_ONCE).try_collect::<()>().await?;
    Ok(people)
}
