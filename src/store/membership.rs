//! Who belongs to a group: added, joining, leaving, removed, changed.

use beseda_protocol::rest::{AddedMembers, MemberChange, RefusedMember};
use tokio_postgres::types::Type;

use super::{
    Actor, Noted, Store,
    groups::{Changed, GroupLimits},
    refusals::lasting,
    row::Row,
    rows::{epoch, epoch_of, role_name, users},
};
use crate::{
    error::Error,
    model::{ChatId, Role, UserId},
};

/// What became of a member who was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// They were no member.
    Absent,
    Changed(Changed),
    /// They were the last one: the chat is gone.
    Dropped(Noted),
}

impl Store {
    /// Adds users to a group, with one revision.
    pub async fn add_members(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        new: &[UserId],
        role: Role,
        reject_unknown: bool,
        limits: GroupLimits,
    ) -> Result<(AddedMembers, Option<Changed>), Error> {
        let ids: Vec<_> = new.iter().map(UserId::as_str).collect();
        let (user, host) = actor.params();
        let (note, small) = limits.note();
        let row = self
            .query_one(
                ADD_MEMBERS,
                &[
                    (&chat_id, Type::UUID),
                    (&user, Type::TEXT),
                    (&host, Type::BOOL),
                    (&ids, Type::TEXT_ARRAY),
                    (&role_name(role), Type::TEXT),
                    (&reject_unknown, Type::BOOL),
                    (&limits.members, Type::INT4),
                    (&limits.receipt_members, Type::INT4),
                    (&note, Type::UUID),
                    (&small, Type::BOOL),
                ],
            )
            .await?;
        match row.get("outcome") {
            "ok" => {}
            refused => return Err(lasting(refused)),
        }
        let codes = row.get::<Option<Vec<String>>>("codes").unwrap_or_default();
        let refused = users(&row, "refused").into_iter().zip(codes);
        let added = AddedMembers {
            added: users(&row, "added"),
            present: users(&row, "present"),
            refused: refused.map(|(user_id, code)| RefusedMember { user_id, code }).collect(),
        };
        Ok((added, Changed::read(&row)))
    }

    /// A user joins an open group; `None`: they are a member already.
    pub async fn join_group(
        &self,
        chat_id: ChatId,
        user: &UserId,
        limits: GroupLimits,
    ) -> Result<Option<Changed>, Error> {
        Ok(self.join(Some(chat_id), None, user, limits).await?.1)
    }

    /// A user joins the group of an invitation; with `None` where they are a member already.
    pub async fn accept_invite(
        &self,
        code: &str,
        user: &UserId,
        limits: GroupLimits,
    ) -> Result<(ChatId, Option<Changed>), Error> {
        self.join(None, Some(code), user, limits).await
    }

    async fn join(
        &self,
        chat_id: Option<ChatId>,
        code: Option<&str>,
        user: &UserId,
        limits: GroupLimits,
    ) -> Result<(ChatId, Option<Changed>), Error> {
        let (note, small) = limits.note();
        let row = self
            .query_one(
                JOIN_CHAT,
                &[
                    (&chat_id, Type::UUID),
                    (&code, Type::TEXT),
                    (&user.as_str(), Type::TEXT),
                    (&limits.members, Type::INT4),
                    (&limits.receipt_members, Type::INT4),
                    (&note, Type::UUID),
                    (&small, Type::BOOL),
                ],
            )
            .await?;
        match row.get("outcome") {
            "joined" | "present" => Ok((row.get("chat_id"), Changed::read(&row))),
            refused => Err(lasting(refused)),
        }
    }

    /// Removes a member, or lets them leave where they are the actor. An owner who leaves hands the group
    /// over with the next revision.
    pub async fn remove_member(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        user: &UserId,
        limits: GroupLimits,
    ) -> Result<Removed, Error> {
        let (by, host) = actor.params();
        let (note, small) = limits.note();
        let row = self
            .query_one(
                REMOVE_MEMBER,
                &[
                    (&chat_id, Type::UUID),
                    (&by, Type::TEXT),
                    (&host, Type::BOOL),
                    (&user.as_str(), Type::TEXT),
                    (&note, Type::UUID),
                    (&small, Type::BOOL),
                ],
            )
            .await?;
        removed(&row)
    }

    /// An erased user leaves a group.
    pub async fn leave_as_erased(
        &self,
        chat_id: ChatId,
        user: &UserId,
        limits: GroupLimits,
    ) -> Result<Removed, Error> {
        let (note, small) = limits.note();
        let row = self
            .query_one(
                LEAVE_AS_ERASED,
                &[
                    (&chat_id, Type::UUID),
                    (&user.as_str(), Type::TEXT),
                    (&note, Type::UUID),
                    (&small, Type::BOOL),
                ],
            )
            .await?;
        removed(&row)
    }

    /// Changes a member's role or silence; `None`: they are as they were.
    pub async fn set_member(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        user: &UserId,
        change: &MemberChange,
        limits: GroupLimits,
    ) -> Result<Option<Changed>, Error> {
        let (by, host) = actor.params();
        let (note, small) = limits.note();
        let silenced_until = change.silenced_until.flatten().map(|time| time.0);
        let row = self
            .query_one(
                SET_MEMBER,
                &[
                    (&chat_id, Type::UUID),
                    (&by, Type::TEXT),
                    (&host, Type::BOOL),
                    (&user.as_str(), Type::TEXT),
                    (&change.role.map(role_name), Type::TEXT),
                    (&change.silenced_until.is_some(), Type::BOOL),
                    (&silenced_until, Type::TIMESTAMPTZ),
                    (&note, Type::UUID),
                    (&small, Type::BOOL),
                ],
            )
            .await?;
        match row.get("outcome") {
            "ok" => Ok(Changed::read(&row)),
            refused => Err(lasting(refused)),
        }
    }
}

/// Reads what a function that ends a membership gives.
pub(super) fn removed(row: &Row) -> Result<Removed, Error> {
    match row.get("outcome") {
        "ok" => Ok(Changed::read(row).map_or(Removed::Absent, Removed::Changed)),
        "absent" => Ok(Removed::Absent),
        "dropped" => {
            let noted = Noted { epoch: epoch_of(row), outbox_id: row.get("outbox_id") };
            Ok(Removed::Dropped(noted))
        }
        refused => Err(lasting(refused)),
    }
}

const ADD_MEMBERS: &str = concat!(
    "-- store.add_members\nSELECT outcome, added, present, refused, codes, ev, outbox_id, ",
    epoch!(),
    " FROM add_members($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
);

const JOIN_CHAT: &str = concat!(
    "-- store.join_chat\nSELECT outcome, chat_id, ev, outbox_id, ",
    epoch!(),
    " FROM join_chat($1, $2, $3, $4, $5, $6, $7)"
);

const REMOVE_MEMBER: &str = concat!(
    "-- store.remove_member\nSELECT outcome, ev, outbox_id, ",
    epoch!(),
    " FROM remove_member($1, $2, $3, $4, $5, $6)"
);

const LEAVE_AS_ERASED: &str = concat!(
    "-- store.leave_as_erased\nSELECT outcome, ev, outbox_id, ",
    epoch!(),
    " FROM leave_as_erased($1, $2, $3, $4)"
);

const SET_MEMBER: &str = concat!(
    "-- store.set_member\nSELECT outcome, ev, outbox_id, ",
    epoch!(),
    " FROM set_member($1, $2, $3, $4, $5, $6, $7, $8, $9)"
);
