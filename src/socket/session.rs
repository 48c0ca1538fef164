//! The position of a socket in each chat, and the effect of a delivery on it. No I/O.

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    auth::is_revoked,
    hub::{Delivery, Fill},
    model::{Audience, ChatId, ChatKind, Epoch, Head, Role, Time, UserId},
    protocol::{AddressedFrame, Close, Frame, GoneReason, ResetReason, ServerFrame},
};

/// The work that a delivery leaves to the socket's loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// Read missed changes from Postgres.
    CatchUp(ChatId),
    /// Ask Postgres whether the user is still a member, then read the chat again.
    Recheck(ChatId),
    /// One chat of the user changed.
    Refresh(ChatId),
    /// Any chat may have changed.
    RefreshAll,
    Close(Close),
}

/// The socket's position in one chat, and what it may hear there.
#[derive(Debug)]
struct SubscribedChat {
    chat_id: ChatId,
    /// All changes up to here were sent, or are not for this user.
    ev: i64,
    epoch: Epoch,
    /// Whether the client does not know that it is at `ev`: the latest changes were not for it.
    skipped: bool,
    is_group: bool,
    role: Role,
    /// The first message that the user may see.
    first_seq: i64,
}

impl SubscribedChat {
    /// Whether the user belongs to an audience. Their rights are those at `ev`: what changes them affects
    /// the user, and is read from Postgres.
    fn is_in(&self, audience: Audience) -> bool {
        match audience {
            Audience::All => true,
            Audience::Admins => self.role >= Role::Admin,
            Audience::SeeingSeq(seq) => seq >= self.first_seq,
        }
    }

    /// Tells the client of changes that were not for it, before a frame with a position.
    fn tell_skipped(&mut self, out: &mut Vec<Frame>) {
        if std::mem::take(&mut self.skipped) {
            out.push(ServerFrame::Skipped { chat_id: self.chat_id, ev: self.ev }.encode());
        }
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    user_id: UserId,
    /// When the socket's token was issued; `None`: it has no `iat`.
    issued_at: Option<Time>,
    /// The socket's one chat; `None` on the many-chats socket.
    single: Option<ChatId>,
    /// Sorted by `chat_id`: for a single chat a hash table takes four times the memory.
    chats: Vec<SubscribedChat>,
}

impl Session {
    pub(crate) fn new(user_id: UserId, issued_at: Option<Time>, single: Option<ChatId>) -> Self {
        let chats = Vec::with_capacity(usize::from(single.is_some()));
        Self { user_id, issued_at, single, chats }
    }

    /// Replaces the socket's token.
    pub(super) fn renew(&mut self, issued_at: Option<Time>) {
        self.issued_at = issued_at;
    }

    pub(super) fn user_id(&self) -> &UserId {
        &self.user_id
    }

    /// The chat of a command: the named one, or the socket's own.
    pub(super) fn chat_of(&self, named: Option<ChatId>) -> Option<ChatId> {
        match (self.single, named) {
            (Some(single), Some(named)) => (single == named).then_some(named),
            (single, named) => named.or(single),
        }
    }

    pub(super) fn is_single(&self) -> bool {
        self.single.is_some()
    }

    /// The index of a chat in `chats`, or where to insert it.
    fn find(&self, chat_id: ChatId) -> Result<usize, usize> {
        self.chats.binary_search_by_key(&chat_id, |subscribed| subscribed.chat_id)
    }

    fn get(&self, chat_id: ChatId) -> Option<&SubscribedChat> {
        self.chats.get(self.find(chat_id).ok()?)
    }

    pub(super) fn is_subscribed(&self, chat_id: ChatId) -> bool {
        self.find(chat_id).is_ok()
    }

    pub(super) fn subscribed(&self) -> Vec<ChatId> {
        self.chats.iter().map(|subscribed| subscribed.chat_id).collect()
    }

    /// The `ev` up to which a chat was sent, and its epoch.
    pub(super) fn position(&self, chat_id: ChatId) -> Option<(i64, Epoch)> {
        self.get(chat_id).map(|subscribed| (subscribed.ev, Arc::clone(&subscribed.epoch)))
    }

    /// Notes that all changes of a chat up to this head were sent, and what the reader may hear from
    /// there on. The caller tells the client the position.
    pub(crate) fn set_position(&mut self, chat_id: ChatId, head: &Head) {
        let Head { kind, ev, epoch, reader, .. } = head;
        let known = self.get(chat_id).map(|subscribed| Arc::clone(&subscribed.epoch));
        let epoch = known.filter(|known| **known == **epoch).unwrap_or_else(|| epoch[..].into());
        let subscribed = SubscribedChat {
            chat_id,
            ev: *ev,
            epoch,
            skipped: false,
            is_group: *kind == ChatKind::Group,
            role: reader.role,
            first_seq: reader.first_seq,
        };
        match self.find(chat_id) {
            Ok(index) => self.chats[index] = subscribed,
            Err(index) => self.chats.insert(index, subscribed),
        }
    }

    /// Tells the client the position in a chat, if the latest changes were not for it.
    pub(super) fn tell_skipped(&mut self, chat_id: ChatId, out: &mut Vec<Frame>) {
        if let Ok(index) = self.find(chat_id) {
            self.chats[index].tell_skipped(out);
        }
    }

    pub(super) fn unsubscribe(&mut self, chat_id: ChatId) -> bool {
        self.find(chat_id).map(|index| self.chats.remove(index)).is_ok()
    }

    /// Applies a delivery; pushes frames to `out`.
    pub(crate) fn on_delivery(&mut self, delivery: &Delivery, out: &mut Vec<Frame>) -> Effect {
        match delivery {
            Delivery::Event { chat_id, epoch, ev, frame, .. } => {
                self.on_event(*chat_id, epoch, *ev, frame, out)
            }
            Delivery::Catchup { chat_id, fill } => self.on_fill(*chat_id, fill, out),
            Delivery::Reset { chat_id, head_ev, epoch, reason } => {
                self.on_reset(*chat_id, *head_ev, epoch, *reason, out)
            }
            Delivery::Typing { chat_id, user_id, frame }
            | Delivery::Presence { chat_id, user_id, frame } => {
                if *user_id != self.user_id && self.is_subscribed(*chat_id) {
                    out.push(frame.clone());
                }
                Effect::Nothing
            }
            Delivery::OwnRead { chat_id, epoch, frame } => {
                if self.get(*chat_id).is_some_and(|subscribed| subscribed.epoch == *epoch) {
                    out.push(frame.clone());
                }
                Effect::Nothing
            }
            Delivery::Deleted { chat_id, epoch } => self.on_deleted(*chat_id, epoch, out),
            Delivery::ChatMoved { chat_id } if self.single.is_none() => Effect::Refresh(*chat_id),
            Delivery::Inbox if self.single.is_none() => Effect::RefreshAll,
            Delivery::ChatMoved { .. } | Delivery::Inbox => Effect::Nothing,
            Delivery::Erased => Effect::Close(Close::UserGone),
            Delivery::Revoked { at } if is_revoked(self.issued_at, Some(*at)) => {
                Effect::Close(Close::TokenInvalid)
            }
            Delivery::Revoked { .. } => Effect::Nothing,
        }
    }

    fn on_deleted(&mut self, chat_id: ChatId, epoch: &Epoch, out: &mut Vec<Frame>) -> Effect {
        let Some(subscribed) = self.get(chat_id) else { return Effect::Nothing };
        if subscribed.epoch != *epoch {
            return Effect::CatchUp(chat_id);
        }
        self.unsubscribe(chat_id);
        if self.is_single() {
            let (reason, epoch) = (GoneReason::Deleted, &**epoch);
            let gone = ServerFrame::ChatDeleted { chat_id, total_unread: None, reason, epoch };
            out.push(gone.encode());
            return Effect::Close(Close::ChatGone);
        }
        // The inbox reports it once, also for a chat without a subscription.
        Effect::Refresh(chat_id)
    }

    fn on_event(
        &mut self,
        chat_id: ChatId,
        epoch: &Epoch,
        ev: i64,
        told: &AddressedFrame,
        out: &mut Vec<Frame>,
    ) -> Effect {
        let Ok(index) = self.find(chat_id) else { return Effect::Nothing };
        let subscribed = &mut self.chats[index];
        if subscribed.epoch != *epoch {
            // Numbers of another epoch mean nothing here, whichever of the two is over.
            return Effect::CatchUp(chat_id);
        }
        // A lower `ev` was already read at the subscription; a higher one is the first that fitted
        // after an overflow.
        if ev <= subscribed.ev {
            return Effect::Nothing;
        }
        // Postgres knows what the user may hear from here on. Until it was asked, the position stays, so
        // that no later change goes out either.
        if ev > subscribed.ev + 1 || told.affected.contains(&self.user_id) {
            return Effect::CatchUp(chat_id);
        }
        if subscribed.is_in(told.audience) {
            subscribed.tell_skipped(out);
            out.push(told.frame.clone());
        } else {
            subscribed.skipped = true;
        }
        subscribed.ev = ev;
        Effect::Nothing
    }

    fn on_fill(&mut self, chat_id: ChatId, fill: &Fill, out: &mut Vec<Frame>) -> Effect {
        let Ok(index) = self.find(chat_id) else { return Effect::Nothing };
        let subscribed = &mut self.chats[index];
        if subscribed.epoch != fill.epoch {
            return Effect::CatchUp(chat_id);
        }
        if fill.head_ev <= subscribed.ev {
            return Effect::Nothing;
        }
        let news = || fill.frames.iter().filter(|(ev, _)| *ev > subscribed.ev).map(|(_, one)| one);
        if fill.after_ev > subscribed.ev
            || subscribed.is_group && !fill.whole
            || news().any(|one| one.affected.contains(&self.user_id))
        {
            return Effect::CatchUp(chat_id);
        }
        let told: Vec<Frame> = news()
            .filter(|one| subscribed.is_in(one.audience))
            .map(|one| one.frame.clone())
            .collect();
        subscribed.tell_skipped(out);
        out.push(ServerFrame::Catchup { chat_id, after_ev: subscribed.ev }.encode());
        out.extend(told);
        subscribed.ev = fill.head_ev;
        out.push(ServerFrame::Synced { chat_id, ev: fill.head_ev }.encode());
        Effect::Nothing
    }

    fn on_reset(
        &mut self,
        chat_id: ChatId,
        head_ev: i64,
        epoch: &Epoch,
        reason: ResetReason,
        out: &mut Vec<Frame>,
    ) -> Effect {
        let Ok(index) = self.find(chat_id) else { return Effect::Nothing };
        let subscribed = &mut self.chats[index];
        match reason {
            // The socket is past the gap already.
            ResetReason::TooFar if subscribed.epoch == *epoch && subscribed.ev >= head_ev => {
                return Effect::Nothing;
            }
            // Subscribed after the change of epochs, so the reset is not for this socket. But the
            // hub was still in the old epoch, so that later changes were not delivered.
            ResetReason::UnknownPosition
                if subscribed.epoch == *epoch && subscribed.ev == head_ev =>
            {
                return Effect::Nothing;
            }
            ResetReason::UnknownPosition
                if subscribed.epoch == *epoch && subscribed.ev < head_ev =>
            {
                return Effect::CatchUp(chat_id);
            }
            // Nobody read who left in what is not given, or who is a member in this epoch.
            _ if subscribed.is_group => return Effect::Recheck(chat_id),
            ResetReason::TooFar | ResetReason::UnknownPosition => {}
        }
        subscribed.ev = head_ev;
        subscribed.epoch = Arc::clone(epoch);
        subscribed.skipped = false;
        out.push(ServerFrame::Reset { chat_id, head_ev, epoch, reason }.encode());
        out.push(ServerFrame::Synced { chat_id, ev: head_ev }.encode());
        Effect::Nothing
    }
}
