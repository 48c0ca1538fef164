//! The unread counters of all of a user's chats.

use beseda_protocol::rest::{UnreadChat, UnreadSummary};

use super::Chats;
use crate::{
    error::Error,
    model::{ChatId, Notify, UserId},
    store::{ChatCursor, ChatFilter, MemberState},
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
}

impl Chats {
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

/// The chats of a list past a cursor: pinned ones first, then latest activity.
pub(super) fn in_order(
    counters: &[Counter],
    filter: ChatFilter,
    after: Option<ChatCursor>,
) -> Vec<ChatId> {
    let place = |counter: &Counter| (counter.flags.pinned, counter.activity, counter.chat_id);
    let after =
        after.map(|cursor| (cursor.pinned, cursor.activity.0.as_microsecond(), cursor.chat_id));
    let is_listed = |counter: &&Counter| match filter {
        ChatFilter::Archived => counter.flags.archived,
        _ if counter.flags.archived => false,
        ChatFilter::All => true,
        ChatFilter::Unread => counter.unread > 0,
        ChatFilter::Pinned => counter.flags.pinned,
    };
    let listed = counters.iter().filter(is_listed).map(place);
    let mut places: Vec<_> =
        listed.filter(|place| after.is_none_or(|after| *place < after)).collect();
    places.sort_unstable_by(|one, other| other.cmp(one));
    places.into_iter().map(|(_, _, chat_id)| chat_id).collect()
}

fn summary(mut all: Vec<Counter>) -> UnreadSummary {
    all.sort_unstable_by_key(|counter| std::cmp::Reverse((counter.activity, counter.chat_id)));
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
            activity: 0,
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

    #[test]
    fn a_list_begins_with_what_is_pinned_and_goes_on_behind_its_cursor() {
        let one = |number, activity, unread, pinned, archived| Counter {
            activity,
            unread,
            flags: OwnFlags { notify: Notify::All, archived, pinned },
            ..counter(number, Notify::All, false)
        };
        let all = [
            one(1, 50, 0, false, false),
            one(2, 60, 3, false, false),
            one(3, 10, 1, true, false),
            one(4, 70, 2, false, true),
            one(5, 50, 0, false, false),
        ];
        let listed = |filter, after| -> Vec<u128> {
            in_order(&all, filter, after).iter().map(|chat_id| chat_id.as_u128()).collect()
        };
        assert_eq!(listed(ChatFilter::All, None), [3, 2, 5, 1]);
        assert_eq!(listed(ChatFilter::Unread, None), [3, 2]);
        assert_eq!(listed(ChatFilter::Pinned, None), [3]);
        assert_eq!(listed(ChatFilter::Archived, None), [4]);
        let after = |pinned, micros, number| {
            let activity = Time::from_micros(micros).expect("a time");
            Some(ChatCursor { pinned, activity, chat_id: ChatId::from_u128(number) })
        };
        assert_eq!(listed(ChatFilter::All, after(true, 10, 3)), [2, 5, 1]);
        assert_eq!(listed(ChatFilter::All, after(false, 50, 5)), [1]);
    }
}
