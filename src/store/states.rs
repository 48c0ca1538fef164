//! The state of members after a change, all that Redis and the members' inboxes need; and its sums.

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Row, types::Type};

use super::{
    Store, StoreError,
    rows::{chat_kind, epoch, epoch_of, notify, time, unread, unread_mentions, user},
};
use crate::model::{ChatId, ChatKind, Epoch, Notify, Time, UserId};

/// A member's state in a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    pub chat_id: ChatId,
    pub user_id: UserId,
    pub kind: ChatKind,
    pub room_name: String,
    pub last_seq: i64,
    pub last_ev: i64,
    /// When the last message was sent that may be unread, else when the chat was created.
    pub activity: Time,
    /// No member any more: the counters are 0.
    pub gone: bool,
    /// Grows with changes of the member's own that have no revision.
    pub rev: i64,
    pub read_seq: i64,
    pub unread: i64,
    /// Unread messages that mention the member.
    pub mentions: i64,
    pub notify: Notify,
    pub archived: bool,
    /// The history that the state belongs to, read by the same statement.
    pub epoch: Epoch,
}

impl MemberState {
    /// Grows with every change that a copy of the state must follow.
    pub fn version(&self) -> i64 {
        self.last_ev + self.rev
    }
}

/// The state of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatState {
    pub chat_id: ChatId,
    pub kind: ChatKind,
    pub last_ev: i64,
    /// Of a direct chat: both. Of a group: none, as there may be many.
    pub members: Vec<MemberState>,
    /// The history that the state belongs to, read by the same statement.
    pub epoch: Epoch,
}

/// What an inbox compares of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxHead {
    pub chat_id: ChatId,
    pub kind: ChatKind,
    /// [`MemberState::version`].
    pub version: i64,
    pub unread: i64,
}

/// The columns that [`member_state`] reads, of a `member_state` named `s`.
macro_rules! state_columns {
    () => {
        "s.chat_id AS s_chat_id, s.user_id AS s_user_id, s.kind AS s_kind, s.room_name AS s_room_name, \
         s.last_seq AS s_last_seq, s.last_ev AS s_last_ev, s.activity AS s_activity, s.gone AS s_gone, \
         s.rev AS s_rev, s.read_seq AS s_read_seq, s.unread AS s_unread, s.mentions AS s_mentions, \
         s.notify AS s_notify, s.archived AS s_archived"
    };
}

/// Whether the row has a state: an outer join may have found none.
fn has_state(row: &Row) -> bool {
    row.get::<_, Option<ChatId>>("s_chat_id").is_some()
}

/// Reads [`state_columns!`].
fn member_state(row: &Row, epoch: &Epoch) -> MemberState {
    MemberState {
        chat_id: row.get("s_chat_id"),
        user_id: user(row.get("s_user_id")),
        kind: chat_kind(row.get("s_kind")),
        room_name: row.get("s_room_name"),
        last_seq: row.get("s_last_seq"),
        last_ev: row.get("s_last_ev"),
        activity: time(row, "s_activity"),
        gone: row.get("s_gone"),
        rev: row.get("s_rev"),
        read_seq: row.get("s_read_seq"),
        unread: row.get("s_unread"),
        mentions: row.get("s_mentions"),
        notify: notify(row.get("s_notify")),
        archived: row.get("s_archived"),
        epoch: Epoch::clone(epoch),
    }
}

/// A row of a function that writes, with the state of a user after the write, and in a direct chat that of the
/// other member too. The columns have no more than the caller does not know.
pub(super) struct Told<'a> {
    pub(super) row: &'a Row,
    pub(super) chat_id: ChatId,
    pub(super) user_id: &'a UserId,
    pub(super) last_seq: i64,
    pub(super) last_ev: i64,
    pub(super) activity: Time,
    pub(super) epoch: &'a Epoch,
}

impl Told<'_> {
    /// Whether a row has a state: its chat's name comes with it.
    pub(super) fn is_on(row: &Row) -> bool {
        row.get::<_, Option<&str>>("room_name").is_some()
    }

    /// The user's own state.
    pub(super) fn own(&self) -> MemberState {
        let columns = ["rev", "read_seq", "unread", "unread_mentions", "notify", "archived"];
        self.state(self.user_id.clone(), columns)
    }

    /// The other member's, where the row has it.
    pub(super) fn peer(&self) -> Option<MemberState> {
        let peer: Option<&str> = self.row.get("peer_id");
        let columns = [
            "peer_rev",
            "peer_read_seq",
            "peer_unread",
            "peer_mentions",
            "peer_notify",
            "peer_archived",
        ];
        peer.map(|peer| self.state(user(peer), columns))
    }

    fn state(
        &self,
        user_id: UserId,
        [rev, read_seq, unread, mentions, notify, archived]: [&str; 6],
    ) -> MemberState {
        let row = self.row;
        MemberState {
            chat_id: self.chat_id,
            user_id,
            kind: chat_kind(row.get("kind")),
            room_name: row.get("room_name"),
            last_seq: self.last_seq,
            last_ev: self.last_ev,
            activity: self.activity,
            gone: false,
            rev: row.get(rev),
            read_seq: row.get(read_seq),
            unread: row.get(unread),
            mentions: row.get(mentions),
            notify: row
                .get::<_, Option<&str>>(notify)
                .map_or(Notify::All, crate::store::rows::notify),
            archived: row.get(archived),
            epoch: Epoch::clone(self.epoch),
        }
    }
}

impl Store {
    /// Adds to `states` those of both members of each of these direct chats that are not there: what a batch has
    /// written seldom is not told by its own statement.
    pub(super) async fn complete_states(
        &self,
        states: &mut Vec<MemberState>,
        chats: HashSet<ChatId>,
    ) -> Result<(), StoreError> {
        let mut missing = chats;
        missing.retain(|chat_id| {
            let told = states.iter().filter(|state| state.chat_id == *chat_id);
            told.map(|state| &state.user_id).collect::<HashSet<_>>().len() < 2
        });
        if !missing.is_empty() {
            let missing: Vec<ChatId> = missing.into_iter().collect();
            let read = self.get_states(&missing).await?;
            states.extend(read.into_iter().flat_map(|state| state.members));
        }
        Ok(())
    }

    /// Returns the states of these chats; those that are gone are missing.
    pub async fn get_states(&self, chats: &[ChatId]) -> Result<Vec<ChatState>, StoreError> {
        let rows = self.query(GET_STATES, &[(&chats, Type::UUID_ARRAY)]).await?;
        let Some(epoch) = rows.first().map(epoch_of) else { return Ok(Vec::new()) };
        let mut states: HashMap<ChatId, ChatState> = HashMap::with_capacity(chats.len());
        for row in &rows {
            let chat_id: ChatId = row.get("chat_id");
            let state = states.entry(chat_id).or_insert_with(|| ChatState {
                chat_id,
                kind: chat_kind(row.get("kind")),
                last_ev: row.get("last_ev"),
                members: Vec::new(),
                epoch: Epoch::clone(&epoch),
            });
            state.members.extend(has_state(row).then(|| member_state(row, &epoch)));
        }
        Ok(states.into_values().collect())
    }

    /// Returns the states of these members, also of those who left; a pair whose chat or row is gone is
    /// missing.
    pub async fn get_member_states(
        &self,
        members: &[(ChatId, UserId)],
    ) -> Result<Vec<MemberState>, StoreError> {
        let (chats, users): (Vec<_>, Vec<_>) =
            members.iter().map(|(chat_id, user)| (*chat_id, user.as_str())).unzip();
        let rows = self
            .query(GET_MEMBER_STATES, &[(&chats, Type::UUID_ARRAY), (&users, Type::TEXT_ARRAY)])
            .await?;
        let Some(epoch) = rows.first().map(epoch_of) else { return Ok(Vec::new()) };
        Ok(rows.iter().map(|row| member_state(row, &epoch)).collect())
    }

    /// Returns a user's states in all chats, for the counters in Redis, and the epoch of the same snapshot,
    /// also where there is no chat.
    pub async fn list_states(
        &self,
        user: &UserId,
    ) -> Result<(Epoch, Vec<MemberState>), StoreError> {
        self.list_states_by(LIST_STATES, user).await
    }

    /// The same of groups only.
    pub async fn list_group_states(
        &self,
        user: &UserId,
    ) -> Result<(Epoch, Vec<MemberState>), StoreError> {
        self.list_states_by(LIST_GROUP_STATES, user).await
    }

    async fn list_states_by(
        &self,
        sql: &'static str,
        user: &UserId,
    ) -> Result<(Epoch, Vec<MemberState>), StoreError> {
        let rows = self.query(sql, &[(&user.as_str(), Type::TEXT)]).await?;
        let epoch = rows.first().map(epoch_of).ok_or(StoreError::Unavailable(None))?;
        let chats = rows.iter().filter(|row| has_state(row));
        let states = chats.map(|row| member_state(row, &epoch)).collect();
        Ok((epoch, states))
    }

    /// Returns what an inbox compares of every chat of a user, and the epoch of the same snapshot.
    pub async fn list_heads(&self, user: &UserId) -> Result<(String, Vec<InboxHead>), StoreError> {
        let row = self.query_one(LIST_HEADS, &[(&user.as_str(), Type::TEXT)]).await?;
        let chats: Vec<ChatId> = row.get::<_, Option<_>>("chat_ids").unwrap_or_default();
        let groups: Vec<bool> = row.get::<_, Option<_>>("groups").unwrap_or_default();
        let versions: Vec<i64> = row.get::<_, Option<_>>("versions").unwrap_or_default();
        let unread: Vec<i64> = row.get::<_, Option<_>>("unreads").unwrap_or_default();
        let heads = chats.into_iter().zip(groups).zip(versions.into_iter().zip(unread));
        let head = |((chat_id, group), (version, unread))| InboxHead {
            chat_id,
            kind: if group { ChatKind::Group } else { ChatKind::Direct },
            version,
            unread,
        };
        Ok((row.get("epoch"), heads.map(head).collect()))
    }

    /// The newest `ev` of each of these chats, of which there must be one, `None`: it is gone; and the
    /// epoch of the same snapshot.
    pub async fn get_heads(
        &self,
        chats: &[ChatId],
    ) -> Result<(Epoch, Vec<(ChatId, Option<i64>)>), StoreError> {
        let rows = self.query(GET_HEADS, &[(&chats, Type::UUID_ARRAY)]).await?;
        let epoch = rows.first().map(epoch_of).ok_or(StoreError::Unavailable(None))?;
        Ok((epoch, rows.iter().map(|row| (row.get("chat_id"), row.get("last_ev"))).collect()))
    }

    /// Sums a user's unread messages over all chats.
    pub async fn sum_unread(&self, user: &UserId) -> Result<i64, StoreError> {
        let row = self.query_one(SUM_UNREAD, &[(&user.as_str(), Type::TEXT)]).await?;
        Ok(row.get("total_unread"))
    }

    /// Returns for each of these users who has chats their count, and the sum of their versions, which
    /// changes with every change.
    pub async fn sum_chats(
        &self,
        users: &[UserId],
    ) -> Result<Vec<(UserId, (i64, i64))>, StoreError> {
        let ids: Vec<_> = users.iter().map(UserId::as_str).collect();
        let rows = self.query(SUM_CHATS, &[(&ids, Type::TEXT_ARRAY)]).await?;
        let sums = |row: &Row| (user(row.get("user_id")), (row.get("chats"), row.get("versions")));
        Ok(rows.iter().map(sums).collect())
    }
}

/// `OFFSET 0`: or a state would be put together anew for each of its columns.
const GET_STATES: &str = concat!(
    "-- store.get_states\nSELECT f.chat_id, f.kind, f.last_ev, ",
    state_columns!(),
    ", ",
    epoch!(),
    " FROM (SELECT * FROM chat_states($1) OFFSET 0) f CROSS JOIN LATERAL (SELECT (f.state).*) s"
);

const GET_MEMBER_STATES: &str = concat!(
    "-- store.get_member_states\nSELECT ",
    state_columns!(),
    ", ",
    epoch!(),
    " FROM member_states($1, $2) s"
);

/// As `member_states()` does, which would be planned at every call, as it is given a subquery.
macro_rules! list_states {
    ($name:literal, $condition:literal) => {
        concat!(
            "-- store.", $name, "\nSELECT ",
            state_columns!(),
            ", here.epoch FROM (SELECT ",
            epoch!(),
            ") here LEFT JOIN LATERAL (
    SELECT c.chat_id, me.user_id, c.kind::text, c.room_name, c.last_seq, c.last_ev, c.active_at AS activity,
           false AS gone, me.rev, me.read_seq, ",
            unread!("c", "me"),
            " AS unread, ",
            unread_mentions!("c", "me"),
            " AS mentions,
           me.notify::text, me.archived
      FROM members me
     CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
     WHERE me.user_id = $1 COLLATE \"POSIX\" AND me.left_ev IS NULL",
            $condition,
            ") s ON true"
        )
    };
}

const LIST_STATES: &str = list_states!("list_states", "");

const LIST_GROUP_STATES: &str = list_states!("list_group_states", " AND c.kind = 'group'");

/// A user's chats: members' rows beside their chats. A deleted chat has rows of members until it is purged.
macro_rules! own_heads {
    ($user:literal) => {
        concat!(
            " FROM members me
 CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
 WHERE me.user_id = ",
            $user,
            " AND me.left_ev IS NULL"
        )
    };
}

const LIST_HEADS: &str = concat!(
    "-- store.list_heads\nSELECT ",
    epoch!(),
    ", array_agg(me.chat_id) AS chat_ids, array_agg(c.kind = 'group') AS groups,
       array_agg(c.last_ev + me.rev) AS versions, array_agg(",
    unread!("c", "me"),
    ") AS unreads",
    own_heads!("$1 COLLATE \"POSIX\"")
);

const GET_HEADS: &str = concat!(
    "-- store.get_heads\nSELECT q.chat_id, c.last_ev, ",
    epoch!(),
    "\n  FROM unnest($1) AS q (chat_id)
  LEFT JOIN LATERAL (SELECT last_ev FROM chats c WHERE c.chat_id = q.chat_id OFFSET 0) c ON true"
);

const SUM_UNREAD: &str = concat!(
    "-- store.sum_unread\nSELECT coalesce(sum(",
    unread!("c", "me"),
    "), 0)::bigint AS total_unread",
    own_heads!("$1 COLLATE \"POSIX\"")
);

const SUM_CHATS: &str = concat!(
    "-- store.sum_chats
SELECT me.user_id, count(*) AS chats, sum(c.last_ev + me.rev)::bigint AS versions",
    own_heads!("ANY ($1 COLLATE \"POSIX\")"),
    " GROUP BY me.user_id"
);
