//! Invitations to groups.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{
    Actor, Store, StoreError,
    chats::new_code,
    refusals::lasting,
    row::Row,
    rows::{role, time},
};
use crate::{
    error::Error,
    model::{ChatId, Invite, Role},
};

impl Store {
    /// Returns the group that an invitation is to, spent or not; `None`: there is none of this code.
    pub async fn get_invited_chat(&self, code: &str) -> Result<Option<ChatId>, StoreError> {
        let row = self.query_opt(GET_INVITED_CHAT, &[(&code, Type::TEXT)]).await?;
        Ok(row.map(|row| row.get("chat_id")))
    }

    /// Makes an invitation that lives for so many seconds.
    pub async fn create_invite(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        expires_in_s: i32,
        max_uses: Option<i32>,
    ) -> Result<Invite, Error> {
        let (user, host) = actor.params();
        let row = self
            .query_one(
                CREATE_INVITE,
                &[
                    (&chat_id, Type::UUID),
                    (&user, Type::TEXT),
                    (&host, Type::BOOL),
                    (&Uuid::now_v7(), Type::UUID),
                    (&new_code(), Type::TEXT),
                    (&expires_in_s, Type::INT4),
                    (&max_uses, Type::INT4),
                ],
            )
            .await?;
        match row.get("outcome") {
            "ok" => Ok(invite(&row)),
            refused => Err(lasting(refused)),
        }
    }

    /// A page of the invitations that can be accepted, latest first, past `after`; a plain member's own only.
    pub async fn list_invites(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Invite>, Error> {
        let (user, _) = actor.params();
        let rows = self
            .query(
                LIST_INVITES,
                &[
                    (&chat_id, Type::UUID),
                    (&user, Type::TEXT),
                    (&after, Type::UUID),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let first = rows.first().ok_or(Error::ChatNotFound)?;
        let plain = role(first.get("role")) == Role::Member;
        if !first.get::<bool>("is_group")
            || plain && !first.get::<Option<bool>>("members_invite").unwrap_or_default()
        {
            return Err(lasting("forbidden"));
        }
        let found = rows.iter().filter(|row| row.get::<Option<Uuid>>("invite_id").is_some());
        Ok(found.map(invite).collect())
    }

    /// Withdraws an invitation.
    pub async fn delete_invite(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        invite_id: Uuid,
    ) -> Result<(), Error> {
        let (user, host) = actor.params();
        let row = self
            .query_one(
                DELETE_INVITE,
                &[
                    (&chat_id, Type::UUID),
                    (&user, Type::TEXT),
                    (&host, Type::BOOL),
                    (&invite_id, Type::UUID),
                ],
            )
            .await?;
        match row.get("outcome") {
            "ok" => Ok(()),
            refused => Err(lasting(refused)),
        }
    }
}

fn invite(row: &Row) -> Invite {
    Invite {
        invite_id: row.get("invite_id"),
        code: row.get("code"),
        expires_at: time(row, "expires_at"),
        uses: row.get("uses"),
        max_uses: row.get("max_uses"),
    }
}

const GET_INVITED_CHAT: &str = "\
-- store.get_invited_chat
SELECT chat_id FROM invites WHERE code = $1";

const CREATE_INVITE: &str = "\
-- store.create_invite
SELECT f.outcome, i.invite_id, i.code, i.expires_at, i.uses, i.max_uses
  FROM create_invite($1, $2, $3, $4, $5, $6, $7) f CROSS JOIN LATERAL (SELECT (f.invite).*) i";

/// Ids ascend with time, so their order is the one that the invitations were made in.
const LIST_INVITES: &str = "\
-- store.list_invites
WITH head AS (
    SELECT c.chat_id, c.kind = 'group' AS is_group, g.members_invite,
           CASE WHEN $2 IS NULL THEN 'owner' ELSE me.role END::text AS role
      FROM chats c
      LEFT JOIN LATERAL (SELECT m.role FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0
                         OFFSET 0) me ON true
      LEFT JOIN LATERAL (SELECT g.members_invite FROM groups g WHERE g.chat_id = c.chat_id OFFSET 0) g ON true
     WHERE c.chat_id = $1 AND ($2 IS NULL OR me.role IS NOT NULL)
)
SELECT h.is_group, h.members_invite, h.role, i.invite_id, i.code, i.expires_at, i.uses, i.max_uses
  FROM head h
  LEFT JOIN LATERAL (
      SELECT i.* FROM invites i
       WHERE i.chat_id = h.chat_id
         AND i.invite_id < coalesce($3, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         AND (h.role <> 'member' OR i.created_by = $2)
         AND i.expires_at > now() AND coalesce(i.uses < i.max_uses, true)
       ORDER BY i.invite_id DESC LIMIT $4) i ON true
 ORDER BY i.invite_id DESC";

const DELETE_INVITE: &str = "\
-- store.delete_invite
SELECT delete_invite($1, $2, $3, $4) AS outcome";
