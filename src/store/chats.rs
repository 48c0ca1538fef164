//! Chats: opened, found by name, deleted; and what of them others than their readers ask.

use tokio_postgres::types::Type;
use uuid::Uuid;

use beseda_protocol::frame::GoneReason;

use super::{
    Noted, Store, StoreError,
    row::Row,
    rows::{chat_kind, epoch, epoch_of, user, users},
};
use crate::{
    config::DeleteChat,
    error::Error,
    model::{ChatId, ChatKind, UserId},
};

/// Who reads of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    Member(&'a UserId),
    /// The host application, which reads no messages.
    Host,
}

impl<'a> Reader<'a> {
    pub(super) fn user_id(self) -> Option<&'a str> {
        match self {
            Self::Member(user) => Some(user.as_str()),
            Self::Host => None,
        }
    }
}

/// Who changes a chat or its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor<'a> {
    User(&'a UserId),
    /// The host application, which may do all that an owner may.
    Host,
}

impl<'a> Actor<'a> {
    /// As the functions take it: a user, or the host.
    pub(super) fn params(self) -> (Option<&'a str>, bool) {
        match self {
            Self::User(user) => (Some(user.as_str()), false),
            Self::Host => (None, true),
        }
    }
}

/// A chat that was opened: a pair's, or a group.
#[derive(Debug, Clone)]
pub struct Opened {
    pub chat_id: ChatId,
    pub created: bool,
    pub noted: Option<Noted>,
}

/// A chat that was deleted.
#[derive(Debug, Clone)]
pub struct Deleted {
    pub kind: ChatKind,
    /// Of a direct chat: both. Of a group: none, as there may be many.
    pub members: Vec<UserId>,
    pub noted: Noted,
}

/// Whether typing is told in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypingRule {
    /// One of the two of a direct chat has blocked the other.
    pub blocked: bool,
    pub member_count: i32,
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

    /// Whether a user has fewer chats than `most`, or a direct chat with `other` already. Concurrent
    /// openings are not seen: the limit need not be exact.
    pub async fn has_room_for(
        &self,
        user: &UserId,
        other: Option<&UserId>,
        most: i64,
    ) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                HAS_ROOM_FOR,
                &[
                    (&user.as_str(), Type::TEXT),
                    (&other.map(UserId::as_str), Type::TEXT),
                    (&most, Type::INT8),
                ],
            )
            .await?;
        Ok(row.get("has_room"))
    }

    /// Opens the pair's chat, or finds it: a pair has one chat, also after a race.
    pub async fn open_direct(
        &self,
        pair: [&UserId; 2],
        creator: &UserId,
        reject_unknown: bool,
    ) -> Result<Opened, Error> {
        let chat_id = Uuid::now_v7();
        let room_name = new_code();
        let row = self
            .query_one(
                OPEN_DIRECT,
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
            "blocked" => Err(Error::Blocked),
            outcome => opened(outcome, &row).ok_or(Error::UserNotFound),
        }
    }

    /// Lists those of these chats that are locked at this moment. Never waits for a lock.
    pub async fn list_held(&self, chats: &[ChatId]) -> Result<Vec<ChatId>, StoreError> {
        let rows = self.query(LIST_HELD, &[(&chats, Type::UUID_ARRAY)]).await?;
        Ok(rows.iter().map(|row| row.get("chat_id")).collect())
    }

    /// Of each of these people up to `limit` chats past one of them, in the order of their ids, and
    /// whether presence is hidden there: one of the two has blocked the other, or the group has no receipts.
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
        let own = |row: &Row| (user(row.get("user_id")), row.get("chat_id"), row.get("hidden"));
        Ok(rows.iter().map(own).collect())
    }

    /// Returns why a chat is not the user's, who was a member.
    pub async fn get_gone_reason(
        &self,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<GoneReason, StoreError> {
        let rows = self
            .read(GET_GONE_REASON, &[(&chat_id, Type::UUID), (&user.as_str(), Type::TEXT)])
            .await?;
        Ok(gone_reason(rows.first().and_then(|row| row.get("left_reason"))))
    }

    /// Returns whether typing is told in a chat; `None`: it is gone.
    pub async fn get_typing_rule(&self, chat_id: ChatId) -> Result<Option<TypingRule>, StoreError> {
        let rows = self.read(GET_TYPING_RULE, &[(&chat_id, Type::UUID)]).await?;
        Ok(rows.first().map(|row| TypingRule {
            blocked: row.get("blocked"),
            member_count: row.get("member_count"),
        }))
    }

    /// Deletes a chat with its content. `rule` is of direct chats; a group is its owner's.
    pub async fn delete_chat(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        rule: DeleteChat,
    ) -> Result<Deleted, Error> {
        let rule = match rule {
            DeleteChat::Creator => "creator",
            DeleteChat::Member => "member",
            DeleteChat::Admin => "admin",
        };
        let (user, host) = actor.params();
        let row = self
            .query_one(
                DELETE_CHAT,
                &[
                    (&chat_id, Type::UUID),
                    (&user, Type::TEXT),
                    (&host, Type::BOOL),
                    (&rule, Type::TEXT),
                ],
            )
            .await?;
        match row.get("outcome") {
            "ok" => Ok(Deleted {
                kind: chat_kind(row.get("kind")),
                members: users(&row, "members"),
                noted: Noted { epoch: epoch_of(&row), outbox_id: row.get("outbox_id") },
            }),
            "forbidden" => Err(Error::Forbidden("You may not delete this chat.")),
            _ => Err(Error::ChatNotFound),
        }
    }
}

/// Reads what a function that opens a chat gives; `None`: it was neither created nor found.
pub(super) fn opened(outcome: &str, row: &Row) -> Option<Opened> {
    matches!(outcome, "created" | "found").then(|| Opened {
        chat_id: row.get("chat_id"),
        created: outcome == "created",
        noted: Noted::by(&epoch_of(row), row.get("outbox_id")),
    })
}

/// `None`: the user's place in the chat is gone with it.
pub(super) fn gone_reason(left_reason: Option<&str>) -> GoneReason {
    match left_reason {
        Some("removed") => GoneReason::Removed,
        Some("banned") => GoneReason::Banned,
        Some(_) => GoneReason::Left,
        None => GoneReason::Deleted,
    }
}

/// Returns 128 random bits in base64url: 22 characters that can't be guessed and say nothing.
pub(super) fn new_code() -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

const CHAT_ID: &str = "\
-- store.chat_id
SELECT n.chat_id
  FROM chat_names n
  LEFT JOIN LATERAL (SELECT user_id FROM members m
                      WHERE m.chat_id = n.chat_id AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0
                     OFFSET 0) me ON true
 WHERE n.room_name = $1 AND ($2 IS NULL OR me.user_id IS NOT NULL)";

const HAS_ROOM_FOR: &str = "\
-- store.has_room_for
SELECT (SELECT count(*) FROM (SELECT FROM members WHERE user_id = $1 COLLATE \"POSIX\" AND left_ev IS NULL
                               LIMIT $3) AS own) < $3
    OR EXISTS (SELECT FROM pairs WHERE user_lo = least($1 COLLATE \"C\", $2 COLLATE \"C\")
                                   AND user_hi = greatest($1 COLLATE \"C\", $2 COLLATE \"C\"))
       AS has_room";

const OPEN_DIRECT: &str = concat!(
    "-- store.open_direct\nSELECT outcome, chat_id, outbox_id, ",
    epoch!(),
    " FROM open_direct($1, $2, $3, $4, $5, $6)"
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
/// A deleted chat whose members are not purged yet counts in a page, as one where presence is hidden.
const LIST_OWN_CHATS: &str = "\
-- store.list_own_chats
SELECT q.user_id, me.chat_id,
       coalesce(CASE c.kind WHEN 'direct' THEN c.blocked ELSE NOT c.receipts END, true) AS hidden
  FROM unnest($1, $2) AS q (user_id, after)
 CROSS JOIN LATERAL (SELECT chat_id FROM (SELECT chat_id FROM members
                                            WHERE user_id = q.user_id COLLATE \"POSIX\" AND left_ev IS NULL
                                           OFFSET 0) own
                      WHERE chat_id > q.after ORDER BY chat_id LIMIT $3) me
  LEFT JOIN LATERAL (SELECT kind, blocked, receipts FROM chats c
                      WHERE c.chat_id = me.chat_id OFFSET 0) c ON true
 ORDER BY q.user_id, me.chat_id";

const GET_GONE_REASON: &str = "\
-- store.get_gone_reason
SELECT left_reason::text FROM members WHERE chat_id = $1 AND user_id = $2";

const GET_TYPING_RULE: &str = "\
-- store.get_typing_rule
SELECT blocked, member_count FROM chats WHERE chat_id = $1";

const DELETE_CHAT: &str = concat!(
    "-- store.delete_chat\nSELECT outcome, kind, members, outbox_id, ",
    epoch!(),
    " FROM delete_chat($1, $2, $3, $4)"
);
