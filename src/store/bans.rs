//! Bans from groups.

use beseda_protocol::rest::NewBan;
use tokio_postgres::types::Type;

use super::{
    Actor, Reader, Removed, Store,
    groups::GroupLimits,
    membership::removed,
    refusals::lasting,
    row::Row,
    rows::{epoch, opt_time, opt_user, role, time, user},
};
use crate::{
    error::Error,
    model::{Ban, ChatId, Role, Time, User, UserId},
};

impl Store {
    /// Bans a user, who need not be a member, or changes their ban.
    pub async fn ban_member(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        user: &UserId,
        new: &NewBan,
        limits: GroupLimits,
    ) -> Result<(Ban, Removed), Error> {
        let (by, host) = actor.params();
        let (note, small) = limits.note();
        let row = self
            .query_one(
                BAN_MEMBER,
                &[
                    (&chat_id, Type::UUID),
                    (&by, Type::TEXT),
                    (&host, Type::BOOL),
                    (&user.as_str(), Type::TEXT),
                    (&new.reason, Type::TEXT),
                    (&new.until.map(|time| time.0), Type::TIMESTAMPTZ),
                    (&note, Type::UUID),
                    (&small, Type::BOOL),
                ],
            )
            .await?;
        let removed = removed(&row)?;
        Ok((ban(&row), removed))
    }

    /// Takes a ban back, if there is one.
    pub async fn unban_member(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        user: &UserId,
    ) -> Result<(), Error> {
        let (by, host) = actor.params();
        let row = self
            .query_one(
                UNBAN_MEMBER,
                &[
                    (&chat_id, Type::UUID),
                    (&by, Type::TEXT),
                    (&host, Type::BOOL),
                    (&user.as_str(), Type::TEXT),
                ],
            )
            .await?;
        match row.get("outcome") {
            "ok" => Ok(()),
            refused => Err(lasting(refused)),
        }
    }

    /// A page of a group's bans, latest first, past `after` (time and id of the last one seen).
    pub async fn list_bans(
        &self,
        chat_id: ChatId,
        reader: Reader<'_>,
        after: Option<&(Time, UserId)>,
        limit: i64,
    ) -> Result<Vec<Ban>, Error> {
        let (at, id) = after.map(|(time, id)| (time.0, id.as_str())).unzip();
        let rows = self
            .query(
                LIST_BANS,
                &[
                    (&chat_id, Type::UUID),
                    (&reader.user_id(), Type::TEXT),
                    (&at, Type::TIMESTAMPTZ),
                    (&id, Type::TEXT),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let first = rows.first().ok_or(Error::ChatNotFound)?;
        if !first.get::<bool>("is_group") || role(first.get("role")) == Role::Member {
            return Err(lasting("forbidden"));
        }
        let found = rows.iter().filter(|row| row.get::<Option<&str>>("user_id").is_some());
        Ok(found.map(ban).collect())
    }
}

fn ban(row: &Row) -> Ban {
    Ban {
        user: User {
            user_id: user(row.get("user_id")),
            name: row.get("name"),
            avatar_url: row.get("avatar_url"),
            online: false,
            last_seen_at: None,
        },
        reason: row.get("reason"),
        until: opt_time(row, "until"),
        created_at: time(row, "created_at"),
        by: opt_user(row, "banned_by"),
    }
}

/// A chat that is gone with its last member has no ban, but whoever banned them is told of one.
const BAN_MEMBER: &str = concat!(
    "-- store.ban_member
SELECT f.outcome, f.ev, f.outbox_id, $4 AS user_id, $5 AS reason, $6 AS until,
       coalesce(b.created_at, clock_timestamp()) AS created_at, CASE WHEN NOT $3 THEN $2 END AS banned_by,
       u.name, u.avatar_url, ",
    epoch!(),
    "
  FROM ban_member($1, $2, $3, $4, $5, $6, $7, $8) f
 CROSS JOIN LATERAL (SELECT (f.ban).*) b
  LEFT JOIN LATERAL (SELECT u.name, u.avatar_url FROM users u WHERE u.user_id = $4 OFFSET 0) u ON true"
);

const UNBAN_MEMBER: &str = "\
-- store.unban_member
SELECT unban_member($1, $2, $3, $4) AS outcome";

/// A group's bans are sorted at read. One that has expired is none.
const LIST_BANS: &str = "\
-- store.list_bans
WITH head AS (
    SELECT c.chat_id, c.kind = 'group' AS is_group,
           CASE WHEN $2 IS NULL THEN 'owner' ELSE me.role END::text AS role
      FROM chats c
      LEFT JOIN LATERAL (SELECT m.role FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0
                         OFFSET 0) me ON true
     WHERE c.chat_id = $1 AND ($2 IS NULL OR me.role IS NOT NULL)
)
SELECT h.is_group, h.role, b.user_id, b.reason, b.until, b.created_at, b.banned_by, u.name, u.avatar_url
  FROM head h
  LEFT JOIN LATERAL (
      SELECT * FROM bans b
       WHERE b.chat_id = h.chat_id AND h.role <> 'member' AND coalesce(b.until > now(), true)
         AND (b.created_at, b.user_id) < (coalesce($3, 'infinity'), coalesce($4, ''))
       ORDER BY b.created_at DESC, b.user_id DESC LIMIT $5) b ON true
  LEFT JOIN LATERAL (SELECT * FROM users u WHERE u.user_id = b.user_id OFFSET 0) u ON true
 ORDER BY b.created_at DESC, b.user_id DESC";
