//! Invitations: `/api/v1/chats/{chat}/invites/`, `/api/v1/invites/{code}/`.

use axum::{Json, extract::State, http::StatusCode};
use beseda_protocol::{
    bounds::{INVITE_SECONDS, MAX_INVITE_USES},
    rest::{InvitePage, NewInvite},
};

use super::{
    cursor::{read_id_cursor, write_id_cursor},
    extract::{AuthUser, ChatPath, CodePath, InvitePath, OptionalJsonBody, QueryParams},
};
use crate::{
    context::Context,
    error::Error,
    model::{Chat, Invite},
};

/// Makes an invitation to a group: its owner and admins, and plain members where its settings let them.
/// Whoever knows its code may accept it.
#[utoipa::path(post, path = "/chats/{chat}/invites/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), request_body(content = Option<NewInvite>), responses(
    (status = 201, description = "Made", body = Invite),
))]
pub(super) async fn create_invite(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    OptionalJsonBody(mut fields): OptionalJsonBody,
) -> Result<(StatusCode, Json<Invite>), Error> {
    let (least, most) = INVITE_SECONDS.into_inner();
    let max_uses = fields.bounded_integer("max_uses", 1, MAX_INVITE_USES.into());
    let new = NewInvite {
        expires_in_s: fields.bounded_integer("expires_in_s", least, most),
        max_uses: max_uses.and_then(|uses| i32::try_from(uses).ok()),
    };
    fields.finish()?;
    let invite = context.chats.create_invite(user.caller(), chat_id, &new).await?;
    Ok((StatusCode::CREATED, Json(invite)))
}

/// Lists the invitations to a group that can still be accepted. A plain member sees their own.
#[utoipa::path(get, path = "/chats/{chat}/invites/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "50 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, latest first", body = InvitePage),
))]
pub(super) async fn list_invites(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<InvitePage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(50);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_id_cursor).transpose()?;
    let (results, next) = context.chats.list_invites(user.caller(), chat_id, after, limit).await?;
    Ok(Json(InvitePage { results, next: next.map(write_id_cursor) }))
}

/// Withdraws an invitation. Who has joined with it stays a member.
#[utoipa::path(delete, path = "/chats/{chat}/invites/{invite_id}/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("invite_id" = Uuid, Path),
), responses(
    (status = 204, description = "Withdrawn"),
))]
pub(super) async fn delete_invite(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    InvitePath(invite_id): InvitePath,
) -> Result<StatusCode, Error> {
    context.chats.delete_invite(user.caller(), chat_id, invite_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Accepts an invitation: the caller becomes a member of its group. A member's repeat uses none up.
#[utoipa::path(post, path = "/invites/{code}/", tag = "groups", params(("code" = String, Path)),
responses(
    (status = 200, description = "The caller is a member", body = Chat),
))]
pub(super) async fn accept_invite(
    State(context): State<Context>,
    user: AuthUser,
    CodePath(code): CodePath,
) -> Result<Json<Chat>, Error> {
    Ok(Json(context.chats.accept_invite(user.id(), &code).await?))
}
