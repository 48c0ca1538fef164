//! The state of one message in the database, without its content.

use std::fmt;

use tokio_postgres::types::Type;

use super::{
    StoreError,
    connect::connect,
    row::rows_of,
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
    /// `None`: a system message.
    sender_id: Option<String>,
    committed_at: Time,
    edited_at: Option<Time>,
    deleted_at: Option<Time>,
    /// Time of the chat's oldest commit that Redis may not have yet.
    waiting_since: Option<Time>,
    /// The first members beside the sender, with whether they have read it.
    readers: Vec<(String, bool)>,
    /// Members beside the sender.
    others: i64,
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message_id, chat_id, seq, ev, sender_id, .. } = self;
        let at =
            |time: &Option<Time>| time.map_or_else(|| "never".to_owned(), |it| it.0.to_string());
        writeln!(f, "message    {message_id}")?;
        writeln!(f, "chat       {chat_id}, seq {seq}, last changed by ev {ev}")?;
        match sender_id {
            Some(sender_id) => writeln!(f, "sender     {sender_id:?}")?,
            None => writeln!(f, "sender     none: a system message")?,
        }
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
        let more = self.others - self.readers.len() as i64;
        if more > 0 {
            writeln!(f, "           and {more} members more")?;
        }
        Ok(())
    }
}

/// Members of a group that are named.
const NAMED: i64 = 50;

/// Looks for a message. Without its chat every message is looked at, which takes a while where there
/// are many: ids are found by chat.
pub async fn trail(
    config: &DatabaseConfig,
    message_id: MessageId,
    chat_id: Option<ChatId>,
) -> Result<Option<Trail>, StoreError> {
    let client = connect(config).await?;
    let params =
        [(&message_id as _, Type::UUID), (&chat_id as _, Type::UUID), (&NAMED as _, Type::INT8)];
    let rows = rows_of(client.query_typed(TRAIL, &params).await?);
    Ok(rows.first().map(|row| {
        let readers = row.get::<Option<Vec<String>>>("readers").unwrap_or_default();
        let have_read = row.get::<Option<Vec<bool>>>("have_read").unwrap_or_default();
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
            others: row.get("others"),
        }
    }))
}

const TRAIL: &str = "\
-- store.trail
SELECT m.message_id, m.chat_id, m.seq, m.ev, m.sender_id, m.created_at, m.edited_at, m.deleted_at,
       (SELECT min(o.created_at) FROM outbox o WHERE m.chat_id = ANY (o.chats)) AS waiting_since,
       r.readers, r.have_read, r.others
  FROM messages m
 CROSS JOIN LATERAL (
     SELECT array_agg(user_id ORDER BY user_id) FILTER (WHERE n <= $3) AS readers,
            array_agg(read_seq >= m.seq ORDER BY user_id) FILTER (WHERE n <= $3) AS have_read,
            count(*) AS others
       FROM (SELECT p.user_id, p.read_seq, row_number() OVER (ORDER BY p.user_id) AS n
               FROM members p
              WHERE p.chat_id = m.chat_id AND p.user_id IS DISTINCT FROM m.sender_id
                AND coalesce(p.left_ev, 0) = 0) p) r
 WHERE m.message_id = $1 AND ($2::uuid IS NULL OR m.chat_id = $2)";
