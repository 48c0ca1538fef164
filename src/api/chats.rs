//! Chats: `/api/v1/chats/`.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use beseda_protocol::rest::{ChatPage, MarkRead, NewChat, OpenedChat, ReadResult, UnreadSummary};

use super::{
    cursor::{read_chat_cursor, write_chat_cursor},
    extract::{AuthUser, BulkJsonBody, ChatPath, OptionalJsonBody, QueryParams, idempotency_key},
    groups,
};
use crate::{
    chat::ChatRef,
    context::Context,
    error::Error,
    input::{Fields, NOT_A_USER_ID, check_user_id},
    model::{Chat, ChatKind, UserId},
    store::ChatFilter,
};

/// Estimated bytes of a chat's counter as JSON.
const BYTES_OF_A_COUNTER: usize = 200;

/// Opens or finds the chat of two users, or creates a group. Concurrent calls about two users get the
/// same chat; so do calls for a group by one caller with the same `client_chat_id`.
#[utoipa::path(post, path = "/chats/", tag = "chats", params(
    ("Idempotency-Key" = Option<String>, Header, description = "In place of `client_chat_id`"),
), request_body = NewChat, responses(
    (status = 201, description = "Created", body = OpenedChat),
    (status = 200, description = "It was there already", body = OpenedChat),
))]
pub(super) async fn open_chat(
    State(context): State<Context>,
    user: AuthUser,
    headers: HeaderMap,
    BulkJsonBody(mut fields): BulkJsonBody,
) -> Result<Response, Error> {
    let (chat, created) = match fields.optional_word("kind", "direct or group") {
        Some(ChatKind::Group) => {
            let draft = groups::parse_group(fields, &user, idempotency_key(&headers)?)?;
            context.chats.create_group(user.caller(), &draft).await?
        }
        // An unknown word is refused with the other fields at fault.
        Some(ChatKind::Direct) | None => {
            let (first, second) = pair(fields, &user)?;
            context.chats.open_direct([&first, &second], user.id(), user.0.admin).await?
        }
    };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(OpenedChat { chat, created })).into_response())
}

fn pair(mut fields: Fields, user: &AuthUser) -> Result<(UserId, UserId), Error> {
    if fields.has("user_ids") {
        user.require_admin()?;
        let both = fields.optional_strings("user_ids").unwrap_or_default();
        fields.finish()?;
        let ids: Vec<UserId> = both.iter().filter_map(|raw| UserId::parse(raw)).collect();
        return match (ids.as_slice(), both.len()) {
            ([first, second], 2) => Ok((first.clone(), second.clone())),
            _ => Err(Error::field("user_ids", "must be two user ids")),
        };
    }
    let other = fields.required_string("user_id", check_user_id);
    fields.finish()?;
    let other = other.and_then(|raw| UserId::parse(&raw));
    Ok((user.id().clone(), other.ok_or_else(|| Error::field("user_id", NOT_A_USER_ID))?))
}

/// Lists the caller's chats: pinned ones first, then latest activity first. Archived ones are listed by
/// `filter=archived` only.
#[utoipa::path(get, path = "/chats/", tag = "chats", params(
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "30 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ("filter" = Option<String>, Query, description = "`unread`, `archived` or `pinned`"),
), responses(
    (status = 200, description = "A page, pinned first, then latest activity first", body = ChatPage),
))]
pub(super) async fn list_chats(
    State(context): State<Context>,
    user: AuthUser,
    QueryParams(mut params): QueryParams,
) -> Result<Json<ChatPage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(30);
    let cursor = params.string("cursor");
    let filter = match params.string("filter").as_deref() {
        None => ChatFilter::All,
        Some("unread") => ChatFilter::Unread,
        Some("archived") => ChatFilter::Archived,
        Some("pinned") => ChatFilter::Pinned,
        Some(_) => {
            params.refuse("filter", "must be unread, archived or pinned");
            ChatFilter::All
        }
    };
    params.finish()?;
    let after = cursor.as_deref().map(read_chat_cursor).transpose()?;
    let (results, next) = context.chats.list_chats(user.id(), filter, after, limit).await?;
    Ok(Json(ChatPage { results, next: next.map(write_chat_cursor) }))
}

/// Reads a chat. With `chat:admin` any chat, without its last message.
#[utoipa::path(get, path = "/chats/{chat}/", tag = "chats", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), responses(
    (status = 200, description = "The chat, as the caller sees it", body = Chat),
))]
pub(super) async fn get_chat(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
) -> Result<Json<Chat>, Error> {
    Ok(Json(context.chats.get_chat(user.caller(), chat_id).await?))
}

/// Deletes a chat with all its messages, for all members: a group by its owner only.
#[utoipa::path(delete, path = "/chats/{chat}/", tag = "chats", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), responses(
    (status = 204, description = "Gone"),
))]
pub(super) async fn delete_chat(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
) -> Result<StatusCode, Error> {
    context.chats.delete_chat(user.caller(), chat_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads the unread counters of all chats.
#[utoipa::path(get, path = "/chats/unread/", tag = "chats", responses(
    (status = 200, description = "Every chat of the caller, latest activity first", body = UnreadSummary),
))]
pub(super) async fn get_unread(
    State(context): State<Context>,
    user: AuthUser,
) -> Result<Response, Error> {
    let summary = context.chats.get_unread(user.id()).await?;
    // Allocated once: `Json` begins with 128 bytes and would copy hundreds of chats at each
    // doubling.
    let mut body = Vec::with_capacity(BYTES_OF_A_COUNTER * (1 + summary.chats.len()));
    serde_json::to_writer(&mut body, &summary).expect("memory takes any text");
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Moves the caller's read marker forward.
#[utoipa::path(post, path = "/chats/{chat}/mark_read/", tag = "chats", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), request_body(content = Option<MarkRead>), responses(
    (status = 200, description = "Where the marker and the counters stand now", body = ReadResult),
))]
pub(super) async fn mark_read(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    OptionalJsonBody(mut fields): OptionalJsonBody,
) -> Result<Json<ReadResult>, Error> {
    let room_name = fields.optional_string("room_name", |_| Ok(()));
    let up_to_seq = fields.optional_integer("up_to_seq", 0);
    fields.finish()?;
    if let Some(name) = room_name {
        // An invalid name cannot be this chat's name.
        let named = match ChatRef::parse(&name) {
            Some(chat @ ChatRef::RoomName(_)) => {
                match context.chats.resolve(&chat, Some(user.id())).await {
                    Ok(named) => Some(named),
                    Err(Error::ChatNotFound) => None,
                    Err(error) => return Err(error),
                }
            }
            _ => None,
        };
        if named != Some(chat_id) {
            // Membership first, so that others learn nothing about the chat.
            context.chats.get_head(user.id(), chat_id).await?;
            return Err(Error::RoomMismatch);
        }
    }
    Ok(Json(context.chats.mark_read(user.id(), chat_id, up_to_seq).await?))
}
