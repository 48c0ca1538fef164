//! The list of a user's chats. The copies of the counters know its order, so that Postgres looks up no more
//! chats than are shown.

use std::cmp::Reverse;

use super::{Chats, chats::cut};
use crate::{
    error::Error,
    model::{Chat, ChatId, Time, UserId},
    unread::Counter,
};

/// Which of a user's chats are listed. Archived ones are in their own list only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChatFilter {
    #[default]
    All,
    Unread,
    Archived,
    Pinned,
}

/// The place of a chat in a list: the higher ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChatCursor {
    pub pinned: bool,
    pub activity: Time,
    pub chat_id: ChatId,
}

impl Chats {
    /// Lists a page of chats after `after`, pinned ones first, then latest activity first, with the
    /// cursor of the next page.
    pub async fn list_chats(
        &self,
        user: &UserId,
        filter: ChatFilter,
        after: Option<ChatCursor>,
        limit: i64,
    ) -> Result<(Vec<Chat>, Option<ChatCursor>), Error> {
        let counters = self.get_counters(user).await?;
        let mut places = in_order(&counters, filter, after);
        let more = cut(&mut places, limit);
        // A chat that Postgres has not any more shortens the page, and does not end the list.
        let next = places.last().copied().filter(|_| more);
        let chats: Vec<ChatId> = places.iter().map(|place| place.chat_id).collect();
        Ok((self.show(self.store.list_chats(user, &chats).await?).await, next))
    }
}

/// The places past `after`, in their order.
fn in_order(
    counters: &[Counter],
    filter: ChatFilter,
    after: Option<ChatCursor>,
) -> Vec<ChatCursor> {
    let is_listed = |counter: &&Counter| match filter {
        ChatFilter::Archived => counter.flags.archived,
        _ if counter.flags.archived => false,
        ChatFilter::All => true,
        ChatFilter::Unread => counter.unread > 0,
        ChatFilter::Pinned => counter.flags.pinned,
    };
    let listed = counters.iter().filter(is_listed).map(|counter| ChatCursor {
        pinned: counter.flags.pinned,
        activity: counter.activity,
        chat_id: counter.chat_id,
    });
    let mut places: Vec<ChatCursor> =
        listed.filter(|place| after.is_none_or(|after| *place < after)).collect();
    places.sort_unstable_by_key(|place| Reverse(*place));
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChatKind, Notify, OwnFlags};

    #[test]
    fn a_list_begins_with_what_is_pinned_and_goes_on_behind_its_cursor() {
        let time = |micros| Time::from_micros(micros).expect("a time");
        let one = |number, micros, unread, pinned, archived| Counter {
            chat_id: ChatId::from_u128(number),
            room_name: String::new(),
            kind: ChatKind::Direct,
            version: 1,
            unread,
            mentions: 0,
            last_seq: 10,
            read_seq: 0,
            activity: time(micros),
            flags: OwnFlags { notify: Notify::All, archived, pinned },
        };
        let all = [
            one(1, 50, 0, false, false),
            one(2, 60, 3, false, false),
            one(3, 10, 1, true, false),
            one(4, 70, 2, false, true),
            one(5, 50, 0, false, false),
        ];
        let listed = |filter, after| -> Vec<u128> {
            in_order(&all, filter, after).iter().map(|place| place.chat_id.as_u128()).collect()
        };
        assert_eq!(listed(ChatFilter::All, None), [3, 2, 5, 1]);
        assert_eq!(listed(ChatFilter::Unread, None), [3, 2]);
        assert_eq!(listed(ChatFilter::Pinned, None), [3]);
        assert_eq!(listed(ChatFilter::Archived, None), [4]);
        let after = |pinned, micros, number| {
            let (activity, chat_id) = (time(micros), ChatId::from_u128(number));
            Some(ChatCursor { pinned, activity, chat_id })
        };
        assert_eq!(listed(ChatFilter::All, after(true, 10, 3)), [2, 5, 1]);
        assert_eq!(listed(ChatFilter::All, after(false, 50, 5)), [1]);
    }
}
