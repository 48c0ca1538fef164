//! Reads histories in scrolling order: the newest page, then those before it.

use std::sync::Arc;

use beseda_client::Window;
use clap::Args;
use futures_util::{StreamExt, stream};

use crate::{
    clients::{
        chats::{PairChat, SETUP_AT_ONCE},
        reads::{self, Readers},
        send::{Post, send},
    },
    context::{Context, Findings},
    error::Error,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    readers: Readers,

    /// Chats whose history is read.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    chats: u32,

    /// Messages in each chat; missing ones are sent first.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i64).range(1..))]
    messages: i64,

    /// Messages of a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let limit = options.limit;
    context.counters.say(&format!("filling {} chats", options.chats));
    let chats = context.chats(options.chats).await?;
    let filling = stream::iter(&chats).map(|chat| fill(context, chat, options.messages));
    filling.buffer_unordered(SETUP_AT_ONCE).for_each(|()| std::future::ready(())).await;

    let chats = Arc::new(chats);
    let phase = reads::measure(
        context,
        "GET /chats/{chat}/messages/",
        &options.readers,
        |number, reader| {
            let chats = Arc::clone(&chats);
            async move {
                for chat in chats.iter().cycle().skip(number) {
                    let person = &chat.reader;
                    let mut before = None;
                    loop {
                        if !reader.goes_on() {
                            return;
                        }
                        let window = before.map_or(Window::Newest, Window::Before);
                        let (client, chat_id) = (reader.at(person), chat.chat_id.to_string());
                        let asking = client.history(&chat_id, window, Some(limit));
                        let Some(page) = reader.measured(asking).await else { continue };
                        let newest = before.map_or(page.head_seq, |before: i64| before - 1);
                        let expected = (newest - i64::from(limit) + 1).max(1)..=newest;
                        let is_right =
                            page.results.iter().map(|message| message.seq).eq(expected.clone());
                        reader.check(person, is_right, || format!("the page is not {expected:?}"));
                        before = page.before;
                        if before.is_none() {
                            break;
                        }
                    }
                }
            }
        },
    )
    .await?;
    Ok(Findings { phases: vec![phase], figures: Vec::new() })
}

async fn fill(context: &Context<'_>, chat: &PairChat, messages: i64) {
    for number in chat.seq..messages {
        let post = Post {
            chat: chat.number,
            chat_id: chat.chat_id,
            urls: &chat.sender.urls,
            token: &chat.sender.token,
            text: &format!("message {number}, {}", "x".repeat(80)),
            mentions: None,
            client_msg_id: &format!("{}-{number}", context.id),
            due: std::time::Instant::now(),
        };
        send(&context.rest, &context.counters, post).await;
    }
}
