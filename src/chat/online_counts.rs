//! How many members of a chat without receipts are online: one count for all who ask within ten seconds.
//!
//! The sockets of a large group come back together after a deployment, and a count each would read all of its
//! members as often as there are sockets.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use beseda_protocol::bounds::MAX_MEMBERS_OF_ONLINE_COUNT;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use crate::{
    error::chain,
    model::{ChatId, UserId},
    presence::Presence,
    store::{Store, StoreError},
};

/// How old a count may be that is given out; as documented.
const LIFETIME: Duration = Duration::from_secs(10);

/// Most counts that are kept: some 3 MB. Beyond it the oldest one goes before its time.
const MAX_KEPT: usize = 10_000;

/// A count, or the wait for it. `None`: there are too many members, or they could not be read.
type Count = Shared<BoxFuture<'static, Option<i32>>>;

#[derive(Debug)]
pub(super) struct OnlineCounts {
    store: Store,
    presence: Presence,
    kept: Mutex<Kept>,
}

impl OnlineCounts {
    pub(super) fn new(store: Store, presence: Presence) -> Self {
        Self { store, presence, kept: Mutex::default() }
    }

    /// Counts the chat's members who are online, at most [`LIFETIME`] ago; while Redis is unavailable, those
    /// with sockets here.
    pub(super) async fn get(&self, chat_id: ChatId) -> Option<i32> {
        let count = self.kept().get(chat_id, Instant::now(), || self.begin(chat_id));
        count.await
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change is whole by itself.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, chat_id: ChatId) -> Count {
        let (store, presence) = (self.store.clone(), self.presence.clone());
        // A task of its own, because others wait for it even if this caller leaves.
        let task = tokio::spawn(async move {
            let members = store.list_member_ids(chat_id, MAX_MEMBERS_OF_ONLINE_COUNT + 1).await;
            count(members, &presence).await
        });
        async move { task.await.unwrap_or(None) }.boxed().shared()
    }
}

/// A failure is no reason to refuse a subscription. It is kept like a count, so that a database in trouble is
/// not asked more often.
async fn count(members: Result<Vec<UserId>, StoreError>, presence: &Presence) -> Option<i32> {
    let members = members
        .inspect_err(|error| tracing::warn!(error = chain(error), "who is online is not counted"))
        .ok()?;
    let total = i32::try_from(members.len()).ok()?;
    if total > MAX_MEMBERS_OF_ONLINE_COUNT {
        return None;
    }
    i32::try_from(presence.online(&members).await.len()).ok()
}

/// The counts of the last [`LIFETIME`], at most [`MAX_KEPT`].
#[derive(Debug, Default)]
struct Kept {
    counts: HashMap<ChatId, Count>,
    /// When each was begun, in that order: all live equally long, so the first is the next to go.
    begun: VecDeque<(Instant, ChatId)>,
}

impl Kept {
    /// Returns the chat's count; the one that `begin` starts where there is none.
    fn get(&mut self, chat_id: ChatId, now: Instant, begin: impl FnOnce() -> Count) -> Count {
        while let Some((at, oldest)) = self.begun.front()
            && (now.saturating_duration_since(*at) >= LIFETIME)
        {
            self.counts.remove(oldest);
            self.begun.pop_front();
        }
        if let Some(count) = self.counts.get(&chat_id) {
            return count.clone();
        }
        if self.begun.len() >= MAX_KEPT
            && let Some((_, oldest)) = self.begun.pop_front()
        {
            self.counts.remove(&oldest);
        }
        let count = begin();
        self.begun.push_back((now, chat_id));
        self.counts.insert(chat_id, count.clone());
        count
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future;
    use tokio::sync::oneshot;

    use super::*;

    fn chat(n: usize) -> ChatId {
        ChatId::from_u128(n as u128)
    }

    /// Asks for a chat's count; `number` is what a new one would give. Returns what came.
    fn ask(kept: &mut Kept, chat_id: ChatId, now: Instant, number: i32) -> Option<i32> {
        let count = kept.get(chat_id, now, || future::ready(Some(number)).boxed().shared());
        count.now_or_never().expect("ready")
    }

    #[test]
    fn a_count_is_shared_for_ten_seconds_from_its_beginning() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(ask(&mut kept, chat(1), start, 1), Some(1));
        assert_eq!(ask(&mut kept, chat(2), after(5_000), 2), Some(2), "each chat has its own");
        assert_eq!(ask(&mut kept, chat(1), after(9_999), 3), Some(1), "asking prolongs nothing");
        assert_eq!(ask(&mut kept, chat(1), after(10_000), 4), Some(4));
        assert_eq!(ask(&mut kept, chat(2), after(14_999), 5), Some(2));
        assert_eq!(ask(&mut kept, chat(1), after(19_999), 6), Some(4));
    }

    #[test]
    fn who_comes_while_it_is_counted_waits_for_the_same_count() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let (counted, waits) = oneshot::channel();
        let first = kept.get(chat(1), now, || waits.map(Result::ok).boxed().shared());
        let second = kept.get(chat(1), now, || panic!("it is being counted"));
        assert_eq!(second.clone().now_or_never(), None);
        counted.send(7).expect("awaited");
        assert_eq!((first.now_or_never(), second.now_or_never()), (Some(Some(7)), Some(Some(7))));
    }

    #[test]
    fn old_counts_go_and_of_too_many_the_oldest() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        let at = |n: usize| start + Duration::from_micros(n as u64);
        for n in 0..=MAX_KEPT {
            ask(&mut kept, chat(n), at(n), 1);
        }
        assert_eq!((kept.counts.len(), kept.begun.len()), (MAX_KEPT, MAX_KEPT));
        assert_eq!(ask(&mut kept, chat(1), at(MAX_KEPT), 2), Some(1));
        assert_eq!(ask(&mut kept, chat(0), at(MAX_KEPT), 2), Some(2), "the oldest made room");
        ask(&mut kept, chat(0), at(MAX_KEPT) + LIFETIME, 3);
        assert_eq!((kept.counts.len(), kept.begun.len()), (1, 1));
    }
}
