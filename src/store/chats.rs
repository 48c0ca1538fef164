//! Chats, their heads, and their members' read markers.

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{
    Noted, Store, StoreError,
    rows::{
        ChatState, chat_state, epoch, epoch_of, has_message, message, message_columns, opt_time,
        time, user,
    },
};
use crate::{
    config::DeleteChat,
    error::Error,
    model::{Chat, ChatId, ChatKind, Epoch, Time, User, UserId},
};

/// A chat as one member sees it, still without presence.
#[derive(Debug, Clone)]
pub struct StoredChat {
    pub chat: Chat,
    /// One of the two has blocked the other: presence is not shown.
    pub blocked: bool,
}

/// Some of a member's chats, requested by id and read in one snapshot.
#[derive(Debug, Clone)]
pub struct InboxPage<C> {
    /// Each id that was looked up, in the order of the request; `None`: not the member's chat, or gone.
    pub chats: Vec<(ChatId, Option<C>)>,
    /// Unread messages in all of the member's chats.
    pub total_unread: i64,
    pub epoch: String,
}

/// The pair's chat.
#[derive(Debug, Clone)]
pub struct Opened {
    pub chat_id: ChatId,
    pub created: bool,
    pub noted: Option<Noted>,
}

impl Store {
    /// Resolves a `room_name` for a member, or for anybody where `member` is `None`.
    pub async fn get_chat_id(
        &self,
        room_name: &str,
        member: Option<&UserId>,
    ) -> Result<Option<ChatId>, StoreError> {
        let member = member.map(UserId::as_str);
        let rows = self.read(CHAT_ID, &[(&room_name, Type::TEXT), (&member, Type::TEXT)]).await?;
        Ok(rows.first().map(|row| row.get("chat_id")))
    }

    /// Whether the first of the pair has fewer chats than `most`, or this one already. The limit is not
    /// exact, because concurrent openings are not counted.
    pub async fn has_room_for(&self, pair: [&UserId; 2], most: i64) -> Result<bool, StoreError> {
        let [first, second] = pair.map(UserId::as_str);
        let row = self
            .query_one(
                HAS_CHAT_FOR,
                &[(&first, Type::TEXT), (&second, Type::TEXT), (&most, Type::INT8)],
            )
            .await?;
        Ok(row.get("has_room"))
    }

    /// Opens the pair's chat, or finds it. A pair has one chat, even after a race.
    pub async fn open_chat(
        &self,
        pair: [&UserId; 2],
        creator: &UserId,
        reject_unknown: bool,
    ) -> Result<Opened, Error> {
        let chat_id = Uuid::now_v7();
        let room_name = new_room_name();
        let row = self
            .query_one(
                OPEN_CHAT,
                &[
                    (&pair[0].as_str(), Type::TEXT),
                    (&pair[1].as_str(), Type::TEXT),
                    (&creator.as_str(), Type::TEXT),
                    (&chat_id, Type::UUID),
                    (&room_name, Type::TEXT),
                    (&reject_unknown, Type::BOOL),
                ],
            )
            .await?;
        match row.get("outcome") {
            outcome @ ("created" | "found") => Ok(Opened {
                chat_id: row.get("chat_id"),
                created: outcome == "created",
                noted: Noted::by(&epoch_of(&row), row.get("outbox_id")),
            }),
            "blocked" => Err(Error::Blocked),
            _ => Err(Error::UserNotFound),
        }
    }

    /// Returns one chat as `user` sees it; `None`: the user is no member.
    pub async fn get_chat(
        &self,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<Option<StoredChat>, StoreError> {
        let rows =
            self.read(GET_CHAT, &[(&user.as_str(), Type::TEXT), (&chat_id, Type::UUID)]).await?;
        Ok(rows.first().map(chat))
    }

    /// Returns the first of these chats, as `user` sees them, up to the one with which their last messages
    /// exceed [`INBOX_BYTES`] in sum.
    pub async fn get_chats(
        &self,
        chats: &[ChatId],
        user: &UserId,
    ) -> Result<InboxPage<StoredChat>, StoreError> {
        let params = [
            (&user.as_str() as &(dyn ToSql + Sync), Type::TEXT),
            (&chats, Type::UUID_ARRAY),
            (&INBOX_BYTES, Type::INT8),
        ];
        let rows = self.query(GET_CHATS, &params).await?;
        let first = rows.first();
        let total_unread = first.and_then(|row| row.get::<_, Option<i64>>("total_unread"));
        let epoch = first.map_or_else(String::new, |row| row.get("epoch"));
        let seen = |row: &Row| row.get::<_, Option<ChatId>>("chat_id").map(|_| chat(row));
        let chats = rows.iter().map(|row| (row.get("asked"), seen(row))).collect();
        Ok(InboxPage { chats, total_unread: total_unread.unwrap_or(0), epoch })
    }

    /// Lists a page of a user's chats, latest activity first, past `after` (activity and id of the last
    /// one seen).
    pub async fn list_chats(
        &self,
        user: &UserId,
        after: Option<(Time, ChatId)>,
        limit: i64,
    ) -> Result<Vec<StoredChat>, StoreError> {
        let (activity, chat_id) = after.map(|(time, id)| (time.0, id)).unzip();
        let rows = self
            .list(
                LIST_CHATS,
                &[
                    (&user.as_str(), Type::TEXT),
                    (&activity, Type::TIMESTAMPTZ),
                    (&chat_id, Type::UUID),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(chat).collect())
    }

    /// Returns the states of all chats of a user, for the counters in Redis, and the epoch of the same
    /// snapshot, also where there is no chat.
    pub async fn list_states(&self, user: &UserId) -> Result<(Epoch, Vec<ChatState>), StoreError> {
        let rows = self.query(LIST_STATES, &[(&user.as_str(), Type::TEXT)]).await?;
        let epoch = rows.first().map(epoch_of).ok_or(StoreError::Unavailable(None))?;
        let chats = rows.iter().filter(|row| row.get::<_, Option<ChatId>>("chat_id").is_some());
        Ok((epoch, chats.map(chat_state).collect()))
    }

    /// Returns the newest `ev` of every chat of a user, and the epoch of the same snapshot.
    pub async fn list_heads(
        &self,
        user: &UserId,
    ) -> Result<(String, Vec<(ChatId, i64)>), StoreError> {
        let row = self.query_one(LIST_HEADS, &[(&user.as_str(), Type::TEXT)]).await?;
        let chats: Vec<ChatId> = row.get::<_, Option<_>>("chat_ids").unwrap_or_default();
        let evs: Vec<i64> = row.get::<_, Option<_>>("evs").unwrap_or_default();
        Ok((row.get("epoch"), chats.into_iter().zip(evs).collect()))
    }

    /// Lists those of these chats that are locked at this moment. Never waits for a lock.
    pub async fn list_held(&self, chats: &[ChatId]) -> Result<Vec<ChatId>, StoreError> {
        let rows = self.query(LIST_HELD, &[(&chats, Type::UUID_ARRAY)]).await?;
        Ok(rows.iter().map(|row| row.get("chat_id")).collect())
    }

    /// Lists for each of these users up to `limit` chats past the given one, by id, and whether one member
    /// has blocked the other.
    pub async fn list_own_chats(
        &self,
        users: &[(&UserId, ChatId)],
        limit: i64,
    ) -> Result<Vec<(UserId, ChatId, bool)>, StoreError> {
        let (ids, after): (Vec<_>, Vec<_>) =
            users.iter().map(|(user, after)| (user.as_str(), *after)).unzip();
        let rows = self
            .query(
                LIST_OWN_CHATS,
                &[(&ids, Type::TEXT_ARRAY), (&after, Type::UUID_ARRAY), (&limit, Type::INT8)],
            )
            .await?;
        let own = |row: &Row| (user(row.get("user_id")), row.get("chat_id"), row.get("blocked"));
        Ok(rows.iter().map(own).collect())
    }

    /// Deletes a chat with its content; returns its members and the outbox row.
    pub async fn delete_chat(
        &self,
        chat_id: ChatId,
        user: &UserId,
        admin: bool,
        rule: DeleteChat,
    ) -> Result<([UserId; 2], Noted), Error> {
        let rule = match rule {
            DeleteChat::Creator => "creator",
            DeleteChat::Member => "member",
            DeleteChat::Admin => "admin",
        };
        let row = self
            .query_one(
                DELETE_CHAT,
                &[
                    (&chat_id, Type::UUID),
                    (&user.as_str(), Type::TEXT),
                    (&admin, Type::BOOL),
                    (&rule, Type::TEXT),
                ],
            )
            .await?;
        match row.get("outcome") {
            "ok" => {
                let noted = Noted { epoch: epoch_of(&row), outbox_id: row.get("outbox_id") };
                let members = ["user_lo", "user_hi"].map(|column| self::user(row.get(column)));
                Ok((members, noted))
            }
            "forbidden" => Err(Error::Forbidden("You may not delete this chat.")),
            _ => Err(Error::ChatNotFound),
        }
    }

    /// Returns the newest `ev` of each of these chats (`None`: it is gone), and the epoch of the same
    /// snapshot. `chats` must not be empty.
    pub async fn get_heads(
        &self,
        chats: &[ChatId],
    ) -> Result<(Epoch, Vec<(ChatId, Option<i64>)>), StoreError> {
        let rows = self.query(GET_HEADS, &[(&chats, Type::UUID_ARRAY)]).await?;
        let epoch = rows.first().map(epoch_of).ok_or(StoreError::Unavailable(None))?;
        Ok((epoch, rows.iter().map(|row| (row.get("chat_id"), row.get("last_ev"))).collect()))
    }

    /// Sums a user's unread messages over all chats.
    pub async fn sum_unread(&self, user: &UserId) -> Result<i64, StoreError> {
        let row = self.query_one(SUM_UNREAD, &[(&user.as_str(), Type::TEXT)]).await?;
        Ok(row.get("total_unread"))
    }

    /// Returns for each of these users who has chats their count, and the sum of their newest `ev`s, which
    /// changes with every change.
    pub async fn sum_chats(
        &self,
        users: &[UserId],
    ) -> Result<Vec<(UserId, (i64, i64))>, StoreError> {
        let ids: Vec<_> = users.iter().map(UserId::as_str).collect();
        let rows = self.query(SUM_CHATS, &[(&ids, Type::TEXT_ARRAY)]).await?;
        let sums = |row: &Row| (user(row.get("user_id")), (row.get("chats"), row.get("evs")));
        Ok(rows.iter().map(sums).collect())
    }
}

/// Returns 128 random bits in base64url: 22 characters that say nothing about the members.
fn new_room_name() -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

fn chat(row: &Row) -> StoredChat {
    let chat_id = row.get("chat_id");
    StoredChat {
        chat: Chat {
            chat_id,
            room_name: row.get("room_name"),
            kind: ChatKind::Direct,
            created_at: time(row, "created_at"),
            created_by: user(row.get("created_by")),
            last_seq: row.get("last_seq"),
            last_ev: row.get("last_ev"),
            read_seq: row.get("read_seq"),
            unread_count: row.get("unread"),
            peer_read_seq: row.get("peer_read_seq"),
            other_user: User {
                user_id: user(row.get("peer_id")),
                name: row.get("name"),
                avatar_url: row.get("avatar_url"),
                online: false,
                last_seen_at: opt_time(row, "last_seen_at"),
            },
            last_message: has_message(row).then(|| message(chat_id, row)),
        },
        blocked: row.get("blocked"),
    }
}

const CHAT_ID: &str = "\
-- store.chat_id
SELECT chat_id FROM chats
 WHERE room_name = $1 AND ($2 IS NULL OR $2 IN (user_lo, user_hi))";

const HAS_CHAT_FOR: &str = "\
-- store.has_room_for
SELECT (SELECT count(*) FROM (SELECT FROM members WHERE user_id = $1 COLLATE \"POSIX\" LIMIT $3) AS r) < $3
    OR EXISTS (SELECT FROM chats WHERE user_lo = least($1 COLLATE \"C\", $2 COLLATE \"C\")
                                   AND user_hi = greatest($1 COLLATE \"C\", $2 COLLATE \"C\"))
       AS has_room";

const OPEN_CHAT: &str = concat!(
    "-- store.open_chat\nSELECT outcome, chat_id, outbox_id, ",
    epoch!(),
    " FROM open_chat($1, $2, $3, $4, $5, $6)"
);

/// The columns that [`chat`] reads, for chats chosen as `p`.
macro_rules! select_chats {
    () => {
        concat!(
            "SELECT p.chat_id, p.room_name, p.created_at, p.created_by, p.last_seq, p.last_ev,
       p.read_seq, p.unread, peer.read_seq AS peer_read_seq,
       p.peer_id, u.name, u.avatar_url, u.last_seen_at, p.blocked, ",
            message_columns!(),
            " FROM p
 CROSS JOIN LATERAL (SELECT m.read_seq FROM members m
                      WHERE m.chat_id = p.chat_id AND m.user_id = p.peer_id OFFSET 0) peer
  LEFT JOIN LATERAL (SELECT * FROM users u WHERE u.user_id = p.peer_id OFFSET 0) u ON true
  LEFT JOIN LATERAL (SELECT * FROM messages m
                      WHERE m.chat_id = p.chat_id AND m.seq = p.last_seq OFFSET 0) m ON true"
        )
    };
}

/// A member's own rows that meet a condition, each beside its chat.
macro_rules! own_chats {
    ($condition:literal) => {
        concat!(
            "SELECT c.*, me.read_seq, me.unread, coalesce(c.last_message_at, c.created_at) AS activity,
                CASE me.user_id WHEN c.user_lo THEN c.user_hi ELSE c.user_lo END AS peer_id
           FROM members me
          CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
          WHERE ",
            $condition
        )
    };
}

const GET_CHAT: &str = concat!(
    "-- store.get_chat\nWITH p AS (",
    own_chats!("me.user_id = $1 AND me.chat_id = $2"),
    ") ",
    select_chats!()
);

/// Last messages of one page of an inbox, in bytes of text and metadata: as in a page of changes, a slow
/// reader holds a page for as long as a write may take.
const INBOX_BYTES: i64 = 512 * 1024;

/// Chat by chat, by full key: with `= ANY`, Postgres walks over all of the user's chats and looks each up
/// in the array. `before`: the bytes of the rows before this one, so that one comes however large it is.
const GET_CHATS: &str = concat!(
    "-- store.get_chats
SELECT * FROM (
    SELECT r.*, q.chat_id AS asked,
           (SELECT sum(unread)::bigint FROM members WHERE user_id = $1 COLLATE \"POSIX\") AS total_unread, ",
    epoch!(),
    ", q.idx, coalesce(sum(octet_length(r.m_text) + coalesce(octet_length(r.m_metadata::text), 0))
           OVER (ORDER BY q.idx ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
      FROM unnest($2) WITH ORDINALITY AS q (chat_id, idx)
      LEFT JOIN LATERAL (WITH p AS (",
    own_chats!("me.user_id = $1 AND me.chat_id = q.chat_id"),
    ") ",
    select_chats!(),
    ") r ON true
) x WHERE before < $3 ORDER BY idx"
);

/// A caller's chats are sorted at read: an index on activity would change with every send.
const LIST_CHATS: &str = concat!(
    "-- store.list_chats\nWITH p AS MATERIALIZED (SELECT * FROM (",
    own_chats!("me.user_id = $1 COLLATE \"POSIX\""),
    ") own
   WHERE $2::timestamptz IS NULL OR (activity, chat_id) < ($2, $3)
   ORDER BY activity DESC, chat_id DESC LIMIT $4) ",
    select_chats!(),
    " ORDER BY p.activity DESC, p.chat_id DESC"
);

// As `chat_states()` does: a function that is given a subquery is planned at every call.
const LIST_STATES: &str = concat!(
    "-- store.list_states
SELECT s.*, here.epoch FROM (SELECT ",
    epoch!(),
    ") here LEFT JOIN LATERAL (
    SELECT c.chat_id, c.room_name, c.user_lo, c.user_hi, c.last_seq, c.last_ev,
           coalesce(c.last_message_at, c.created_at) AS activity, lo.read_seq AS lo_read, lo.unread AS lo_unread,
           hi.read_seq AS hi_read, hi.unread AS hi_unread
      FROM members me
     CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
     CROSS JOIN LATERAL (SELECT m.read_seq, m.unread FROM members m
                          WHERE m.chat_id = me.chat_id AND m.user_id = c.user_lo OFFSET 0) lo
     CROSS JOIN LATERAL (SELECT m.read_seq, m.unread FROM members m
                          WHERE m.chat_id = me.chat_id AND m.user_id = c.user_hi OFFSET 0) hi
     WHERE me.user_id = $1 COLLATE \"POSIX\") s ON true"
);

const LIST_HEADS: &str = concat!(
    "-- store.list_heads\nSELECT ",
    epoch!(),
    ", array_agg(me.chat_id) AS chat_ids, array_agg(c.last_ev) AS evs
  FROM members me
 CROSS JOIN LATERAL (SELECT last_ev FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
 WHERE me.user_id = $1 COLLATE \"POSIX\""
);

const LIST_HELD: &str = "\
-- store.list_held
WITH free AS MATERIALIZED (
    SELECT chat_id FROM chats WHERE chat_id = ANY ($1) FOR NO KEY UPDATE SKIP LOCKED),
free_lanes AS MATERIALIZED (
    SELECT chat_id FROM webhook_lanes WHERE chat_id = ANY ($1) FOR NO KEY UPDATE SKIP LOCKED)
(SELECT chat_id FROM chats WHERE chat_id = ANY ($1) EXCEPT SELECT chat_id FROM free)
UNION
(SELECT chat_id FROM webhook_lanes WHERE chat_id = ANY ($1) EXCEPT SELECT chat_id FROM free_lanes)";

/// All of a user's chats are sorted at read, behind `OFFSET 0`: where the look-up itself had the order, the
/// primary key would serve it, and be read to its end, since connections do not sort where an index need not.
const LIST_OWN_CHATS: &str = "\
-- store.list_own_chats
SELECT q.user_id, me.chat_id, c.blocked
  FROM unnest($1, $2) AS q (user_id, after)
 CROSS JOIN LATERAL (SELECT chat_id FROM (SELECT chat_id FROM members
                                            WHERE user_id = q.user_id COLLATE \"POSIX\" OFFSET 0) own
                      WHERE chat_id > q.after ORDER BY chat_id LIMIT $3) me
 CROSS JOIN LATERAL (SELECT blocked FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
 ORDER BY q.user_id, me.chat_id";

const DELETE_CHAT: &str = concat!(
    "-- store.delete_chat\nSELECT outcome, user_lo, user_hi, outbox_id, ",
    epoch!(),
    " FROM delete_chat($1, $2, $3, $4)"
);

const GET_HEADS: &str = concat!(
    "-- store.get_heads\nSELECT q.chat_id, c.last_ev, ",
    epoch!(),
    "\n  FROM unnest($1) AS q (chat_id)
  LEFT JOIN LATERAL (SELECT last_ev FROM chats c WHERE c.chat_id = q.chat_id OFFSET 0) c ON true"
);

const SUM_UNREAD: &str = "\
-- store.sum_unread
SELECT coalesce(sum(unread), 0)::bigint AS total_unread FROM members WHERE user_id = $1 COLLATE \"POSIX\"";

const SUM_CHATS: &str = "\
-- store.sum_chats
SELECT me.user_id, count(*) AS chats, sum(c.last_ev)::bigint AS evs
  FROM members me
 CROSS JOIN LATERAL (SELECT last_ev FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
 WHERE me.user_id = ANY ($1 COLLATE \"POSIX\") GROUP BY me.user_id";
