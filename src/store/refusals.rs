//! The errors that the writing functions name.

use std::time::Duration;

use super::{row::Row, rows::opt_time};
use crate::error::Error;

/// Reads what a function gives instead of `ok`. `row` has `wait` and `wait_s` (seconds from now) where the
/// function says how long a refusal lasts.
pub(super) fn refusal(outcome: &str, row: &Row) -> Error {
    match outcome {
        "silenced" => match opt_time(row, "wait") {
            Some(until) => Error::Silenced { until },
            None => Error::Forbidden("You may not post in this chat."),
        },
        "slow_mode" => {
            let wait: Option<f64> = row.get("wait_s");
            let retry_after = Duration::try_from_secs_f64(wait.unwrap_or_default());
            Error::SlowMode { retry_after: retry_after.unwrap_or_default() }
        }
        outcome => lasting(outcome),
    }
}

/// The same for functions whose refusals have no end.
pub(super) fn lasting(outcome: &str) -> Error {
    match outcome {
        "message_not_found" => Error::MessageNotFound,
        "member_not_found" => Error::MemberNotFound,
        "invite_not_found" => Error::InviteNotFound,
        "user_not_found" => Error::UserNotFound,
        "chat_full" => Error::ChatFull,
        "banned" => Error::Banned,
        "not_author" => Error::NotAuthor,
        "blocked" => Error::Blocked,
        "erased" => Error::Forbidden("The other person's account is gone."),
        "forbidden" => Error::Forbidden("You may not do this in this chat."),
        "forbidden_post" => Error::Forbidden("Only the chat's owner and admins may post."),
        "forbidden_all" => {
            Error::Forbidden("In a chat of this size only owner and admins may mention everybody.")
        }
        "too_many_emojis" => Error::LimitReached("A message takes 20 different emojis at most."),
        "too_many_pins" => Error::LimitReached("A chat has 100 pinned messages at most."),
        "attachment_not_found" => Error::AttachmentNotFound,
        "reply_not_found" => {
            Error::field("reply_to", "must be a message of this chat that you may see")
        }
        "empty_text" => Error::field("text", "must not be empty without attachments"),
        "idempotency_mismatch" => Error::IdempotencyMismatch,
        _ => Error::ChatNotFound,
    }
}
