//! What must hold whenever all is quiet, whatever was done before.

use std::collections::HashMap;

use super::{cluster::Cluster, eventually, postgres::Row};

/// Chats whose numbers have a hole or do not end at their head. Every `seq` is there; an `ev` is the
/// last change of one message or marker, so some are superseded, but none comes twice, none is
/// beyond the head, and the head itself is always there.
const NUMBERS: &str = "
WITH evs AS (
    SELECT chat_id, ev FROM messages
    UNION ALL SELECT chat_id, ev FROM members WHERE ev > 0
)
SELECT c.chat_id, c.last_seq, c.last_ev FROM chats c
 WHERE c.last_seq <> (SELECT count(*) FROM messages m WHERE m.chat_id = c.chat_id)
    OR c.last_seq <> (SELECT coalesce(max(seq), 0) FROM messages m WHERE m.chat_id = c.chat_id)
    OR c.last_ev <> (SELECT coalesce(max(ev), 0) FROM evs WHERE evs.chat_id = c.chat_id)
    OR EXISTS (SELECT FROM evs WHERE evs.chat_id = c.chat_id GROUP BY ev HAVING count(*) > 1)";

/// Members whose counter is not what a recount gives, or whose marker is beyond the head.
const COUNTERS: &str = "
SELECT me.chat_id, me.user_id, me.unread, me.read_seq FROM members me
  LEFT JOIN chats c ON c.chat_id = me.chat_id
 WHERE c.chat_id IS NULL OR me.read_seq > c.last_seq
    OR me.unread <> (SELECT count(*) FROM messages m
                      WHERE m.chat_id = me.chat_id AND m.seq > me.read_seq
                        AND m.sender_id <> me.user_id AND m.deleted_at IS NULL)";

/// Texts that a tombstone has kept, and messages that come before the previous one.
const MESSAGES: &str = "
SELECT chat_id, seq FROM (
    SELECT *, lag(created_at) OVER (PARTITION BY chat_id ORDER BY seq) AS before FROM messages) m
 WHERE created_at < before
    OR deleted_at IS NOT NULL
       AND (text <> '' OR metadata IS NOT NULL OR content_digest IS NOT NULL)";

/// What belongs to a room that is gone.
const ORPHANS: &str = "
SELECT chat_id FROM messages WHERE chat_id NOT IN (SELECT chat_id FROM chats)
UNION SELECT chat_id FROM members WHERE chat_id NOT IN (SELECT chat_id FROM chats)";

/// What Redis has to say of each member, if it says anything: as [`beseda`] writes it.
const EXPECTED: &str = "
SELECT me.user_id, c.chat_id,
       concat_ws('|', c.last_ev, me.unread, c.last_seq, me.read_seq,
                 (extract(epoch FROM coalesce(c.last_message_at, c.created_at)) * 1000000)::bigint,
                 c.room_name)
  FROM members me JOIN chats c ON c.chat_id = me.chat_id";

pub(super) async fn check(cluster: &Cluster) {
    eventually(async || {
        let left = cluster.psql("SELECT outbox_id, chats, users FROM outbox").await;
        if left.is_empty() { Ok(()) } else { Err(format!("left in the outbox: {left:?}")) }
    })
    .await;
    let checks = [
        ("numbers", NUMBERS),
        ("counters", COUNTERS),
        ("messages", MESSAGES),
        ("orphans", ORPHANS),
    ];
    for (what, sql) in checks {
        let wrong = cluster.psql(sql).await;
        assert!(wrong.is_empty(), "{what} are wrong: {wrong:?}");
    }
    eventually(async || {
        let followed: usize = cluster.followers();
        if followed == 0 { Ok(()) } else { Err(format!("the hubs still have {followed} sockets")) }
    })
    .await;
    eventually(async || compare_with_redis(cluster).await).await;
}

/// Every counter in Redis equals Postgres's; a hash that calls itself complete has all of them.
async fn compare_with_redis(cluster: &Cluster) -> Result<(), String> {
    let mut expected: HashMap<String, HashMap<String, String>> = HashMap::new();
    for row in cluster.psql(EXPECTED).await {
        let [user, chat, value] = <[_; 3]>::try_from(row)
            .map_err(|row: Row| format!("three columns, not {row:?}"))?
            .map(Option::unwrap_or_default);
        expected.entry(user).or_default().insert(chat, value);
    }
    let mut redis = cluster.redis().await;
    for key in redis.keys().await {
        let Some(user) = key.strip_prefix("unread:") else { continue };
        let hash = redis.hash(&key).await;
        let rooms = expected.remove(user).unwrap_or_default();
        for (field, value) in &hash {
            let is_room = field.len() == 36;
            if is_room && !value.starts_with("gone|") && rooms.get(field) != Some(value) {
                let in_postgres = rooms.get(field);
                return Err(format!("{key} {field}: {value}, in Postgres {in_postgres:?}"));
            }
        }
        if hash.contains_key("complete") {
            let missing = rooms.keys().find(|room| !hash.contains_key(*room));
            if let Some(missing) = missing {
                return Err(format!("{key} is complete without {missing}: {hash:?}"));
            }
        }
    }
    Ok(())
}
