//! The position of a socket in each chat, and the effect of a delivery on it. No I/O.

use std::sync::Arc;

use crate::{
    auth::is_revoked,
    hub::{Delivery, Fill},
    model::{ChatId, Epoch, Time, UserId},
    protocol::{Close, Frame, ResetReason, ServerFrame},
};

/// The work that a delivery leaves to the socket's loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// Read missed changes from Postgres.
    CatchUp(ChatId),
    /// One chat of the user changed.
    Refresh(ChatId),
    /// Any chat may have changed.
    RefreshAll,
    Close(Close),
}

/// The socket's position in one chat.
#[derive(Debug)]
struct SubscribedChat {
    chat_id: ChatId,
    /// All changes up to here were sent.
    ev: i64,
    epoch: Epoch,
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

    fn get_mut(&mut self, chat_id: ChatId) -> Option<&mut SubscribedChat> {
        let index = self.find(chat_id).ok()?;
        self.chats.get_mut(index)
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

    /// Notes that all changes of a chat up to `ev` were sent.
    pub(crate) fn set_position(&mut self, chat_id: ChatId, ev: i64, epoch: &str) {
        match self.find(chat_id) {
            Ok(index) => {
                let subscribed = &mut self.chats[index];
                subscribed.ev = ev;
                if *subscribed.epoch != *epoch {
                    subscribed.epoch = epoch.into();
                }
            }
            Err(index) => {
                self.chats.insert(index, SubscribedChat { chat_id, ev, epoch: epoch.into() });
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, chat_id: ChatId) -> bool {
        self.find(chat_id).map(|index| self.chats.remove(index)).is_ok()
    }

    /// Applies a delivery; pushes frames to `out`.
    pub(crate) fn on_delivery(&mut self, delivery: Delivery, out: &mut Vec<Frame>) -> Effect {
        match delivery {
            Delivery::Event { chat_id, epoch, ev, frame, .. } => {
                self.on_event(chat_id, &epoch, ev, frame, out)
            }
            Delivery::Catchup { chat_id, fill } => self.on_fill(chat_id, &fill, out),
            Delivery::Reset { chat_id, head_ev, epoch, reason } => {
                self.on_reset(chat_id, head_ev, &epoch, reason, out)
            }
            Delivery::Typing { chat_id, user_id, frame }
            | Delivery::Presence { chat_id, user_id, frame } => {
                if user_id != self.user_id && self.is_subscribed(chat_id) {
                    out.push(frame);
                }
                Effect::Nothing
            }
            Delivery::Deleted { chat_id, epoch } => {
                let Some(subscribed) = self.get(chat_id) else { return Effect::Nothing };
                if subscribed.epoch != epoch {
                    return Effect::CatchUp(chat_id);
                }
                self.unsubscribe(chat_id);
                if self.is_single() {
                    let epoch = &*epoch;
                    out.push(
                        ServerFrame::ChatDeleted { chat_id, total_unread: None, epoch }.encode(),
                    );
                    return Effect::Close(Close::ChatGone);
                }
                // The inbox reports it once, also for a chat without a subscription.
                Effect::Refresh(chat_id)
            }
            Delivery::ChatMoved { chat_id, .. } if self.single.is_none() => {
                Effect::Refresh(chat_id)
            }
            Delivery::Inbox if self.single.is_none() => Effect::RefreshAll,
            Delivery::ChatMoved { .. } | Delivery::Inbox => Effect::Nothing,
            Delivery::Erased => Effect::Close(Close::UserGone),
            Delivery::Revoked { at } if is_revoked(self.issued_at, Some(at)) => {
                Effect::Close(Close::TokenInvalid)
            }
            Delivery::Revoked { .. } => Effect::Nothing,
        }
    }

    fn on_event(
        &mut self,
        chat_id: ChatId,
        epoch: &Epoch,
        ev: i64,
        frame: Frame,
        out: &mut Vec<Frame>,
    ) -> Effect {
        let Some(subscribed) = self.get_mut(chat_id) else { return Effect::Nothing };
        if subscribed.epoch != *epoch {
            // Numbers of another epoch mean nothing here, whichever of the two is over.
            return Effect::CatchUp(chat_id);
        }
        if ev == subscribed.ev + 1 {
            subscribed.ev = ev;
            out.push(frame);
            return Effect::Nothing;
        }
        // A lower `ev` was already read at the subscription; a higher one is the first that fitted
        // after an overflow.
        if ev <= subscribed.ev { Effect::Nothing } else { Effect::CatchUp(chat_id) }
    }

    fn on_fill(&mut self, chat_id: ChatId, fill: &Fill, out: &mut Vec<Frame>) -> Effect {
        let Some(subscribed) = self.get_mut(chat_id) else { return Effect::Nothing };
        if subscribed.epoch != fill.epoch {
            return Effect::CatchUp(chat_id);
        }
        if fill.head_ev <= subscribed.ev {
            return Effect::Nothing;
        }
        if fill.after_ev > subscribed.ev {
            return Effect::CatchUp(chat_id);
        }
        out.push(ServerFrame::Catchup { chat_id, after_ev: subscribed.ev }.encode());
        out.extend(
            fill.frames
                .iter()
                .filter(|(ev, _)| *ev > subscribed.ev)
                .map(|(_, frame)| frame.clone()),
        );
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
        let Some(subscribed) = self.get_mut(chat_id) else { return Effect::Nothing };
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
            ResetReason::TooFar | ResetReason::UnknownPosition => {}
        }
        subscribed.ev = head_ev;
        subscribed.epoch = Arc::clone(epoch);
        out.push(ServerFrame::Reset { chat_id, head_ev, epoch, reason }.encode());
        out.push(ServerFrame::Synced { chat_id, ev: head_ev }.encode());
        Effect::Nothing
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const CHAT: ChatId = ChatId::nil();

    fn session() -> Session {
        let mut session = Session::new(UserId::parse("alice").expect("valid"), None, Some(CHAT));
        session.set_position(CHAT, 5, "e1");
        session
    }

    fn event(ev: i64) -> Delivery {
        event_of("e1", ev)
    }

    fn event_of(epoch: &str, ev: i64) -> Delivery {
        let (epoch, frame) = (epoch.into(), Bytes::from(format!("ev {ev}")));
        Delivery::Event { chat_id: CHAT, epoch, ev, micros: 0, frame }
    }

    fn texts(frames: &[Frame]) -> Vec<&str> {
        frames.iter().map(|frame| std::str::from_utf8(frame).expect("text")).collect()
    }

    #[test]
    fn events_are_given_once_in_order_and_a_gap_asks_for_reading() {
        let (mut session, mut out) = (session(), Vec::new());
        for ev in [4, 5, 6, 6, 7] {
            assert_eq!(session.on_delivery(event(ev), &mut out), Effect::Nothing);
        }
        assert_eq!(texts(&out), ["ev 6", "ev 7"]);
        assert_eq!(session.on_delivery(event(9), &mut out), Effect::CatchUp(CHAT));
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn a_fill_gives_only_what_is_new_between_catchup_and_synced() {
        let (mut session, mut out) = (session(), Vec::new());
        let frames = [4, 6, 8].map(|ev| (ev, Bytes::from(format!("ev {ev}")))).to_vec();
        let fill = Arc::new(Fill { epoch: "e1".into(), after_ev: 4, frames, head_ev: 8 });
        session.on_delivery(Delivery::Catchup { chat_id: CHAT, fill: Arc::clone(&fill) }, &mut out);
        let sent = texts(&out);
        assert!(sent[0].contains(r#""type":"catchup""#) && sent[0].contains(r#""after_ev":5"#));
        assert_eq!(sent[1..3], ["ev 6", "ev 8"]);
        assert!(sent[3].contains(r#""type":"synced""#) && sent[3].contains(r#""ev":8"#));
        session.on_delivery(Delivery::Catchup { chat_id: CHAT, fill }, &mut out);
        assert_eq!(out.len(), 4, "the same fill again brings nothing");
    }

    #[test]
    fn a_fill_that_begins_later_is_not_taken() {
        let (mut session, mut out) = (session(), Vec::new());
        let fill =
            Arc::new(Fill { epoch: "e1".into(), after_ev: 6, frames: Vec::new(), head_ev: 8 });
        let effect = session.on_delivery(Delivery::Catchup { chat_id: CHAT, fill }, &mut out);
        assert_eq!(effect, Effect::CatchUp(CHAT));
        assert!(out.is_empty());
    }

    #[test]
    fn a_reset_moves_back_and_does_not_touch_who_came_after_it() {
        let (mut session, mut out) = (session(), Vec::new());
        let reset = Delivery::Reset {
            chat_id: CHAT,
            head_ev: 3,
            epoch: "e2".into(),
            reason: ResetReason::UnknownPosition,
        };
        session.on_delivery(reset.clone(), &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(session.on_delivery(event_of("e2", 4), &mut out), Effect::Nothing);
        assert_eq!(out.len(), 3);
        session.on_delivery(reset, &mut out);
        assert_eq!(out.len(), 5, "reset again, as the head is behind what was sent");
    }

    #[test]
    fn what_another_history_says_is_not_given_and_asks_for_reading() {
        let (mut session, mut out) = (session(), Vec::new());
        let fill = Fill { epoch: "e2".into(), after_ev: 5, frames: Vec::new(), head_ev: 8 };
        for foreign in [
            event_of("e2", 6),
            Delivery::Catchup { chat_id: CHAT, fill: Arc::new(fill) },
            Delivery::Deleted { chat_id: CHAT, epoch: "e2".into() },
        ] {
            assert_eq!(session.on_delivery(foreign, &mut out), Effect::CatchUp(CHAT));
        }
        assert!(out.is_empty() && session.is_subscribed(CHAT));
        assert_eq!(session.on_delivery(event(6), &mut out), Effect::Nothing);
        assert_eq!(texts(&out), ["ev 6"]);
    }

    #[test]
    fn ones_own_typing_is_not_told_and_a_strangers_chat_neither() {
        let (mut session, mut out) = (session(), Vec::new());
        let typing = |chat_id, user: &str| Delivery::Typing {
            chat_id,
            user_id: UserId::parse(user).expect("valid"),
            frame: Bytes::from_static(b"t"),
        };
        session.on_delivery(typing(CHAT, "alice"), &mut out);
        session.on_delivery(typing(ChatId::max(), "bob"), &mut out);
        assert!(out.is_empty());
        session.on_delivery(typing(CHAT, "bob"), &mut out);
        assert_eq!(out.len(), 1);
    }
}
