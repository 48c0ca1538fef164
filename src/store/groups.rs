//! Groups: created and changed; and a member's own settings of any chat.

use beseda_protocol::rest::{ChatChange, NewSettings, OwnSettings};
use serde_json::value::RawValue;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use super::{
    Actor, Noted, Opened, Param, Store, StoreError,
    chats::{new_code, opened},
    refusals::lasting,
    row::Row,
    rows::{epoch, epoch_of},
};
use crate::{
    config::SystemMessages,
    error::Error,
    model::{
        ChatId, GroupSettings, HistoryRule, InviteRule, JoinRule, MessageId, Notify, PostRule,
        UserId,
    },
};

/// The installation's limits of groups.
#[derive(Debug, Clone, Copy)]
pub struct GroupLimits {
    /// Most members of a group.
    pub members: i32,
    /// Largest group that has receipts, in members.
    pub receipt_members: i32,
    /// Which groups have system messages.
    pub system: SystemMessages,
}

impl GroupLimits {
    /// As the functions take it: the id of a system message, and whether only a chat with receipts has it.
    pub(super) fn note(self) -> (Option<MessageId>, bool) {
        match self.system {
            SystemMessages::Small => (Some(MessageId::now_v7()), true),
            SystemMessages::All => (Some(MessageId::now_v7()), false),
            SystemMessages::Off => (None, false),
        }
    }
}

/// A change that took a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub ev: i64,
    pub noted: Noted,
}

impl Changed {
    /// Reads `ev` and `outbox_id`; `None`: nothing changed.
    pub(super) fn read(row: &Row) -> Option<Self> {
        let noted = Noted::by(&epoch_of(row), row.get("outbox_id"))?;
        Some(Self { ev: row.get::<Option<i64>>("ev")?, noted })
    }
}

/// A group to be created.
#[derive(Debug, Clone)]
pub struct NewGroup<'a> {
    /// Whose `key` it is.
    pub caller: &'a UserId,
    /// The caller is the host application.
    pub host: bool,
    pub owner: &'a UserId,
    /// The caller's idempotency key.
    pub key: Option<&'a str>,
    pub title: &'a str,
    pub avatar_url: Option<&'a str>,
    pub metadata: Option<&'a RawValue>,
    pub settings: GroupSettings,
    /// Beside the owner.
    pub members: &'a [UserId],
}

impl Store {
    /// Creates a group, or finds the one that the caller's key has created.
    pub async fn create_group(
        &self,
        new: &NewGroup<'_>,
        reject_unknown: bool,
        limits: GroupLimits,
    ) -> Result<Opened, Error> {
        let members: Vec<_> = new.members.iter().map(UserId::as_str).collect();
        let GroupSettings { post, invite, history, join, slow_mode_s } = new.settings;
        let row = self
            .query_one(
                CREATE_GROUP,
                &[
                    (&Uuid::now_v7(), Type::UUID),
                    (&new_code(), Type::TEXT),
                    (&new.caller.as_str(), Type::TEXT),
                    (&new.host, Type::BOOL),
                    (&new.owner.as_str(), Type::TEXT),
                    (&new.key, Type::TEXT),
                    (&new.title, Type::TEXT),
                    (&new.avatar_url, Type::TEXT),
                    (&new.metadata.map(Json), Type::JSON),
                    (&(post == PostRule::Admins), Type::BOOL),
                    (&(invite == InviteRule::Members), Type::BOOL),
                    (&(history == HistoryRule::All), Type::BOOL),
                    (&(join == JoinRule::Open), Type::BOOL),
                    (&slow_mode_s, Type::INT4),
                    (&members, Type::TEXT_ARRAY),
                    (&reject_unknown, Type::BOOL),
                    (&limits.members, Type::INT4),
                    (&limits.receipt_members, Type::INT4),
                ],
            )
            .await?;
        let outcome = row.get("outcome");
        opened(outcome, &row).ok_or_else(|| lasting(outcome))
    }

    /// Changes what a group shows and how it works; `None`: it is as it was.
    pub async fn change_group(
        &self,
        chat_id: ChatId,
        actor: Actor<'_>,
        change: &ChatChange,
        limits: GroupLimits,
    ) -> Result<Option<Changed>, Error> {
        let ChatChange { title, avatar_url, metadata, settings } = change;
        let given = [
            ("title", title.is_some()),
            ("avatar_url", avatar_url.is_some()),
            ("metadata", metadata.is_some()),
        ];
        let given: Vec<_> = given.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
        let NewSettings { post, invite, history, join, slow_mode_s } =
            settings.clone().unwrap_or_default();
        let (user, host) = actor.params();
        let (note, small) = limits.note();
        let row = self
            .query_one(
                CHANGE_GROUP,
                &[
                    (&chat_id, Type::UUID),
                    (&user, Type::TEXT),
                    (&host, Type::BOOL),
                    (&given, Type::TEXT_ARRAY),
                    (&title, Type::TEXT),
                    (&avatar_url.clone().flatten(), Type::TEXT),
                    (&metadata.clone().flatten().map(Json), Type::JSON),
                    (&post.map(|rule| rule == PostRule::Admins), Type::BOOL),
                    (&invite.map(|rule| rule == InviteRule::Members), Type::BOOL),
                    (&history.map(|rule| rule == HistoryRule::All), Type::BOOL),
                    (&join.map(|rule| rule == JoinRule::Open), Type::BOOL),
                    (&slow_mode_s, Type::INT4),
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

    /// Whether this user has created a group with this `client_chat_id`, whatever became of it.
    pub async fn is_group_key_known(
        &self,
        creator: &UserId,
        key: Option<&str>,
    ) -> Result<bool, StoreError> {
        let params: [Param<'_>; 2] = [(&creator.as_str(), Type::TEXT), (&key, Type::TEXT)];
        Ok(self.query_one(IS_GROUP_KEY_KNOWN, &params).await?.get("known"))
    }

    /// Changes a member's own settings of a chat; `None`: they are as they were.
    pub async fn set_own(
        &self,
        chat_id: ChatId,
        user: &UserId,
        own: &OwnSettings,
    ) -> Result<Option<Noted>, Error> {
        let notify = own.notify.map(|notify| match notify {
            Notify::All => "all",
            Notify::Mentions => "mentions",
            Notify::None => "none",
        });
        let row = self
            .query_one(
                SET_OWN,
                &[
                    (&chat_id, Type::UUID),
                    (&user.as_str(), Type::TEXT),
                    (&notify, Type::TEXT),
                    (&own.pinned, Type::BOOL),
                    (&own.archived, Type::BOOL),
                ],
            )
            .await?;
        match row.get("outcome") {
            "ok" => Ok(Noted::by(&epoch_of(&row), row.get("outbox_id"))),
            refused => Err(lasting(refused)),
        }
    }
}

/// Reads a group's settings: columns of `chats` and of `groups`.
pub(super) fn settings(row: &Row) -> GroupSettings {
    GroupSettings {
        post: if row.get("admins_post") { PostRule::Admins } else { PostRule::Members },
        invite: if row.get("members_invite") { InviteRule::Members } else { InviteRule::Admins },
        history: if row.get("history_all") { HistoryRule::All } else { HistoryRule::Joined },
        join: if row.get("open") { JoinRule::Open } else { JoinRule::Invite },
        slow_mode_s: row.get("slow_mode_s"),
    }
}

const CREATE_GROUP: &str = concat!(
    "-- store.create_group\nSELECT outcome, chat_id, outbox_id, ",
    epoch!(),
    " FROM create_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
);

const IS_GROUP_KEY_KNOWN: &str = "\
-- store.is_group_key_known
SELECT EXISTS (SELECT FROM group_keys WHERE creator_id = $1 AND client_chat_id = $2) AS known";

const CHANGE_GROUP: &str = concat!(
    "-- store.change_group\nSELECT outcome, ev, outbox_id, ",
    epoch!(),
    " FROM change_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
);

const SET_OWN: &str = concat!(
    "-- store.set_own\nSELECT outcome, outbox_id, ",
    epoch!(),
    " FROM set_own($1, $2, $3, $4, $5)"
);
