//! Members: `/api/v1/chats/{chat}/members/`.

use axum::{Json, extract::State, http::StatusCode};
use beseda_protocol::{
    bounds::{MAX_NAME_CHARS, MAX_NAMED_MEMBERS},
    rest::{AddedMembers, MemberChange, MemberPage, NewMembers},
};

use super::{
    cursor::{read_member_cursor, write_member_cursor},
    extract::{AuthUser, BulkJsonBody, ChatPath, JsonBody, MemberPath, QueryParams},
};
use crate::{
    chat::Members,
    context::Context,
    error::Error,
    model::{Member, Role},
    store::MemberFilter,
};

/// Lists the members of a chat.
#[utoipa::path(get, path = "/chats/{chat}/members/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "50 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ("role" = Option<Role>, Query, description = "Only members with this role"),
    ("query" = Option<String>, Query, max_length = 256,
     description = "Only members whose name or id begins so"),
), responses(
    (status = 200, description = "A page: the owner, admins, then by joining", body = MemberPage),
))]
pub(super) async fn list_members(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<MemberPage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(50);
    let cursor = params.string("cursor");
    let role = params.word("role", "owner, admin or member");
    let query = params.string("query").filter(|query| !query.is_empty());
    if query.as_ref().is_some_and(|it| it.chars().count() > MAX_NAME_CHARS || it.contains('\0')) {
        params.refuse("query", "must have 256 characters at most, none of them U+0000");
    }
    params.finish()?;
    let after = cursor.as_deref().map(read_member_cursor).transpose()?;
    let filter = MemberFilter { role, query: query.as_deref() };
    let Members { members, next, member_count } =
        context.chats.list_members(user.caller(), chat_id, filter, after.as_ref(), limit).await?;
    let next = next.as_ref().map(write_member_cursor);
    Ok(Json(MemberPage { results: members, next, member_count }))
}

/// Adds up to 1,000 users to a group: its owner and admins, and plain members where its settings let
/// them. Repeating it does no harm.
#[utoipa::path(post, path = "/chats/{chat}/members/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), request_body = NewMembers, responses(
    (status = 200, description = "Who was added, who was there, who was refused and why",
     body = AddedMembers),
))]
pub(super) async fn add_members(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    BulkJsonBody(mut fields): BulkJsonBody,
) -> Result<Json<AddedMembers>, Error> {
    if !fields.has("user_ids") {
        fields.refuse("user_ids", "is required");
    }
    let users = fields.optional_user_ids("user_ids", MAX_NAMED_MEMBERS);
    if users.as_ref().is_some_and(Vec::is_empty) {
        fields.refuse("user_ids", "must have 1 to 1000 items");
    }
    let role = fields.optional_word("role", "member or admin");
    if role == Some(Role::Owner) {
        fields.refuse("role", "must be member or admin");
    }
    fields.finish()?;
    let (users, role) = (users.unwrap_or_default(), role.unwrap_or(Role::Member));
    Ok(Json(context.chats.add_members(user.caller(), chat_id, &users, role).await?))
}

/// Changes a member's role, or silences them. `"role":"owner"` hands the group over: by its owner or
/// `chat:admin` only.
#[utoipa::path(patch, path = "/chats/{chat}/members/{user_id}/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("user_id" = String, Path),
), request_body = MemberChange, responses(
    (status = 200, description = "As they are now", body = Member),
))]
pub(super) async fn change_member(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MemberPath(user_id): MemberPath,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Member>, Error> {
    let change = MemberChange {
        role: fields.optional_word("role", "owner, admin or member"),
        silenced_until: fields.clearable("silenced_until", |fields, name| fields.future_time(name)),
    };
    fields.finish()?;
    Ok(Json(context.chats.set_member(user.caller(), chat_id, &user_id, &change).await?))
}

/// Removes a member from a group. By oneself it is leaving: an owner's place goes to the admin, else the
/// member, who joined first; a group that its last member leaves is deleted.
#[utoipa::path(delete, path = "/chats/{chat}/members/{user_id}/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("user_id" = String, Path),
), responses(
    (status = 204, description = "No member, now or before"),
))]
pub(super) async fn remove_member(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MemberPath(user_id): MemberPath,
) -> Result<StatusCode, Error> {
    context.chats.remove_member(user.caller(), chat_id, &user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
