//! Messages: `/api/v1/chats/{chat}/messages/`.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use beseda_protocol::rest::{Edit, HistoryView, NewMessage, Reader, ReaderPage, Window};

use super::{
    cursor::{read_user_cursor, write_user_cursor},
    extract::{AuthUser, ChatPath, JsonBody, MessagePath, QueryParams, idempotency_key},
};
use crate::{
    chat::{parse_edit, parse_message},
    context::Context,
    error::Error,
    model::Message,
};

/// The end of a new message's JSON.
const NO_REACTIONS: &[u8] = br#","my_reactions":[]}"#;

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Reads a page of the history.
#[utoipa::path(get, path = "/chats/{chat}/messages/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("before" = Option<i64>, Query, minimum = 0, description = "Only below this `seq`"),
    ("after" = Option<i64>, Query, minimum = 0, description = "Only above this `seq`"),
    ("around" = Option<i64>, Query, minimum = 0, description = "On both sides of this `seq`"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "50 where not given"),
), responses(
    (status = 200, description = "A page, ascending by `seq`", body = HistoryView),
))]
pub(super) async fn list_messages(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<HistoryView>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(50);
    // Far beyond any `seq`, and far from overflow when a limit is added.
    const MAX_SEQ: i64 = 1 << 53;
    let before = params.integer("before", 0, MAX_SEQ);
    let after = params.integer("after", 0, MAX_SEQ);
    let around = params.integer("around", 0, MAX_SEQ);
    let window = match (before, after, around) {
        (None, None, None) => Window::Newest,
        (Some(seq), None, None) => Window::Before(seq),
        (None, Some(seq), None) => Window::After(seq),
        (None, None, Some(seq)) => Window::Around(seq),
        _ => {
            params.refuse("before", "give at most one of before, after and around");
            Window::Newest
        }
    };
    params.finish()?;
    Ok(Json(context.chats.get_history(user.id(), chat_id, window, limit).await?))
}

/// Sends a message.
#[utoipa::path(post, path = "/chats/{chat}/messages/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("Idempotency-Key" = Option<String>, Header, description = "In place of `client_msg_id`"),
), request_body = NewMessage, responses(
    (status = 201, description = "Durable", body = Message),
    (status = 200, description = "A retry: the first message as it is now", body = Message,
     headers(("Idempotent-Replayed" = String))),
))]
pub(super) async fn create_message(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    headers: HeaderMap,
    JsonBody(fields): JsonBody,
) -> Result<Response, Error> {
    let new = parse_message(fields, idempotency_key(&headers)?)?;
    let sent = context.chats.send_message(user.id(), chat_id, new).await?;
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(if sent.replayed {
        let replayed = (IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        let message = context.chats.show_message(user.id(), sent.message).await?;
        (StatusCode::OK, [replayed], Json(message)).into_response()
    } else {
        // Encoded already, as it was published: only that nobody has reacted yet is to be added.
        let mut body = Vec::with_capacity(sent.json.len() + NO_REACTIONS.len());
        body.extend_from_slice(sent.json.strip_suffix(b"}").unwrap_or_default());
        body.extend_from_slice(NO_REACTIONS);
        (StatusCode::CREATED, [json], body).into_response()
    })
}

/// Reads a message.
#[utoipa::path(get, path = "/chats/{chat}/messages/{message_id}/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
), responses(
    (status = 200, description = "The message, or its tombstone", body = Message),
))]
pub(super) async fn get_message(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
) -> Result<Json<Message>, Error> {
    Ok(Json(context.chats.get_message(user.id(), chat_id, message_id).await?))
}

/// Lists the members who have read a message, beside its sender; in chats of up to 1,000 members.
#[utoipa::path(get, path = "/chats/{chat}/messages/{message_id}/readers/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "50 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, by `user_id`", body = ReaderPage),
))]
pub(super) async fn list_readers(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<ReaderPage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(50);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_user_cursor).transpose()?;
    let (readers, next, count) =
        context.chats.list_readers(user.id(), chat_id, message_id, after.as_ref(), limit).await?;
    let results = readers.into_iter().map(|user_id| Reader { user_id }).collect();
    Ok(Json(ReaderPage { results, next: next.map(|last| write_user_cursor(&last)), count }))
}

/// Edits a message; its author only. The same text changes nothing.
#[utoipa::path(patch, path = "/chats/{chat}/messages/{message_id}/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
), request_body = Edit, responses(
    (status = 200, description = "As it is now", body = Message),
))]
pub(super) async fn edit_message(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
    JsonBody(fields): JsonBody,
) -> Result<Json<Message>, Error> {
    let edit = parse_edit(fields)?;
    let message = context.chats.edit_message(user.id(), chat_id, message_id, edit).await?;
    Ok(Json(context.chats.show_message(user.id(), message).await?))
}

/// Deletes a message; its author, the owner and the admins of a group, or `chat:admin` only. A tombstone
/// keeps its `seq`.
#[utoipa::path(delete, path = "/chats/{chat}/messages/{message_id}/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
), responses(
    (status = 204, description = "Deleted, now or before"),
))]
pub(super) async fn delete_message(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
) -> Result<StatusCode, Error> {
    context.chats.delete_message(user.id(), user.0.admin, chat_id, message_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
