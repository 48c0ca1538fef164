//! Cursors of lists: where a page ended, in base64url. Clients pass them on as they are.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use uuid::Uuid;

use super::sync::{read_sync_cursor, write_sync_cursor};
use crate::{
    chat::parse_emoji,
    error::Error,
    model::{Role, Time, UserId},
    store::{ChatCursor, MemberCursor, MessageCursor, UserReaction},
};

pub(super) const UNREADABLE: Error = Error::InvalidRequest("This cursor is none of ours.");

/// Encodes a time, in microseconds since 1970, and an id.
pub(crate) fn write_cursor((time, id): (Time, Uuid)) -> String {
    let mut bytes = time_bytes(time).to_vec();
    bytes.extend_from_slice(id.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn read_cursor(raw: &str) -> Result<(Time, Uuid), Error> {
    read_position(&decode(raw)?)
}

/// Encodes whether the last chat was pinned, its activity, and its id.
pub(super) fn write_chat_cursor(cursor: ChatCursor) -> String {
    let ChatCursor { pinned, activity, chat_id } = cursor;
    let mut bytes = vec![pinned.into()];
    bytes.extend_from_slice(&time_bytes(activity));
    bytes.extend_from_slice(chat_id.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read_chat_cursor(raw: &str) -> Result<ChatCursor, Error> {
    let bytes = decode(raw)?;
    let (pinned, position) = bytes.split_first().ok_or(UNREADABLE)?;
    let pinned = match pinned {
        0 => false,
        1 => true,
        _ => return Err(UNREADABLE),
    };
    let (activity, chat_id) = read_position(position)?;
    Ok(ChatCursor { pinned, activity, chat_id })
}

/// Encodes the last member's role, the revision with which they joined, and their id.
pub(super) fn write_member_cursor(cursor: &MemberCursor) -> String {
    let MemberCursor { role, joined_ev, user_id } = cursor;
    let mut bytes = vec![match role {
        Role::Member => 0,
        Role::Admin => 1,
        Role::Owner => 2,
    }];
    bytes.extend_from_slice(&joined_ev.to_be_bytes());
    bytes.extend_from_slice(user_id.as_str().as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read_member_cursor(raw: &str) -> Result<MemberCursor, Error> {
    let bytes = decode(raw)?;
    let (role, rest) = bytes.split_first().ok_or(UNREADABLE)?;
    let role = match role {
        0 => Role::Member,
        1 => Role::Admin,
        2 => Role::Owner,
        _ => return Err(UNREADABLE),
    };
    let (joined_ev, user_id) = rest.split_first_chunk::<8>().ok_or(UNREADABLE)?;
    let joined_ev = i64::from_be_bytes(*joined_ev);
    Ok(MemberCursor { role, joined_ev, user_id: read_user(user_id)? })
}

/// Encodes when the last message was sent, its chat and its number.
pub(super) fn write_message_cursor(cursor: MessageCursor) -> String {
    let MessageCursor { created_at, chat_id, seq } = cursor;
    let mut bytes = time_bytes(created_at).to_vec();
    bytes.extend_from_slice(chat_id.as_bytes());
    bytes.extend_from_slice(&seq.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read_message_cursor(raw: &str) -> Result<MessageCursor, Error> {
    let bytes = decode(raw)?;
    let (rest, seq) = bytes.split_last_chunk::<8>().ok_or(UNREADABLE)?;
    let (created_at, chat_id) = read_position(rest)?;
    Ok(MessageCursor { created_at, chat_id, seq: i64::from_be_bytes(*seq) })
}

/// Encodes when the last message was pinned, and its number.
pub(super) fn write_pin_cursor(pinned_at: Time, seq: i64) -> String {
    let mut bytes = time_bytes(pinned_at).to_vec();
    bytes.extend_from_slice(&seq.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read_pin_cursor(raw: &str) -> Result<(Time, i64), Error> {
    let bytes = decode(raw)?;
    let (pinned_at, seq) = read_time(&bytes)?;
    let seq = seq.try_into().map_err(|_| UNREADABLE)?;
    Ok((pinned_at, i64::from_be_bytes(seq)))
}

/// Encodes when the last user reacted, their id, and with what, which has no control character.
pub(super) fn write_reaction_cursor(last: &UserReaction) -> String {
    let UserReaction { emoji, user_id, created_at } = last;
    let mut bytes = named_bytes(*created_at, user_id);
    bytes.push(b'\t');
    bytes.extend_from_slice(emoji.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read_reaction_cursor(raw: &str) -> Result<UserReaction, Error> {
    let bytes = decode(raw)?;
    let (created_at, rest) = read_time(&bytes)?;
    let rest = std::str::from_utf8(rest).map_err(|_| UNREADABLE)?;
    let (user_id, emoji) = rest.split_once('\t').ok_or(UNREADABLE)?;
    let emoji = parse_emoji(emoji).ok().filter(|read| read == emoji).ok_or(UNREADABLE)?;
    Ok(UserReaction { emoji, user_id: read_user(user_id.as_bytes())?, created_at })
}

/// Encodes a time, and a user's id.
pub(super) fn write_named_cursor(time: Time, user_id: &UserId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(named_bytes(time, user_id))
}

pub(super) fn read_named_cursor(raw: &str) -> Result<(Time, UserId), Error> {
    read_named(&decode(raw)?)
}

/// Encodes an id.
pub(super) fn write_id_cursor(id: Uuid) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(id.as_bytes())
}

pub(super) fn read_id_cursor(raw: &str) -> Result<Uuid, Error> {
    Uuid::from_slice(&decode(raw)?).map_err(|_| UNREADABLE)
}

/// Encodes a user's id.
pub(super) fn write_user_cursor(user_id: &UserId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(user_id.as_str())
}

pub(super) fn read_user_cursor(raw: &str) -> Result<UserId, Error> {
    read_user(&decode(raw)?)
}

fn decode(raw: &str) -> Result<Vec<u8>, Error> {
    BASE64_URL_SAFE_NO_PAD.decode(raw).map_err(|_| UNREADABLE)
}

fn time_bytes(time: Time) -> [u8; 8] {
    time.0.as_microsecond().to_be_bytes()
}

fn named_bytes(time: Time, user_id: &UserId) -> Vec<u8> {
    let mut bytes = time_bytes(time).to_vec();
    bytes.extend_from_slice(user_id.as_str().as_bytes());
    bytes
}

fn read_position(bytes: &[u8]) -> Result<(Time, Uuid), Error> {
    let (time, id) = read_time(bytes)?;
    Ok((time, Uuid::from_slice(id).map_err(|_| UNREADABLE)?))
}

fn read_named(bytes: &[u8]) -> Result<(Time, UserId), Error> {
    let (time, id) = read_time(bytes)?;
    Ok((time, read_user(id)?))
}

/// Nothing is older than 1970, and Postgres rejects much earlier times.
fn read_time(bytes: &[u8]) -> Result<(Time, &[u8]), Error> {
    let (micros, rest) = bytes.split_first_chunk::<8>().ok_or(UNREADABLE)?;
    Ok((Time::from_micros(i64::from_be_bytes(*micros)).ok_or(UNREADABLE)?, rest))
}

fn read_user(bytes: &[u8]) -> Result<UserId, Error> {
    let id = std::str::from_utf8(bytes).ok().and_then(UserId::parse);
    id.ok_or(UNREADABLE)
}

/// Reads a cursor of each list, and checks that what one accepts is written as it was read.
pub(crate) fn check_all(raw: &str) {
    let again = |written: String| assert_eq!(written, raw);
    if let Ok(position) = read_cursor(raw) {
        again(write_cursor(position));
    }
    if let Ok(cursor) = read_chat_cursor(raw) {
        again(write_chat_cursor(cursor));
    }
    if let Ok(cursor) = read_member_cursor(raw) {
        again(write_member_cursor(&cursor));
    }
    if let Ok((time, user_id)) = read_named_cursor(raw) {
        again(write_named_cursor(time, &user_id));
    }
    if let Ok(id) = read_id_cursor(raw) {
        again(write_id_cursor(id));
    }
    if let Ok(user_id) = read_user_cursor(raw) {
        again(write_user_cursor(&user_id));
    }
    if let Ok(cursor) = read_message_cursor(raw) {
        again(write_message_cursor(cursor));
    }
    if let Ok((pinned_at, seq)) = read_pin_cursor(raw) {
        again(write_pin_cursor(pinned_at, seq));
    }
    if let Ok(last) = read_reaction_cursor(raw) {
        again(write_reaction_cursor(&last));
    }
    if let Ok(cursor) = read_sync_cursor(raw) {
        again(write_sync_cursor(&cursor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let time = Time::from_micros(1_800_000_000_123_456).expect("valid");
        let user_id = UserId::trusted("a b/ё%");
        let chat = ChatCursor { pinned: true, activity: time, chat_id: Uuid::from_u128(7) };
        let member = MemberCursor { role: Role::Admin, joined_ev: 7, user_id: user_id.clone() };
        let reaction =
            UserReaction { emoji: "👍".to_owned(), user_id: user_id.clone(), created_at: time };
        let message = MessageCursor { created_at: time, chat_id: Uuid::from_u128(7), seq: 9 };
        assert_eq!(
            read_reaction_cursor(&write_reaction_cursor(&reaction)).ok(),
            Some(reaction.clone())
        );
        assert_eq!(read_message_cursor(&write_message_cursor(message)).ok(), Some(message));
        assert_eq!(read_pin_cursor(&write_pin_cursor(time, 9)).ok(), Some((time, 9)));
        for raw in [
            write_reaction_cursor(&reaction),
            write_message_cursor(message),
            write_pin_cursor(time, 9),
            write_cursor((time, Uuid::from_u128(7))),
            write_chat_cursor(chat),
            write_member_cursor(&member),
            write_named_cursor(time, &user_id),
            write_id_cursor(Uuid::from_u128(7)),
            write_user_cursor(&user_id),
        ] {
            check_all(&raw);
        }
        assert!(read_chat_cursor(&write_chat_cursor(chat)).is_ok_and(|read| read.pinned));
        let read = read_member_cursor(&write_member_cursor(&member)).expect("readable");
        assert_eq!((read.role, read.user_id), (Role::Admin, user_id));
        for none in ["", "!", "AA", "Ag"] {
            assert!(read_chat_cursor(none).is_err() && read_member_cursor(none).is_err(), "{none}");
        }
    }
}
