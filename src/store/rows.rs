//! Turns rows into objects. Several statements return the same columns, so each group is named once here.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::types::Json;

use super::row::Row;
use crate::model::{
    ChatId, ChatKind, Epoch, LeftReason, Mentions, Message, MessageKind, OwnFlags, Role, Time,
    UserId,
};

/// The columns that [`message`] reads, in its order, of a table named `m`. The prefix keeps them apart from a
/// chat's and a report's.
macro_rules! message_columns {
    () => {
        "m.seq AS m_seq, m.sender_id AS m_sender_id, m.system AS m_system, m.ev AS m_ev, \
         m.message_id AS m_message_id, m.client_msg_id AS m_client_msg_id, m.text AS m_text, \
         m.metadata AS m_metadata, m.mentions AS m_mentions, \
         CASE WHEN m.reply_seq IS NOT NULL THEN (\
             SELECT quote_json(ROW(q.*)::messages) FROM messages q WHERE q.chat_id = m.chat_id AND q.seq = m.reply_seq) END AS m_reply_to, \
         m.attachments AS m_attachments, m.reactions AS m_reactions, m.pinned_at AS m_pinned_at, \
         m.created_at AS m_created_at, m.edited_at AS m_edited_at, m.deleted_at AS m_deleted_at"
    };
}
pub(super) use message_columns;

/// The column that [`message_for`] reads beside those of [`message_columns!`]: the reader's own reactions.
macro_rules! my_reactions {
    ($reader:literal) => {
        concat!(
            "CASE WHEN m.reactions IS NOT NULL THEN ARRAY(
                 SELECT r.emoji FROM reactions r
                  WHERE r.user_id = ",
            $reader,
            " COLLATE \"POSIX\" AND r.chat_id = m.chat_id AND r.seq = m.seq) END AS m_my_reactions"
        )
    };
}
pub(super) use my_reactions;

/// The function `epoch()` as an expression, since a call would be planned with every statement. As a
/// column its name is `epoch`. A standby can't tell its timeline; one that is read from, which the connection says, is
/// asked only while it has the present epoch. On other connections it refuses the statement, as to any write: a primary
/// that became a standby must not be believed.
macro_rules! epoch {
    () => {
        "(SELECT CASE WHEN current_setting('beseda.standby', true) = 'on' THEN seen_epoch
                     ELSE incarnation || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS epoch
            FROM instance)"
    };
}
pub(super) use epoch;

/// A current member's unread messages, from a row with columns of `chats` and one with columns of `members`:
/// `member_state()` as an expression.
macro_rules! unread {
    ($chat:literal, $member:literal) => {
        concat!(
            "(",
            $chat,
            ".last_counted - ",
            $member,
            ".floor_counted - ",
            $member,
            ".own_after
                - CASE WHEN ",
            $chat,
            ".last_dead_seq > ",
            $member,
            ".floor_seq
                       THEN count_dead(",
            $chat,
            ".chat_id, ",
            $member,
            ".floor_seq, ",
            $chat,
            ".dead)
                       ELSE 0 END)"
        )
    };
}
pub(super) use unread;

/// The same for unread messages that mention the member.
macro_rules! unread_mentions {
    ($chat:literal, $member:literal) => {
        concat!(
            "(CASE WHEN greatest(",
            $member,
            ".mention_seq, ",
            $chat,
            ".all_mention_seq) > ",
            $member,
            ".floor_seq THEN count_mentions(",
            $chat,
            ".chat_id, ",
            $member,
            ".user_id, ",
            $member,
            ".floor_seq, ",
            $member,
            ".mention_seq, ",
            $chat,
            ".all_mention_seq) ELSE 0 END)"
        )
    };
}
pub(super) use unread_mentions;

/// Stands for everybody among the users whom a message mentions: it is no user's id.
pub(super) const EVERYBODY: &str = "\u{1}";

/// Reads the column of [`epoch!`].
pub(super) fn epoch_of(row: &Row) -> Epoch {
    row.get::<&str>("epoch").into()
}

/// A user id from the database was checked when it came in.
pub(super) fn user(raw: &str) -> UserId {
    UserId::trusted(raw)
}

pub(super) fn opt_user(row: &Row, column: &str) -> Option<UserId> {
    row.get::<Option<&str>>(column).map(user)
}

/// Reads a `text[]` of user ids; null is none.
pub(super) fn users(row: &Row, column: &str) -> Vec<UserId> {
    let ids = row.get::<Option<Vec<&str>>>(column).unwrap_or_default();
    ids.into_iter().map(user).collect()
}

pub(super) fn time(row: &Row, column: &str) -> Time {
    Time(row.get(column))
}

pub(super) fn opt_time(row: &Row, column: &str) -> Option<Time> {
    row.get::<Option<jiff::Timestamp>>(column).map(Time)
}

pub(super) fn json(row: &Row, column: &str) -> Option<Box<RawValue>> {
    row.get::<Option<Json<Box<RawValue>>>>(column).map(|json| json.0)
}

pub(super) fn chat_kind(raw: &str) -> ChatKind {
    if raw == "group" { ChatKind::Group } else { ChatKind::Direct }
}

pub(super) fn role(raw: &str) -> Role {
    match raw {
        "owner" => Role::Owner,
        "admin" => Role::Admin,
        _ => Role::Member,
    }
}

/// The other way round: a value of the type `member_role`.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

/// Reads what `member_flags` gave; null is the default.
pub(super) fn flags(raw: Option<&str>) -> OwnFlags {
    raw.and_then(OwnFlags::parse).unwrap_or_default()
}

pub(super) fn left_reason(raw: &str) -> LeftReason {
    match raw {
        "removed" => LeftReason::Removed,
        "banned" => LeftReason::Banned,
        "erased" => LeftReason::Erased,
        _ => LeftReason::Left,
    }
}

/// Reads whom a message mentions.
pub(super) fn mentions(row: &Row, column: &str) -> Mentions {
    match row.get::<Option<Vec<&str>>>(column).as_deref() {
        Some([EVERYBODY]) => Mentions::All,
        Some(ids) => Mentions::Users(ids.iter().map(|id| user(id)).collect()),
        None => Mentions::default(),
    }
}

/// Writes whom a message mentions as the writing functions take it: ids divided by U+001F, which no user id
/// holds.
pub(super) fn mentions_param(mentions: &Mentions) -> String {
    match mentions {
        Mentions::All => EVERYBODY.to_owned(),
        Mentions::Users(users) => {
            users.iter().map(UserId::as_str).collect::<Vec<_>>().join("\u{1f}")
        }
    }
}

/// Whether the row has a message: an outer join may have found none.
pub(super) fn has_message(row: &Row) -> bool {
    row.get::<Option<i64>>("m_seq").is_some()
}

/// Reads [`message_columns!`].
pub(super) fn message(chat_id: ChatId, row: &Row) -> Message {
    let seq = row.get("m_seq");
    let sender_id = opt_user(row, "m_sender_id");
    let system = json(row, "m_system");
    Message {
        chat_id,
        seq,
        ev: row.get("m_ev"),
        message_id: row.get("m_message_id"),
        kind: if sender_id.is_some() { MessageKind::Text } else { MessageKind::System },
        sender_id,
        client_msg_id: row.get("m_client_msg_id"),
        text: row.get("m_text"),
        metadata: json(row, "m_metadata"),
        mentions: mentions(row, "m_mentions"),
        // Written by this service, so it can be read.
        system: system.and_then(|json| serde_json::from_str(json.get()).ok()),
        reply_to: carried(row, "m_reply_to"),
        attachments: carried(row, "m_attachments"),
        reactions: carried(row, "m_reactions"),
        pinned_at: opt_time(row, "m_pinned_at"),
        created_at: time(row, "m_created_at"),
        edited_at: opt_time(row, "m_edited_at"),
        deleted_at: opt_time(row, "m_deleted_at"),
        my_reactions: None,
    }
}

/// Reads JSON that this service wrote; null is the default.
pub(super) fn carried<T: Default + for<'a> Deserialize<'a>>(row: &Row, column: &str) -> T {
    row.get::<Option<Json<T>>>(column).map(|json| json.0).unwrap_or_default()
}

/// Reads [`message_columns!`] and [`my_reactions!`].
pub(super) fn message_for(chat_id: ChatId, row: &Row) -> Message {
    let mine = row.get::<Option<Vec<String>>>("m_my_reactions").unwrap_or_default();
    let mut message = message(chat_id, row);
    // In the order of the others.
    let order = message.reactions.iter().map(|reaction| &reaction.emoji);
    message.my_reactions = Some(order.filter(|emoji| mine.contains(emoji)).cloned().collect());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentions_are_written_as_the_functions_take_them() {
        let users = ["a", "b c"].map(UserId::trusted).to_vec();
        assert_eq!(mentions_param(&Mentions::Users(users)), "a\u{1f}b c");
        assert_eq!(mentions_param(&Mentions::All), "\u{1}");
        assert_eq!(mentions_param(&Mentions::default()), "");
    }

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in [Role::Member, Role::Admin, Role::Owner] {
            assert_eq!(self::role(role_name(role)), role);
        }
    }
}
