//! The state of one message in the database, without its content.

use std::fmt;

use tokio_postgres::types::Type;

use super::{
    StoreError,
    connect::connect,
    rows::{opt_time, time},
};
use crate::{
    config::DatabaseConfig,
    model::{ChatId, MessageId, Time},
};

/// The state of a message, for `beseda admin trace`.
#[derive(Debug)]
pub struct Trail {
    pub message_id: MessageId,
    pub chat_id: ChatId,
    pub seq: i64,
    pub ev: i64,
    sender_id: String,
    committed_at: Time,
    edited_at: Option<Time>,
    deleted_at: Option<Time>,
    /// Time of the chat's oldest commit that Redis may not have yet.
    waiting_since: Option<Time>,
    /// Each member, with whether they have read it.
    readers: Vec<(String, bool)>,
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message_id, chat_id, seq, ev, sender_id, .. } = self;
        let at =
            |time: &Option<Time>| time.map_or_else(|| "never".to_owned(), |it| it.0.to_string());
        writeln!(f, "message    {message_id}")?;
        writeln!(f, "chat       {chat_id}, seq {seq}, last changed by ev {ev}")?;
        writeln!(f, "sender     {sender_id:?}")?;
        writeln!(f, "committed  {}", self.committed_at.0)?;
        writeln!(f, "edited     {}", at(&self.edited_at))?;
        writeln!(f, "deleted    {}", at(&self.deleted_at))?;
        match &self.waiting_since {
            Some(since) => writeln!(f, "outbox     a commit of the chat waits since {}", since.0)?,
            None => writeln!(f, "outbox     nothing of the chat waits: Redis has it")?,
        }
        for (reader, has_read) in &self.readers {
            writeln!(f, "read by    {reader:?}: {}", if *has_read { "yes" } else { "not yet" })?;
        }
        Ok(())
    }
}

/// Finds a message. Without its chat this reads all messages, because the index of ids begins with the
/// chat.
pub async fn trail(
    config: &DatabaseConfig,
    message_id: MessageId,
    chat_id: Option<ChatId>,
) -> Result<Option<Trail>, StoreError> {
    let client = connect(config).await?;
    let params = [(&message_id as _, Type::UUID), (&chat_id as _, Type::UUID)];
    let rows = client.query_typed(TRAIL, &params).await?;
    Ok(rows.first().map(|row| {
        let readers: Vec<String> = row.get("readers");
        let have_read: Vec<bool> = row.get("have_read");
        Trail {
            message_id: row.get("message_id"),
            chat_id: row.get("chat_id"),
            seq: row.get("seq"),
            ev: row.get("ev"),
            sender_id: row.get("sender_id"),
            committed_at: time(row, "created_at"),
            edited_at: opt_time(row, "edited_at"),
            deleted_at: opt_time(row, "deleted_at"),
            waiting_since: opt_time(row, "waiting_since"),
            readers: readers.into_iter().zip(have_read).collect(),
        }
    }))
}

const TRAIL: &str = "\
-- store.trail
SELECT m.message_id, m.chat_id, m.seq, m.ev, m.sender_id, m.created_at, m.edited_at, m.deleted_at,
       (SELECT min(o.created_at) FROM outbox o WHERE m.chat_id = ANY (o.chats)) AS waiting_since,
       array_agg(r.user_id ORDER BY r.user_id) AS readers,
       array_agg(r.read_seq >= m.seq ORDER BY r.user_id) AS have_read
  FROM messages m
  JOIN members r ON r.chat_id = m.chat_id AND r.user_id <> m.sender_id
 WHERE m.message_id = $1 AND ($2::uuid IS NULL OR m.chat_id = $2)
 GROUP BY m.chat_id, m.seq";
