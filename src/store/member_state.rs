//! What a change leaves behind: the state of its members and of its chat, all that Redis and the members'
//! inboxes need, as the functions that write and read it give it.

use super::{
    Draft,
    row::Row,
    rows::{chat_kind, flags, time, user},
};
use crate::model::{ChatId, ChatKind, Epoch, OwnFlags, Time, UserId};

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
    /// The number of messages that count as unread for somebody, in all of the chat.
    pub counted: i64,
    /// See [`GroupHead::recount_ev`].
    pub recount_ev: i64,
    /// No member any more: the counters are 0.
    pub gone: bool,
    /// Grows with changes of the member's own that have no revision.
    pub rev: i64,
    pub read_seq: i64,
    pub unread: i64,
    /// Unread messages that mention the member.
    pub mentions: i64,
    pub flags: OwnFlags,
    /// The history that the state belongs to, read by the same statement.
    pub epoch: Epoch,
}

impl MemberState {
    /// Grows with every change that a copy of the state must follow.
    pub fn version(&self) -> i64 {
        self.last_ev + self.rev
    }

    /// Where the chat stands, if it is a group.
    pub fn head(&self) -> Option<GroupHead> {
        (self.kind == ChatKind::Group).then(|| GroupHead {
            chat_id: self.chat_id,
            last_seq: self.last_seq,
            last_ev: self.last_ev,
            activity: self.activity,
            counted: self.counted,
            recount_ev: self.recount_ev,
            epoch: Epoch::clone(&self.epoch),
        })
    }
}

/// Where a group stands: what brings an older copy of a member's counter up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupHead {
    pub chat_id: ChatId,
    pub last_seq: i64,
    pub last_ev: i64,
    pub activity: Time,
    /// The number of messages that count as unread for somebody.
    pub counted: i64,
    /// The revision of the last change that moved counters in another way than by one more message.
    pub recount_ev: i64,
    pub epoch: Epoch,
}

/// The state of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatState {
    /// Both members'.
    Direct { chat_id: ChatId, last_ev: i64, members: Vec<MemberState>, epoch: Epoch },
    /// Of its members none, as there may be many.
    Group(GroupHead),
}

impl ChatState {
    pub fn chat_id(&self) -> ChatId {
        match self {
            Self::Direct { chat_id, .. } => *chat_id,
            Self::Group(head) => head.chat_id,
        }
    }
}

/// The columns that [`member_state`] reads, of a `member_state` named `s`.
macro_rules! state_columns {
    () => {
        "s.chat_id AS s_chat_id, s.user_id AS s_user_id, s.kind AS s_kind, s.room_name AS s_room_name, \
         s.last_seq AS s_last_seq, s.last_ev AS s_last_ev, s.activity AS s_activity, \
         s.counted AS s_counted, s.recount_ev AS s_recount_ev, s.gone AS s_gone, s.rev AS s_rev, \
         s.read_seq AS s_read_seq, s.unread AS s_unread, s.mentions AS s_mentions, s.flags AS s_flags"
    };
}
pub(super) use state_columns;

/// Whether the row has a state: an outer join may have found none.
pub(super) fn has_state(row: &Row) -> bool {
    row.get::<Option<ChatId>>("s_chat_id").is_some()
}

/// Reads [`state_columns!`].
pub(super) fn member_state(row: &Row, epoch: &Epoch) -> MemberState {
    MemberState {
        chat_id: row.get("s_chat_id"),
        user_id: user(row.get("s_user_id")),
        kind: chat_kind(row.get("s_kind")),
        room_name: row.get("s_room_name"),
        last_seq: row.get("s_last_seq"),
        last_ev: row.get("s_last_ev"),
        activity: time(row, "s_activity"),
        counted: row.get("s_counted"),
        recount_ev: row.get("s_recount_ev"),
        gone: row.get("s_gone"),
        rev: row.get("s_rev"),
        read_seq: row.get("s_read_seq"),
        unread: row.get("s_unread"),
        mentions: row.get("s_mentions"),
        flags: flags(row.get("s_flags")),
        epoch: Epoch::clone(epoch),
    }
}

/// A row of a function that writes, with the state of a user after the write, and in a direct chat that of the
/// other member too. The columns have no more than the caller does not know.
pub(super) struct Told<'a> {
    pub(super) row: &'a Row,
    pub(super) chat_id: ChatId,
    pub(super) user_id: &'a UserId,
    pub(super) activity: Time,
    pub(super) epoch: &'a Epoch,
}

impl<'a> Told<'a> {
    /// What a row of a message that was created tells of.
    pub(super) fn by_message(row: &'a Row, draft: &'a Draft, epoch: &'a Epoch) -> Self {
        let (chat_id, user_id) = (draft.chat_id, &draft.sender_id);
        Self { row, chat_id, user_id, activity: time(row, "created_at"), epoch }
    }

    /// Whether a row has a state: its chat's name comes with it.
    pub(super) fn is_on(row: &Row) -> bool {
        row.get::<Option<&str>>("room_name").is_some()
    }

    /// The user's own state.
    pub(super) fn own(&self) -> MemberState {
        let columns = ["rev", "read_seq", "unread", "unread_mentions", "flags"];
        self.state(self.user_id.clone(), columns)
    }

    /// All that the row has.
    pub(super) fn states(&self) -> impl Iterator<Item = MemberState> {
        self.peer().into_iter().chain([self.own()])
    }

    /// The other member's, where the row has it.
    fn peer(&self) -> Option<MemberState> {
        let peer: Option<&str> = self.row.get("peer_id");
        let columns = ["peer_rev", "peer_read_seq", "peer_unread", "peer_mentions", "peer_flags"];
        peer.map(|peer| self.state(user(peer), columns))
    }

    fn state(
        &self,
        user_id: UserId,
        [rev, read_seq, unread, mentions, own_flags]: [&str; 5],
    ) -> MemberState {
        let row = self.row;
        MemberState {
            chat_id: self.chat_id,
            user_id,
            kind: chat_kind(row.get("kind")),
            room_name: row.get("room_name"),
            last_seq: row.get("last_seq"),
            last_ev: row.get("last_ev"),
            activity: self.activity,
            counted: row.get("counted"),
            recount_ev: row.get("recount_ev"),
            gone: false,
            rev: row.get(rev),
            read_seq: row.get(read_seq),
            unread: row.get(unread),
            mentions: row.get(mentions),
            flags: flags(row.get(own_flags)),
            epoch: Epoch::clone(self.epoch),
        }
    }
}

/// Reads a row of `chat_states`, but for members.
pub(super) fn chat_state(row: &Row, epoch: &Epoch) -> ChatState {
    let epoch = Epoch::clone(epoch);
    match chat_kind(row.get("kind")) {
        ChatKind::Direct => ChatState::Direct {
            chat_id: row.get("chat_id"),
            last_ev: row.get("last_ev"),
            members: Vec::new(),
            epoch,
        },
        ChatKind::Group => ChatState::Group(group_head(row, row.get("chat_id"), epoch)),
    }
}

/// Reads where a group stands.
pub(super) fn group_head(row: &Row, chat_id: ChatId, epoch: Epoch) -> GroupHead {
    GroupHead {
        chat_id,
        last_seq: row.get("last_seq"),
        last_ev: row.get("last_ev"),
        activity: time(row, "activity"),
        counted: row.get("counted"),
        recount_ev: row.get("recount_ev"),
        epoch,
    }
}
