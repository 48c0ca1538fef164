//! Unread counters of a group's members, compared with a count of its history.

use std::time::{Duration, Instant};

use beseda_protocol::{
    model::{Mentions, UserId},
    rest::{UnreadChat, Window},
};
use futures_util::{StreamExt, stream};

use crate::{
    clients::chats::{PairChat, Person, SETUP_AT_ONCE},
    context::Context,
    error::Error,
    report::delivery_log::Violation,
    rest::patiently,
};

/// Messages of a page of the history.
const PAGE: u8 = 100;

/// Pause before a counter is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// A message that counts as unread for all but its sender.
#[derive(Debug)]
struct Counted {
    seq: i64,
    sender: UserId,
    mentions: Mentions,
}

/// The messages of a group, ascending by `seq`.
#[derive(Debug)]
struct Recount(Vec<Counted>);

impl Recount {
    async fn read(context: &Context<'_>, chat: &PairChat) -> Result<Self, Error> {
        let owner = &chat.sender;
        let client = context.rest.at(&owner.urls[0], &owner.token);
        let chat_id = chat.chat_id.to_string();
        let (mut counted, mut after) = (Vec::new(), Some(0));
        while let Some(seq) = after {
            let ask = async || client.history(&chat_id, Window::After(seq), Some(PAGE)).await;
            let page = patiently("GET /chats/{chat}/messages/", ask).await?;
            after = page.after;
            counted.extend(page.results.into_iter().filter_map(|message| {
                let live = message.deleted_at.is_none();
                let sender = message.sender_id.filter(|_| live)?;
                Some(Counted { seq: message.seq, sender, mentions: message.mentions })
            }));
        }
        Ok(Self(counted))
    }

    /// Counts unread messages and mentions of a user who has read up to `read_seq`.
    fn of(&self, user: &str, read_seq: i64) -> (i64, i64) {
        let first = self.0.partition_point(|message| message.seq <= read_seq);
        let others = self.0[first..].iter().filter(|message| message.sender.as_str() != user);
        others.fold((0, 0), |(unread, mentions), message| {
            let named = match &message.mentions {
                Mentions::All => true,
                Mentions::Users(users) => users.iter().any(|one| one.as_str() == user),
            };
            (unread + 1, mentions + i64::from(named))
        })
    }
}

/// Compares the counters of these members, each asked of a replica of theirs, for `limit` at most: a
/// counter may come a moment late. Returns how many members were compared.
pub(crate) async fn check_counters(
    context: &Context<'_>,
    chat: &PairChat,
    people: &[Person],
    limit: Duration,
) -> Result<u64, Error> {
    let recount = Recount::read(context, chat).await?;
    let deadline = Instant::now() + limit;
    let checks =
        stream::iter(people).map(|person| check(context, chat, &recount, person, deadline));
    let checked: Vec<Result<(), Error>> = checks.buffer_unordered(SETUP_AT_ONCE).collect().await;
    let count = checked.len() as u64;
    checked.into_iter().collect::<Result<(), Error>>()?;
    Ok(count)
}

async fn check(
    context: &Context<'_>,
    chat: &PairChat,
    recount: &Recount,
    person: &Person,
    deadline: Instant,
) -> Result<(), Error> {
    let client = context.rest.at(&person.urls[0], &person.token);
    loop {
        let all = patiently("GET /chats/unread/", async || client.unread().await).await?;
        let found = all.chats.iter().find(|one| one.chat_id == chat.chat_id);
        let right = |one: &UnreadChat| {
            (one.unread_count, one.unread_mentions) == recount.of(&person.user, one.read_seq)
        };
        if found.is_some_and(right) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let expected = found.map(|one| recount.of(&person.user, one.read_seq));
            let what = format!("{found:?}, and the recount is {expected:?}");
            let (call, user) = ("GET /chats/unread/", person.user.clone());
            context.counters.violation(&Violation::Answer { call, user, what });
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_messages_and_those_read_are_not_counted() {
        let user = |id: &str| UserId::trusted(id);
        let counted = |seq, sender: &str, mentions| Counted { seq, sender: user(sender), mentions };
        let recount = Recount(vec![
            counted(1, "a", Mentions::All),
            counted(2, "b", Mentions::default()),
            counted(4, "a", Mentions::Users(vec![user("b")])),
            counted(5, "c", Mentions::All),
        ]);
        assert_eq!(recount.of("b", 0), (3, 3));
        assert_eq!(recount.of("b", 3), (2, 2));
        assert_eq!(recount.of("a", 0), (2, 1));
        assert_eq!(recount.of("d", 5), (0, 0));
    }
}
