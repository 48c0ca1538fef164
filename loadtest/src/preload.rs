//! Fills a database with chats and their histories, by SQL instead of the service.

use std::str::FromStr;

use beseda_protocol::bounds::MAX_USER_ID_CHARS;
use tokio_postgres::NoTls;

use crate::{clients::chats::names, error::Error, progress::say};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preload {
    chats: u32,
    messages: u32,
}

impl FromStr for Preload {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let (chats, messages) = raw.split_once('x').ok_or("must be CHATSxMESSAGES: 1000x100")?;
        let number = |raw: &str| raw.parse().map_err(|_| "both must be whole numbers");
        Ok(Self { chats: number(chats)?, messages: number(messages)? })
    }
}

/// Chats that are there already, from an earlier run, stay as they are. `$1` is the sender's id with
/// # for the number, `$2` the reader's.
const CHATS: &str = "\
-- loadtest.preload_chats
WITH named AS (
    SELECT gen_random_uuid() AS chat_id, n, s.id AS sender, r.id AS reader
      FROM generate_series(0, $3 - 1) n,
           LATERAL (SELECT replace($1, '#', n::text) COLLATE \"C\" AS id) s,
           LATERAL (SELECT replace($2, '#', n::text) COLLATE \"C\" AS id) r),
paired AS (
    INSERT INTO pairs (user_lo, user_hi, chat_id)
    SELECT least(sender, reader), greatest(sender, reader), chat_id FROM named
        ON CONFLICT DO NOTHING RETURNING chat_id)
INSERT INTO chats (chat_id, kind, room_name, created_by, last_seq, last_ev, last_counted, last_message_at,
                   member_count)
SELECT chat_id, 'direct', substr(md5(random()::text || n), 1, 22), sender, $4, $4, $4, now(), 2
  FROM named JOIN paired USING (chat_id)";

// The sender has nothing of others to read: they count from the head on, as after sending it all.
const REST: &str = "\
-- loadtest.preload_rest
INSERT INTO chat_names (room_name, chat_id)
SELECT room_name, chat_id FROM chats ON CONFLICT DO NOTHING;
INSERT INTO users (user_id)
SELECT unnest(ARRAY[user_lo, user_hi]) FROM pairs ON CONFLICT DO NOTHING;
INSERT INTO members (chat_id, user_id, floor_seq, floor_counted)
SELECT chat_id, member, floor, floor
  FROM chats JOIN pairs USING (chat_id), unnest(ARRAY[user_lo, user_hi]) member,
       LATERAL (SELECT CASE WHEN member = created_by THEN last_seq ELSE 0 END) f (floor)
    ON CONFLICT DO NOTHING;
-- In the order of time, as they would have come: all chats have their first before any its second.
INSERT INTO messages (chat_id, seq, message_id, ev, counted, sender_id, text, created_at)
SELECT chat_id, seq, gen_random_uuid(), seq, seq, created_by, repeat('x', 100), last_message_at
  FROM generate_series(1, (SELECT max(last_seq) FROM chats)) seq
  JOIN chats ON seq <= last_seq
    ON CONFLICT DO NOTHING;
VACUUM ANALYZE";

impl Preload {
    pub(crate) async fn fill(self, database: &str, prefix: &str) -> Result<(), Error> {
        if prefix.len() + 20 > MAX_USER_ID_CHARS || prefix.contains('#') {
            return Err(Error::Prefix(prefix.to_owned()));
        }
        say(&format!("writing {} chats with {} messages each", self.chats, self.messages));
        let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
        // The task ends with the client, which reports a broken connection.
        tokio::spawn(connection);
        let (sender, reader) = names(prefix, 0);
        let (sender, reader) = (sender.replace("-0-", "-#-"), reader.replace("-0-", "-#-"));
        let (chats, messages) = (self.chats.cast_signed(), i64::from(self.messages));
        client.execute(CHATS, &[&sender, &reader, &chats, &messages]).await?;
        for statement in REST.split(";\n") {
            client.batch_execute(statement).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_numbers() {
        assert_eq!("10x200".parse(), Ok(Preload { chats: 10, messages: 200 }));
        assert!("10".parse::<Preload>().is_err());
        assert!("10x-1".parse::<Preload>().is_err());
    }
}
