//! The unread counters of all of a user's chats.

use beseda_protocol::rest::{UnreadChat, UnreadSummary};

use super::Chats;
use crate::{
    error::Error,
    model::{ChatId, Notify, UserId},
    store::MemberState,
    unread::Counter,
};

impl Chats {
    /// Reads the counters of all chats.
    pub async fn get_unread(&self, user: &UserId) -> Result<UnreadSummary, Error> {
        Ok(summary(self.get_counters(user).await?))
    }

    /// Reads the counters of all chats from Redis, or from Postgres where Redis lacks some.
    pub(super) async fn get_counters(&self, user: &UserId) -> Result<Vec<Counter>, Error> {
        let load = async || Ok::<_, Error>(self.store.list_states(user).await?);
        let mut read = self.unread.read_or_fill(user, load).await?;
        if !read.unknown.is_empty() {
            let pairs = read.unknown.iter().map(|(chat_id, _)| (*chat_id, user.clone()));
            let pairs: Vec<(ChatId, UserId)> = pairs.collect();
            let mut states = self.store.get_member_states(&pairs).await?;
            states.retain(|state| !state.gone);
            self.unread.correct(user, &read.unknown, &states).await;
            read.counters.extend(states.iter().map(Counter::from));
        }
        Ok(read.counters)
    }

    /// Sums the unread messages of all of a user's chats, with this state, of after a mark, for its chat: what
    /// Redis has of that one may be late.
    pub(super) async fn get_total(&self, user: &UserId, now: &MemberState) -> Result<i64, Error> {
        match self.unread.read(user).await {
            Ok(Some(read)) if read.unknown.is_empty() => {
                let others = read.counters.iter().filter(|one| one.chat_id != now.chat_id);
                Ok(others.map(|counter| counter.unread).sum::<i64>() + now.unread)
            }
            // A sum costs less than a fill, and who marks one chat after the other shares it.
            _ => self.totals.get(user).await,
        }
    }
}

fn summary(mut all: Vec<Counter>) -> UnreadSummary {
    // By keys beside them: a counter is large, and moved once.
    all.sort_by_cached_key(|counter| std::cmp::Reverse((counter.activity, counter.chat_id)));
    UnreadSummary {
        total: all.iter().map(|counter| counter.unread).sum(),
        total_mentions: all.iter().map(|counter| counter.mentions).sum(),
        badge: all.iter().map(on_badge).sum(),
        chats: all
            .into_iter()
            .map(|counter| UnreadChat {
                chat_id: counter.chat_id,
                room_name: counter.room_name,
                unread_count: counter.unread,
                unread_mentions: counter.mentions,
                notify: counter.flags.notify,
                last_seq: counter.last_seq,
                read_seq: counter.read_seq,
            })
            .collect(),
    }
}

/// What a chat adds to an app's badge: what its user wants to be notified of.
fn on_badge(counter: &Counter) -> i64 {
    match counter.flags.notify {
        _ if counter.flags.archived => 0,
        Notify::All => counter.unread,
        Notify::Mentions => counter.mentions,
        Notify::None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChatKind, OwnFlags, Time};

    fn counter(number: u128, notify: Notify, archived: bool) -> Counter {
        Counter {
            chat_id: ChatId::from_u128(number),
            room_name: String::new(),
            kind: ChatKind::Group,
            version: 1,
            unread: 10,
            mentions: 1,
            last_seq: 10,
            read_seq: 0,
            activity: Time::from_micros(0).expect("a time"),
            flags: OwnFlags { notify, archived, pinned: false },
        }
    }

    #[test]
    fn the_badge_counts_what_one_is_notified_of() {
        let summary = summary(vec![
            counter(1, Notify::All, false),
            counter(2, Notify::Mentions, false),
            counter(3, Notify::None, false),
            counter(4, Notify::All, true),
        ]);
        assert_eq!((summary.total, summary.total_mentions, summary.badge), (40, 4, 11));
    }
}
