//! Unread counters of all of somebody's rooms.

use std::sync::Arc;

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
}

#[derive(Deserialize)]
struct Counters {
    total: i64,
    chats: Vec<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    unread_count: i64,
}

pub(super) async fn run(run: &Run<'_>, options: &Options) -> Result<Findings, Error> {
    let people = Arc::new(people::with_rooms(run, &options.circle).await?);
    let expected = options.circle.rooms_each as usize;
    let phase = reads::measure(run, "GET /chats/unread/", &options.readers, |number, reader| {
        let people = Arc::clone(&people);
        async move {
            for person in people.iter().cycle().skip(number) {
                if !reader.goes_on() {
                    return;
                }
                let url = rest::path(&person.urls[0], "/api/v1/chats/unread/");
                let Some(all) = reader.get::<Counters>(&url, &person.token).await else { continue };
                let sum: i64 = all.chats.iter().map(|chat| chat.unread_count).sum();
                let each = all.chats.iter().all(|chat| chat.unread_count > 0);
                let is_right = all.chats.len() == expected && sum == all.total && each;
                reader.check(person, is_right, || {
                    format!(
                        "{} rooms instead of {expected}, {sum} unread of {}",
                        all.chats.len(),
                        all.total
                    )
                });
            }
        }
    })
    .await?;
    Ok(Findings { phases: vec![phase], figures: Vec::new() })
}
