//! Users and blocks: `/api/v1/users/`, `/api/v1/blocks/`.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use beseda_protocol::{
    bounds::{MAX_AVATAR_URL_CHARS, MAX_BULK_USERS, MAX_NAME_CHARS},
    rest::{Block, BlockPage, BulkResult, NewProfile, NewUsers},
};

use super::{
    cursor::{read_named_cursor, write_named_cursor},
    extract::{AuthUser, BulkJsonBody, JsonBody, QueryParams, UserPath},
};
use crate::{
    context::Context,
    error::{Error, FieldErrors},
    input::{Fields, check_user_id},
    model::{Profile, User, UserId},
    store::Named,
};

/// Reads a user: the caller, one who shares a chat with the caller, or for `chat:admin` any user.
#[utoipa::path(get, path = "/users/{user_id}/", tag = "users", params(("user_id" = String, Path)),
responses(
    (status = 200, description = "The person", body = User),
))]
pub(super) async fn get_user(
    State(context): State<Context>,
    user: AuthUser,
    UserPath(user_id): UserPath,
) -> Result<Json<User>, Error> {
    let viewer = (!user.0.admin).then(|| user.id());
    Ok(Json(context.chats.get_user(&user_id, viewer).await?))
}

/// Creates or replaces a user, also one who was erased; `chat:admin` only.
#[utoipa::path(put, path = "/users/{user_id}/", tag = "users", params(("user_id" = String, Path)),
request_body = NewProfile, responses(
    (status = 201, description = "Created", body = User),
    (status = 200, description = "Replaced", body = User),
))]
pub(super) async fn put_user(
    State(context): State<Context>,
    user: AuthUser,
    UserPath(user_id): UserPath,
    JsonBody(mut fields): JsonBody,
) -> Result<(StatusCode, Json<User>), Error> {
    user.require_admin()?;
    let profile = profile(&mut fields, user_id.clone());
    fields.finish()?;
    let created = context.chats.name_user(profile).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(context.chats.get_user(&user_id, None).await?)))
}

/// Creates or replaces up to 1,000 users, except erased ones; `chat:admin` only.
#[utoipa::path(post, path = "/users/", tag = "users", request_body = NewUsers, responses(
    (status = 200, description = "How many were new, replaced, passed over", body = BulkResult),
))]
pub(super) async fn post_users(
    State(context): State<Context>,
    user: AuthUser,
    BulkJsonBody(mut fields): BulkJsonBody,
) -> Result<Json<BulkResult>, Error> {
    user.require_admin()?;
    let items = fields.required_list("users", MAX_BULK_USERS);
    fields.finish()?;
    let mut errors = FieldErrors::default();
    // Of duplicate entries the last counts.
    let mut users = BTreeMap::new();
    for (index, mut item) in items.into_iter().enumerate() {
        let raw = item.required_string("user_id", check_user_id);
        if let Some(user_id) = raw.and_then(|raw| UserId::parse(&raw)) {
            users.insert(user_id.clone(), profile(&mut item, user_id));
        }
        errors.nest(&format!("users[{index}]"), item.into_errors());
    }
    errors.finish()?;
    let users: Vec<Profile> = users.into_values().collect();
    let named = context.chats.name_users(&users).await?;
    let count = |which| named.iter().filter(|named| **named == which).count();
    Ok(Json(BulkResult {
        created: count(Named::Created),
        updated: count(Named::Updated),
        erased: count(Named::Erased),
    }))
}

fn profile(fields: &mut Fields, user_id: UserId) -> Profile {
    let name = |text: &str| {
        let fits = text.chars().count() <= MAX_NAME_CHARS && !text.contains('\0');
        fits.then_some(()).ok_or("must have 256 characters at most")
    };
    Profile {
        user_id,
        name: fields.optional_string("name", name),
        avatar_url: fields.optional_string("avatar_url", check_avatar_url),
    }
}

/// Checks the URL of an avatar, of a user or of a group.
pub(super) fn check_avatar_url(url: &str) -> Result<(), &'static str> {
    let fits = url.chars().count() <= MAX_AVATAR_URL_CHARS && !url.contains('\0');
    fits.then_some(()).ok_or("must have 2048 characters at most")
}

/// Erases a user; the response comes once all their texts are erased; `chat:admin` only.
#[utoipa::path(delete, path = "/users/{user_id}/", tag = "users",
params(("user_id" = String, Path)), responses(
    (status = 204, description = "Erased"),
))]
pub(super) async fn delete_user(
    State(context): State<Context>,
    user: AuthUser,
    UserPath(user_id): UserPath,
) -> Result<StatusCode, Error> {
    user.require_admin()?;
    context.chats.erase_user(&user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Voids a user's tokens: those issued before now are refused, and sockets opened with them are
/// closed; `chat:admin` only. The database's clock counts; a token without `iat` counts as old.
#[utoipa::path(post, path = "/users/{user_id}/revoke_tokens/", tag = "users",
params(("user_id" = String, Path)), responses(
    (status = 204, description = "Revoked"),
))]
pub(super) async fn revoke_tokens(
    State(context): State<Context>,
    user: AuthUser,
    UserPath(user_id): UserPath,
) -> Result<StatusCode, Error> {
    user.require_admin()?;
    context.chats.revoke_tokens(&user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Blocks a user: no new chats, sends or edits between the two, no presence, no typing.
#[utoipa::path(put, path = "/users/{user_id}/block/", tag = "users",
params(("user_id" = String, Path)), responses(
    (status = 204, description = "Blocked, now or before"),
))]
pub(super) async fn block_user(
    State(context): State<Context>,
    user: AuthUser,
    UserPath(user_id): UserPath,
) -> Result<StatusCode, Error> {
    context.chats.block_user(user.id(), &user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the caller's block of a user.
#[utoipa::path(delete, path = "/users/{user_id}/block/", tag = "users",
params(("user_id" = String, Path)), responses(
    (status = 204, description = "Not blocked by the caller"),
))]
pub(super) async fn unblock_user(
    State(context): State<Context>,
    user: AuthUser,
    UserPath(user_id): UserPath,
) -> Result<StatusCode, Error> {
    context.chats.unblock_user(user.id(), &user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the users whom the caller has blocked.
#[utoipa::path(get, path = "/blocks/", tag = "users", params(
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "30 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, latest first", body = BlockPage),
))]
pub(super) async fn list_blocks(
    State(context): State<Context>,
    user: AuthUser,
    QueryParams(mut params): QueryParams,
) -> Result<Json<BlockPage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(30);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_named_cursor).transpose()?;
    let after = after.map(|(created_at, user_id)| (user_id, created_at));
    let (blocks, next) = context.chats.list_blocks(user.id(), after, limit).await?;
    let results =
        blocks.into_iter().map(|(user_id, created_at)| Block { user_id, created_at }).collect();
    let next = next.map(|(user_id, created_at)| write_named_cursor(created_at, &user_id));
    Ok(Json(BlockPage { results, next }))
}
