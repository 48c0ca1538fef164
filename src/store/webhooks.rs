//! Events that wait to be sent to the host application. An event only names what happened; its content is
//! read when it is sent.

use std::{collections::HashMap, time::Duration};

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{
    Store, StoreError,
    connect::connect,
    group_webhooks::Fanout,
    reports::{report, report_columns},
    row::{Row, rows_of},
    rows::{epoch, epoch_of, message, opt_user, time, user},
};
use crate::{
    config::DatabaseConfig,
    model::{ChatId, Epoch, Message, Report, Time, UserId},
};

/// The right to send a chat's next event, until its lease expires and another replica takes the lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    pub chat_id: ChatId,
    pub(super) turn: i64,
    /// In another history, the same turn and the same event number may belong to others.
    pub(super) epoch: Epoch,
}

/// The first event of a chat, with its present content.
#[derive(Debug)]
pub struct Waiting {
    pub(super) webhook_id: i64,
    /// Identifies the event to its receiver.
    pub event_id: Uuid,
    pub created_at: Time,
    /// The time since it was created or, if it was replayed, since then.
    pub age: Duration,
    /// The number of failed attempts.
    pub attempts: u32,
    pub due: bool,
    pub event: Event,
}

#[derive(Debug)]
pub enum Event {
    Message(Box<Notice>),
    Report(Box<Report>),
    /// A message of a group, for all its members.
    Group(Fanout),
    /// The event is obsolete: the message was read or deleted, or the chat is gone or closed.
    Void,
}

/// A message and its recipient.
#[derive(Debug)]
pub struct Notice {
    pub recipient_id: UserId,
    pub room_name: String,
    /// Of a group.
    pub title: Option<String>,
    pub message: Message,
    /// The recipient's unread messages in the chat, and in all chats.
    pub unread_count: i64,
    pub total_unread: i64,
}

/// The outcome of one turn of a lane.
#[derive(Debug, Clone, Copy)]
pub enum Settled<'a> {
    /// No attempt was made, because there was no event, or it was not due.
    Nothing,
    /// The event was sent, or was obsolete.
    Done(&'a Waiting),
    /// The attempt failed, and is repeated after a pause.
    Retry(&'a Waiting, Duration, &'a str),
    /// The event was given up.
    Dead(&'a Waiting, &'a str),
}

/// The numbers of events that wait and of dead letters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WebhookBacklog {
    pub waiting: i64,
    /// Age of the oldest waiting event in seconds, or 0.
    pub oldest: f64,
    pub dead: i64,
}

impl Store {
    /// Takes the lanes of up to `limit` chats whose first event is due. No other replica takes them during
    /// `lease`.
    pub async fn take_webhook_lanes(
        &self,
        limit: i64,
        lease: Duration,
    ) -> Result<Vec<Lane>, StoreError> {
        let lease = lease.as_secs_f64();
        let rows = self.query(TAKE_LANES, &[(&limit, Type::INT8), (&lease, Type::FLOAT8)]).await?;
        let lane = |row: &Row| Lane {
            chat_id: row.get("chat_id"),
            turn: row.get("turn"),
            epoch: epoch_of(row),
        };
        Ok(rows.iter().map(lane).collect())
    }

    /// Lists the first event of each of these chats. It must be a statement of its own: its snapshot is
    /// younger than the locks on the lanes, so that an event that was settled before is not seen again.
    pub async fn list_webhooks(
        &self,
        lanes: &[Lane],
    ) -> Result<Vec<(Lane, Option<Waiting>)>, StoreError> {
        let chats: Vec<_> = lanes.iter().map(|lane| lane.chat_id).collect();
        let rows = self.query(LIST_WEBHOOKS, &[(&chats, Type::UUID_ARRAY)]).await?;
        let mut found: HashMap<ChatId, Waiting> = rows.iter().map(waiting).collect();
        Ok(lanes.iter().map(|lane| (lane.clone(), found.remove(&lane.chat_id))).collect())
    }

    /// Ends the turn of a lane, which then waits for the chat's next event. If the epoch has changed since
    /// the lane was taken, this does nothing, and the event, if the new history has it, is sent again.
    pub async fn settle_webhook(
        &self,
        lane: &Lane,
        settled: Settled<'_>,
    ) -> Result<(), StoreError> {
        let (outcome, event, pause, error) = match settled {
            Settled::Nothing => ("none", None, Duration::ZERO, None),
            Settled::Done(event) => ("done", Some(event), Duration::ZERO, None),
            Settled::Retry(event, pause, error) => ("retry", Some(event), pause, Some(error)),
            Settled::Dead(event, error) => ("dead", Some(event), Duration::ZERO, Some(error)),
        };
        self.query(
            SETTLE_WEBHOOK,
            &[
                (&lane.chat_id, Type::UUID),
                (&lane.turn, Type::INT8),
                (&event.map(|event| event.webhook_id), Type::INT8),
                (&outcome, Type::TEXT),
                (&pause.as_secs_f64(), Type::FLOAT8),
                (&error, Type::TEXT),
                (&&*lane.epoch, Type::TEXT),
            ],
        )
        .await?;
        Ok(())
    }

    pub async fn get_webhook_backlog(&self) -> Result<WebhookBacklog, StoreError> {
        let row = self.query_one(GET_WEBHOOK_BACKLOG, &[]).await?;
        Ok(WebhookBacklog {
            waiting: row.get("waiting"),
            oldest: row.get("oldest"),
            dead: row.get("dead"),
        })
    }
}

fn waiting(row: &Row) -> (ChatId, Waiting) {
    let chat_id = row.get("chat_id");
    let event = if row.get("shared") {
        Event::Group(Fanout {
            seq: row.get("m_seq"),
            after: opt_user(row, "after_id").filter(|after| !after.as_str().is_empty()),
            tried: opt_user(row, "recipient_id"),
        })
    } else if row.get("wanted") {
        Event::Message(Box::new(notice(chat_id, row)))
    } else if row.get::<Option<Uuid>>("r_report_id").is_some() {
        Event::Report(Box::new(report(row)))
    } else {
        Event::Void
    };
    let waiting = Waiting {
        webhook_id: row.get("webhook_id"),
        event_id: row.get("event_id"),
        created_at: time(row, "created_at"),
        age: Duration::try_from_secs_f64(row.get("age")).unwrap_or_default(),
        attempts: row.get::<i32>("attempts").unsigned_abs(),
        due: row.get("due"),
        event,
    };
    (chat_id, waiting)
}

pub(super) fn notice(chat_id: ChatId, row: &Row) -> Notice {
    Notice {
        recipient_id: user(row.get("recipient_id")),
        room_name: row.get("room_name"),
        title: row.get("title"),
        unread_count: row.get("unread"),
        total_unread: row.get("total_unread"),
        message: message(chat_id, row),
    }
}

/// An event that was given up.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub event_id: Uuid,
    pub kind: String,
    pub chat_id: ChatId,
    pub dead_at: Time,
    pub attempts: i32,
    pub last_error: String,
}

/// Lists up to `limit` dead letters, latest first, and returns the number of all.
pub async fn dead_letters(
    config: &DatabaseConfig,
    limit: i64,
) -> Result<(Vec<DeadLetter>, i64), StoreError> {
    let client = connect(config).await?;
    let rows = rows_of(client.query_typed(DEAD_LETTERS, &[(&limit, Type::INT8)]).await?);
    let letter = |row: &Row| DeadLetter {
        event_id: row.get("event_id"),
        kind: row.get("kind"),
        chat_id: row.get("chat_id"),
        dead_at: time(row, "dead_at"),
        attempts: row.get("attempts"),
        last_error: row.get("last_error"),
    };
    Ok((rows.iter().map(letter).collect(), rows.first().map_or(0, |row| row.get("total"))))
}

/// Dead letters per statement of a replay. Sends to their chats wait for it, some 100 ms.
const REPLAY_STEP: i64 = 1_000;

/// Queues one dead letter, or all (`None`), as if new; returns how many.
pub async fn replay_dead_letters(
    config: &DatabaseConfig,
    event_id: Option<Uuid>,
) -> Result<i64, StoreError> {
    let client = connect(config).await?;
    let (mut replayed, mut after) = (0, 0_i64);
    loop {
        let row = client
            .query_typed_one(
                REPLAY,
                &[(&event_id, Type::UUID), (&after, Type::INT8), (&REPLAY_STEP, Type::INT8)],
            )
            .await?;
        replayed += row.get::<_, i64>("replayed");
        let Some(up_to) = row.get("up_to") else { return Ok(replayed) };
        after = up_to;
    }
}

/// Stores the events that the statement defines as `events (kind, chat_id, recipient_id, seq, report_id,
/// due_at)`. A message without a recipient is for all members of a group. The update of an existing lane
/// changes nothing: it locks the lane, so that `settle_webhook` cannot delete it as empty meanwhile.
macro_rules! note_webhooks {
    () => {
        "noted AS (
    INSERT INTO webhooks (kind, chat_id, recipient_id, seq, after_id, report_id, due_at)
    SELECT kind, chat_id, recipient_id, seq, CASE WHEN seq > 0 AND recipient_id IS NULL THEN '' END, report_id, due_at
      FROM events ORDER BY seq
), laned AS (
    INSERT INTO webhook_lanes AS l (chat_id, due_at)
    SELECT DISTINCT ON (chat_id) chat_id, due_at FROM events ORDER BY chat_id, due_at
    ON CONFLICT (chat_id) DO UPDATE SET turn = l.turn
)"
    };
}
pub(super) use note_webhooks;

/// The lanes are chosen in an array, for the reason given at `store.take_unpublished`.
const TAKE_LANES: &str = concat!(
    "-- store.take_webhook_lanes
UPDATE webhook_lanes
   SET due_at = clock_timestamp() + $2 * interval '1 second', turn = turn + 1
 WHERE chat_id = ANY (ARRAY(SELECT chat_id FROM webhook_lanes WHERE due_at <= clock_timestamp()
                             ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING chat_id, turn, ",
    epoch!()
);

/// Whether a message `m` is still news for a member `me` of its chat `c`, as they wish to be told.
macro_rules! wanted {
    () => {
        "NOT c.blocked AND m.deleted_at IS NULL AND me.user_id <> m.sender_id
       AND me.read_seq < m.seq AND me.first_seq <= m.seq
       AND CASE me.notify WHEN 'all' THEN true
                          WHEN 'mentions' THEN coalesce(m.mentions::text[] && ARRAY[me.user_id, chr(1)], false)
                          ELSE false END
       AND (SELECT count(*) FROM users u
             WHERE u.user_id = ANY (ARRAY[me.user_id, m.sender_id]) AND u.erased_at IS NOT NULL) = 0"
    };
}
pub(super) use wanted;

/// The columns that [`notice`] reads, of a chat `c`, its member `me`, its group `g` and a message `m`.
macro_rules! notice_columns {
    () => {
        concat!(
            "c.room_name, g.title, ",
            $crate::store::rows::unread!("c", "me"),
            " AS unread,
       (SELECT coalesce(sum(",
            $crate::store::rows::unread!("ac", "a"),
            "), 0)::bigint FROM members a
         CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = a.chat_id OFFSET 0) ac
         WHERE a.user_id = me.user_id COLLATE \"POSIX\" AND a.left_ev IS NULL) AS total_unread, ",
            $crate::store::rows::message_columns!()
        )
    };
}
pub(super) use notice_columns;

const LIST_WEBHOOKS: &str = concat!(
    "-- store.list_webhooks
SELECT w.chat_id, w.webhook_id, w.event_id, w.created_at,
       extract(epoch FROM clock_timestamp() - w.begun_at)::float8 AS age, w.attempts,
       w.due_at <= clock_timestamp() AS due, w.recipient_id, w.after_id,
       w.after_id IS NOT NULL AND m.seq IS NOT NULL AND m.deleted_at IS NULL AS shared,
       coalesce(",
    wanted!(),
    ", false) AS wanted, ",
    notice_columns!(),
    ", ",
    report_columns!(),
    "
  FROM unnest($1) AS lane (chat_id)
 CROSS JOIN LATERAL (SELECT * FROM webhooks w
                      WHERE w.chat_id BETWEEN lane.chat_id AND lane.chat_id AND w.dead_at IS NULL
                      ORDER BY w.chat_id, w.webhook_id LIMIT 1) w
  LEFT JOIN LATERAL (SELECT * FROM chats c
                      WHERE c.chat_id = w.chat_id AND w.seq IS NOT NULL OFFSET 0) c ON true
  LEFT JOIN LATERAL (SELECT g.title FROM groups g WHERE g.chat_id = c.chat_id OFFSET 0) g ON true
  LEFT JOIN LATERAL (SELECT * FROM members m
                      WHERE m.chat_id = c.chat_id AND m.user_id = w.recipient_id
                        AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me ON true
  LEFT JOIN LATERAL (SELECT * FROM messages m
                      WHERE m.chat_id = c.chat_id AND m.seq = w.seq OFFSET 0) m ON true
  LEFT JOIN LATERAL (SELECT * FROM reports r WHERE r.report_id = w.report_id OFFSET 0) r ON true"
);

const SETTLE_WEBHOOK: &str = concat!(
    "-- store.settle_webhook
SELECT settle_webhook($1, $2, $3, $4, $5 * interval '1 second', $6) WHERE $7 = ",
    epoch!()
);

const GET_WEBHOOK_BACKLOG: &str = "\
-- store.get_webhook_backlog
SELECT count(*) AS waiting,
       coalesce(extract(epoch FROM clock_timestamp() - min(begun_at)), 0)::float8 AS oldest,
       (SELECT count(*) FROM webhooks WHERE dead_at IS NOT NULL) AS dead
  FROM webhooks WHERE dead_at IS NULL";

const DEAD_LETTERS: &str = "\
-- store.dead_letters
SELECT event_id, kind, chat_id, dead_at, attempts, coalesce(last_error, '') AS last_error,
       count(*) OVER () AS total
  FROM webhooks WHERE dead_at IS NOT NULL ORDER BY dead_at DESC, webhook_id DESC LIMIT $1";

const REPLAY: &str = "\
-- store.replay_webhooks
SELECT replayed, up_to FROM replay_webhooks($1, $2, $3)";
