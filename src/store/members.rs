//! Members: listed, and who of them has read a message.

use beseda_protocol::bounds::MAX_MEMBERS_OF_READERS;
use tokio_postgres::types::Type;

use super::{
    Param, Reader, Store, StoreError,
    row::Row,
    rows::{opt_time, role, role_name, time, user, users},
};
use crate::{
    error::Error,
    model::{ChatId, Member, MessageId, Role, User, UserId},
};

/// Which of a chat's members are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemberFilter<'a> {
    pub role: Option<Role>,
    /// The start of a name or of an id, in any case.
    pub query: Option<&'a str>,
}

/// The place of a member in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberCursor {
    pub role: Role,
    /// The revision with which they joined.
    pub joined_ev: i64,
    pub user_id: UserId,
}

/// A page of a chat's members, still without presence.
#[derive(Debug, Clone)]
pub struct MemberList {
    pub members: Vec<Member>,
    /// The last member, where there are more.
    pub next: Option<MemberCursor>,
    pub member_count: i32,
    /// The members' presence is shown: the chat has receipts, and nobody has blocked the other.
    pub show_presence: bool,
}

impl Store {
    /// A page of a chat's members past `after`: the owner, admins, then in the order of joining. `None`: the
    /// reader is no member.
    pub async fn list_members(
        &self,
        chat_id: ChatId,
        reader: Reader<'_>,
        filter: MemberFilter<'_>,
        after: Option<&MemberCursor>,
        limit: i64,
    ) -> Result<Option<MemberList>, StoreError> {
        // Role by role, each past a bound of its own.
        let roles = [Role::Owner, Role::Admin, Role::Member].into_iter().filter(|role| {
            filter.role.is_none_or(|wanted| wanted == *role)
                && after.is_none_or(|last| *role <= last.role)
        });
        let roles: Vec<_> = roles.collect();
        let last = |role: &Role| after.filter(|last| last.role == *role);
        let joined: Vec<_> =
            roles.iter().map(|role| last(role).map(|last| last.joined_ev)).collect();
        let ids: Vec<_> =
            roles.iter().map(|role| last(role).map(|last| last.user_id.as_str())).collect();
        let names: Vec<_> = roles.iter().map(|role| role_name(*role)).collect();
        let (reader, most) = (reader.user_id(), limit + 1);
        let mut params: Vec<Param<'_>> = vec![
            (&chat_id, Type::UUID),
            (&reader, Type::TEXT),
            (&names, Type::TEXT_ARRAY),
            (&joined, Type::INT8_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&most, Type::INT8),
        ];
        let rows = match &filter.query {
            Some(query) => {
                params.push((query, Type::TEXT));
                // May read all of a large group.
                self.run(&self.searches, SEARCH_MEMBERS, &params).await?
            }
            None => self.read(LIST_MEMBERS, &params).await?,
        };
        let Some(first) = rows.first() else { return Ok(None) };
        let (receipts, show_presence) = (first.get("receipts"), first.get("show_presence"));
        let found = rows.iter().filter(|row| row.get::<Option<&str>>("r_user_id").is_some());
        let mut found: Vec<&Row> = found.collect();
        let more = i64::try_from(found.len()).is_ok_and(|count| count > limit);
        if more {
            found.pop();
        }
        let next = found.last().filter(|_| more).map(|row| MemberCursor {
            role: role(row.get("r_role")),
            joined_ev: row.get("r_joined_ev"),
            user_id: user(row.get("r_user_id")),
        });
        Ok(Some(MemberList {
            members: found.into_iter().map(|row| member(row, receipts, show_presence)).collect(),
            next,
            member_count: first.get("member_count"),
            show_presence,
        }))
    }

    /// Lists the ids of a chat's members, at most `limit`. Asks nobody's right.
    pub async fn list_member_ids(
        &self,
        chat_id: ChatId,
        limit: i32,
    ) -> Result<Vec<UserId>, StoreError> {
        let limit = i64::from(limit);
        let params = [(&chat_id as _, Type::UUID), (&limit as _, Type::INT8)];
        let rows = self.read(LIST_MEMBER_IDS, &params).await?;
        Ok(rows.iter().map(|row| user(row.get("user_id"))).collect())
    }

    /// Returns a member, still without presence, and whether it is shown. Asks nobody's right.
    pub async fn get_member(
        &self,
        chat_id: ChatId,
        user: &UserId,
    ) -> Result<Option<(Member, bool)>, StoreError> {
        let rows =
            self.read(GET_MEMBER, &[(&chat_id, Type::UUID), (&user.as_str(), Type::TEXT)]).await?;
        Ok(rows.first().map(|row| {
            let shown = row.get("show_presence");
            (member(row, row.get("receipts"), shown), shown)
        }))
    }

    /// A page of those who have read a message, its sender left out, by id past `after`; and how many have.
    pub async fn list_readers(
        &self,
        chat_id: ChatId,
        reader: &UserId,
        message_id: MessageId,
        after: Option<&UserId>,
        limit: i64,
    ) -> Result<(Vec<UserId>, i64), Error> {
        let row = self
            .query_opt(
                LIST_READERS,
                &[
                    (&chat_id, Type::UUID),
                    (&reader.as_str(), Type::TEXT),
                    (&message_id, Type::UUID),
                    (&after.map(UserId::as_str), Type::TEXT),
                    (&limit, Type::INT8),
                    (&MAX_MEMBERS_OF_READERS, Type::INT4),
                ],
            )
            .await?
            .ok_or(Error::ChatNotFound)?;
        if row.get("too_large") {
            return Err(Error::TooLarge);
        }
        let count: Option<i64> = row.get("count");
        Ok((users(&row, "readers"), count.ok_or(Error::MessageNotFound)?))
    }
}

/// The columns that [`member`] reads, of a row `r` of `members` and one `u` of `users`.
macro_rules! member_columns {
    () => {
        "r.user_id AS r_user_id, r.role::text AS r_role, r.joined_at AS r_joined_at, r.joined_ev AS r_joined_ev, \
         r.read_seq AS r_read_seq, \
         CASE WHEN r.silenced_until > now() THEN r.silenced_until END AS r_silenced_until, \
         u.name AS u_name, u.avatar_url AS u_avatar_url, u.last_seen_at AS u_last_seen_at"
    };
}
pub(super) use member_columns;

/// Reads [`member_columns!`], of a chat with receipts or without.
pub(super) fn member(row: &Row, receipts: bool, show_presence: bool) -> Member {
    Member {
        user: User {
            user_id: user(row.get("r_user_id")),
            name: row.get("u_name"),
            avatar_url: row.get("u_avatar_url"),
            online: false,
            last_seen_at: opt_time(row, "u_last_seen_at").filter(|_| show_presence),
        },
        role: role(row.get("r_role")),
        joined_at: time(row, "r_joined_at"),
        read_seq: receipts.then(|| row.get("r_read_seq")),
        silenced_until: opt_time(row, "r_silenced_until"),
    }
}

/// A page of members, with a condition and what it looks at. The order and the bound are those of
/// `members_by_role`; what is said of `left_ev` covers its predicate, in whichever of the two words it is.
macro_rules! list_members {
    ($name:literal, $join:literal, $condition:literal) => {
        concat!(
            "-- store.", $name,
            "
WITH head AS (
    SELECT c.chat_id, c.member_count, c.receipts, c.receipts AND NOT c.blocked AS show_presence
      FROM chats c
      LEFT JOIN LATERAL (SELECT m.user_id FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0
                         OFFSET 0) me ON true
     WHERE c.chat_id = $1 AND ($2 IS NULL OR me.user_id IS NOT NULL)
)
SELECT h.member_count, h.receipts, h.show_presence, ",
            member_columns!(),
            "
  FROM head h
  LEFT JOIN LATERAL (
      SELECT x.* FROM unnest($3, $4, $5) WITH ORDINALITY AS q (role, joined_ev, user_id, idx)
       CROSS JOIN LATERAL (
           SELECT m.* FROM members m",
            $join,
            "
            WHERE m.chat_id = h.chat_id AND m.role = q.role::member_role AND m.left_ev IS NULL AND coalesce(m.left_ev, -1) = -1
              AND (m.joined_ev, m.user_id) > (coalesce(q.joined_ev, -1), coalesce(q.user_id, ''))",
            $condition,
            "
            ORDER BY m.joined_ev, m.user_id LIMIT $6) x
       ORDER BY q.idx, x.joined_ev, x.user_id LIMIT $6) r ON true
  LEFT JOIN LATERAL (SELECT * FROM users u WHERE u.user_id = r.user_id OFFSET 0) u ON true
 ORDER BY r.role DESC, r.joined_ev, r.user_id"
        )
    };
}

const LIST_MEMBERS: &str = list_members!("list_members", "", "");

/// Looks at members in their order until a page is full.
const SEARCH_MEMBERS: &str = list_members!(
    "search_members",
    "
            LEFT JOIN LATERAL (SELECT u.name FROM users u WHERE u.user_id = m.user_id OFFSET 0) n ON true",
    "
              AND (starts_with(lower(m.user_id COLLATE \"default\"), lower($7))
                   OR starts_with(lower(n.name), lower($7)))"
);

/// In the order of `members_by_role`, which has no rows of those who left: by the primary key a group that
/// thousands came to and left would be read with all of them.
const LIST_MEMBER_IDS: &str = "\
-- store.list_member_ids
SELECT m.user_id FROM members m
 WHERE m.chat_id = $1 AND m.left_ev IS NULL AND coalesce(m.left_ev, -1) = -1
 ORDER BY m.role DESC, m.joined_ev, m.user_id LIMIT $2";

const GET_MEMBER: &str = concat!(
    "-- store.get_member\nSELECT c.receipts, c.receipts AND NOT c.blocked AS show_presence, ",
    member_columns!(),
    "
  FROM chats c
 CROSS JOIN LATERAL (SELECT * FROM members m
                      WHERE m.chat_id = c.chat_id AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0
                     OFFSET 0) r
  LEFT JOIN LATERAL (SELECT * FROM users u WHERE u.user_id = r.user_id OFFSET 0) u ON true
 WHERE c.chat_id = $1"
);

/// Who came after a message has not read it, though their marker begins past it. All members are looked at only
/// where there are few and there is such a message.
const LIST_READERS: &str = "\
-- store.list_readers
WITH head AS (
    SELECT c.chat_id, c.member_count > $6 AS too_large, m.seq, m.sender_id
      FROM chats c
     CROSS JOIN LATERAL (SELECT m.first_seq FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = $2 AND coalesce(m.left_ev, 0) = 0
                         OFFSET 0) me
      LEFT JOIN LATERAL message_by_id(c.chat_id, $3) m ON m.seq >= me.first_seq
     WHERE c.chat_id = $1
)
SELECT h.too_large, r.count, r.readers
  FROM head h
  LEFT JOIN LATERAL (
      SELECT count(*) AS count,
             (array_agg(m.user_id ORDER BY m.user_id) FILTER (WHERE $4 IS NULL OR m.user_id > $4))[:$5] AS readers
        FROM members m
       WHERE m.chat_id = h.chat_id AND h.seq IS NOT NULL AND NOT h.too_large
         AND coalesce(m.left_ev, 0) = 0 AND m.read_seq >= h.seq AND m.joined_seq < h.seq
         AND m.user_id IS DISTINCT FROM h.sender_id) r ON h.seq IS NOT NULL";
