//! Reads the unread counters of users with many chats.

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
}

pub(super) async fn run(context: &Context<'_>, options: &Options) -> Result<Findings, Error> {
    let people = Arc::new(people::with_chats(context, &options.circle).await?);
    let expected = options.circle.chats_each as usize;
    let phase =
        reads::measure(context, "GET /chats/unread/", &options.readers, |number, reader| {
            let people = Arc::clone(&people);
            async move {
                for person in people.iter().cycle().skip(number) {
                    if !reader.goes_on() {
                        return;
                    }
                    let client = reader.at(person);
                    let Some(all) = reader.measured(client.unread()).await else { continue };
                    let sum: i64 = all.chats.iter().map(|chat| chat.unread_count).sum();
                    let each = all.chats.iter().all(|chat| chat.unread_count > 0);
                    let is_right = all.chats.len() == expected && sum == all.total && each;
                    reader.check(person, is_right, || {
                        format!(
                            "{} chats instead of {expected}, {sum} unread of {}",
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
