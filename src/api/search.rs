//! What is found across messages: `/api/v1/chats/{chat}/search/`, `/api/v1/search/`, `/api/v1/mentions/`.

use axum::{Json, extract::State};
use beseda_protocol::{
    bounds::MAX_QUERY_CHARS,
    rest::{MessagePage, SearchAllPage, SearchPage},
};

use super::{
    cursor::{read_message_cursor, write_message_cursor},
    extract::{AuthUser, ChatPath, QueryParams},
};
use crate::{context::Context, error::Error, input::Params, store::MessageCursor};

/// Takes the query of a search, and how many hits a page shall have.
fn wanted(params: &mut Params) -> (String, usize) {
    let query = params.string("query").unwrap_or_default();
    if query.is_empty() || query.chars().count() > MAX_QUERY_CHARS {
        params.refuse("query", "must have 1 to 256 characters");
    }
    let limit = params.integer("limit", 1, 50).unwrap_or(20);
    (query, usize::try_from(limit).unwrap_or(20))
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
    let (query, limit) = wanted(&mut params);
    let before = params.integer("before", 1, i64::MAX);
    params.finish()?;
    Ok(Json(context.chats.search(user.id(), chat_id, &query, before, limit).await?))
}

/// Finds messages in all chats of the caller, newest first.
#[utoipa::path(get, path = "/search/", tag = "messages", params(
    ("query" = String, Query, min_length = 1, max_length = 256,
     description = "Words that must all occur, `\"a phrase\"`, `-without`"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 50, description = "20 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, newest first", body = SearchAllPage),
))]
pub(super) async fn search_all(
    State(context): State<Context>,
    user: AuthUser,
    QueryParams(mut params): QueryParams,
) -> Result<Json<SearchAllPage>, Error> {
    let (query, limit) = wanted(&mut params);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_message_cursor).transpose()?;
    let (results, next, complete) =
        context.chats.search_all(user.id(), &query, after, limit).await?;
    Ok(Json(SearchAllPage { results, next: next.map(write_message_cursor), complete }))
}

/// Lists the messages of all chats that mention the caller, newest first.
#[utoipa::path(get, path = "/mentions/", tag = "messages", params(
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "50 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, newest first", body = MessagePage),
))]
pub(super) async fn list_mentions(
    State(context): State<Context>,
    user: AuthUser,
    QueryParams(mut params): QueryParams,
) -> Result<Json<MessagePage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(50);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_message_cursor).transpose()?;
    let results = context.chats.list_mentions(user.id(), after, limit).await?;
    let last = results.last().filter(|_| results.len() as i64 == limit);
    let next = last.map(|message| {
        let (created_at, chat_id, seq) = (message.created_at, message.chat_id, message.seq);
        write_message_cursor(MessageCursor { created_at, chat_id, seq })
    });
    Ok(Json(MessagePage { results, next }))
}
