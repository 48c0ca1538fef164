//! Chats: `/api/v1/chats/`.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use beseda_protocol::{
    bounds::MAX_QUERY_CHARS,
    rest::{ChatPage, MarkRead, NewChat, OpenedChat, ReadResult, SearchPage, UnreadSummary},
};

use super::extract::{AuthUser, ChatPath, JsonBody, OptionalJsonBody, QueryParams};
use crate::{
    chat::ChatRef,
    context::Context,
    error::Error,
    input::Fields,
    model::{Chat, ChatId, Time, UserId},
};

/// Estimated bytes of a chat's counter as JSON.
const BYTES_OF_A_COUNTER: usize = 160;

/// Opens or finds the chat of two users; concurrent calls get the same chat.
#[utoipa::path(post, path = "/chats/", tag = "chats", request_body = NewChat, responses(
    (status = 201, description = "Created", body = OpenedChat),
    (status = 200, description = "It was there already", body = OpenedChat),
))]
pub(super) async fn open_chat(
    State(context): State<Context>,
    user: AuthUser,
    JsonBody(fields): JsonBody,
) -> Result<Response, Error> {
    let (first, second) = pair(fields, &user)?;
    let (chat, created) =
        context.chats.open_chat([&first, &second], user.id(), user.0.admin).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(OpenedChat { chat, created })).into_response())
}

fn pair(mut fields: Fields, user: &AuthUser) -> Result<(UserId, UserId), Error> {
    const NOT_AN_ID: &str = "must have 1 to 128 characters, none of them a control character";
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
    let other =
        fields.required_string("user_id", |raw| UserId::parse(raw).map(|_| ()).ok_or(NOT_AN_ID));
    fields.finish()?;
    let other = other.and_then(|raw| UserId::parse(&raw));
    Ok((user.id().clone(), other.ok_or_else(|| Error::field("user_id", NOT_AN_ID))?))
}

/// Lists the caller's chats, latest activity first.
#[utoipa::path(get, path = "/chats/", tag = "chats", params(
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "30 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, latest activity first", body = ChatPage),
))]
pub(super) async fn list_chats(
    State(context): State<Context>,
    user: AuthUser,
    QueryParams(mut params): QueryParams,
) -> Result<Json<ChatPage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(30);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_cursor).transpose()?;
    let (results, next) = context.chats.list_chats(user.id(), after, limit).await?;
    Ok(Json(ChatPage { results, next: next.map(write_cursor) }))
}

/// Encodes a cursor: the activity in microseconds since 1970, then the chat's id.
pub(crate) fn write_cursor((activity, chat_id): (Time, ChatId)) -> String {
    let mut bytes = activity.0.as_microsecond().to_be_bytes().to_vec();
    bytes.extend_from_slice(chat_id.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn read_cursor(raw: &str) -> Result<(Time, ChatId), Error> {
    const UNREADABLE: Error = Error::InvalidRequest("This cursor is none of ours.");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(raw).map_err(|_| UNREADABLE)?;
    let (micros, id) = bytes.split_first_chunk::<8>().ok_or(UNREADABLE)?;
    let activity = Time::from_micros(i64::from_be_bytes(*micros)).ok_or(UNREADABLE)?;
    Ok((activity, ChatId::from_slice(id).map_err(|_| UNREADABLE)?))
}

/// Reads a chat.
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
    Ok(Json(context.chats.get_chat(user.id(), chat_id).await?))
}

/// Deletes a chat with all its messages, for both members.
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
    context.chats.delete_chat(user.id(), user.0.admin, chat_id).await?;
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

/// Finds messages in a chat, newest first.
#[utoipa::path(get, path = "/chats/{chat}/search/", tag = "chats", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("query" = String, Query, min_length = 1, max_length = 256,
     description = "Words that must all occur, `\"a phrase\"`, `-without`"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 50, description = "20 where not given"),
    ("before" = Option<i64>, Query, minimum = 1, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, newest first", body = SearchPage),
))]
pub(super) async fn search(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<SearchPage>, Error> {
    let query = params.string("query").unwrap_or_default();
    if query.is_empty() || query.chars().count() > MAX_QUERY_CHARS {
        params.refuse("query", "must have 1 to 256 characters");
    }
    let limit = params.integer("limit", 1, 50).unwrap_or(20);
    let before = params.integer("before", 1, i64::MAX);
    params.finish()?;
    let limit = usize::try_from(limit).unwrap_or(20);
    Ok(Json(context.chats.search(user.id(), chat_id, &query, before, limit).await?))
}
