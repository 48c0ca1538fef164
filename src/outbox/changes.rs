//! Publishes changes that no batch writer made: of members, and of what a group shows.

use std::collections::BTreeSet;

use super::{Commit, Outbox};
use crate::{
    broker::Channel,
    error::chain,
    model::{Audience, Change, ChangedPart, ChatId, Epoch, MessageKind, UserId},
    presence::Presence,
    protocol::{AddressedFrame, Publication, message_frame},
    store::{Changed, Changes, ChatState, Noted, StoreError, Unpublished},
};

/// Changes read after a commit: its own come first, and those of others are published by others.
const CHANGES: i64 = 100;

impl Outbox {
    /// Publishes a committed change of a group's members or of what it shows, with the state of everybody
    /// whom it concerns. Returns after [`ACK_WAIT`](super::ACK_WAIT) of Redis at most; what fails is left
    /// to the sweeper.
    pub async fn publish_changes(&self, presence: &Presence, chat_id: ChatId, changed: Changed) {
        match self.commit_of_changes(presence, chat_id, changed).await {
            Ok(commit) => self.publish_soon(commit).await,
            Err(error) => {
                tracing::warn!(error = chain(&error), "a change is left to the sweeper");
            }
        }
    }

    /// Publishes the states of these members, after a commit that nobody else is told of.
    pub async fn publish_members(&self, members: &[(ChatId, UserId)], noted: Option<Noted>) {
        let epoch = noted.as_ref().map(|noted| Epoch::clone(&noted.epoch));
        let mut commit = Commit { noted: noted.into_iter().collect(), ..Commit::default() };
        match self.add_members(&mut commit, members, epoch.as_ref()).await {
            Ok(()) => self.publish_soon(commit).await,
            Err(error) => {
                tracing::warn!(error = chain(&error), "a change is left to the sweeper");
            }
        }
    }

    /// Publishes that a scanner has judged an attachment of a message.
    pub async fn publish_scan(&self, chat_id: ChatId, changed: Changed) {
        match self.commit_of_scan(chat_id, changed).await {
            Ok(commit) => self.publish_soon(commit).await,
            Err(error) => {
                tracing::warn!(error = chain(&error), "a change is left to the sweeper");
            }
        }
    }

    async fn commit_of_scan(
        &self,
        chat_id: ChatId,
        Changed { ev, noted }: Changed,
    ) -> Result<Commit, StoreError> {
        let changes = self.store.get_changes(chat_id, None, ev - 1, 1).await?;
        let epoch = Epoch::clone(&noted.epoch);
        let row = Unpublished { noted, chats: vec![chat_id], members: Vec::new() };
        let mut commit = Commit::default();
        let first = changes.as_ref().and_then(|changes| changes.changes.first());
        if let Some(Change::Message(message)) = first.filter(|change| change.ev() == ev) {
            let frame = AddressedFrame {
                audience: Audience::SeeingSeq(message.seq),
                affected: Vec::new(),
                deferrable: false,
                frame: message_frame(message, Some(&[ChangedPart::Attachments])),
            };
            let micros = jiff::Timestamp::now().as_microsecond();
            let event = Publication::Event { epoch, ev, micros, trace: None, frame };
            commit.publish(Channel::Chat(chat_id), &event);
        }
        commit.append(self.commit_of(&[row]).await?);
        Ok(commit)
    }

    async fn commit_of_changes(
        &self,
        presence: &Presence,
        chat_id: ChatId,
        Changed { ev, noted }: Changed,
    ) -> Result<Commit, StoreError> {
        let Some(mut changes) = self.store.get_changes(chat_id, None, ev - 1, CHANGES).await?
        else {
            let row = Unpublished { noted, chats: vec![chat_id], members: Vec::new() };
            return self.commit_of(&[row]).await;
        };
        // If the database has failed over since, its numbers are others.
        if *changes.head.epoch != *noted.epoch {
            return Ok(Commit { noted: vec![noted], ..Commit::default() });
        }
        presence.show(&mut changes.changes, changes.head.receipts).await;
        let mut commit = Commit::default();
        let epoch = Epoch::clone(&noted.epoch);
        add_events(&mut commit, chat_id, ev, &epoch, &changes);
        let concerned: BTreeSet<UserId> =
            changes.changes.iter().flat_map(Change::affected).collect();
        let members: Vec<(ChatId, UserId)> =
            concerned.into_iter().map(|user_id| (chat_id, user_id)).collect();
        self.add_members(&mut commit, &members, Some(&epoch)).await?;
        if commit.copies.heads.is_empty() {
            for state in self.store.get_states(&[chat_id]).await? {
                if let ChatState::Group(head) = state {
                    commit.copies.add_head(head);
                }
            }
        }
        commit.noted.push(noted);
        Ok(commit)
    }
}

/// Adds the events from `ev` on, but for those that a batch writer publishes.
fn add_events(commit: &mut Commit, chat_id: ChatId, ev: i64, epoch: &Epoch, changes: &Changes) {
    let channel = || Channel::Chat(chat_id);
    let receipts = changes.head.receipts;
    let micros = jiff::Timestamp::now().as_microsecond();
    if changes.changes.first().is_none_or(|change| change.ev() > ev) {
        // A later change has replaced this one: whoever waits for it reads Postgres.
        let head = Publication::Head { epoch: Epoch::clone(epoch), ev: changes.head.ev };
        commit.publish(channel(), &head);
    }
    for change in &changes.changes {
        let by_writer = match change {
            Change::Message(message) => message.kind == MessageKind::Text,
            Change::Read { .. } => true,
            _ => false,
        };
        if !by_writer {
            let (epoch, ev) = (Epoch::clone(epoch), change.ev());
            let frame = AddressedFrame::of(chat_id, change, receipts);
            let event = Publication::Event { epoch, ev, micros, trace: None, frame };
            commit.publish(channel(), &event);
        }
    }
}
