//! Bans: `/api/v1/chats/{chat}/bans/`.

use axum::{Json, extract::State, http::StatusCode};
use beseda_protocol::rest::{BanPage, NewBan};

use super::{
    cursor::{read_named_cursor, write_named_cursor},
    extract::{AuthUser, ChatPath, MemberPath, OptionalJsonBody, QueryParams, UserPath},
    reports::check_reason,
};
use crate::{context::Context, error::Error, model::Ban};

/// Bans a user from a group, member or not: they are out at once, and can't come in again. A repeat
/// changes the ban.
#[utoipa::path(put, path = "/chats/{chat}/bans/{user_id}/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("user_id" = String, Path),
), request_body(content = Option<NewBan>), responses(
    (status = 200, description = "Banned", body = Ban),
))]
pub(super) async fn ban_member(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    UserPath(user_id): UserPath,
    OptionalJsonBody(mut fields): OptionalJsonBody,
) -> Result<Json<Ban>, Error> {
    let ban = NewBan {
        reason: fields.optional_string("reason", check_reason),
        until: fields.future_time("until"),
    };
    fields.finish()?;
    Ok(Json(context.chats.ban_member(user.caller(), chat_id, &user_id, &ban).await?))
}

/// Lifts a ban. The user does not become a member by that.
#[utoipa::path(delete, path = "/chats/{chat}/bans/{user_id}/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("user_id" = String, Path),
), responses(
    (status = 204, description = "Not banned, now or before"),
))]
pub(super) async fn unban_member(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MemberPath(user_id): MemberPath,
) -> Result<StatusCode, Error> {
    context.chats.unban_member(user.caller(), chat_id, &user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the bans of a group; its owner, its admins or `chat:admin` only.
#[utoipa::path(get, path = "/chats/{chat}/bans/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "50 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, latest first", body = BanPage),
))]
pub(super) async fn list_bans(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<BanPage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(50);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_named_cursor).transpose()?;
    let (results, next) =
        context.chats.list_bans(user.caller(), chat_id, after.as_ref(), limit).await?;
    let next = next.map(|(created_at, user_id)| write_named_cursor(created_at, &user_id));
    Ok(Json(BanPage { results, next }))
}
