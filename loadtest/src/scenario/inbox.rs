//! Reads lists of chats, with last message, counter and presence.

use std::sync::Arc;

use clap::Args;

use crate::{
    clients::{
        people::{self, Circle},
        reads::{self, Readers},
    },
    context::{Context, Findings},
    error::Error,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    readers: Readers,

    #[command(flatten)]
    circle: Circle,

    /// Chats of a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let people = Arc::new(people::with_chats(context, &options.circle).await?);
    let limit = options.limit;
    let expected = u32::from(limit).min(options.circle.chats_each) as usize;
    let phase = reads::measure(context, "GET /chats/", &options.readers, |number, reader| {
        let people = Arc::clone(&people);
        async move {
            for person in people.iter().cycle().skip(number) {
                if !reader.goes_on() {
                    return;
                }
                let client = reader.at(person);
                let asking = client.list_chats(Some(limit), None);
                let Some(page) = reader.measured(asking).await else { continue };
                let activity = page.results.iter().map(|chat| {
                    chat.last_message.as_ref().map_or(chat.created_at, |message| message.created_at)
                });
                let is_right =
                    page.results.len() == expected && activity.is_sorted_by(|a, b| a >= b);
                reader.check(person, is_right, || {
                    format!(
                        "{} chats instead of {expected}, or not latest first",
                        page.results.len()
                    )
                });
            }
        }
    })
    .await?;
    Ok(Findings { phases: vec![phase], figures: Vec::new() })
}
