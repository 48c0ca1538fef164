//! Users: admission, profiles, when they were last seen, and blocks.

use tokio_postgres::types::Type;

use super::{
    Store, StoreError,
    row::Row,
    rows::{epoch, epoch_of, opt_time, time, user},
};
use crate::model::{Admission, Epoch, Profile, Time, UserId};

/// The outcome of naming a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    Created,
    Updated,
    /// The user was erased, and stays so.
    Erased,
}

/// A user who was erased, or some of whose tokens were revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    pub user_id: UserId,
    pub admission: Admission,
}

/// A user as stored, without presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    pub profile: Profile,
    pub last_seen_at: Option<Time>,
    /// The viewer may see their presence: the two share a direct chat in which neither has blocked the other,
    /// or a group with receipts.
    pub show_presence: bool,
}

impl Store {
    /// Creates or updates the user of a valid token, unless the user was erased or the token revoked.
    pub async fn admit_bearer(
        &self,
        profile: &Profile,
        issued_at: Option<Time>,
    ) -> Result<Admission, StoreError> {
        let row = self
            .query_one(
                ADMIT_BEARER,
                &[
                    (&profile.user_id.as_str(), Type::TEXT),
                    (&profile.name, Type::TEXT),
                    (&profile.avatar_url, Type::TEXT),
                    (&issued_at.map(|time| time.0), Type::TIMESTAMPTZ),
                ],
            )
            .await?;
        Ok(Admission { erased: row.get("erased"), revoked_at: opt_time(&row, "revoked_at") })
    }

    /// Revokes all tokens of a user that were issued before now, and forgets their devices; returns that moment
    /// and its epoch. Creates a user who is unknown.
    pub async fn revoke_tokens(&self, user_id: &UserId) -> Result<(Time, Epoch), StoreError> {
        let row = self.query_one(REVOKE_TOKENS, &[(&user_id.as_str(), Type::TEXT)]).await?;
        Ok((time(&row, "tokens_revoked_at"), epoch_of(&row)))
    }

    /// Lists those of these users who were erased, or whose tokens were revoked at some time.
    pub async fn list_barred(&self, users: &[UserId]) -> Result<Vec<Barred>, StoreError> {
        let ids: Vec<_> = users.iter().map(UserId::as_str).collect();
        let rows = self.query(LIST_BARRED, &[(&ids, Type::TEXT_ARRAY)]).await?;
        let barred = |row: &Row| Barred {
            user_id: user(row.get("user_id")),
            admission: Admission {
                erased: row.get("erased"),
                revoked_at: opt_time(row, "tokens_revoked_at"),
            },
        };
        Ok(rows.iter().map(barred).collect())
    }

    /// Creates or replaces users, whose ids must differ. Users who were erased are skipped unless `revive`.
    pub async fn name_users(
        &self,
        people: &[Profile],
        revive: bool,
    ) -> Result<Vec<Named>, StoreError> {
        let ids: Vec<_> = people.iter().map(|p| p.user_id.as_str()).collect();
        let names: Vec<_> = people.iter().map(|p| p.name.as_deref()).collect();
        let avatars: Vec<_> = people.iter().map(|p| p.avatar_url.as_deref()).collect();
        let rows = self
            .query(
                NAME_USERS,
                &[
                    (&ids, Type::TEXT_ARRAY),
                    (&names, Type::TEXT_ARRAY),
                    (&avatars, Type::TEXT_ARRAY),
                    (&revive, Type::BOOL),
                ],
            )
            .await?;
        let named = |row: &Row| match row.get("outcome") {
            "created" => Named::Created,
            "updated" => Named::Updated,
            _ => Named::Erased,
        };
        Ok(rows.iter().map(named).collect())
    }

    /// Returns a user whom `viewer` may see: themselves, or one with whom they share a chat. A viewer of
    /// `None` sees all users.
    pub async fn get_user(
        &self,
        user_id: &UserId,
        viewer: Option<&UserId>,
    ) -> Result<Option<UserRow>, StoreError> {
        let row = self
            .query_opt(
                GET_USER,
                &[(&user_id.as_str(), Type::TEXT), (&viewer.map(UserId::as_str), Type::TEXT)],
            )
            .await?;
        Ok(row.map(|row| user_row(&row)))
    }

    /// Stores when users were last seen; a time never moves back.
    pub async fn note_last_seen(&self, seen: &[(UserId, Time)]) -> Result<(), StoreError> {
        let ids: Vec<_> = seen.iter().map(|(id, _)| id.as_str()).collect();
        let times: Vec<_> = seen.iter().map(|(_, time)| time.0).collect();
        self.query(NOTE_LAST_SEEN, &[(&ids, Type::TEXT_ARRAY), (&times, Type::TIMESTAMPTZ_ARRAY)])
            .await?;
        Ok(())
    }

    /// Blocks or unblocks a user. False: the blocker has `most` blocks already.
    pub async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
        most: i64,
    ) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                SET_BLOCK,
                &[
                    (&blocker.as_str(), Type::TEXT),
                    (&blocked.as_str(), Type::TEXT),
                    (&on, Type::BOOL),
                    (&most, Type::INT8),
                ],
            )
            .await?;
        Ok(row.get("done"))
    }

    /// Lists a page of a user's blocks with their times, latest first, past `after` (the last one seen).
    pub async fn list_blocks(
        &self,
        blocker: &UserId,
        after: Option<&(UserId, Time)>,
        limit: i64,
    ) -> Result<Vec<(UserId, Time)>, StoreError> {
        let (id, at) = after.map(|(id, time)| (id.as_str(), time.0)).unzip();
        let rows = self
            .query(
                LIST_BLOCKS,
                &[
                    (&blocker.as_str(), Type::TEXT),
                    (&at, Type::TIMESTAMPTZ),
                    (&id, Type::TEXT),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let block = |row: &Row| (user(row.get("blocked_id")), time(row, "created_at"));
        Ok(rows.iter().map(block).collect())
    }
}

fn user_row(row: &Row) -> UserRow {
    UserRow {
        profile: Profile {
            user_id: user(row.get("user_id")),
            name: row.get("name"),
            avatar_url: row.get("avatar_url"),
        },
        last_seen_at: opt_time(row, "last_seen_at"),
        show_presence: row.get("show_presence"),
    }
}

const ADMIT_BEARER: &str = "\
-- store.admit_bearer
SELECT erased, revoked_at FROM admit_bearer($1, $2, $3, $4)";

const REVOKE_TOKENS: &str = concat!(
    "-- store.revoke_tokens
INSERT INTO users AS u (user_id, tokens_revoked_at) VALUES ($1, clock_timestamp())
    ON CONFLICT (user_id) DO UPDATE
   SET tokens_revoked_at = greatest(u.tokens_revoked_at, excluded.tokens_revoked_at)
RETURNING tokens_revoked_at, drop_devices($1), ",
    epoch!()
);

const LIST_BARRED: &str = "\
-- store.list_barred
SELECT user_id, erased_at IS NOT NULL AS erased, tokens_revoked_at FROM users
 WHERE user_id = ANY($1) AND (erased_at IS NOT NULL OR tokens_revoked_at IS NOT NULL)";

const NAME_USERS: &str = "\
-- store.name_users
SELECT outcome FROM name_users($1, $2, $3, $4)";

/// A viewer's groups are looked through only where the two have no direct chat.
const GET_USER: &str = "\
-- store.get_user
SELECT u.user_id, u.name, u.avatar_url, u.last_seen_at,
       $2 IS NULL OR $1 = $2
       OR (pair.is_there OR coalesce(shared.receipts, false)) AND NOT is_blocked($1, $2) AS show_presence
  FROM users u
 CROSS JOIN LATERAL (
     SELECT EXISTS (SELECT FROM pairs p
                     WHERE p.user_lo = least($1 COLLATE \"C\", $2 COLLATE \"C\")
                       AND p.user_hi = greatest($1 COLLATE \"C\", $2 COLLATE \"C\")) AS is_there OFFSET 0) pair
 CROSS JOIN LATERAL (
     SELECT bool_or(c.receipts) AS receipts
       FROM members me
      CROSS JOIN LATERAL (SELECT m.chat_id FROM members m
                           WHERE m.chat_id = me.chat_id AND m.user_id = $1 AND coalesce(m.left_ev, 0) = 0
                          OFFSET 0) them
      CROSS JOIN LATERAL (SELECT c.receipts FROM chats c
                           WHERE c.chat_id = them.chat_id AND c.kind = 'group' OFFSET 0) c
      WHERE me.user_id = $2 COLLATE \"POSIX\" AND me.left_ev IS NULL
        AND NOT pair.is_there AND $1 <> $2) shared
 WHERE u.user_id = $1 AND u.erased_at IS NULL
   AND ($2 IS NULL OR $1 = $2 OR pair.is_there OR shared.receipts IS NOT NULL)";

const NOTE_LAST_SEEN: &str = "\
-- store.note_last_seen
UPDATE users u SET last_seen_at = s.at
  FROM (SELECT x.tid, s.at
          FROM (SELECT user_id, at FROM unnest($1, $2) AS s (user_id, at)
                 ORDER BY user_id COLLATE \"C\") s
         CROSS JOIN LATERAL (SELECT u.ctid AS tid FROM users u WHERE u.user_id = s.user_id OFFSET 0) x) s
 WHERE u.ctid = s.tid AND u.erased_at IS NULL
   AND (u.last_seen_at IS NULL OR u.last_seen_at < s.at)";

const SET_BLOCK: &str = "\
-- store.set_block
SELECT set_block($1, $2, $3, $4) AS done";

const LIST_BLOCKS: &str = "\
-- store.list_blocks
SELECT blocked_id, created_at FROM blocks
 WHERE blocker_id = $1 AND (created_at, blocked_id) < (coalesce($2, 'infinity'), coalesce($3, ''))
 ORDER BY created_at DESC, blocked_id DESC LIMIT $4";
