//! How each call can fail: the codes, for the OpenAPI document, and an example of each.

use std::time::Duration;

use crate::api::MAX_BODY_BYTES;
use crate::{
    error::{Error, FieldError},
    model::Time,
};

/// Error codes of each call beyond the common ones, by `operationId`.
pub(super) const FAILURES: &[(&str, &[&str])] = &[
    (
        "open_chat",
        &[
            "forbidden",
            "blocked",
            "chat_not_found",
            "user_not_found",
            "chat_full",
            "validation_failed",
            "self_chat",
        ],
    ),
    ("list_chats", &["validation_failed"]),
    ("get_unread", &[]),
    ("get_chat", &["chat_not_found"]),
    ("delete_chat", &["forbidden", "chat_not_found"]),
    ("change_chat", &["forbidden", "chat_not_found", "validation_failed"]),
    ("change_own_settings", &["chat_not_found", "validation_failed"]),
    ("join_group", &["forbidden", "banned", "chat_not_found", "chat_full"]),
    ("list_members", &["chat_not_found", "validation_failed"]),
    ("add_members", &["forbidden", "chat_not_found", "validation_failed"]),
    ("change_member", &["forbidden", "chat_not_found", "member_not_found", "validation_failed"]),
    ("remove_member", &["forbidden", "chat_not_found"]),
    ("ban_member", &["forbidden", "chat_not_found", "user_not_found", "validation_failed"]),
    ("unban_member", &["forbidden", "chat_not_found"]),
    ("list_bans", &["forbidden", "chat_not_found", "validation_failed"]),
    ("create_invite", &["forbidden", "chat_not_found", "validation_failed"]),
    ("list_invites", &["forbidden", "chat_not_found", "validation_failed"]),
    ("delete_invite", &["forbidden", "chat_not_found", "invite_not_found"]),
    ("accept_invite", &["forbidden", "banned", "invite_not_found", "chat_full"]),
    ("mark_read", &["chat_not_found", "room_mismatch", "validation_failed"]),
    ("search", &["chat_not_found", "validation_failed"]),
    ("search_all", &["validation_failed"]),
    ("list_mentions", &["validation_failed"]),
    (
        "add_reaction",
        &[
            "forbidden",
            "blocked",
            "silenced",
            "slow_mode",
            "chat_not_found",
            "message_not_found",
            "limit_reached",
            "validation_failed",
        ],
    ),
    ("remove_reaction", &["forbidden", "chat_not_found", "message_not_found", "validation_failed"]),
    ("list_reactions", &["chat_not_found", "message_not_found", "validation_failed"]),
    (
        "pin_message",
        &["forbidden", "blocked", "chat_not_found", "message_not_found", "limit_reached"],
    ),
    ("unpin_message", &["forbidden", "chat_not_found", "message_not_found"]),
    ("list_pins", &["chat_not_found", "validation_failed"]),
    ("connect_chat", &["chat_not_found"]),
    ("connect_many", &[]),
    ("list_messages", &["chat_not_found", "validation_failed"]),
    (
        "create_message",
        &[
            "forbidden",
            "blocked",
            "silenced",
            "slow_mode",
            "chat_not_found",
            "attachment_not_found",
            "validation_failed",
            "idempotency_mismatch",
        ],
    ),
    (
        "announce_attachment",
        &[
            "forbidden",
            "blocked",
            "silenced",
            "quota_exceeded",
            "chat_not_found",
            "validation_failed",
        ],
    ),
    (
        "get_attachment",
        &["chat_not_found", "attachment_not_found", "range_not_satisfiable", "validation_failed"],
    ),
    ("get_message", &["chat_not_found", "message_not_found"]),
    (
        "edit_message",
        &[
            "forbidden",
            "not_author",
            "blocked",
            "silenced",
            "slow_mode",
            "chat_not_found",
            "message_not_found",
            "validation_failed",
        ],
    ),
    ("delete_message", &["not_author", "chat_not_found", "message_not_found"]),
    ("list_readers", &["too_large", "chat_not_found", "message_not_found", "validation_failed"]),
    ("list_changes", &["chat_not_found", "validation_failed"]),
    ("sync", &["validation_failed"]),
    ("report_message", &["chat_not_found", "message_not_found", "validation_failed"]),
    ("list_reports", &["forbidden", "validation_failed"]),
    ("decide_report", &["forbidden"]),
    (
        "get_reported_attachment",
        &["forbidden", "attachment_not_found", "range_not_satisfiable", "validation_failed"],
    ),
    ("get_user", &["user_not_found"]),
    ("put_user", &["forbidden", "user_not_found", "validation_failed"]),
    ("post_users", &["forbidden", "validation_failed"]),
    ("delete_user", &["forbidden", "user_not_found"]),
    ("revoke_tokens", &["forbidden", "user_not_found"]),
    ("export_user", &["forbidden", "user_not_found"]),
    ("block_user", &["forbidden", "user_not_found", "validation_failed"]),
    ("unblock_user", &["user_not_found"]),
    ("list_blocks", &["validation_failed"]),
    ("get_push", &[]),
    ("list_devices", &[]),
    ("put_device", &["validation_failed"]),
    ("delete_device", &["validation_failed"]),
];

/// Error codes of every call with a token.
pub(super) const ANY_FAILURE: &[&str] = &[
    "invalid_request",
    "unauthenticated",
    "token_expired",
    "token_invalid",
    "rate_limited",
    "internal",
    "unavailable",
    "timeout",
];

/// Error codes of every call with a body.
pub(super) const BODY_FAILURES: &[&str] =
    &["invalid_json", "payload_too_large", "unsupported_media_type", "validation_failed"];

/// Returns an example of each failure.
pub(super) fn failures() -> [Error; 31] {
    let fault = |field: &str, message: &str| FieldError {
        field: field.to_owned(),
        message: message.to_owned(),
    };
    [
        Error::InvalidJson("expected value at line 1 column 1".to_owned()),
        Error::InvalidRequest("This cursor is none of ours."),
        Error::Unauthenticated,
        Error::TokenExpired,
        Error::TokenInvalid("its signature does not fit"),
        Error::Forbidden("This takes a token with the scope chat:admin."),
        Error::NotAuthor,
        Error::Blocked,
        Error::Silenced { until: Time(jiff::Timestamp::constant(1_796_073_600, 0)) },
        Error::SlowMode { retry_after: Duration::from_millis(8_500) },
        Error::TooLarge,
        Error::Banned,
        Error::QuotaExceeded,
        Error::ChatNotFound,
        Error::MessageNotFound,
        Error::UserNotFound,
        Error::MemberNotFound,
        Error::InviteNotFound,
        Error::AttachmentNotFound,
        Error::PayloadTooLarge { limit: MAX_BODY_BYTES },
        Error::RangeNotSatisfiable,
        Error::UnsupportedMediaType,
        Error::RoomMismatch,
        Error::ChatFull,
        Error::LimitReached("A message takes 20 different emojis at most."),
        Error::Validation(vec![fault("limit", "must be an integer from 1 to 100")]),
        Error::SelfChat,
        Error::IdempotencyMismatch,
        Error::RateLimited { retry_after: Duration::from_millis(250) },
        Error::Unavailable(None),
        Error::Timeout,
    ]
}

/// What `forbidden` says in each call, by `operationId`; in the others that the token lacks a scope.
pub(super) const FORBIDDEN: &[(&[&str], &str)] = &[
    (&["create_message", "edit_message"], "The other person's account is gone."),
    (&["announce_attachment"], "This installation takes no attachments."),
    (&["block_user"], "You have blocked as many people as one may."),
    (&["join_group", "accept_invite"], "You have as many chats as one may have."),
    (&["delete_chat"], "You may not delete this chat."),
    (
        &[
            "change_chat",
            "add_members",
            "change_member",
            "remove_member",
            "ban_member",
            "unban_member",
            "list_bans",
            "create_invite",
            "list_invites",
            "delete_invite",
            "add_reaction",
            "remove_reaction",
            "pin_message",
            "unpin_message",
        ],
        "You may not do this in this chat.",
    ),
];

/// An example of an internal failure.
pub(super) fn internal() -> Error {
    Error::internal(std::fmt::Error)
}
