//! Groups: their members, bans and invitations, and the caller's own settings of a chat.

use beseda_protocol::{
    model::{Ban, Chat, Invite, Member, MessageId, Role, UserId},
    rest::{
        AddedMembers, BanPage, ChatChange, InvitePage, MemberChange, MemberPage, NewBan, NewChat,
        NewInvite, NewMembers, OpenedChat, OwnSettings, ReaderPage,
    },
};
use http::Method;
use uuid::Uuid;

use super::{Call, Rest};
use crate::Error;

/// Which members are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemberFilter<'a> {
    pub role: Option<Role>,
    /// The start of a name or an id.
    pub query: Option<&'a str>,
}

impl Rest {
    /// `POST /chats/` with `kind` `group`. With a `client_chat_id` it is safe to repeat.
    pub async fn create_group(&self, group: &NewChat) -> Result<OpenedChat, Error> {
        self.opened(self.call(Method::POST, &["chats"]).json(group)).await
    }

    /// Changes what a group shows, and its settings.
    pub async fn change_chat(&self, chat: &str, change: &ChatChange) -> Result<Chat, Error> {
        self.ask(self.call(Method::PATCH, &["chats", chat]).json(change)).await
    }

    /// Changes what the caller alone sees of a chat: notifications, whether it is pinned, and archived.
    pub async fn set_own(&self, chat: &str, settings: &OwnSettings) -> Result<Chat, Error> {
        self.ask(self.call(Method::PATCH, &["chats", chat, "me"]).json(settings)).await
    }

    /// The owner, admins, then the others by joining; `limit` 1 to 100.
    pub async fn list_members(
        &self,
        chat: &str,
        filter: MemberFilter<'_>,
        limit: Option<u8>,
        cursor: Option<&str>,
    ) -> Result<MemberPage, Error> {
        let call = self.call(Method::GET, &["chats", chat, "members"]);
        let call = call.query("role", filter.role.map(name_of)).query("query", filter.query);
        self.ask(call.query("limit", limit).query("cursor", cursor)).await
    }

    /// Adds up to 1,000 members; repeating does no harm.
    pub async fn add_members(
        &self,
        chat: &str,
        members: &NewMembers,
    ) -> Result<AddedMembers, Error> {
        self.ask(self.call(Method::POST, &["chats", chat, "members"]).json(members)).await
    }

    /// Changes a member's role, or until when they may not post. The role `owner` hands the group over.
    pub async fn change_member(
        &self,
        chat: &str,
        user_id: &UserId,
        change: &MemberChange,
    ) -> Result<Member, Error> {
        self.ask(self.member(Method::PATCH, chat, "members", user_id).json(change)).await
    }

    /// Removes a member; oneself: leaves.
    pub async fn remove_member(&self, chat: &str, user_id: &UserId) -> Result<(), Error> {
        self.done(self.member(Method::DELETE, chat, "members", user_id)).await
    }

    /// Removes a user, and keeps them out.
    pub async fn ban(&self, chat: &str, user_id: &UserId, ban: &NewBan) -> Result<Ban, Error> {
        self.ask(self.member(Method::PUT, chat, "bans", user_id).json(ban)).await
    }

    pub async fn unban(&self, chat: &str, user_id: &UserId) -> Result<(), Error> {
        self.done(self.member(Method::DELETE, chat, "bans", user_id)).await
    }

    /// Latest first; `cursor` is the `next` of the page before, here and below.
    pub async fn list_bans(&self, chat: &str, cursor: Option<&str>) -> Result<BanPage, Error> {
        self.ask(self.call(Method::GET, &["chats", chat, "bans"]).query("cursor", cursor)).await
    }

    /// Joins a group that is open to anybody.
    pub async fn join_chat(&self, chat: &str) -> Result<Chat, Error> {
        self.ask(self.call(Method::POST, &["chats", chat, "join"])).await
    }

    pub async fn create_invite(&self, chat: &str, invite: &NewInvite) -> Result<Invite, Error> {
        self.ask(self.call(Method::POST, &["chats", chat, "invites"]).json(invite)).await
    }

    /// Latest first, without those that are spent or expired.
    pub async fn list_invites(
        &self,
        chat: &str,
        cursor: Option<&str>,
    ) -> Result<InvitePage, Error> {
        self.ask(self.call(Method::GET, &["chats", chat, "invites"]).query("cursor", cursor)).await
    }

    /// Withdraws an invitation.
    pub async fn delete_invite(&self, chat: &str, invite_id: Uuid) -> Result<(), Error> {
        let id = invite_id.to_string();
        self.done(self.call(Method::DELETE, &["chats", chat, "invites", &id])).await
    }

    /// Joins the group of an invitation.
    pub async fn accept_invite(&self, code: &str) -> Result<Chat, Error> {
        self.ask(self.call(Method::POST, &["invites", code])).await
    }

    /// Who has read a message, in a chat of up to 1,000 members.
    pub async fn list_readers(
        &self,
        chat: &str,
        id: MessageId,
        cursor: Option<&str>,
    ) -> Result<ReaderPage, Error> {
        let id = id.to_string();
        let call = self.call(Method::GET, &["chats", chat, "messages", &id, "readers"]);
        self.ask(call.query("cursor", cursor)).await
    }

    fn member(&self, method: Method, chat: &str, list: &str, user_id: &UserId) -> Call {
        self.call(method, &["chats", chat, list, user_id.as_str()])
    }
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}
