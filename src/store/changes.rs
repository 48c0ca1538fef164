//! What changed in a chat since a position, as state: there is no log of events to grow.

use beseda_protocol::frame::Receipt;
use tokio_postgres::types::Type;

use super::{
    Param, Store, StoreError,
    groups::settings,
    history::{chat_head, head, head_column},
    members::{member, member_columns},
    row::Row,
    rows::{epoch, json, left_reason, message, message_columns, opt_user, user, users},
};
use crate::model::{Change, ChatId, GroupChange, Head, UserId};

/// What changed since a position, ascending by `ev`, and the head of the same snapshot.
#[derive(Debug, Clone)]
pub struct Changes {
    pub head: Head,
    /// The members' read markers that are not 0; none in a chat without receipts.
    pub receipts: Vec<Receipt>,
    /// Whose presence the reader may see: the other of a direct chat, unless one of the two has blocked the
    /// other; the other members of a group with receipts.
    pub visible: Vec<UserId>,
    /// Each has an `ev` of its own.
    pub changes: Vec<Change>,
    /// There is more past [`Self::up_to`]: a limit was reached.
    pub more: bool,
    /// The page is whole up to this `ev`. It may be past the last change, as some are not the reader's.
    pub up_to: i64,
}

impl Store {
    /// What changed after `after_ev`, at most `limit` changes and no more than [`CHANGES_BYTES`] beyond the
    /// first. `reader` must be a member, and gets what they may see;
    /// `None` asks on behalf of all members. Gives `None` where the chat is gone or not the reader's.
    pub async fn get_changes(
        &self,
        chat_id: ChatId,
        reader: Option<&UserId>,
        after_ev: i64,
        limit: i64,
    ) -> Result<Option<Changes>, StoreError> {
        let rows = self
            .read(
                GET_CHANGES,
                &[
                    (&chat_id, Type::UUID),
                    (&reader.map(UserId::as_str), Type::TEXT),
                    (&after_ev, Type::INT8),
                    (&limit, Type::INT8),
                    (&CHANGES_BYTES, Type::INT8),
                ],
            )
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let Some(head) = head(first) else { return Ok(None) };
        let (present, marks) = (users(first, "present"), first.get::<Option<Vec<i64>>>("marks"));
        let visible = match first.get("blocked") {
            true => Vec::new(),
            false => present.iter().filter(|member| Some(*member) != reader).cloned().collect(),
        };
        let receipts = present.into_iter().zip(marks.unwrap_or_default());
        let receipts = receipts.filter(|(_, read_seq)| *read_seq > 0);
        let receipts = receipts.map(|(user_id, read_seq)| Receipt { user_id, read_seq }).collect();
        let last = rows.last().filter(|row| row.get::<Option<bool>>("is_full") == Some(true));
        let cut_at: Option<i64> = last.map_or_else(|| first.get("cut_at"), |row| row.get("m_ev"));
        let up_to = cut_at.unwrap_or(head.ev);
        let mut changes = Vec::with_capacity(rows.len());
        // Each row goes as it is read, so that a page is in memory once.
        for row in rows {
            if let Some(next) = change(chat_id, &head, &row) {
                add(&mut changes, next);
            }
        }
        Ok(Some(Changes { more: up_to < head.ev, head, receipts, visible, changes, up_to }))
    }

    /// The head of a chat; `None` where it is not the user's.
    pub async fn get_head(
        &self,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<Option<Head>, StoreError> {
        let params = [(&chat_id as _, Type::UUID), (&user.as_str() as _, Type::TEXT)];
        Ok(self.read(GET_HEAD, &params).await?.first().and_then(head))
    }

    /// Whether more than `most` rows of a chat have changed past `after_ev`. Numbers say less: a message that
    /// was edited twice, or a marker that moved a hundred times, is one row.
    pub async fn has_changed_more(
        &self,
        chat_id: ChatId,
        after_ev: i64,
        most: i64,
    ) -> Result<bool, StoreError> {
        let params: [Param<'_>; 3] =
            [(&chat_id, Type::UUID), (&after_ev, Type::INT8), (&most, Type::INT8)];
        Ok(self.read(HAS_CHANGED_MORE, &params).await?.first().is_some_and(|row| row.get("more")))
    }
}

/// Users who joined with one `ev` are one change.
fn add(changes: &mut Vec<Change>, next: Change) {
    if let Change::Joined { members, ev, .. } = &next
        && let Some(Change::Joined { members: before, ev: same, .. }) = changes.last_mut()
        && ev == same
    {
        before.extend_from_slice(members);
    } else {
        changes.push(next);
    }
}

/// Reads a change; `None`: the row has none.
fn change(chat_id: ChatId, head: &Head, row: &Row) -> Option<Change> {
    let what: Option<&str> = row.get("what");
    let ev = || row.get("m_ev");
    Some(match what? {
        "message" => Change::Message(Box::new(message(chat_id, row))),
        "read" => Change::Read {
            user_id: user(row.get("r_user_id")),
            read_seq: row.get("r_read_seq"),
            ev: ev(),
        },
        "info" => Change::Group(Box::new(GroupChange {
            chat_id,
            ev: ev(),
            title: row.get::<Option<_>>("title")?,
            avatar_url: row.get("group_avatar_url"),
            metadata: json(row, "group_metadata"),
            settings: settings(row),
            member_count: head.member_count,
            receipts: head.receipts,
        })),
        _ => {
            let by = opt_user(row, "r_changed_by");
            if let Some(reason) = row.get::<Option<&str>>("r_left_reason") {
                let user_id = user(row.get("r_user_id"));
                return Some(Change::Left { user_id, by, reason: left_reason(reason), ev: ev() });
            }
            // All members are told alike, so it can't be told who is shown presence.
            let member = member(row, head.receipts, false);
            if row.get("joined") {
                Change::Joined { members: vec![member], by, ev: ev() }
            } else {
                Change::Updated { member: Box::new(member), by, ev: ev() }
            }
        }
    })
}

/// Texts and metadata of one page of changes, in bytes: a socket whose reader is slow holds a page as
/// long as a write may take, and one user may have 50 sockets. Five hundred usual messages have less.
const CHANGES_BYTES: i64 = 512 * 1024;

/// Markers are not counted: a chat with receipts has few members.
const HAS_CHANGED_MORE: &str = "\
-- store.has_changed_more
SELECT (SELECT count(*) FROM (SELECT FROM messages m WHERE m.chat_id = $1 AND m.ev > $2
                               ORDER BY m.ev LIMIT $3 + 1) x)
       + (SELECT count(*) FROM (SELECT FROM members m
                                 WHERE m.chat_id = $1 AND m.member_ev > 0 AND m.member_ev > $2
                                 ORDER BY m.member_ev LIMIT $3 + 1) x) > $3 AS more";

/// `found`: up to `$4` of each kind; of read markers all, as a chat with receipts has few members. Users who joined
/// with one `ev` stay together (`WITH TIES`), and have no bytes. A row comes while those before it have too few
/// bytes, so that one comes however large it is. What is not the reader's is left out last, so
/// that a page never looks at more than `$4` changes. `present` and `marks` are on the first row only.
const GET_CHANGES: &str = concat!(
    "-- store.get_changes
WITH head AS (",
    chat_head!(
        "LEFT",
        ", c.blocked, c.info_ev, c.admins_post, c.slow_mode_s::integer AS slow_mode_s,
           $2 IS NULL OR c.receipts OR me.role <> 'member' AS sees_members",
        " AND ($2 IS NULL OR me.user_id IS NOT NULL)"
    ),
    "), found AS (
    SELECT 'message' AS what, NULL::text AS member_id, x.*
      FROM head h CROSS JOIN LATERAL (
           SELECT m.ev, m.seq, m.message_id, m.sender_id, m.client_msg_id, m.text, m.metadata, m.mentions,
                  m.system, m.reply_seq, m.attachments, m.reactions, m.pinned_at, m.created_at, m.edited_at,
                  m.deleted_at
             FROM messages m WHERE m.chat_id = h.chat_id AND m.ev > $3
            ORDER BY m.ev LIMIT $4) x
    UNION ALL
    SELECT 'member', x.user_id, x.member_ev, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
           NULL, NULL, NULL
      FROM head h CROSS JOIN LATERAL (
           SELECT m.user_id, m.member_ev FROM members m
            WHERE m.chat_id = h.chat_id AND m.member_ev > 0 AND m.member_ev > $3
            ORDER BY m.member_ev FETCH FIRST ($4) ROWS WITH TIES) x
    UNION ALL
    SELECT 'read', x.user_id, x.read_ev, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
           NULL, NULL, NULL
      FROM head h CROSS JOIN LATERAL (
           SELECT m.user_id, m.read_ev FROM members m
            WHERE m.chat_id = h.chat_id AND h.receipts AND m.read_ev > $3 AND coalesce(m.left_ev, 0) = 0
           OFFSET 0) x
    UNION ALL
    SELECT 'info', NULL, h.info_ev, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
           NULL, NULL, NULL
      FROM head h WHERE h.info_ev > $3
), limited AS MATERIALIZED (
    SELECT * FROM found ORDER BY ev FETCH FIRST ($4) ROWS WITH TIES
)
SELECT ",
    head_column!("coalesce(m.n, 1) = 1"),
    ", h.blocked, CASE WHEN (SELECT count(*) FROM limited) >= $4 THEN (SELECT max(ev) FROM limited) END AS cut_at,
       CASE WHEN coalesce(m.n, 1) = 1 THEN ARRAY(
            SELECT p.user_id FROM members p
             WHERE p.chat_id = h.chat_id AND h.receipts AND $2 IS NOT NULL AND coalesce(p.left_ev, 0) = 0
             ORDER BY p.user_id) END AS present,
       CASE WHEN coalesce(m.n, 1) = 1 THEN ARRAY(
            SELECT p.read_seq FROM members p
             WHERE p.chat_id = h.chat_id AND h.receipts AND $2 IS NOT NULL AND coalesce(p.left_ev, 0) = 0
             ORDER BY p.user_id) END AS marks,
       m.what, m.total_bytes >= $5 AS is_full, r.joined_ev > $3 AS joined, r.changed_by AS r_changed_by,
       r.left_reason::text AS r_left_reason, ",
    member_columns!(),
    ", h.admins_post, h.slow_mode_s, g.members_invite, g.history_all, g.open, g.title,
       g.avatar_url AS group_avatar_url, g.metadata AS group_metadata, ",
    message_columns!(),
    "
  FROM head h
  LEFT JOIN (
    SELECT v.*, row_number() OVER in_order AS n, sum(v.bytes) OVER in_order AS total_bytes
      FROM (SELECT l.*, h.chat_id, coalesce(octet_length(l.text), 0)
                        + coalesce(octet_length(l.metadata::text), 0)
                        + coalesce(octet_length(l.attachments::text), 0)
                        + coalesce(octet_length(l.reactions::text), 0) AS bytes
              FROM limited l CROSS JOIN head h
             WHERE CASE l.what WHEN 'message' THEN l.seq >= h.first_seq
                               WHEN 'member' THEN h.sees_members OR l.member_id = $2
                               ELSE true END) v
    WINDOW in_order AS (ORDER BY v.ev, v.what ROWS UNBOUNDED PRECEDING)
  ) m ON m.total_bytes - m.bytes < $5
  LEFT JOIN LATERAL (SELECT * FROM members r
                      WHERE r.chat_id = h.chat_id AND r.user_id = m.member_id OFFSET 0) r ON true
  LEFT JOIN LATERAL (SELECT * FROM users u WHERE u.user_id = r.user_id AND m.what = 'member'
                     OFFSET 0) u ON true
  LEFT JOIN LATERAL (SELECT * FROM groups g WHERE g.chat_id = h.chat_id AND m.what = 'info'
                     OFFSET 0) g ON true
 ORDER BY m.n"
);

const GET_HEAD: &str = concat!(
    "-- store.get_head\nWITH h AS (",
    chat_head!("INNER", "", ""),
    ") SELECT ",
    head_column!("true"),
    " FROM h"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Member, Role, Time, User};

    fn joined(user_id: &str, ev: i64) -> Change {
        let user = User {
            user_id: UserId::trusted(user_id),
            name: None,
            avatar_url: None,
            online: false,
            last_seen_at: None,
        };
        let joined_at = Time(jiff::Timestamp::UNIX_EPOCH);
        let member =
            Member { user, role: Role::Member, joined_at, read_seq: None, silenced_until: None };
        Change::Joined { members: vec![member], by: None, ev }
    }

    #[test]
    fn users_who_joined_with_one_revision_are_one_change() {
        let mut changes = Vec::new();
        let read = Change::Read { user_id: UserId::trusted("a"), read_seq: 1, ev: 4 };
        for next in [joined("a", 2), joined("b", 2), joined("c", 3), read, joined("d", 5)] {
            add(&mut changes, next);
        }
        let told: Vec<_> =
            changes.iter().map(|change| (change.ev(), change.affected().len())).collect();
        assert_eq!(told, [(2, 2), (3, 1), (4, 0), (5, 1)]);
    }
}
