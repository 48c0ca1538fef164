//! The state of members after a change, all that Redis and the members' inboxes need; and its sums.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::Type;

use super::{
    ChatState, MemberState, Store, StoreError,
    member_state::{chat_state, has_state, member_state, state_columns},
    row::Row,
    rows::{epoch, epoch_of, unread, unread_mentions, user},
};
use crate::model::{ChatId, ChatKind, Epoch, UserId};

/// What an inbox compares of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxHead {
    pub chat_id: ChatId,
    pub kind: ChatKind,
    /// [`MemberState::version`].
    pub version: i64,
    pub unread: i64,
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
            for state in read {
                if let ChatState::Direct { members, .. } = state {
                    states.extend(members);
                }
            }
        }
        Ok(())
    }

    /// Adds to `states` those of these members of groups that are not there: whom a message mentions, and
    /// its sender.
    pub(super) async fn complete_members(
        &self,
        states: &mut Vec<MemberState>,
        members: HashSet<(ChatId, UserId)>,
    ) -> Result<(), StoreError> {
        let mut missing = members;
        for state in states.iter() {
            missing.remove(&(state.chat_id, state.user_id.clone()));
        }
        if !missing.is_empty() {
            let missing: Vec<(ChatId, UserId)> = missing.into_iter().collect();
            states.extend(self.get_member_states(&missing).await?);
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
            let state = states.entry(chat_id).or_insert_with(|| chat_state(row, &epoch));
            if let ChatState::Direct { members, .. } = state {
                members.extend(has_state(row).then(|| member_state(row, &epoch)));
            }
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
        let rows = self.query(LIST_STATES, &[(&user.as_str(), Type::TEXT)]).await?;
        let epoch = rows.first().map(epoch_of).ok_or(StoreError::Unavailable(None))?;
        let chats = rows.iter().filter(|row| has_state(row));
        let states = chats.map(|row| member_state(row, &epoch)).collect();
        Ok((epoch, states))
    }

    /// Returns what an inbox compares of every chat of a user, and the epoch of the same snapshot.
    pub async fn list_heads(&self, user: &UserId) -> Result<(String, Vec<InboxHead>), StoreError> {
        let row = self.query_one(LIST_HEADS, &[(&user.as_str(), Type::TEXT)]).await?;
        let chats: Vec<ChatId> = row.get::<Option<_>>("chat_ids").unwrap_or_default();
        let groups: Vec<bool> = row.get::<Option<_>>("groups").unwrap_or_default();
        let versions: Vec<i64> = row.get::<Option<_>>("versions").unwrap_or_default();
        let unread: Vec<i64> = row.get::<Option<_>>("unreads").unwrap_or_default();
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
    "-- store.get_states\nSELECT f.chat_id, f.kind, f.last_seq, f.last_ev, f.activity, f.counted, f.recount_ev, ",
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
const LIST_STATES: &str = concat!(
    "-- store.list_states\nSELECT ",
    state_columns!(),
    ", here.epoch FROM (SELECT ",
    epoch!(),
    ") here LEFT JOIN LATERAL (
    SELECT c.chat_id, me.user_id, c.kind::text, c.room_name, c.last_seq, c.last_ev, c.active_at AS activity,
           c.last_counted AS counted, c.recount_ev, false AS gone, me.rev, me.read_seq, ",
    unread!("c", "me"),
    " AS unread, ",
    unread_mentions!("c", "me"),
    " AS mentions,
           member_flags(me.notify, me.archived, me.pinned) AS flags
      FROM members me
     CROSS JOIN LATERAL (SELECT * FROM chats c WHERE c.chat_id = me.chat_id OFFSET 0) c
     WHERE me.user_id = $1 COLLATE \"POSIX\" AND me.left_ev IS NULL) s ON true"
);

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
