//! Checks the whole database for what must always hold. Reads only, with one statement per check and page,
//! so that each check sees one snapshot of a running system.

use std::fmt;

use tokio_postgres::{Client, types::Type};
use uuid::Uuid;

use super::{StoreError, connect::connect};
use crate::config::DatabaseConfig;

/// Chats per statement. With large chats, one takes some seconds.
const PAGE: i64 = 1_000;

/// Examples kept for each check; further faults are only counted.
const KEPT: usize = 20;

/// The faults that one check found.
#[derive(Debug)]
pub struct Finding {
    pub check: &'static str,
    pub count: usize,
    /// The first faults, each with its chat.
    pub examples: Vec<String>,
}

/// The result of all checks.
#[derive(Debug, Default)]
pub struct Verified {
    pub chats: u64,
    /// The checks that failed.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{}: {} wrong", finding.check, finding.count)?;
            for example in &finding.examples {
                writeln!(f, "  {example}")?;
            }
        }
        match self.findings.len() {
            0 => write!(f, "{} chats looked at: all is well", self.chats),
            n => write!(f, "{} chats looked at: {n} checks failed", self.chats),
        }
    }
}

/// Checks every chat. It is safe beside a running service: no write in flight can cause a finding.
pub async fn verify(config: &DatabaseConfig) -> Result<Verified, StoreError> {
    let client = connect(config).await?;
    let mut verified = Verified::default();
    verified.look(&client, "outbox", OUTBOX, &[]).await?;
    verified.look(&client, "webhooks", WEBHOOKS, &[]).await?;
    let mut after = Uuid::nil();
    loop {
        let page =
            client.query_typed(PAGE_END, &[(&after, Type::UUID), (&PAGE, Type::INT8)]).await?;
        let (count, end): (i64, Option<Uuid>) =
            page.first().map_or((0, None), |row| (row.get("chats"), row.get("last")));
        verified.chats += count.unsigned_abs();
        // The last page goes up to the greatest id, to find rows whose chat does not exist.
        let last = if count < PAGE { Uuid::max() } else { end.unwrap_or(Uuid::max()) };
        for (check, sql) in CHECKS {
            verified.look(&client, check, sql, &[after, last]).await?;
        }
        if count < PAGE {
            return Ok(verified);
        }
        after = last;
    }
}

impl Verified {
    async fn look(
        &mut self,
        client: &Client,
        check: &'static str,
        sql: &'static str,
        page: &[Uuid],
    ) -> Result<(), StoreError> {
        let params: Vec<_> = page.iter().map(|id| (id as _, Type::UUID)).collect();
        let rows = client.query_typed(sql, &params).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let known = self.findings.iter().position(|finding| finding.check == check);
        let known = known.unwrap_or_else(|| {
            self.findings.push(Finding { check, count: 0, examples: Vec::new() });
            self.findings.len() - 1
        });
        let finding = &mut self.findings[known];
        finding.count += rows.len();
        let room = KEPT.saturating_sub(finding.examples.len());
        finding.examples.extend(rows.iter().take(room).map(|row| row.get("example")));
        Ok(())
    }
}

const PAGE_END: &str = "\
-- store.verify_page
SELECT count(*) AS chats, (array_agg(chat_id ORDER BY chat_id DESC))[1] AS last
  FROM (SELECT chat_id FROM chats WHERE chat_id > $1 ORDER BY chat_id LIMIT $2) page";

/// Publishing takes about a second, so a row that is a minute old is stuck.
const OUTBOX: &str = "\
-- store.verify_outbox
SELECT 'row ' || outbox_id || ' waits since ' || created_at AS example FROM outbox
 WHERE created_at < clock_timestamp() - interval '1 minute' ORDER BY outbox_id";

/// Events are sent through their chat's lane, so one without a lane would never be sent. The two are always
/// created together.
const WEBHOOKS: &str = "\
-- store.verify_webhooks
SELECT format('%s: event %s waits without a lane', w.chat_id, w.event_id) AS example
  FROM webhooks w
 WHERE w.dead_at IS NULL
   AND NOT EXISTS (SELECT FROM webhook_lanes l WHERE l.chat_id = w.chat_id)
 ORDER BY w.webhook_id";

/// Each statement takes a range of chats and returns a row for each fault.
const CHECKS: [(&str, &str); 7] = [
    ("numbers", NUMBERS),
    ("counters", COUNTERS),
    ("times", TIMES),
    ("tombstones", TOMBSTONES),
    ("members", MEMBERS),
    ("blocks and erasures", COPIES),
    ("orphans", ORPHANS),
];

/// A row's `ev` is the last change of its message or marker. So an `ev` may be missing (a later change
/// has replaced it), but none occurs twice, and the greatest one is the chat's `last_ev`.
const NUMBERS: &str = "\
-- store.verify_numbers
WITH seqs AS (
    SELECT chat_id, count(*) AS count, max(seq) AS top
      FROM messages WHERE chat_id > $1 AND chat_id <= $2 GROUP BY chat_id
), evs AS (
    SELECT chat_id, count(*) AS count, count(DISTINCT ev) AS different, max(ev) AS top
      FROM (SELECT chat_id, ev FROM messages WHERE chat_id > $1 AND chat_id <= $2
            UNION ALL
            SELECT chat_id, ev FROM members WHERE chat_id > $1 AND chat_id <= $2 AND ev > 0) e
     GROUP BY chat_id
)
SELECT format('%s: last_seq %s over %s messages up to %s, last_ev %s over %s changes (%s different) up to %s',
              c.chat_id, c.last_seq, coalesce(s.count, 0), coalesce(s.top, 0),
              c.last_ev, coalesce(e.count, 0), coalesce(e.different, 0), coalesce(e.top, 0)) AS example
  FROM chats c
  LEFT JOIN seqs s ON s.chat_id = c.chat_id
  LEFT JOIN evs e ON e.chat_id = c.chat_id
 WHERE c.chat_id > $1 AND c.chat_id <= $2
   AND (c.last_seq, c.last_seq, c.last_ev, coalesce(e.count, 0))
       IS DISTINCT FROM
       (coalesce(s.count, 0), coalesce(s.top, 0), coalesce(e.top, 0), coalesce(e.different, 0))
 ORDER BY c.chat_id";

const COUNTERS: &str = "\
-- store.verify_counters
SELECT format('%s: %s has read up to %s of %s and %s unread, a recount gives %s',
              me.chat_id, me.user_id, me.read_seq, c.last_seq, me.unread, recount.count) AS example
  FROM members me
  JOIN chats c ON c.chat_id = me.chat_id
  CROSS JOIN LATERAL (
      SELECT count(*) FROM messages m
       WHERE m.chat_id = me.chat_id AND m.seq > me.read_seq
         AND m.sender_id <> me.user_id AND m.deleted_at IS NULL) recount
 WHERE me.chat_id > $1 AND me.chat_id <= $2
   AND (me.unread <> recount.count OR me.read_seq > c.last_seq)
 ORDER BY me.chat_id, me.user_id";

const TIMES: &str = "\
-- store.verify_times
SELECT format('%s: message %s is of %s, the one before of %s', chat_id, seq, created_at, before) AS example
  FROM (SELECT chat_id, seq, created_at,
               lag(created_at) OVER (PARTITION BY chat_id ORDER BY seq) AS before
          FROM messages WHERE chat_id > $1 AND chat_id <= $2) m
 WHERE created_at < before
 ORDER BY chat_id, seq";

const TOMBSTONES: &str = "\
-- store.verify_tombstones
SELECT format('%s: message %s is deleted and still has content', chat_id, seq) AS example
  FROM messages
 WHERE chat_id > $1 AND chat_id <= $2 AND deleted_at IS NOT NULL
   AND (text <> '' OR metadata IS NOT NULL OR content_digest IS NOT NULL)
 ORDER BY chat_id, seq";

const MEMBERS: &str = "\
-- store.verify_members
SELECT format('%s: members are %s instead of %s and %s',
              c.chat_id, m.ids, c.user_lo, c.user_hi) AS example
  FROM chats c
  LEFT JOIN (SELECT chat_id, array_agg(user_id ORDER BY user_id) AS ids FROM members
              WHERE chat_id > $1 AND chat_id <= $2 GROUP BY chat_id) m ON m.chat_id = c.chat_id
 WHERE c.chat_id > $1 AND c.chat_id <= $2
   AND m.ids IS DISTINCT FROM ARRAY[c.user_lo, c.user_hi]
 ORDER BY c.chat_id";

/// A chat's row has copies of what `blocks` and `users` say.
const COPIES: &str = "\
-- store.verify_copies
SELECT format('%s: blocked is %s, erased is %s', c.chat_id, c.blocked, c.erased) AS example
  FROM chats c
 WHERE c.chat_id > $1 AND c.chat_id <= $2
   AND (c.blocked <> is_blocked(c.user_lo, c.user_hi)
        OR c.erased <> EXISTS (SELECT FROM users u WHERE u.user_id IN (c.user_lo, c.user_hi)
                                AND u.erased_at IS NOT NULL))
 ORDER BY c.chat_id";

/// The rows of a deleted chat may remain as long as the chat is in `purges`.
const ORPHANS: &str = "\
-- store.verify_orphans
SELECT format('%s: %s rows belong to no chat', chat_id, count(*)) AS example
  FROM (SELECT chat_id FROM messages WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM members WHERE chat_id > $1 AND chat_id <= $2) o
 WHERE NOT EXISTS (SELECT FROM chats c WHERE c.chat_id = o.chat_id)
   AND NOT EXISTS (SELECT FROM purges p WHERE p.chat_id = o.chat_id)
 GROUP BY chat_id ORDER BY chat_id";
