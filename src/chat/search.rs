//! Search inside one chat: scans its texts, newest first, until enough is found or the budget is
//! spent. It needs no index, so sends pay nothing for it, and the query never reaches the database.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use beseda_protocol::rest::{SearchHit, SearchPage};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::Chats;
use crate::{
    error::Error,
    model::{ChatId, UserId},
    search::{Query, Scratch},
    store::SEARCHERS,
};

/// Time budget of a search: a wait that still feels immediate.
const TIME_BUDGET: Duration = Duration::from_millis(400);

/// Budget of a search in messages and in bytes of text: some 50 ms of a core. A budget of time
/// alone would let a search use all idle CPU.
const MESSAGE_BUDGET: i64 = 20_000;
const BYTE_BUDGET: i64 = 8 * 1024 * 1024;

/// How long a search waits for a permit, behind the user's other searches and then the replica's.
const ADMISSION_WAIT: Duration = Duration::from_secs(2);

/// Texts of the first and of the largest page. The first is small because most hits are recent;
/// each next one is four times larger, so that the round trip costs less than the page. Measured:
/// no gain beyond 2,000 (25 ms for a chat of 10,000).
const FIRST_PAGE: i64 = 200;
const PAGE_GROWTH: i64 = 4;
const LARGEST_PAGE: i64 = 2_000;

/// Bytes of text read at once: 2,000 of the longest texts would take 32 MB per search. Pages of
/// usual texts are smaller.
const PAGE_BYTES: i64 = 1024 * 1024;

/// Texts between two looks at the clock: the most expensive text takes 1 ms.
const TEXTS_PER_LOOK: usize = 16;

/// Texts after which the search yields to the thread's other tasks: 0.3 ms of usual ones.
const TEXTS_PER_YIELD: usize = 128;

/// Limits running searches to one per user and [`SEARCHERS`] in all. One user's searches queue
/// behind each other, so that a user takes only one place in the common queue.
#[derive(Debug)]
pub(super) struct Searches {
    users: Mutex<HashMap<UserId, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
}

/// Permission to search, until dropped.
struct SearchPermit<'a> {
    searches: &'a Searches,
    user: &'a UserId,
    own: Option<OwnedSemaphorePermit>,
    one_of_all: Option<OwnedSemaphorePermit>,
}

impl Searches {
    pub(super) fn new() -> Self {
        Self { users: Mutex::default(), all: Arc::new(Semaphore::new(SEARCHERS)) }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<UserId, Arc<Semaphore>>> {
        // Each change is whole by itself.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admit<'a>(&'a self, user: &'a UserId) -> Result<SearchPermit<'a>, Error> {
        let mut permit = SearchPermit { searches: self, user, own: None, one_of_all: None };
        let queue = Arc::clone(
            self.users().entry(user.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))),
        );
        // Neither semaphore is ever closed.
        let own = timeout(ADMISSION_WAIT, queue.acquire_owned()).await.ok().and_then(Result::ok);
        permit.own = Some(own.ok_or(Error::RateLimited { retry_after: ADMISSION_WAIT })?);
        let all = Arc::clone(&self.all);
        let one = timeout(ADMISSION_WAIT, all.acquire_owned()).await.ok().and_then(Result::ok);
        permit.one_of_all = Some(one.ok_or(Error::Unavailable(None))?);
        Ok(permit)
    }
}

impl Drop for SearchPermit<'_> {
    fn drop(&mut self) {
        drop((self.own.take(), self.one_of_all.take()));
        let mut users = self.searches.users();
        // A count of one is the map's own: the user has no other search.
        if users.get(self.user).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            users.remove(self.user);
        }
    }
}

impl Chats {
    /// Finds up to `limit` messages below `before`.
    pub async fn search(
        &self,
        user: &UserId,
        chat_id: ChatId,
        query: &str,
        before: Option<i64>,
        limit: usize,
    ) -> Result<SearchPage, Error> {
        let head = self.get_head(user, chat_id).await?;
        // The first message that the user may see.
        let first = head.reader.first_seq;
        let query = Query::parse(query);
        let mut hi = before.map_or(head.seq, |before| head.seq.min(before - 1));
        if query.is_empty() {
            hi = 0;
        }
        let _permit = self.searches.admit(user).await?;
        let started = Instant::now();
        let (mut messages, mut bytes) = (MESSAGE_BUDGET, BYTE_BUDGET);
        let mut scratch = Scratch::default();
        let mut page = FIRST_PAGE;
        let mut found = Vec::new();
        let mut complete = true;
        let mut walked = false;
        'walk: while hi >= first {
            // At least one page, however slow the database is, so that a client that follows `next`
            // makes progress.
            if walked && (started.elapsed() >= TIME_BUDGET || messages <= 0 || bytes <= 0) {
                complete = false;
                break;
            }
            let mut lo = (hi - page.min(messages) + 1).max(first);
            let texts = self.store.list_texts(chat_id, (lo, hi), PAGE_BYTES).await?;
            let size = texts.iter().map(|(_, text)| text.len()).sum::<usize>() as i64;
            if let Some((last, _)) = texts.last()
                && size >= PAGE_BYTES
            {
                lo = *last;
            }
            messages -= hi - lo + 1;
            bytes -= size;
            for (index, (seq, text)) in texts.into_iter().enumerate() {
                if index > 0 && index % TEXTS_PER_LOOK == 0 && started.elapsed() >= TIME_BUDGET {
                    complete = false;
                    hi = seq;
                    break 'walk;
                }
                if index > 0 && index % TEXTS_PER_YIELD == 0 {
                    tokio::task::yield_now().await;
                }
                if query.find(&text, &mut scratch).is_some() {
                    found.push(seq);
                    if found.len() == limit {
                        hi = seq - 1;
                        break 'walk;
                    }
                }
            }
            hi = lo - 1;
            walked = true;
            page = (page * PAGE_GROWTH).min(LARGEST_PAGE);
        }
        let mut results = Vec::with_capacity(found.len());
        if !found.is_empty() {
            // Read again, because a message may have been deleted or edited meanwhile.
            for message in self.store.list_messages(chat_id, &found).await? {
                if let Some(highlights) = query.find(&message.text, &mut scratch)
                    && message.deleted_at.is_none()
                {
                    results.push(SearchHit { message, highlights });
                }
            }
        }
        Ok(SearchPage { results, next: (hi >= first).then_some(hi + 1), complete })
    }
}
