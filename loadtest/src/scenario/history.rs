//! Histories, read as people scroll: the newest page, then those before it.

use std::sync::Arc;

use beseda::model::Message;
use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Deserialize;

use crate::{
    error::Error,
    reads::{self, Readers},
    rest,
    rooms::{Room, SETUP_AT_ONCE},
    run::{Findings, Run},
    send::{Post, send},
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
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100))]
    limit: i64,
}

#[derive(Deserialize)]
struct Page {
    results: Vec<Message>,
    before: Option<i64>,
    head_seq: i64,
}

pub(super) async fn run(run: &Run<'_>, options: &Options) -> Result<Findings, Error> {
    let limit = options.limit;
    run.tally.say(&format!("filling {} rooms", options.rooms));
    let rooms = run.rooms(options.rooms).await?;
    let filling = stream::iter(&rooms).map(|room| fill(run, room, options.messages));
    filling.buffer_unordered(SETUP_AT_ONCE).for_each(|()| std::future::ready(())).await;

    let rooms = Arc::new(rooms);
    let phase =
        reads::measure(run, "GET /chats/{chat}/messages/", &options.readers, |number, reader| {
            let rooms = Arc::clone(&rooms);
            async move {
                for room in rooms.iter().cycle().skip(number) {
                    let person = &room.reader;
                    let mut before = None;
                    loop {
                        if !reader.goes_on() {
                            return;
                        }
                        let mut url = rest::messages_endpoint(&person.urls[0], room.chat_id);
                        url.query_pairs_mut().append_pair("limit", &limit.to_string());
                        if let Some(before) = before {
                            url.query_pairs_mut().append_pair("before", &i64::to_string(&before));
                        }
                        let Some(page) = reader.get::<Page>(&url, &person.token).await else {
                            continue;
                        };
                        let newest = before.map_or(page.head_seq, |before: i64| before - 1);
                        let expected = (newest - limit + 1).max(1)..=newest;
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
        })
        .await?;
    Ok(Findings { phases: vec![phase], figures: Vec::new() })
}

async fn fill(run: &Run<'_>, room: &Room, messages: i64) {
    let endpoints = room.endpoints();
    for number in room.seq..messages {
        let post = Post {
            room: room.number,
            endpoints: &endpoints,
            token: &room.sender.token,
            text: &format!("message {number}, {}", "x".repeat(80)),
            client_msg_id: &format!("{}-{number}", run.id),
            due: std::time::Instant::now(),
        };
        send(&run.rest, &run.tally, post).await;
    }
}
