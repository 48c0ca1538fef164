//! Histories, read as people scroll: the newest page, then those before it.

use std::sync::Arc;

use beseda_client::Window;
use clap::Args;
use futures_util::{StreamExt, stream};

use crate::{
    clients::{
        chats::{Room, SETUP_AT_ONCE},
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

    /// Rooms whose history is read.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,

    /// Messages that each of them has at least; what is missing is sent before.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i64).range(1..))]
    messages: i64,

    /// Messages of a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let limit = options.limit;
    context.counters.say(&format!("filling {} rooms", options.rooms));
    let rooms = context.rooms(options.rooms).await?;
    let filling = stream::iter(&rooms).map(|room| fill(context, room, options.messages));
    filling.buffer_unordered(SETUP_AT_ONCE).for_each(|()| std::future::ready(())).await;

    let rooms = Arc::new(rooms);
    let phase = reads::measure(
        context,
        "GET /chats/{chat}/messages/",
        &options.readers,
        |number, reader| {
            let rooms = Arc::clone(&rooms);
            async move {
                for room in rooms.iter().cycle().skip(number) {
                    let person = &room.reader;
                    let mut before = None;
                    loop {
                        if !reader.goes_on() {
                            return;
                        }
                        let window = before.map_or(Window::Newest, Window::Before);
                        let (client, chat_id) = (reader.at(person), room.chat_id.to_string());
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

async fn fill(context: &Context<'_>, room: &Room, messages: i64) {
    for number in room.seq..messages {
        let post = Post {
            room: room.number,
            chat_id: room.chat_id,
            urls: &room.sender.urls,
            token: &room.sender.token,
            text: &format!("message {number}, {}", "x".repeat(80)),
            client_msg_id: &format!("{}-{number}", context.id),
            due: std::time::Instant::now(),
        };
        send(&context.rest, &context.counters, post).await;
    }
}
