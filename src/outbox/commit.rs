//! What a commit has for Redis.

use bytes::Bytes;

use crate::{
    broker::Channel,
    model::{ChatId, Epoch, UserId},
    protocol::Publication,
    store::{ChatState, MemberState, Noted},
    unread::{Copies, CounterChange},
};

/// The changes of a transaction, ready for Redis.
#[derive(Debug, Default)]
pub struct Commit {
    pub noted: Vec<Noted>,
    pub publications: Vec<(Channel, Bytes)>,
    pub copies: Copies,
}

impl Commit {
    /// Appends a later commit.
    pub fn append(&mut self, mut later: Self) {
        self.noted.append(&mut later.noted);
        self.publications.append(&mut later.publications);
        self.copies.append(later.copies);
    }

    /// Adds a member's current state: what Redis keeps of it, and a publication to their inboxes.
    pub fn add_state(&mut self, state: &MemberState) {
        self.copies.add_state(state);
        self.tell_inbox(&state.epoch, state.chat_id, state.last_ev, &state.user_id);
    }

    /// Adds a chat's head, and in a direct chat the state of both members.
    pub(super) fn add_chat(&mut self, state: &ChatState) {
        let (chat_id, epoch, ev) = match state {
            ChatState::Direct { chat_id, last_ev, members, epoch } => {
                members.iter().for_each(|member| self.add_state(member));
                (*chat_id, epoch, *last_ev)
            }
            ChatState::Group(head) => {
                self.copies.add_head(head.clone());
                (head.chat_id, &head.epoch, head.last_ev)
            }
        };
        let head = Publication::Head { epoch: Epoch::clone(epoch), ev };
        self.publish(Channel::Chat(chat_id), &head);
    }

    /// Adds the deletion of a chat. The inboxes of a group's members follow its channel, so it needs none
    /// of them; and of their copies none is believed without where the group stands.
    pub fn add_deleted(&mut self, epoch: &Epoch, chat_id: ChatId, members: &[UserId]) {
        self.copies.end(chat_id, epoch);
        let deleted = Publication::Deleted { epoch: Epoch::clone(epoch) };
        self.publish(Channel::Chat(chat_id), &deleted);
        members.iter().for_each(|user_id| self.add_gone(epoch, chat_id, user_id));
    }

    /// Adds that a chat is no longer one of this user's.
    pub(super) fn add_gone(&mut self, epoch: &Epoch, chat_id: ChatId, user_id: &UserId) {
        self.tell_inbox(epoch, chat_id, i64::MAX, user_id);
        self.copies.add(user_id, epoch, CounterChange::Gone { chat_id });
    }

    /// Adds a publication to a user's inboxes: a chat has reached `ev`.
    pub fn tell_inbox(&mut self, epoch: &Epoch, chat_id: ChatId, ev: i64, user_id: &UserId) {
        let moved = Publication::ChatMoved { epoch: Epoch::clone(epoch), chat_id, ev };
        self.publish(Channel::User(user_id.clone()), &moved);
    }

    pub fn publish(&mut self, channel: Channel, publication: &Publication) {
        self.publications.push((channel, publication.encode()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChatKind, OwnFlags, Time};

    #[test]
    fn a_state_goes_to_its_member_only_and_a_deletion_to_all() {
        let [alice, bob] = ["alice", "bob"].map(|id| UserId::parse(id).expect("valid"));
        let epoch = Epoch::from("one");
        let state = MemberState {
            chat_id: ChatId::nil(),
            user_id: alice.clone(),
            kind: ChatKind::Group,
            room_name: String::new(),
            last_seq: 3,
            last_ev: 9,
            activity: Time::from_micros(0).expect("a time"),
            gone: true,
            rev: 4,
            read_seq: 0,
            unread: 0,
            mentions: 0,
            counted: 3,
            recount_ev: 0,
            flags: OwnFlags::default(),
            epoch: epoch.clone(),
        };
        let channels = |commit: &Commit| -> Vec<Channel> {
            commit.publications.iter().map(|(channel, _)| channel.clone()).collect()
        };
        let mut commit = Commit::default();
        commit.add_state(&state);
        assert_eq!(channels(&commit), [Channel::User(alice.clone())]);
        let out = CounterChange::Out { chat_id: ChatId::nil(), rev: 4 };
        assert_eq!(commit.copies.changes.pop().map(|change| change.counter), Some(out));
        let mut commit = Commit::default();
        commit.add_deleted(&epoch, ChatId::nil(), &[alice.clone(), bob.clone()]);
        let everywhere = [Channel::Chat(ChatId::nil()), Channel::User(alice), Channel::User(bob)];
        assert_eq!(channels(&commit), everywhere);
        assert_eq!(commit.copies.changes.len(), 2);
    }
}
