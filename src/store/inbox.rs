//! Chats as their readers see them: one, some, or a page of a list.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use beseda_protocol::frame::GoneReason;
use tokio_postgres::types::{ToSql, Type};

use super::{
    Reader, Store, StoreError,
    chats::gone_reason,
    groups::settings,
    row::Row,
    rows::{
        chat_kind, epoch, flags, has_message, json, message, message_columns, opt_time, role, time,
        unread, unread_mentions, user,
    },
};
use crate::model::{Chat, ChatId, ChatKind, OwnFlags, Time, User, UserId};

/// A chat as its reader sees it, still without presence.
#[derive(Debug, Clone)]
pub struct StoredChat {
    pub chat: Chat,
    /// The reader's [`MemberState::version`](super::MemberState::version).
    pub version: i64,
    /// What lists are ordered by, behind `pinned`.
    pub activity: Time,
    /// The other's presence is shown: neither of the two has blocked the other.
    pub show_presence: bool,
}

/// A chat that was requested by its id.
#[derive(Debug, Clone)]
pub struct InboxChat<C> {
    pub chat_id: ChatId,
    /// 0 where the chat is gone.
    pub version: i64,
    pub chat: Result<C, GoneReason>,
}

/// Some of a member's chats, requested by id and read in one snapshot.
#[derive(Debug, Clone)]
pub struct InboxPage<C> {
    /// Each id that was looked up, in the order of the request.
    pub chats: Vec<InboxChat<C>>,
    pub epoch: String,
}

/// Which of a user's chats are listed. Archived ones are in their own list only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChatFilter {
    #[default]
    All,
    Unread,
    Archived,
    Pinned,
}

/// The place of a chat in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatCursor {
    pub pinned: bool,
    pub activity: Time,
    pub chat_id: ChatId,
}

impl Store {
    /// Returns one chat as its reader sees it; `None`: the reader is no member.
    pub async fn get_chat(
        &self,
        chat_id: ChatId,
        reader: Reader<'_>,
    ) -> Result<Option<StoredChat>, StoreError> {
        let rows = match reader {
            Reader::Member(user) => {
                let user = user.as_str();
                self.read(GET_CHAT, &[(&user, Type::TEXT), (&chat_id, Type::UUID)]).await?
            }
            Reader::Host => self.read(GET_CHAT_AS_HOST, &[(&chat_id, Type::UUID)]).await?,
        };
        Ok(rows.first().map(chat))
    }

    /// The first of these chats, as `user` sees them, up to the one with which their last messages
    /// have [`INBOX_BYTES`].
    pub async fn get_chats(
        &self,
        chats: &[ChatId],
        user: &UserId,
    ) -> Result<InboxPage<StoredChat>, StoreError> {
        let params = [
            (&user.as_str() as &(dyn ToSql + Sync), Type::TEXT),
            (&chats, Type::UUID_ARRAY),
            (&INBOX_BYTES, Type::INT8),
        ];
        let rows = self.query(GET_CHATS, &params).await?;
        let epoch = rows.first().map_or_else(String::new, |row| row.get("epoch"));
        let seen = |row: &Row| {
            let found = row.get::<Option<ChatId>>("chat_id").map(|_| chat(row));
            InboxChat {
                chat_id: row.get("asked"),
                version: found.as_ref().map_or(0, |chat| chat.version),
                chat: found.ok_or_else(|| gone_reason(row.get("left_reason"))),
            }
        };
        Ok(InboxPage { chats: rows.iter().map(seen).collect(), epoch })
    }

    /// These groups, each as the member beside it sees it, in their order.
    pub async fn get_group_chats(
        &self,
        pairs: &[(ChatId, &UserId)],
    ) -> Result<InboxPage<StoredChat>, StoreError> {
        let (groups, users): (Vec<_>, Vec<_>) =
            pairs.iter().map(|(chat_id, user)| (*chat_id, user.as_str())).unzip();
        let mut seen = HashSet::new();
        let firsts: Vec<bool> = groups.iter().map(|chat_id| seen.insert(*chat_id)).collect();
        let params = [
            (&groups as &(dyn ToSql + Sync), Type::UUID_ARRAY),
            (&users, Type::TEXT_ARRAY),
            (&firsts, Type::BOOL_ARRAY),
        ];
        let rows = self.query(GET_GROUP_CHATS, &params).await?;
        let epoch = rows.first().map_or_else(String::new, |row| row.get("epoch"));
        let mut shared: HashMap<ChatId, StoredChat> = HashMap::with_capacity(seen.len());
        let mut chats = Vec::with_capacity(rows.len());
        for row in &rows {
            let chat_id: ChatId = row.get("asked");
            if row.get::<Option<ChatId>>("chat_id").is_some() {
                shared.insert(chat_id, chat(row));
            }
            let is_member = row.get::<Option<bool>>("is_member") == Some(true);
            let seen = shared.get(&chat_id).filter(|_| is_member).map(|chat| as_member(chat, row));
            chats.push(InboxChat {
                chat_id,
                version: seen.as_ref().map_or(0, |chat| chat.version),
                chat: seen.ok_or_else(|| gone_reason(row.get("left_reason"))),
            });
        }
        Ok(InboxPage { chats, epoch })
    }

    /// A page of a user's chats past `after`: pinned ones first, then latest activity.
    pub async fn list_chats(
        &self,
        user: &UserId,
        filter: ChatFilter,
        after: Option<ChatCursor>,
        limit: i64,
    ) -> Result<Vec<StoredChat>, StoreError> {
        let filter = match filter {
            ChatFilter::All => "all",
            ChatFilter::Unread => "unread",
            ChatFilter::Archived => "archived",
            ChatFilter::Pinned => "pinned",
        };
        let pinned = after.map(|cursor| cursor.pinned);
        let activity = after.map(|cursor| cursor.activity.0);
        let chat_id = after.map(|cursor| cursor.chat_id);
        let rows = self
            .list(
                LIST_CHATS,
                &[
                    (&user.as_str(), Type::TEXT),
                    (&filter, Type::TEXT),
                    (&pinned, Type::BOOL),
                    (&activity, Type::TIMESTAMPTZ),
                    (&chat_id, Type::UUID),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let mut chats: Vec<StoredChat> = rows.iter().map(chat).collect();
        // Cheaper here than in Postgres, whose rows are wide.
        chats.sort_unstable_by_key(|StoredChat { chat, activity, .. }| {
            Reverse((chat.pinned, *activity, chat.chat_id))
        });
        Ok(chats)
    }
}

/// A group as the member of this row of [`GET_GROUP_CHATS`] sees it.
fn as_member(group: &StoredChat, row: &Row) -> StoredChat {
    let mut seen = group.clone();
    let chat = &mut seen.chat;
    seen.version = chat.last_ev + row.get::<i64>("own_rev");
    chat.role = role(row.get("own_role"));
    chat.first_seq = row.get("own_first_seq");
    chat.read_seq = row.get("own_read_seq");
    chat.unread_count = row.get("own_unread");
    chat.unread_mentions = row.get("own_mentions");
    let OwnFlags { notify, archived, pinned } = flags(row.get("own_flags"));
    (chat.notify, chat.archived, chat.pinned) = (notify, archived, pinned);
    let first_seq = chat.first_seq;
    chat.last_message.take_if(|message| message.seq < first_seq);
    seen
}

fn chat(row: &Row) -> StoredChat {
    let chat_id = row.get("chat_id");
    let kind = chat_kind(row.get("chat_kind"));
    let OwnFlags { notify, archived, pinned } = flags(row.get("flags"));
    let other_user = row.get::<Option<&str>>("peer_id").map(|peer| User {
        user_id: user(peer),
        name: row.get("name"),
        avatar_url: row.get("user_avatar_url"),
        online: false,
        last_seen_at: opt_time(row, "last_seen_at"),
    });
    StoredChat {
        version: row.get("version"),
        activity: time(row, "active_at"),
        show_presence: other_user.is_some() && !row.get::<bool>("blocked"),
        chat: Chat {
            chat_id,
            room_name: row.get("room_name"),
            kind,
            title: row.get("title"),
            avatar_url: row.get("avatar_url"),
            metadata: json(row, "metadata"),
            member_count: row.get("member_count"),
            created_at: time(row, "created_at"),
            created_by: user(row.get("created_by")),
            other_user,
            role: role(row.get("role")),
            settings: (kind == ChatKind::Group).then(|| settings(row)),
            receipts: row.get("receipts"),
            last_message: has_message(row).then(|| message(chat_id, row)),
            last_seq: row.get("last_seq"),
            last_ev: row.get("last_ev"),
            first_seq: row.get("first_seq"),
            read_seq: row.get("read_seq"),
            peer_read_seq: row.get("peer_read_seq"),
            unread_count: row.get("unread"),
            unread_mentions: row.get("unread_mentions"),
            notify,
            pinned,
            archived,
        },
    }
}

/// The columns that [`chat`] reads, in its order, for chats chosen as `p`. A look-up that would read a group's
/// members is made for direct chats only.
macro_rules! select_chats {
    () => {
        concat!(
            "SELECT p.chat_id, p.kind::text AS chat_kind,
       member_flags(p.notify, p.archived, p.pinned) AS flags, peer.user_id AS peer_id, u.name,
       u.avatar_url AS user_avatar_url, u.last_seen_at, p.last_ev + p.rev AS version, p.active_at, p.blocked,
       p.room_name, g.title, g.avatar_url, g.metadata, p.member_count, p.created_at, p.created_by,
       p.role::text, p.admins_post, g.members_invite, g.history_all, g.open,
       p.slow_mode_s::integer AS slow_mode_s, p.receipts, ",
            message_columns!(),
            ", p.last_seq, p.last_ev, p.first_seq, p.read_seq, peer.read_seq AS peer_read_seq, ",
            unread!("p", "p"),
            " AS unread, ",
            unread_mentions!("p", "p"),
            " AS unread_mentions FROM p
  LEFT JOIN LATERAL (SELECT m.user_id, m.read_seq FROM members m
                      WHERE m.chat_id = p.chat_id AND p.kind = 'direct' AND m.user_id <> p.user_id
                     OFFSET 0) peer ON true
  LEFT JOIN LATERAL (SELECT * FROM users u WHERE u.user_id = peer.user_id OFFSET 0) u ON true
  LEFT JOIN LATERAL (SELECT * FROM groups g WHERE g.chat_id = p.chat_id AND p.kind = 'group'
                     OFFSET 0) g ON true
  LEFT JOIN LATERAL (SELECT * FROM messages m
                      WHERE m.chat_id = p.chat_id AND m.seq = p.last_seq AND m.seq >= p.first_seq
                        AND p.user_id IS NOT NULL OFFSET 0) m ON true"
        )
    };
}

/// A member's own rows that meet a condition, each beside its chat.
macro_rules! own_chats {
    ($condition:literal) => {
        concat!(
            "SELECT c.*, me.user_id, me.role, me.rev, me.first_seq, me.read_seq, me.floor_seq, me.floor_counted,
                me.own_after, me.mention_seq, me.notify, me.pinned, me.archived
           FROM members me
          CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
          WHERE ",
            $condition
        )
    };
}

const GET_CHAT: &str = concat!(
    "-- store.get_chat\nWITH p AS (",
    own_chats!("me.user_id = $1 AND me.chat_id = $2 AND coalesce(me.left_ev, 0) = 0"),
    ") ",
    select_chats!()
);

/// A chat by its id, as an owner sees it who has read everything; where the user is null, without messages.
macro_rules! chat_of_nobody {
    ($user:literal, $chat_id:literal) => {
        concat!(
            "SELECT c.*, ",
            $user,
            " AS user_id, 'owner'::member_role AS role, 0::bigint AS rev, 1::bigint AS first_seq,
           0::bigint AS read_seq, c.last_seq AS floor_seq, c.last_counted AS floor_counted,
           0::bigint AS own_after, 0::bigint AS mention_seq, 'all'::notify_level AS notify, false AS pinned,
           false AS archived
      FROM chats c WHERE c.chat_id = ",
            $chat_id
        )
    };
}

const GET_CHAT_AS_HOST: &str = concat!(
    "-- store.get_chat_as_host\nWITH p AS (",
    chat_of_nobody!("NULL::text", "$1"),
    ") ",
    select_chats!()
);

/// What all members see alike comes with the first of them.
const GET_GROUP_CHATS: &str = concat!(
    "-- store.get_group_chats
SELECT q.chat_id AS asked, r.*, me.left_ev IS NULL AND me.user_id IS NOT NULL AS is_member,
       me.left_reason::text, me.rev AS own_rev, me.role::text AS own_role, me.first_seq AS own_first_seq,
       me.read_seq AS own_read_seq, ",
    unread!("c", "me"),
    " AS own_unread, ",
    unread_mentions!("c", "me"),
    " AS own_mentions,
       member_flags(me.notify, me.archived, me.pinned) AS own_flags, ",
    epoch!(),
    "
  FROM unnest($1, $2, $3) WITH ORDINALITY AS q (chat_id, user_id, is_first, idx)
  LEFT JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = q.chat_id OFFSET 0) c ON true
  LEFT JOIN LATERAL (SELECT * FROM members m WHERE m.chat_id = c.chat_id AND m.user_id = q.user_id
                     OFFSET 0) me ON true
  LEFT JOIN LATERAL (WITH p AS (",
    chat_of_nobody!("''", "CASE WHEN q.is_first THEN q.chat_id END"),
    ") ",
    select_chats!(),
    ") r ON true
 ORDER BY q.idx"
);

/// Last messages of one page of an inbox, in bytes of text and metadata: as in a page of changes, a slow
/// reader holds a page for as long as a write may take.
const INBOX_BYTES: i64 = 512 * 1024;

/// Chat by chat, by full key: with `= ANY`, Postgres walks over all of the user's chats and looks each up
/// in the array. `before`: the bytes of the rows before this one, so that one comes however large it is.
const GET_CHATS: &str = concat!(
    "-- store.get_chats
SELECT * FROM (
    SELECT r.*, q.chat_id AS asked, gone.left_reason, ",
    epoch!(),
    ", q.idx, coalesce(sum(octet_length(r.m_text) + coalesce(octet_length(r.m_metadata::text), 0)
                                + coalesce(octet_length(r.m_attachments::text), 0)
                                + coalesce(octet_length(r.m_reactions::text), 0))
           OVER (ORDER BY q.idx ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
      FROM unnest($2) WITH ORDINALITY AS q (chat_id, idx)
      LEFT JOIN LATERAL (WITH p AS (",
    own_chats!("me.user_id = $1 AND me.chat_id = q.chat_id AND coalesce(me.left_ev, 0) = 0"),
    ") ",
    select_chats!(),
    ") r ON true
      LEFT JOIN LATERAL (SELECT m.left_reason::text FROM members m
                          WHERE m.chat_id = q.chat_id AND m.user_id = $1 AND r.chat_id IS NULL
                         OFFSET 0) gone ON true
) x WHERE before < $3 ORDER BY idx"
);

/// A caller's chats are sorted at read: an index on activity would change with every send. Only those that are
/// shown are looked up whole.
const LIST_CHATS: &str = concat!(
    "-- store.list_chats
WITH shown AS MATERIALIZED (
    SELECT me.chat_id
      FROM members me
     CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
     WHERE me.user_id = $1 COLLATE \"POSIX\" AND me.left_ev IS NULL
       AND me.archived = ($2 = 'archived') AND (me.pinned OR $2 <> 'pinned')
       AND ($3::boolean IS NULL OR (me.pinned, c.active_at, c.chat_id) < ($3, $4, $5))
       AND ($2 <> 'unread' OR ",
    unread!("c", "me"),
    " > 0)
     ORDER BY me.pinned DESC, c.active_at DESC, c.chat_id DESC LIMIT $6
), p AS (
    SELECT own.* FROM shown s
     CROSS JOIN LATERAL (",
    own_chats!("me.user_id = $1 AND me.chat_id = s.chat_id AND coalesce(me.left_ev, 0) = 0"),
    " OFFSET 0) own
) ",
    select_chats!()
);
