//! Lists of rooms, with last message, counter and presence.

use std::sync::Arc;

use beseda::model::Chat;
use clap::Args;
use serde::Deserialize;

use crate::{
    error::Error,
    people::{self, Circle},
    reads::{self, Readers},
    rest,
    run::{Findings, Run},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    readers: Readers,

    #[command(flatten)]
    circle: Circle,

    /// Rooms of a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
}

#[derive(Deserialize)]
struct Page {
    results: Vec<Chat>,
}

pub(super) async fn run(run: &Run<'_>, options: &Options) -> Result<Findings, Error> {
    let people = Arc::new(people::with_rooms(run, &options.circle).await?);
    let limit = options.limit;
    let expected = limit.min(options.circle.rooms_each) as usize;
    let phase = reads::measure(run, "GET /chats/", &options.readers, |number, reader| {
        let people = Arc::clone(&people);
        async move {
            for person in people.iter().cycle().skip(number) {
                if !reader.goes_on() {
                    return;
                }
                let mut url = rest::path(&person.urls[0], "/api/v1/chats/");
                url.query_pairs_mut().append_pair("limit", &limit.to_string());
                let Some(page) = reader.get::<Page>(&url, &person.token).await else { continue };
                let activity = page.results.iter().map(|chat| {
                    chat.last_message.as_ref().map_or(chat.created_at, |message| message.created_at)
                });
                let is_right =
                    page.results.len() == expected && activity.is_sorted_by(|a, b| a >= b);
                reader.check(person, is_right, || {
                    format!(
                        "{} rooms instead of {expected}, or not latest first",
                        page.results.len()
                    )
                });
            }
        }
    })
    .await?;
    Ok(Findings { phases: vec![phase], figures: Vec::new() })
}
