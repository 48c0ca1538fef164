//! Reactions and pins: `/api/v1/chats/{chat}/messages/{message_id}/reactions/`, `/api/v1/chats/{chat}/pins/`.

use axum::{Json, extract::State, http::StatusCode};
use beseda_protocol::rest::{MessagePage, ReactionPage, Reactions, UserReaction};

use super::{
    cursor::{read_pin_cursor, read_reaction_cursor, write_pin_cursor, write_reaction_cursor},
    extract::{AuthUser, ChatPath, EmojiPath, MessagePath, QueryParams},
};
use crate::{chat::parse_emoji, context::Context, error::Error};

/// Reacts to a message with an emoji. A repeat changes nothing.
#[utoipa::path(put, path = "/chats/{chat}/messages/{message_id}/reactions/{emoji}/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
    ("emoji" = String, Path, description = "One emoji, or `:name:` with 1 to 64 of `a-z0-9_+-`"),
), responses(
    (status = 200, description = "The message's reactions", body = Reactions),
))]
pub(super) async fn add_reaction(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
    EmojiPath(emoji): EmojiPath,
) -> Result<Json<Reactions>, Error> {
    let reactions = context.chats.set_reaction(user.id(), chat_id, message_id, emoji, true).await?;
    Ok(Json(Reactions { reactions }))
}

/// Takes back one's reaction with an emoji. A repeat changes nothing.
#[utoipa::path(delete, path = "/chats/{chat}/messages/{message_id}/reactions/{emoji}/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
    ("emoji" = String, Path),
), responses(
    (status = 200, description = "The message's reactions", body = Reactions),
))]
pub(super) async fn remove_reaction(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
    EmojiPath(emoji): EmojiPath,
) -> Result<Json<Reactions>, Error> {
    let reactions =
        context.chats.set_reaction(user.id(), chat_id, message_id, emoji, false).await?;
    Ok(Json(Reactions { reactions }))
}

/// Lists who reacted to a message.
#[utoipa::path(get, path = "/chats/{chat}/messages/{message_id}/reactions/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
    ("emoji" = Option<String>, Query, description = "Only with this one"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "50 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, by emoji, then in the order of the reactions", body = ReactionPage),
))]
pub(super) async fn list_reactions(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<ReactionPage>, Error> {
    let emoji = params.string("emoji");
    let emoji = emoji.and_then(|raw| match parse_emoji(&raw) {
        Ok(emoji) => Some(emoji),
        Err(reason) => {
            params.refuse("emoji", reason);
            None
        }
    });
    let limit = params.integer("limit", 1, 100).unwrap_or(50);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_reaction_cursor).transpose()?;
    let reactions = context
        .chats
        .list_reactions(user.id(), chat_id, message_id, emoji.as_deref(), after.as_ref(), limit)
        .await?;
    let next = reactions.last().filter(|_| reactions.len() as i64 == limit);
    let next = next.map(write_reaction_cursor);
    let results = reactions.into_iter().map(|one| {
        let crate::store::UserReaction { emoji, user_id, created_at } = one;
        UserReaction { user_id, emoji, created_at }
    });
    Ok(Json(ReactionPage { results: results.collect(), next }))
}

/// Pins a message: either member of a direct chat, the owner and the admins of a group, or `chat:admin`.
#[utoipa::path(put, path = "/chats/{chat}/pins/{message_id}/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
), responses(
    (status = 204, description = "Pinned, now or before"),
))]
pub(super) async fn pin_message(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
) -> Result<StatusCode, Error> {
    context.chats.set_pin(user.caller(), chat_id, message_id, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Unpins a message.
#[utoipa::path(delete, path = "/chats/{chat}/pins/{message_id}/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
), responses(
    (status = 204, description = "Not pinned, now or before"),
))]
pub(super) async fn unpin_message(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
) -> Result<StatusCode, Error> {
    context.chats.set_pin(user.caller(), chat_id, message_id, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists a chat's pinned messages.
#[utoipa::path(get, path = "/chats/{chat}/pins/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "50 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, the latest pin first", body = MessagePage),
))]
pub(super) async fn list_pins(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<MessagePage>, Error> {
    let limit = params.integer("limit", 1, 100).unwrap_or(50);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_pin_cursor).transpose()?;
    let results = context.chats.list_pins(user.id(), chat_id, after, limit).await?;
    let last = results.last().filter(|_| results.len() as i64 == limit);
    let next = last.and_then(|message| Some(write_pin_cursor(message.pinned_at?, message.seq)));
    Ok(Json(MessagePage { results, next }))
}
