//! Bounds on the input of clients. Beyond them the server refuses with `validation_failed`,
//! `payload_too_large` or a close code; a client can check most of them first.

/// Longest `user_id`, in characters.
pub const MAX_USER_ID_CHARS: usize = 128;
/// Longest `text` of a message, in Unicode scalar values.
pub const MAX_TEXT_CHARS: usize = 4_000;
/// Longest `client_msg_id`, in characters.
pub const MAX_CLIENT_MSG_ID_CHARS: usize = 64;
/// Largest `metadata`, in bytes of JSON. A larger one is compacted (without white space and needless
/// escapes) before it is measured and stored.
pub const MAX_METADATA_BYTES: usize = 4 * 1024;
/// Longest name of a user, in characters.
pub const MAX_NAME_CHARS: usize = 256;
/// Longest avatar URL, in characters: browsers and proxies pass on this length everywhere.
pub const MAX_AVATAR_URL_CHARS: usize = 2_048;
/// Longest reason of a report, in characters.
pub const MAX_REASON_CHARS: usize = 1_000;
/// Longest title of a group, in characters.
pub const MAX_TITLE_CHARS: usize = 200;
/// Longest `client_chat_id`, in characters.
pub const MAX_CLIENT_CHAT_ID_CHARS: usize = 64;
/// Most members that one call names.
pub const MAX_NAMED_MEMBERS: usize = 1_000;
/// Most users that a message mentions one by one.
pub const MAX_MENTIONS: usize = 50;
/// Most attachments of a message.
pub const MAX_ATTACHMENTS: usize = 10;
/// Most different emojis on one message.
pub const MAX_EMOJIS: i64 = 20;
/// Longest name of an emoji between its two colons, in characters.
pub const MAX_EMOJI_NAME_CHARS: usize = 64;
/// Most pinned messages of a chat.
pub const MAX_PINS: i64 = 100;
/// Largest group in which any member may mention `all`, in members.
pub const MAX_MEMBERS_MENTIONED_BY_ALL: i32 = 32;
/// Longest time between two messages in slow mode, in seconds (six hours).
pub const MAX_SLOW_MODE_SECONDS: i32 = 21_600;
/// Life of an invitation, in seconds: a minute to a year.
pub const INVITE_SECONDS: std::ops::RangeInclusive<i64> = 60..=31_536_000;
/// Life of an invitation that does not say one, in seconds (a week).
pub const DEFAULT_INVITE_SECONDS: i64 = 604_800;
/// Most uses that an invitation may be bounded to.
pub const MAX_INVITE_USES: i32 = 100_000;
/// Largest group whose readers of a message can be listed, in members.
pub const MAX_MEMBERS_OF_READERS: i32 = 1_000;
/// Largest chat of which is told how many members are online, in members.
pub const MAX_MEMBERS_OF_ONLINE_COUNT: i32 = 1_000;
/// Longest `device_id`, in characters.
pub const MAX_DEVICE_ID_CHARS: usize = 64;
/// Most devices of one user; the one registered longest ago makes room.
pub const MAX_DEVICES: i64 = 20;
/// Longest token of a device, or endpoint of a subscription, in characters: Google's have some 200, and
/// push services are free in theirs.
pub const MAX_PUSH_TOKEN_CHARS: usize = 4_096;
/// Longest `locale`, in characters: RFC 5646 §4.4.1.
pub const MAX_LOCALE_CHARS: usize = 35;
/// Longest search query, in characters.
pub const MAX_QUERY_CHARS: usize = 256;
/// Most users in one bulk request.
pub const MAX_BULK_USERS: usize = 1_000;
/// Largest page of chats, messages or reports, in items.
pub const MAX_PAGE: i64 = 100;

/// Largest request body, in bytes: 4,000 characters of four bytes, escaped, with metadata.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Largest body of a bulk request, in bytes.
pub const MAX_BULK_BODY_BYTES: usize = 1024 * 1024;
/// Largest frame that a client may send, in bytes: fits a text of 4,000 four-byte characters, escaped,
/// and its metadata.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Longest `id` of a command, in bytes of JSON.
pub const MAX_COMMAND_ID_BYTES: usize = 256;
/// Most changes that a resume replays. A client further behind receives `reset` and reads the history
/// again, which costs both sides less.
pub const MAX_REPLAY: i64 = 10_000;

/// Checks a message's text: 1 to [`MAX_TEXT_CHARS`] characters, not only white space, no U+0000.
///
/// ```
/// use beseda_protocol::bounds::{MAX_TEXT_CHARS, check_text};
///
/// assert_eq!(check_text("Привет!"), Ok(()));
/// assert!(check_text(" \n").is_err());
/// assert!(check_text(&"x".repeat(MAX_TEXT_CHARS + 1)).is_err());
/// ```
///
/// # Errors
/// The message that the server would give for the field `text`.
pub fn check_text(text: &str) -> Result<(), &'static str> {
    // A character has four bytes at most, so a longer text need not be counted.
    if text.len() > MAX_TEXT_CHARS * 4 || text.chars().count() > MAX_TEXT_CHARS {
        Err("must have 4000 characters at most")
    } else if text.contains('\0') {
        Err("must not contain U+0000")
    } else if text.trim().is_empty() {
        Err("must not be empty or only white space")
    } else {
        Ok(())
    }
}

/// Checks the text of a message with attachments, which may be empty.
///
/// # Errors
/// As [`check_text`].
pub fn check_caption(text: &str) -> Result<(), &'static str> {
    if text.is_empty() { Ok(()) } else { check_text(text) }
}

/// Checks a `client_msg_id`: 1 to [`MAX_CLIENT_MSG_ID_CHARS`] characters, no U+0000.
///
/// ```
/// use beseda_protocol::bounds::check_client_msg_id;
///
/// assert_eq!(check_client_msg_id("c0ffee-1"), Ok(()));
/// assert!(check_client_msg_id("").is_err());
/// ```
///
/// # Errors
/// The message that the server would give for the field `client_msg_id`.
pub fn check_client_msg_id(id: &str) -> Result<(), &'static str> {
    if id.is_empty() || id.chars().count() > MAX_CLIENT_MSG_ID_CHARS {
        Err("must have 1 to 64 characters")
    } else if id.contains('\0') {
        Err("must not contain U+0000")
    } else {
        Ok(())
    }
}
