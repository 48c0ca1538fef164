//! Which of a user's chats have changed since a client was here.
//!
//! A row knows the transaction that wrote it last: `xmin`. What a statement saw is told by its snapshot: each
//! transaction below [`pg_snapshot_xmin`] had ended, so its rows were seen, and whatever is written or commits
//! later has a higher number, however long it takes. So a cursor is that number. It needs no column and no index
//! beside those that are there, a send writes nothing for it, and no change slips through that took its time
//! early and committed late. While a long transaction runs, here or in another database of the same server,
//! chats that changed since it began come again.
//!
//! [`pg_snapshot_xmin`]: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT

use tokio_postgres::types::Type;

use super::{
    Store, StoreError,
    row::Row,
    rows::{epoch, time},
};
use crate::model::{ChatId, Time, UserId};

/// A moment in the history of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Transactions with lower numbers had ended.
    pub xid: i64,
    pub at: Time,
}

/// How far a client has come in reading what changed: a round of pages, whose chats come in the order of their
/// ids, latest first. What changes during a round is of the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncCursor {
    /// Stands for the server and its epoch, and says nothing about them: numbers of transactions mean nothing
    /// elsewhere. A copy of the database on another server has other ones.
    pub history: String,
    /// When the round began.
    pub begun: Mark,
    /// `None`: the round is over.
    pub open: Option<OpenRound>,
}

/// A round that has more pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRound {
    /// When the round before began; `None`: this one lists all chats.
    pub since: Option<Mark>,
    /// The last chat that was given.
    pub after: ChatId,
}

/// A page of chats that changed.
#[derive(Debug, Clone)]
pub struct SyncList {
    /// Each chat, and whether it is the user's no longer.
    pub chats: Vec<(ChatId, bool)>,
    /// Whether the round begins here and lists all chats.
    pub reset: bool,
    history: String,
    begun: Mark,
    since: Option<Mark>,
}

impl SyncList {
    /// The cursor behind a chat of this page; `None`: behind the round.
    pub fn cursor_after(&self, last: Option<ChatId>) -> SyncCursor {
        let open = last.map(|after| OpenRound { since: self.since, after });
        SyncCursor { history: self.history.clone(), begun: self.begun, open }
    }
}

impl Store {
    /// The chats of a user that changed since a cursor was given, at most `limit`. Without one, and where it is
    /// of another history or older than 30 days, all that are the user's now.
    pub async fn list_changed(
        &self,
        user: &UserId,
        cursor: Option<&SyncCursor>,
        limit: i64,
    ) -> Result<SyncList, StoreError> {
        let open = cursor.and_then(|cursor| cursor.open);
        let since = match open {
            Some(open) => open.since,
            None => cursor.map(|cursor| cursor.begun),
        };
        let oldest = since.or(cursor.map(|cursor| cursor.begun));
        let rows = self
            .list(
                LIST_CHANGED,
                &[
                    (&user.as_str(), Type::TEXT),
                    (&cursor.map(|cursor| cursor.history.as_str()), Type::TEXT),
                    (&cursor.map(|cursor| cursor.begun.xid), Type::INT8),
                    (&oldest.map(|mark| mark.at.0), Type::TIMESTAMPTZ),
                    (&since.map(|mark| mark.xid), Type::INT8),
                    (&open.map(|open| open.after), Type::UUID),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let first = rows.first().ok_or(StoreError::Unavailable(None))?;
        let now = Mark { xid: first.get("oldest_xid"), at: time(first, "at") };
        let known = cursor.filter(|_| first.get("known"));
        let begun = match known {
            Some(SyncCursor { begun, open: Some(_), .. }) => *begun,
            _ => now,
        };
        let chat = |row: &Row| Some((row.get::<Option<ChatId>>("chat_id")?, row.get("gone")));
        Ok(SyncList {
            chats: rows.iter().filter_map(chat).collect(),
            reset: known.is_none(),
            history: first.get("history"),
            begun,
            since: since.filter(|_| known.is_some()),
        })
    }
}

/// Whether a row with this `xmin` is of a transaction that had not ended at `since`. A row has the lower 32 bits of
/// the number, also once it is frozen. So this is how many transactions ago it was, or, of a row that is older than
/// 2^32 of them, less: then the chat comes once more than it need.
macro_rules! is_new {
    ($xmin:literal) => {
        concat!("(h.next_xid - ", $xmin, "::text::bigint & 4294967295) <= h.next_xid - h.since")
    };
}

/// All of the user's places are read, and of each its chat, unless all are asked for anyway: an index on what
/// changes with every send would cost each of them more. They are sorted at read, behind `OFFSET 0`: see
/// `LIST_OWN_CHATS`. A deleted chat has rows of members until they are purged, which leaves `departures`.
const LIST_CHANGED: &str = concat!(
    "-- store.list_changed
WITH here AS MATERIALIZED (
    SELECT k.*, CASE WHEN k.known THEN $5 END AS since,
           coalesce(CASE WHEN k.known THEN $6 END, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AS before
      FROM (SELECT n.*, coalesce($2 = n.history AND $3 <= n.next_xid AND n.at - $4 < interval '30 days'
                                 AND n.next_xid - coalesce($5, n.next_xid) < 4294967296, false) AS known
              FROM (SELECT (SELECT left(encode(sha256(secret || convert_to(",
    epoch!(),
    " || '/' || (SELECT system_identifier FROM pg_control_system()), 'UTF8')), 'hex'), 32) FROM instance)
                               AS history,
                           pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest_xid,
                           pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid,
                           clock_timestamp() AS at OFFSET 0) n) k
)
SELECT h.history, h.oldest_xid, h.at, h.known, p.chat_id, p.gone
  FROM here h
  LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT own.chat_id, h.since IS NOT NULL AND c.xid IS NULL AS gone
          FROM (SELECT m.chat_id, m.xmin AS xid FROM members m
                 WHERE m.user_id = $1 COLLATE \"POSIX\" AND m.left_ev IS NULL OFFSET 0) own
          LEFT JOIN LATERAL (SELECT c.xmin AS xid FROM chats c
                              WHERE c.chat_id = own.chat_id AND h.since IS NOT NULL OFFSET 0) c ON true
         WHERE own.chat_id < h.before
           AND (h.since IS NULL OR c.xid IS NULL OR ",
    is_new!("own.xid"),
    " OR ",
    is_new!("c.xid"),
    ")
        UNION ALL
        SELECT own.chat_id, true
          FROM (SELECT m.chat_id, m.xmin AS xid FROM members m
                 WHERE m.user_id = $1 COLLATE \"POSIX\" AND m.left_ev IS NOT NULL AND h.since IS NOT NULL
                OFFSET 0) own
         WHERE own.chat_id < h.before AND ",
    is_new!("own.xid"),
    "
        UNION ALL
        SELECT own.chat_id, true
          FROM (SELECT d.chat_id, d.xmin AS xid FROM departures d
                 WHERE d.user_id = $1 AND h.since IS NOT NULL OFFSET 0) own
         WHERE own.chat_id < h.before AND ",
    is_new!("own.xid"),
    "
    ) x ORDER BY chat_id DESC LIMIT $7
  ) p ON true
 ORDER BY p.chat_id DESC"
);
