//! The queues of pushes: chats that are to be walked, and lanes of devices that are to be looked at. What a device is
//! told is decided when it is sent; a row only says how far it was told.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{
    Store, StoreError,
    devices::{PushAddress, address, platform},
    row::Row,
    rows::{epoch, time, user},
};
use crate::model::{ChatId, Epoch, MessageId, PushPlatform, Time, UserId};

/// Members of a chat whose devices are looked for at once: some 1 ms.
const WALK_PAGE: i64 = 50;

/// Members after whom a walk's step ends, where few have devices: some 20 ms, for which the chat's row is locked.
const WALK_MEMBERS: i64 = 1_000;

/// Devices after which it ends, and how long for each of them until the next one: 200 a second of one chat. Some
/// 0.4 ms of CPU is spent on each push, as much as on a send of somebody who waits for it: the sleepers of a large
/// group must not take a tenth of a small machine.
const WALK_DEVICES: i64 = 25;
const WALK_PACE: Duration = Duration::from_millis(5);

/// The right to push to a device, until its lease expires and another replica takes the lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushLane {
    pub user_id: UserId,
    pub device_id: String,
    turn: i64,
}

/// A device whose lane was taken, and what it ought to show.
#[derive(Debug)]
pub struct PushWork {
    pub lane: PushLane,
    pub platform: PushPlatform,
    pub address: PushAddress,
    pub preview: bool,
    /// The badge as it is, and the one that the device was given last.
    pub badge: i64,
    pub told_badge: i64,
    /// Failed attempts in a row, and how long ago the first one was.
    pub attempts: u32,
    pub failing_for: Duration,
    /// By chat, oldest news first.
    pub marks: Vec<PushMark>,
}

/// What a device is to be told of a chat, or to take back.
#[derive(Debug)]
pub struct PushMark {
    pub chat_id: ChatId,
    /// The newest message that was to be told when the lane was looked at.
    pub want_seq: Option<i64>,
    /// The message that the device shows.
    pub told_seq: Option<i64>,
    /// That message is still unread.
    pub still: bool,
    /// The newest message that is still news.
    pub news: Option<PushNews>,
}

/// A message that a device is told of.
#[derive(Debug)]
pub struct PushNews {
    pub seq: i64,
    pub message_id: MessageId,
    pub created_at: Time,
    /// The time since it was written or, if it was replayed, since then.
    pub age: Duration,
    pub sender_id: UserId,
    pub sender_name: Option<String>,
    /// Of a group.
    pub title: Option<String>,
    pub text: String,
    /// How many attachments it has.
    pub attachments: i32,
}

/// What became of a push.
#[derive(Debug, Clone)]
pub enum PushOutcome {
    /// The device shows this message of the chat, and this badge.
    Told { chat_id: ChatId, seq: i64, badge: i64 },
    /// It shows nothing of the chat up to this message any more, and this badge.
    Withdrawn { chat_id: ChatId, seq: i64, badge: i64 },
    /// It shows this badge.
    Badge(i64),
    /// Nothing up to this message has to be told.
    Void { chat_id: ChatId, seq: i64 },
    /// Given up.
    Dead { chat_id: ChatId, seq: i64, reason: String },
    /// The turn is over.
    End,
    /// The turn is over, and the next one begins after a pause.
    Retry { pause: Duration, reason: String },
    /// The provider knows the device no more, under the address with this key.
    Gone { key: Vec<u8> },
}

/// What a look at the chats that were due has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    pub chats: i64,
    /// One of them has more members than a step.
    pub is_unfinished: bool,
}

/// The numbers of lanes that are due and of pushes that were given up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PushBacklog {
    pub waiting: i64,
    /// How long the oldest lane, or chat, has been due, in seconds; or 0.
    pub oldest: f64,
    pub dead: i64,
}

impl Store {
    /// Deletes rows of the outbox that Redis has, and notes what they say for push.
    pub(super) async fn delete_outbox_for_push(
        &self,
        epoch: &Epoch,
        ids: &[i64],
        delay: Duration,
    ) -> Result<(), StoreError> {
        let params = [
            (&ids as _, Type::INT8_ARRAY),
            (&delay.as_secs_f64() as _, Type::FLOAT8),
            (&&**epoch as _, Type::TEXT),
        ];
        self.query(DELETE_OUTBOX_FOR_PUSH, &params).await?;
        Ok(())
    }

    /// Notes for push what the outbox's latest rows say, which stay there as long as Redis is away.
    pub async fn note_push(&self) -> Result<(), StoreError> {
        let Some(delay) = self.push_delay else { return Ok(()) };
        self.query(NOTE_PUSH, &[(&delay.as_secs_f64(), Type::FLOAT8)]).await?;
        Ok(())
    }

    /// Walks up to `limit` chats that are due, a step each.
    pub async fn walk_push(
        &self,
        limit: i64,
        delay: Duration,
        max_age: Duration,
        platforms: &[PushPlatform],
    ) -> Result<Walked, StoreError> {
        let platforms: Vec<&str> = platforms.iter().map(|platform| platform.as_str()).collect();
        let row = self
            .query_one(
                WALK_PUSH,
                &[
                    (&limit, Type::INT8),
                    (&WALK_PAGE, Type::INT8),
                    (&WALK_MEMBERS, Type::INT8),
                    (&WALK_DEVICES, Type::INT8),
                    (&WALK_PACE.as_secs_f64(), Type::FLOAT8),
                    (&delay.as_secs_f64(), Type::FLOAT8),
                    (&max_age.as_secs_f64(), Type::FLOAT8),
                    (&platforms, Type::TEXT_ARRAY),
                ],
            )
            .await?;
        Ok(Walked { chats: row.get("walked"), is_unfinished: row.get("unfinished") })
    }

    /// Takes up to `limit` lanes that are due. No other replica takes them during `lease`.
    pub async fn take_push_lanes(
        &self,
        limit: i64,
        lease: Duration,
    ) -> Result<Vec<PushLane>, StoreError> {
        let lease = lease.as_secs_f64();
        let rows = self.query(TAKE_LANES, &[(&limit, Type::INT8), (&lease, Type::FLOAT8)]).await?;
        let lane = |row: &Row| PushLane {
            user_id: user(row.get("user_id")),
            device_id: row.get("device_id"),
            turn: row.get("turn"),
        };
        Ok(rows.iter().map(lane).collect())
    }

    /// Looks what the devices of these lanes ought to show, all in one snapshot, which is younger than the lanes'
    /// locks. A device that is gone is missing.
    pub async fn list_pushes(&self, lanes: &[PushLane]) -> Result<Vec<PushWork>, StoreError> {
        let users: Vec<_> = lanes.iter().map(|lane| lane.user_id.as_str()).collect();
        let devices: Vec<_> = lanes.iter().map(|lane| &*lane.device_id).collect();
        let params = [(&users as _, Type::TEXT_ARRAY), (&devices as _, Type::TEXT_ARRAY)];
        let rows = self.query(LIST_PUSHES, &params).await?;
        let mut all: Vec<(i64, PushWork)> = Vec::new();
        for row in &rows {
            let place: i64 = row.get("place");
            if all.last().is_none_or(|(last, _)| *last != place) {
                let lane = usize::try_from(place - 1).ok().and_then(|place| lanes.get(place));
                let Some(lane) = lane else { continue };
                all.push((place, work(lane, row)));
            }
            if let (Some((_, work)), Some(_)) =
                (all.last_mut(), row.get::<Option<ChatId>>("chat_id"))
            {
                work.marks.push(mark(row));
            }
        }
        let oldest = |mark: &PushMark| mark.news.as_ref().map(|news| news.created_at);
        all.iter_mut().for_each(|(_, work)| work.marks.sort_by_key(oldest));
        Ok(all.into_iter().map(|(_, work)| work).collect())
    }

    /// Stores what became of pushes, one of each lane at most, ordered by lane. Tells of each whether its lane is
    /// still ours; it is kept for `lease` more, unless the turn is over: by its outcome, or as nothing follows.
    pub async fn settle_pushes(
        &self,
        settled: &[(PushLane, PushOutcome, bool)],
        lease: Duration,
    ) -> Result<Vec<bool>, StoreError> {
        let (lanes, parts): (Vec<_>, Vec<_>) =
            settled.iter().map(|(lane, outcome, _)| (lane, columns(outcome))).unzip();
        let lasts: Vec<_> = settled.iter().map(|(.., is_last)| *is_last).collect();
        let users: Vec<_> = lanes.iter().map(|lane| lane.user_id.as_str()).collect();
        let devices: Vec<_> = lanes.iter().map(|lane| &*lane.device_id).collect();
        let turns: Vec<_> = lanes.iter().map(|lane| lane.turn).collect();
        let outcomes: Vec<_> = parts.iter().map(|part| part.outcome).collect();
        let chats: Vec<_> = parts.iter().map(|part| part.chat_id).collect();
        let seqs: Vec<_> = parts.iter().map(|part| part.seq).collect();
        let badges: Vec<_> = parts.iter().map(|part| part.badge).collect();
        let pauses: Vec<_> = parts.iter().map(|part| part.pause).collect();
        let errors: Vec<_> = parts.iter().map(|part| part.error).collect();
        let keys: Vec<_> = parts.iter().map(|part| part.key).collect();
        let rows = self
            .query(
                SETTLE_PUSHES,
                &[
                    (&users, Type::TEXT_ARRAY),
                    (&devices, Type::TEXT_ARRAY),
                    (&turns, Type::INT8_ARRAY),
                    (&outcomes, Type::TEXT_ARRAY),
                    (&chats, Type::UUID_ARRAY),
                    (&seqs, Type::INT8_ARRAY),
                    (&badges, Type::INT8_ARRAY),
                    (&pauses, Type::FLOAT8_ARRAY),
                    (&errors, Type::TEXT_ARRAY),
                    (&keys, Type::BYTEA_ARRAY),
                    (&lasts, Type::BOOL_ARRAY),
                    (&lease.as_secs_f64(), Type::FLOAT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get("ours")).collect())
    }

    /// Reads how many lanes wait, and how many pushes were given up.
    pub async fn get_push_backlog(&self) -> Result<PushBacklog, StoreError> {
        let row = self.query_one(GET_PUSH_BACKLOG, &[]).await?;
        Ok(PushBacklog {
            waiting: row.get("waiting"),
            oldest: row.get("oldest"),
            dead: row.get("dead"),
        })
    }
}

/// An outcome as `settle_push` takes it.
#[derive(Default)]
struct Columns<'a> {
    outcome: &'static str,
    chat_id: Option<ChatId>,
    seq: Option<i64>,
    badge: Option<i64>,
    pause: Option<f64>,
    error: Option<&'a str>,
    key: Option<&'a [u8]>,
}

fn columns(outcome: &PushOutcome) -> Columns<'_> {
    let about = |outcome, chat_id: &ChatId, seq: &i64| Columns {
        outcome,
        chat_id: Some(*chat_id),
        seq: Some(*seq),
        ..Columns::default()
    };
    match outcome {
        PushOutcome::Told { chat_id, seq, badge } => {
            Columns { badge: Some(*badge), ..about("told", chat_id, seq) }
        }
        PushOutcome::Withdrawn { chat_id, seq, badge } => {
            Columns { badge: Some(*badge), ..about("withdrawn", chat_id, seq) }
        }
        PushOutcome::Badge(badge) => {
            Columns { outcome: "badge", badge: Some(*badge), ..Columns::default() }
        }
        PushOutcome::Void { chat_id, seq } => about("void", chat_id, seq),
        PushOutcome::Dead { chat_id, seq, reason } => {
            Columns { error: Some(reason), ..about("dead", chat_id, seq) }
        }
        PushOutcome::End => Columns { outcome: "end", ..Columns::default() },
        PushOutcome::Retry { pause, reason } => Columns {
            outcome: "retry",
            pause: Some(pause.as_secs_f64()),
            error: Some(reason),
            ..Columns::default()
        },
        PushOutcome::Gone { key } => {
            Columns { outcome: "gone", key: Some(key), ..Columns::default() }
        }
    }
}

fn work(lane: &PushLane, row: &Row) -> PushWork {
    PushWork {
        lane: lane.clone(),
        platform: platform(row.get("platform")),
        address: address(row),
        preview: row.get("preview"),
        badge: row.get("badge"),
        told_badge: row.get("told_badge"),
        attempts: row.get::<i32>("attempts").unsigned_abs(),
        failing_for: seconds(row, "failing_for"),
        marks: Vec::new(),
    }
}

fn mark(row: &Row) -> PushMark {
    let news = row.get::<Option<i64>>("seq").map(|seq| PushNews {
        seq,
        message_id: row.get("message_id"),
        created_at: time(row, "created_at"),
        age: seconds(row, "age"),
        sender_id: user(row.get("sender_id")),
        sender_name: row.get("sender_name"),
        title: row.get("title"),
        text: row.get("text"),
        attachments: row.get::<Option<i32>>("attachments").unwrap_or_default(),
    });
    PushMark {
        chat_id: row.get("chat_id"),
        want_seq: row.get("want_seq"),
        told_seq: row.get("told_seq"),
        still: row.get("still"),
        news,
    }
}

fn seconds(row: &Row, column: &str) -> Duration {
    let seconds = row.get::<Option<f64>>(column).unwrap_or_default();
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// A user's badge, as `GET /chats/unread/` has it.
macro_rules! badge {
    ($user:literal) => {
        concat!(
            "(SELECT coalesce(sum(CASE a.notify WHEN 'all' THEN ",
            $crate::store::rows::unread!("ac", "a"),
            " WHEN 'mentions' THEN ",
            $crate::store::rows::unread_mentions!("ac", "a"),
            " END), 0)::bigint AS badge
       FROM members a
      CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = a.chat_id OFFSET 0) ac
      WHERE a.user_id = ",
            $user,
            " COLLATE \"POSIX\" AND a.left_ev IS NULL AND NOT a.archived)"
        )
    };
}
pub(super) use badge;

const DELETE_OUTBOX_FOR_PUSH: &str = concat!(
    "-- store.delete_outbox_for_push
SELECT delete_outbox_for_push($1, $2 * interval '1 second') WHERE $3 = ",
    epoch!()
);

/// The latest rows, again and again: whatever is older was noted then, or is noted when Redis has it. A bound, as the
/// outbox grows while Redis is away, and two looks are 0.4 s apart.
const NOTE_PUSH: &str = "\
-- store.note_push
WITH latest AS MATERIALIZED (
    SELECT o.chats, o.of_users
      FROM (SELECT * FROM outbox o ORDER BY o.outbox_id DESC LIMIT 10000) o
     WHERE o.created_at > clock_timestamp() - interval '10 seconds'
)
SELECT note_push(
    ARRAY(SELECT c.chat_id FROM latest o CROSS JOIN LATERAL unnest(o.chats) AS c (chat_id)),
    ARRAY(SELECT u.user_id FROM latest o CROSS JOIN LATERAL unnest(o.of_users) AS u (user_id)),
    $1 * interval '1 second')";

const WALK_PUSH: &str = "\
-- store.walk_push
SELECT walked, unfinished
  FROM walk_push($1, $2, $3, $4, $5 * interval '1 second', $6 * interval '1 second', $7 * interval '1 second',
                 $8::text[]::push_platform[])";

/// The lanes are chosen first, and updated by their whole key.
const TAKE_LANES: &str = "\
-- store.take_push_lanes
WITH due AS MATERIALIZED (
    SELECT l.user_id, l.device_id FROM push_lanes l
     WHERE l.due_at <= clock_timestamp()
     ORDER BY l.due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE push_lanes l
   SET due_at = clock_timestamp() + $2 * interval '1 second', again = false, turn = l.turn + 1
  FROM due d
 WHERE l.user_id = d.user_id AND l.device_id = d.device_id
   AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off'
RETURNING l.user_id, l.device_id, l.turn";

/// What is news is judged as `walk_push` does. 100 messages are looked through for one that is.
const LIST_PUSHES: &str = concat!(
    "-- store.list_pushes
SELECT q.place, l.badge AS told_badge, l.attempts,
       extract(epoch FROM clock_timestamp() - l.failing_since)::float8 AS failing_for,
       d.platform::text, d.token, d.p256dh, d.auth, d.token_key, d.preview, b.badge,
       k.chat_id, k.want_seq, k.told_seq,
       coalesce((SELECT true FROM messages t
                  WHERE t.chat_id = me.chat_id AND t.seq = k.told_seq AND t.seq > me.read_seq
                    AND t.deleted_at IS NULL
                    AND (me.notify = 'all' OR t.mentions::text[] && ARRAY[q.user_id, chr(1)])), false) AS still,
       m.seq, m.message_id, m.created_at, m.sender_id, u.name AS sender_name, g.title, m.text,
       json_array_length(m.attachments) AS attachments,
       extract(epoch FROM clock_timestamp() - greatest(m.created_at, k.replayed_at))::float8 AS age
  FROM unnest($1, $2) WITH ORDINALITY AS q (user_id, device_id, place)
 CROSS JOIN LATERAL (SELECT * FROM push_lanes l
                      WHERE l.user_id = q.user_id AND l.device_id = q.device_id OFFSET 0) l
 CROSS JOIN LATERAL (SELECT * FROM devices d
                      WHERE d.user_id = q.user_id AND d.device_id = q.device_id OFFSET 0) d
 CROSS JOIN LATERAL ",
    badge!("q.user_id"),
    " b
  LEFT JOIN LATERAL (
      SELECT k.chat_id, k.told_seq, k.replayed_at, CASE WHEN k.dead_at IS NULL THEN k.want_seq END AS want_seq
        FROM push_marks k
       WHERE k.user_id = q.user_id AND k.device_id = q.device_id
       ORDER BY k.user_id, k.device_id, k.chat_id) k ON true
  LEFT JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = k.chat_id OFFSET 0) c ON true
  LEFT JOIN LATERAL (SELECT * FROM members m
                      WHERE m.chat_id = c.chat_id AND m.user_id = q.user_id AND coalesce(m.left_ev, 0) = 0
                        AND m.notify <> 'none' AND NOT m.archived OFFSET 0) me ON true
  LEFT JOIN LATERAL (
      SELECT * FROM (
          SELECT * FROM messages m
           WHERE m.chat_id = me.chat_id AND m.seq <= k.want_seq
             AND m.seq > greatest(me.read_seq, me.first_seq - 1, me.joined_seq, k.told_seq)
           ORDER BY m.chat_id DESC, m.seq DESC LIMIT 100) m
       WHERE NOT c.blocked AND NOT c.erased AND m.deleted_at IS NULL AND m.sender_id <> q.user_id
         AND (me.notify = 'all' OR m.mentions::text[] && ARRAY[q.user_id, chr(1)])
         AND NOT EXISTS (SELECT FROM users u WHERE u.user_id = m.sender_id AND u.erased_at IS NOT NULL)
       LIMIT 1) m ON true
  LEFT JOIN LATERAL (SELECT u.name FROM users u WHERE u.user_id = m.sender_id OFFSET 0) u ON true
  LEFT JOIN LATERAL (SELECT g.title FROM groups g WHERE g.chat_id = m.chat_id OFFSET 0) g ON true
 ORDER BY q.place"
);

const SETTLE_PUSHES: &str = "\
-- store.settle_pushes
SELECT ours FROM settle_push($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 * interval '1 second')";

const GET_PUSH_BACKLOG: &str = "\
-- store.get_push_backlog
SELECT l.waiting, extract(epoch FROM clock_timestamp() - least(l.oldest, c.oldest, clock_timestamp()))::float8 AS oldest,
       (SELECT count(*) FROM push_marks WHERE dead_at IS NOT NULL) AS dead
  FROM (SELECT count(*) AS waiting, min(due_at) AS oldest FROM push_lanes WHERE due_at IS NOT NULL) l
 CROSS JOIN (SELECT min(due_at) AS oldest FROM push_chats WHERE due_at IS NOT NULL) c";
