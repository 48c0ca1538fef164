//! What only chats of many members have: roles, settings, members, bans, invites.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{ChatId, Time, User, UserId};

/// What a member may do in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May do what the group's settings leave to everybody.
    Member,
    /// May do all but change admins and the owner, and delete the group.
    Admin,
    /// May do everything. A group has one owner.
    Owner,
}

/// Who may post in a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PostRule {
    #[default]
    Members,
    Admins,
}

/// Who may add members to a group and invite to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InviteRule {
    #[default]
    Admins,
    Members,
}

/// Which messages a new member of a group may see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HistoryRule {
    #[default]
    All,
    /// Those sent after the member joined.
    Joined,
}

/// How one becomes a member of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JoinRule {
    /// Somebody adds or invites them.
    #[default]
    Invite,
    /// Anybody who knows the chat may join.
    Open,
}

/// The settings of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupSettings {
    pub post: PostRule,
    pub invite: InviteRule,
    pub history: HistoryRule,
    pub join: JoinRule,
    /// Least time between two messages of a plain member, in seconds: 0, or 1 to 21,600.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 21600))]
    pub slow_mode_s: i32,
}

/// What a member wants to be notified of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Notify {
    #[default]
    All,
    /// Messages that mention the member.
    Mentions,
    None,
}

/// A member of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Member {
    pub user: User,
    pub role: Role,
    pub joined_at: Time,
    /// Null in a chat without receipts.
    pub read_seq: Option<i64>,
    /// Until when the member may not post; null: they may.
    pub silenced_until: Option<Time>,
}

/// How a membership ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LeftReason {
    Left,
    Removed,
    Banned,
    Erased,
}

/// A user who is kept out of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ban {
    pub user: User,
    /// Up to 1,000 characters.
    pub reason: Option<String>,
    /// Null: for good.
    pub until: Option<Time>,
    pub created_at: Time,
    /// Who banned them; null: the host application.
    pub by: Option<UserId>,
}

/// An invitation to a group. Whoever knows its code may accept it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Invite {
    pub invite_id: Uuid,
    /// 128 random bits in base64url: 22 characters.
    pub code: String,
    pub expires_at: Time,
    /// How many members have joined with it.
    pub uses: i32,
    /// Null: without a bound.
    pub max_uses: Option<i32>,
}

/// What a system message tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SystemEvent {
    pub event: SystemEventKind,
    /// Whom it is about.
    pub user_ids: Vec<UserId>,
    /// Who did it; null: the host application.
    pub by: Option<UserId>,
    /// The new title of a `chat.changed` that changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// The kind of a system message. Clients must expect others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SystemEventKind {
    #[serde(rename = "member.joined")]
    MemberJoined,
    #[serde(rename = "member.left")]
    MemberLeft,
    #[serde(rename = "member.removed")]
    MemberRemoved,
    #[serde(rename = "owner.changed")]
    OwnerChanged,
    /// Unknown kinds decode as this one.
    #[serde(rename = "chat.changed", other)]
    ChatChanged,
}

/// Whom a message mentions: a list of user ids, or the string `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mentions {
    Users(Vec<UserId>),
    All,
}

impl Default for Mentions {
    fn default() -> Self {
        Self::Users(Vec::new())
    }
}

impl Serialize for Mentions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Users(users) => users.serialize(serializer),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Mentions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Users(Vec<UserId>),
            Word(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Users(users) => Ok(Self::Users(users)),
            Raw::Word(word) if word == "all" => Ok(Self::All),
            Raw::Word(_) => Err(serde::de::Error::custom("neither user ids nor `all`")),
        }
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Mentions {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
        let user_id = ObjectBuilder::new().schema_type(Type::String);
        OneOfBuilder::new()
            .item(ArrayBuilder::new().items(user_id).max_items(Some(50)))
            .item(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["all"])))
            .description(Some("Up to 50 members' ids, or `all`."))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Mentions {}

/// What a group shows after a change: the content of `chat.changed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupChange {
    pub chat_id: ChatId,
    pub ev: i64,
    pub title: String,
    pub avatar_url: Option<String>,
    pub metadata: Option<Box<RawValue>>,
    pub settings: GroupSettings,
    pub member_count: i32,
    pub receipts: bool,
}

impl PartialEq for GroupChange {
    fn eq(&self, other: &Self) -> bool {
        self.chat_id == other.chat_id
            && self.ev == other.ev
            && self.title == other.title
            && self.avatar_url == other.avatar_url
            && self.metadata.as_deref().map(RawValue::get)
                == other.metadata.as_deref().map(RawValue::get)
            && self.settings == other.settings
            && self.member_count == other.member_count
            && self.receipts == other.receipts
    }
}
