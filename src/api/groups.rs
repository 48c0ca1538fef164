//! Groups: what `POST /api/v1/chats/` takes for one, changes, and one's own settings of any chat.

use axum::{Json, extract::State};
use beseda_protocol::{
    bounds::{
        MAX_METADATA_BYTES, MAX_NAMED_MEMBERS, MAX_SLOW_MODE_SECONDS, MAX_TITLE_CHARS,
        check_client_msg_id,
    },
    rest::{ChatChange, NewSettings, OwnSettings},
};

use super::{
    extract::{AnyChatPath, AuthUser, ChatPath, JsonBody},
    users::check_avatar_url,
};
use crate::{
    chat::GroupDraft,
    context::Context,
    error::Error,
    input::Fields,
    model::{Chat, GroupSettings},
};

/// Parses a group. `idempotency_key` is the header of that name, an alternative to `client_chat_id`.
pub(super) fn parse_group(
    mut fields: Fields,
    user: &AuthUser,
    idempotency_key: Option<&str>,
) -> Result<GroupDraft, Error> {
    let title = fields.required_string("title", check_title);
    let avatar_url = fields.optional_string("avatar_url", check_avatar_url);
    let metadata = fields.object("metadata", MAX_METADATA_BYTES);
    let settings = settings(&mut fields);
    let members = fields.optional_user_ids("user_ids", MAX_NAMED_MEMBERS);
    // Bounded as the id of a message is.
    let mut client_chat_id = fields.optional_string("client_chat_id", check_client_msg_id);
    if let (None, Some(key)) = (&client_chat_id, idempotency_key) {
        match check_client_msg_id(key) {
            Ok(()) => client_chat_id = Some(key.to_owned()),
            Err(reason) => fields.refuse("Idempotency-Key", reason),
        }
    }
    let has_owner = fields.has("owner_id");
    if user.0.admin && !has_owner {
        fields.refuse("owner_id", "is required");
    }
    let owner = fields.optional_user_id("owner_id");
    fields.finish()?;
    let owner = owner.unwrap_or_else(|| user.id().clone());
    if owner != *user.id() {
        user.require_admin()?;
    }
    Ok(GroupDraft {
        owner,
        title: title.unwrap_or_default(),
        avatar_url,
        metadata,
        settings: settings.unwrap_or_default().over(GroupSettings::default()),
        members: members.unwrap_or_default(),
        client_chat_id,
    })
}

fn check_title(title: &str) -> Result<(), &'static str> {
    let fits = (1..=MAX_TITLE_CHARS).contains(&title.chars().count()) && !title.contains('\0');
    fits.then_some(()).ok_or("must have 1 to 200 characters, none of them U+0000")
}

/// Takes the settings, if present.
fn settings(fields: &mut Fields) -> Option<NewSettings> {
    let mut given = fields.optional_fields("settings")?;
    let slow_mode_s = given.bounded_integer("slow_mode_s", 0, MAX_SLOW_MODE_SECONDS.into());
    let settings = NewSettings {
        post: given.optional_word("post", "members or admins"),
        invite: given.optional_word("invite", "admins or members"),
        history: given.optional_word("history", "all or joined"),
        join: given.optional_word("join", "invite or open"),
        slow_mode_s: slow_mode_s.and_then(|seconds| i32::try_from(seconds).ok()),
    };
    fields.nest("settings", given);
    Some(settings)
}

/// Changes a group; its owner, its admins or `chat:admin` only. What is not given stays.
#[utoipa::path(patch, path = "/chats/{chat}/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), request_body = ChatChange, responses(
    (status = 200, description = "As it is now", body = Chat),
))]
pub(super) async fn change_chat(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Chat>, Error> {
    let change = ChatChange {
        // Null is no title.
        title: if fields.is_given("title") {
            fields.required_string("title", check_title)
        } else {
            None
        },
        avatar_url: fields
            .clearable("avatar_url", |fields, name| fields.optional_string(name, check_avatar_url)),
        metadata: fields
            .clearable("metadata", |fields, name| fields.object(name, MAX_METADATA_BYTES)),
        settings: settings(&mut fields),
    };
    fields.finish()?;
    Ok(Json(context.chats.change_group(user.caller(), chat_id, &change).await?))
}

/// Changes the caller's own settings of a chat. Only their own sockets are told.
#[utoipa::path(patch, path = "/chats/{chat}/me/", tag = "chats", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), request_body = OwnSettings, responses(
    (status = 200, description = "As it is now", body = Chat),
))]
pub(super) async fn change_own_settings(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Chat>, Error> {
    let settings = OwnSettings {
        notify: fields.optional_word("notify", "all, mentions or none"),
        pinned: fields.optional_bool("pinned"),
        archived: fields.optional_bool("archived"),
    };
    fields.finish()?;
    Ok(Json(context.chats.set_own(user.id(), chat_id, &settings).await?))
}

/// Joins an open group. A member's repeat changes nothing.
#[utoipa::path(post, path = "/chats/{chat}/join/", tag = "groups", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), responses(
    (status = 200, description = "The caller is a member", body = Chat),
))]
pub(super) async fn join_group(
    State(context): State<Context>,
    user: AuthUser,
    AnyChatPath(chat_id): AnyChatPath,
) -> Result<Json<Chat>, Error> {
    Ok(Json(context.chats.join_group(user.id(), chat_id).await?))
}
