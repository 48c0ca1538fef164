//! Search inside one chat, and over all chats of a user: scans texts, newest first, until enough is found or the
//! budget is spent. It needs no index, so sends pay nothing for it, and the query never reaches the database.

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    iter::once,
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
    model::{ChatId, Message, Time, UserId},
    search::{Query, Scratch},
    store::{MessageCursor, SEARCHERS, Searchable, Store, Text},
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

/// What a search may still use up.
struct Budget {
    started: Instant,
    messages: i64,
    bytes: i64,
    /// At least one page is looked through, however slow the database is, so that a client that follows `next`
    /// makes progress.
    walked: bool,
}

impl Budget {
    fn new() -> Self {
        let started = Instant::now();
        Self { started, messages: MESSAGE_BUDGET, bytes: BYTE_BUDGET, walked: false }
    }

    fn is_late(&self) -> bool {
        self.started.elapsed() >= TIME_BUDGET
    }

    fn is_spent(&self) -> bool {
        self.walked && (self.is_late() || self.messages <= 0 || self.bytes <= 0)
    }
}

/// A search's way through one chat, from `left.hi` down.
struct Walk {
    left: Searchable,
    page: i64,
}

impl Walk {
    fn new(left: Searchable) -> Self {
        Self { left, page: FIRST_PAGE }
    }

    fn is_done(&self) -> bool {
        self.left.hi < self.left.first
    }

    /// Looks through the next page, or the part of it for which there is time; returns what matches, newest first.
    async fn step(
        &mut self,
        store: &Store,
        query: &Query,
        scratch: &mut Scratch,
        budget: &mut Budget,
    ) -> Result<Vec<Found>, Error> {
        let Searchable { chat_id, first, hi, .. } = self.left;
        let mut lo = (hi - self.page.min(budget.messages.max(1)) + 1).max(first);
        let texts = store.list_texts(chat_id, (lo, hi), PAGE_BYTES).await?;
        let size = texts.iter().map(|one| one.text.len()).sum::<usize>() as i64;
        if let Some(last) = texts.last()
            && size >= PAGE_BYTES
        {
            lo = last.seq;
        }
        budget.messages -= hi - lo + 1;
        budget.bytes -= size;
        budget.walked = true;
        self.page = (self.page * PAGE_GROWTH).min(LARGEST_PAGE);
        let mut found = Vec::new();
        for (index, Text { seq, created_at, text }) in texts.into_iter().enumerate() {
            if index > 0 && index % TEXTS_PER_LOOK == 0 && budget.is_late() {
                self.left.hi = seq;
                return Ok(found);
            }
            if index > 0 && index % TEXTS_PER_YIELD == 0 {
                tokio::task::yield_now().await;
            }
            self.left.bound = created_at;
            if query.find(&text, scratch).is_some() {
                found.push(Found { created_at, chat_id, seq });
            }
        }
        self.left.hi = lo - 1;
        Ok(found)
    }
}

/// Walks are taken up by the youngest message that they may still find.
impl Ord for Walk {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |walk: &Self| (walk.left.bound, walk.left.chat_id);
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Walk {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Walk {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Walk {}

/// A message that matches. Ordered as results are: by time, then by chat, then by number.
type Found = MessageCursor;

/// What a query is compared with: a message's text, and the names of its attachments.
fn searched(message: &Message) -> Cow<'_, str> {
    if message.attachments.is_empty() {
        return Cow::Borrowed(&message.text);
    }
    let names = message.attachments.iter().map(|attachment| attachment.name.as_str());
    Cow::Owned(once(message.text.as_str()).chain(names).collect::<Vec<_>>().join("\n"))
}

impl Chats {
    /// Finds up to `limit` messages of a chat below `before`.
    pub async fn search(
        &self,
        user: &UserId,
        chat_id: ChatId,
        query: &str,
        before: Option<i64>,
        limit: usize,
    ) -> Result<SearchPage, Error> {
        let head = self.get_head(user, chat_id).await?;
        let query = Query::parse(query);
        let hi = before.map_or(head.seq, |before| head.seq.min(before - 1));
        let hi = if query.is_empty() { 0 } else { hi };
        // No message is younger than any moment; one chat is in order by itself.
        let bound = Time(jiff::Timestamp::MAX);
        let first = head.reader.first_seq;
        let mut walk = Walk::new(Searchable { chat_id, first, hi, bound });
        let _permit = self.searches.admit(user).await?;
        let (mut budget, mut scratch) = (Budget::new(), Scratch::default());
        let mut found = Vec::new();
        while !walk.is_done() && found.len() < limit && !budget.is_spent() {
            found.extend(walk.step(&self.store, &query, &mut scratch, &mut budget).await?);
        }
        let mut next = walk.left.hi + 1;
        if found.len() >= limit {
            found.truncate(limit);
            next = found.last().map_or(next, |last| last.seq);
        }
        let complete = found.len() == limit || walk.is_done();
        let next = (next > first).then_some(next);
        Ok(SearchPage { results: self.read_found(user, &found, &query).await?, next, complete })
    }

    /// Finds up to `limit` messages of all the user's chats, newest first, past `after`.
    pub async fn search_all(
        &self,
        user: &UserId,
        query: &str,
        after: Option<MessageCursor>,
        limit: usize,
    ) -> Result<(Vec<SearchHit>, Option<MessageCursor>, bool), Error> {
        let query = Query::parse(query);
        if query.is_empty() {
            return Ok((Vec::new(), None, true));
        }
        let _permit = self.searches.admit(user).await?;
        let (mut budget, mut scratch) = (Budget::new(), Scratch::default());
        let chats = self.store.list_searchable(user, after).await?;
        let mut walks: BinaryHeap<Walk> = chats.into_iter().map(Walk::new).collect();
        // Youngest first; those before `done` are younger than anything that is still to be found.
        let (mut found, mut done) = (Vec::new(), 0);
        let cut = loop {
            let Some(walk) = walks.peek() else { break None };
            let Searchable { bound, chat_id, hi, .. } = walk.left;
            done = found
                .partition_point(|one: &Found| (one.created_at, one.chat_id) >= (bound, chat_id));
            let at = MessageCursor { created_at: bound, chat_id, seq: hi + 1 };
            if done >= limit || budget.is_spent() {
                break Some(at);
            }
            let Some(mut walk) = walks.pop() else { break None };
            found.extend(walk.step(&self.store, &query, &mut scratch, &mut budget).await?);
            found.sort_unstable_by(|a, b| b.cmp(a));
            if !walk.is_done() {
                walks.push(walk);
            }
        };
        if cut.is_none() {
            done = found.len();
        }
        found.truncate(done.min(limit));
        let is_full = done >= limit;
        let next = if is_full { found.last().copied() } else { cut };
        let complete = is_full || cut.is_none();
        Ok((self.read_found(user, &found, &query).await?, next, complete))
    }

    /// Reads what was found, as a message may have been deleted or edited meanwhile.
    async fn read_found(
        &self,
        user: &UserId,
        found: &[Found],
        query: &Query,
    ) -> Result<Vec<SearchHit>, Error> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<_> = found.iter().map(|one| (one.chat_id, one.seq)).collect();
        let (mut results, mut scratch) = (Vec::with_capacity(found.len()), Scratch::default());
        for message in self.store.list_messages(&places, user).await? {
            let spans = query.find(&searched(&message), &mut scratch);
            if let Some(mut highlights) = spans
                && message.deleted_at.is_none()
            {
                // What lies behind the text is in a name.
                let length = message.text.encode_utf16().count();
                highlights.retain(|[start, _]| (*start as usize) < length);
                results.push(SearchHit { message, highlights });
            }
        }
        Ok(results)
    }

    /// Messages of all chats that mention the user, newest first, past `after`.
    pub async fn list_mentions(
        &self,
        user: &UserId,
        after: Option<MessageCursor>,
        limit: i64,
    ) -> Result<Vec<Message>, Error> {
        Ok(self.store.list_mentions(user, after, limit).await?)
    }
}
