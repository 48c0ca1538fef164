//! Search inside one room: a walk over its texts, newest first, until enough is found or the time
//! is up. Sends pay nothing for it, and no query ever reaches the database.

use std::time::{Duration, Instant};

use beseda_protocol::rest::{SearchHit, SearchPage};

use super::Chats;
use crate::{
    error::Error,
    model::{ChatId, UserId},
    search::{Query, Scratch},
};

/// How long a search may walk: what a person waits for without wondering.
const TIME_BUDGET: Duration = Duration::from_millis(400);

/// Texts of the first page, and of the largest: small at first because most hits are recent, then
/// four times as many each time because a round trip a page would cost more than the page. Past
/// 2,000 nothing was gained (25 ms for a room of 10,000).
const FIRST_PAGE: i64 = 200;
const PAGE_GROWTH: i64 = 4;
const LARGEST_PAGE: i64 = 2_000;

/// Bytes of text that are read at once: 2,000 of the longest would have 32 MB, and a person may have
/// many searches under way. Usual texts of a page have less.
const PAGE_BYTES: i64 = 1024 * 1024;

/// Texts between two looks at the clock: the worst of texts takes 1 ms.
const TEXTS_A_LOOK: usize = 16;

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
        let query = Query::parse(query);
        let mut hi = before.map_or(head.seq, |before| head.seq.min(before - 1));
        if query.is_empty() {
            hi = 0;
        }
        let started = Instant::now();
        let mut scratch = Scratch::default();
        let mut page = FIRST_PAGE;
        let mut found = Vec::new();
        let mut complete = true;
        let mut walked = false;
        'walk: while hi >= 1 {
            // One page at least, however slow the database is: whoever goes on from `next` gets on.
            if walked && started.elapsed() >= TIME_BUDGET {
                complete = false;
                break;
            }
            let mut lo = (hi - page + 1).max(1);
            let texts = self.store.list_texts(chat_id, (lo, hi), PAGE_BYTES).await?;
            let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
            if let Some((last, _)) = texts.last()
                && bytes as i64 >= PAGE_BYTES
            {
                lo = *last;
            }
            for (index, (seq, text)) in texts.into_iter().enumerate() {
                if index > 0 && index % TEXTS_A_LOOK == 0 && started.elapsed() >= TIME_BUDGET {
                    complete = false;
                    hi = seq;
                    break 'walk;
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
            // A long walk must not hold up the others of its thread.
            tokio::task::yield_now().await;
        }
        let mut results = Vec::with_capacity(found.len());
        if !found.is_empty() {
            // Read again, as they are now: what was deleted or edited away meanwhile is no hit.
            for message in self.store.list_messages(chat_id, &found).await? {
                if let Some(highlights) = query.find(&message.text, &mut scratch)
                    && message.deleted_at.is_none()
                {
                    results.push(SearchHit { message, highlights });
                }
            }
        }
        Ok(SearchPage { results, next: (hi >= 1).then_some(hi + 1), complete })
    }
}
