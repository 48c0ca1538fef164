//! The content of Postgres, read without the service.

use std::collections::{BTreeMap, HashMap, HashSet};

use beseda_protocol::model::{ChatId, ChatKind, MessageId, Reaction, Role};
use serde::de::DeserializeOwned;
use tokio_postgres::{Client, Error};

use super::{change::carried, list::Shown};

/// A message's row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub message_id: MessageId,
    pub ev: i64,
    pub sender: String,
    pub client_msg_id: Option<String>,
    pub text: String,
    /// See [`carried`].
    pub carried: String,
    pub deleted: bool,
    pub is_system: bool,
}

/// A member's row.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub role: Role,
    /// The list of chats that a client must have of this one.
    pub shown: Shown,
    /// Unread messages and mentions by counting the messages; in `shown`, as the service computes them.
    pub recount: (i64, i64),
    /// Increases with every change that a copy must follow.
    pub version: i64,
}

impl Membership {
    pub(super) fn counted(&self) -> (i64, i64) {
        (self.shown.unread, self.shown.mentions)
    }
}

#[derive(Debug, Clone)]
pub(super) struct StoredChat {
    pub kind: ChatKind,
    pub last_seq: i64,
    pub last_ev: i64,
    pub receipts: bool,
    /// Of a group.
    pub title: Option<String>,
    pub info_ev: i64,
    /// Present members.
    pub members: HashMap<String, Membership>,
    pub messages: BTreeMap<i64, Row>,
    /// Of present and former members: the revisions of their markers and of their memberships.
    pub member_evs: Vec<(String, i64, i64)>,
}

pub(super) type Stored = HashMap<ChatId, StoredChat>;

const MEMBERS: &str = "
SELECT c.chat_id::text, c.last_seq, c.last_ev, m.user_id::text, m.read_seq, s.unread, s.mentions, s.last_ev + s.rev,
       c.kind::text, c.receipts, g.title, c.info_ev, m.role::text, m.first_seq, c.member_count, m.notify::text,
       m.pinned, m.archived, n.unread, n.mentions
  FROM chats c
  JOIN members m ON m.chat_id = c.chat_id AND m.left_ev IS NULL
  LEFT JOIN groups g ON g.chat_id = c.chat_id
 CROSS JOIN LATERAL member_states(ARRAY[m.chat_id], ARRAY[m.user_id]) s
 CROSS JOIN LATERAL (
    SELECT count(*) AS unread,
           count(*) FILTER (WHERE x.mentions && ARRAY[m.user_id, chr(1) COLLATE \"C\"]) AS mentions
      FROM messages x
     WHERE x.chat_id = m.chat_id AND x.seq > greatest(m.read_seq, m.first_seq - 1)
       AND x.sender_id <> m.user_id AND x.deleted_at IS NULL) n";

const EVS: &str = "
SELECT chat_id::text, user_id::text, CASE WHEN left_ev IS NULL THEN read_ev ELSE 0 END, member_ev FROM members";

const MESSAGES: &str = "
SELECT chat_id::text, seq, message_id::text, ev, coalesce(sender_id, ''), client_msg_id::text, text,
       deleted_at IS NOT NULL, system IS NOT NULL, reactions::text, pinned_at IS NOT NULL
  FROM messages";

const REACTIONS: &str = "
SELECT m.message_id::text, r.emoji::text, r.user_id::text
  FROM reactions r JOIN messages m ON m.chat_id = r.chat_id AND m.seq = r.seq";

/// Queries that must return no row, with the fault that a row means.
pub(super) const EMPTY: [(&str, &str); 8] = [
    (
        "chats whose numbers have a hole, or do not end at their head",
        "WITH evs AS (
            SELECT chat_id, ev FROM messages
            UNION ALL SELECT chat_id, read_ev FROM members WHERE read_ev > 0
            -- Who joins together has one number, also with the group's own change.
            UNION ALL (SELECT chat_id, member_ev FROM members WHERE member_ev > 0
                       UNION SELECT chat_id, info_ev FROM chats WHERE info_ev > 0))
         SELECT c.chat_id::text, 'last_seq ' || c.last_seq || ', last_ev ' || c.last_ev FROM chats c
          WHERE c.last_seq <> (SELECT count(*) FROM messages m WHERE m.chat_id = c.chat_id)
             OR c.last_seq <> (SELECT coalesce(max(seq), 0) FROM messages m WHERE m.chat_id = c.chat_id)
             OR c.last_ev <> (SELECT coalesce(max(ev), 0) FROM evs WHERE evs.chat_id = c.chat_id)
             OR EXISTS (SELECT FROM evs WHERE evs.chat_id = c.chat_id GROUP BY ev HAVING count(*) > 1)",
    ),
    (
        "messages older than the one before them, and tombstones with content",
        "SELECT chat_id::text, 'seq ' || seq FROM (
            SELECT *, lag(created_at) OVER (PARTITION BY chat_id ORDER BY seq) AS before
              FROM messages) m
          WHERE created_at < before
             OR deleted_at IS NOT NULL
                AND (text <> '' OR metadata IS NOT NULL OR content_digest IS NOT NULL
                     OR mentions IS NOT NULL OR reply_seq IS NOT NULL OR attachments IS NOT NULL
                     OR reactions IS NOT NULL OR pinned_at IS NOT NULL)",
    ),
    (
        "messages that show other reactions or pins than there are",
        "SELECT chat_id::text, 'seq ' || seq FROM (
            SELECT chat_id, seq, emoji, count(*) AS count, 0 AS shown FROM reactions GROUP BY 1, 2, 3
            UNION ALL
            SELECT chat_id, seq, one ->> 'emoji', 0, (one ->> 'count')::bigint
              FROM messages CROSS JOIN LATERAL json_array_elements(reactions) AS e (one)
            UNION ALL
            SELECT chat_id, seq, 'pin', 1, 0 FROM pins
            UNION ALL
            SELECT chat_id, seq, 'pin', 0, 1 FROM messages WHERE pinned_at IS NOT NULL) x
          WHERE chat_id IN (SELECT chat_id FROM chats)
          GROUP BY chat_id, seq, emoji HAVING sum(count) <> sum(shown)",
    ),
    (
        "messages written twice",
        "SELECT chat_id::text, client_msg_id::text FROM messages WHERE client_msg_id IS NOT NULL
          GROUP BY chat_id, sender_id, client_msg_id HAVING count(*) > 1",
    ),
    (
        "members of no chat, markers beyond the head, and wrong numbers of members",
        "SELECT m.chat_id::text, m.user_id::text FROM members m LEFT JOIN chats c USING (chat_id)
          WHERE c.chat_id IS NULL OR m.read_seq > c.last_seq
         UNION ALL
         SELECT c.chat_id::text, 'member_count ' || c.member_count FROM chats c
          WHERE c.member_count <> (SELECT count(*) FROM members m
                                    WHERE m.chat_id = c.chat_id AND m.left_ev IS NULL)",
    ),
    ("rows in the outbox", "SELECT outbox_id::text, chats::text FROM outbox"),
    (
        "messages of chats that are gone, with nobody to delete them",
        "SELECT m.chat_id::text, count(*)::text FROM messages m LEFT JOIN chats c USING (chat_id)
          WHERE c.chat_id IS NULL AND m.chat_id NOT IN (SELECT chat_id FROM purges)
          GROUP BY m.chat_id",
    ),
    (
        "attachments whose bytes wait to be removed",
        "SELECT chat_id::text, attachment_id::text FROM attachment_removals",
    ),
];

/// Everything stored, from one snapshot.
pub(super) async fn read(client: &mut Client) -> Result<Stored, Error> {
    let transaction = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start()
        .await?;
    let mut stored = Stored::new();
    for row in transaction.query(MEMBERS, &[]).await? {
        let chat = stored.entry(id(row.get(0))).or_insert_with(|| StoredChat {
            kind: if row.get::<_, &str>(8) == "group" { ChatKind::Group } else { ChatKind::Direct },
            last_seq: row.get(1),
            last_ev: row.get(2),
            receipts: row.get(9),
            title: row.get(10),
            info_ev: row.get(11),
            members: HashMap::new(),
            messages: BTreeMap::new(),
            member_evs: Vec::new(),
        });
        chat.members.insert(row.get(3), member(&row));
    }
    for row in transaction.query(EVS, &[]).await? {
        if let Some(chat) = stored.get_mut(&id(row.get(0))) {
            chat.member_evs.push((row.get(1), row.get(2), row.get(3)));
        }
    }
    for row in transaction.query(MESSAGES, &[]).await? {
        // Of a deleted chat, whose messages are deleted later: see [`EMPTY`].
        let Some(chat) = stored.get_mut(&id(row.get(0))) else { continue };
        let message = Row {
            message_id: id(row.get(2)),
            ev: row.get(3),
            sender: row.get(4),
            client_msg_id: row.get(5),
            text: row.get(6),
            deleted: row.get(7),
            is_system: row.get(8),
            carried: carried(&reactions(row.get(9)), row.get(10)),
        };
        chat.messages.insert(row.get(1), message);
    }
    transaction.commit().await?;
    Ok(stored)
}

/// Reads the reactions that a message shows.
fn reactions(json: Option<&str>) -> Vec<Reaction> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// All reactions: message, emoji, user.
pub(super) async fn all_reactions(
    client: &Client,
) -> Result<HashSet<(MessageId, String, String)>, Error> {
    let rows = client.query(REACTIONS, &[]).await?;
    Ok(rows.iter().map(|row| (id(row.get(0)), row.get(1), row.get(2))).collect())
}

/// Describes the rows of one query of [`EMPTY`].
pub(super) async fn rows(client: &Client, sql: &str) -> Result<Vec<String>, Error> {
    let rows = client.query(sql, &[]).await?;
    let text = |row: &tokio_postgres::Row| {
        format!("{}: {}", row.get::<_, &str>(0), row.get::<_, Option<&str>>(1).unwrap_or("-"))
    };
    Ok(rows.iter().map(text).collect())
}

/// Returns a user's memberships.
pub(super) async fn counters(
    client: &Client,
    user: &str,
) -> Result<HashMap<ChatId, Membership>, Error> {
    let sql = format!("{MEMBERS} WHERE m.user_id = $1");
    let rows = client.query(&sql, &[&user]).await?;
    Ok(rows.iter().map(|row| (id(row.get(0)), member(row))).collect())
}

/// Reads a row of [`MEMBERS`].
fn member(row: &tokio_postgres::Row) -> Membership {
    let shown = Shown {
        last_ev: row.get(2),
        unread: row.get(5),
        mentions: row.get(6),
        read_seq: row.get(4),
        first_seq: row.get(13),
        member_count: row.get(14),
        notify: word(row.get(15)).unwrap_or_default(),
        pinned: row.get(16),
        archived: row.get(17),
    };
    Membership {
        role: word(row.get(12)).unwrap_or(Role::Member),
        shown,
        recount: (row.get(18), row.get(19)),
        version: row.get(7),
    }
}

/// Reads a word of the protocol, which the types of Postgres share.
pub(super) fn word<T: DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(word.into()).ok()
}

fn id(text: &str) -> ChatId {
    // Postgres's own spelling of a uuid.
    text.parse().unwrap_or_default()
}
