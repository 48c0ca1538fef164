//! Groups: their settings, members, bans and invitations; one's own settings of a chat; who has read a message.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{
    Ban, GroupSettings, HistoryRule, Invite, InviteRule, JoinRule, Member, Notify, PostRule, Role,
    Time, UserId,
};

/// Settings of a group to be set; what is not given stays as it is, or is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<PostRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<InviteRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinRule>,
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 21600))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_mode_s: Option<i32>,
}

impl NewSettings {
    /// Returns `settings` with what is given here in its place.
    pub fn over(&self, settings: GroupSettings) -> GroupSettings {
        GroupSettings {
            post: self.post.unwrap_or(settings.post),
            invite: self.invite.unwrap_or(settings.invite),
            history: self.history.unwrap_or(settings.history),
            join: self.join.unwrap_or(settings.join),
            slow_mode_s: self.slow_mode_s.unwrap_or(settings.slow_mode_s),
        }
    }
}

/// A change of a group; what is not given stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatChange {
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 200))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Null removes it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, max_length = 2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<Option<String>>,
    /// Null removes it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Option<Box<RawValue>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<NewSettings>,
}

/// A change of the caller's own settings of a chat; what is not given stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OwnSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

/// Members to add to a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewMembers {
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub user_ids: Vec<UserId>,
    /// `member` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// The outcome of adding members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AddedMembers {
    pub added: Vec<UserId>,
    /// Those who were members already.
    pub present: Vec<UserId>,
    pub refused: Vec<RefusedMember>,
}

/// A user who was not added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedMember {
    pub user_id: UserId,
    /// `banned`, `user_not_found` or `chat_full`.
    pub code: String,
}

/// A page of a chat's members.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemberPage {
    /// The owner, then admins, then by joining.
    pub results: Vec<Member>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
    pub member_count: i32,
}

/// A change of a member; what is not given stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemberChange {
    /// `owner` hands the group over; its former owner is an admin then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Until when the member may not post; null ends that.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Time>))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced_until: Option<Option<Time>>,
}

/// A ban.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewBan {
    #[cfg_attr(feature = "openapi", schema(max_length = 1000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ends; by default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// A page of bans.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BanPage {
    /// Latest first.
    pub results: Vec<Ban>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// An invitation to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewInvite {
    /// Its life in seconds: 60 to 31,536,000 (a year), by default 604,800 (a week).
    #[cfg_attr(feature = "openapi", schema(minimum = 60, maximum = 31536000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<i64>,
    /// How many may join with it: 1 to 100,000, by default any number.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<i32>,
}

/// A page of a group's invitations.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InvitePage {
    /// Latest first, without those that are spent or expired.
    pub results: Vec<Invite>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// Who has read a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReaderPage {
    pub results: Vec<Reader>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
    /// How many members have read it.
    pub count: i64,
}

/// A member who has read a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reader {
    pub user_id: UserId,
}
