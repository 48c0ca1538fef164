//! What a socket has been given of each chat, and so what comes next. No I/O.

use std::sync::Arc;

use crate::{
    auth::is_revoked,
    hub::{Delivery, Fill},
    model::{ChatId, Epoch, Time, UserId},
    protocol::{Close, Frame, ResetReason, ServerFrame},
};

/// What a delivery asks of the socket's loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// Something is missing: read it from Postgres.
    CatchUp(ChatId),
    /// A chat of the user's moved.
    Refresh(ChatId),
    /// Any chat may have moved.
    RefreshAll,
    Close(Close),
}

/// One followed chat.
#[derive(Debug)]
struct Followed {
    chat_id: ChatId,
    /// All up to here has been given.
    ev: i64,
    epoch: Epoch,
}

#[derive(Debug)]
pub(crate) struct Session {
    user_id: UserId,
    /// When the socket's token was issued, where it says so.
    issued_at: Option<Time>,
    /// The socket's one chat; `None` on the many-chats socket.
    single: Option<ChatId>,
    /// By `chat_id`: a hash table takes four times the room for one.
    chats: Vec<Followed>,
}

impl Session {
    pub(crate) fn new(user_id: UserId, issued_at: Option<Time>, single: Option<ChatId>) -> Self {
        let chats = Vec::with_capacity(usize::from(single.is_some()));
        Self { user_id, issued_at, single, chats }
    }

    /// The socket lives on with another token.
    pub(super) fn renew(&mut self, issued_at: Option<Time>) {
        self.issued_at = issued_at;
    }

    pub(super) fn user_id(&self) -> &UserId {
        &self.user_id
    }

    /// The chat that a command means: named, or the socket's own.
    pub(super) fn chat_of(&self, named: Option<ChatId>) -> Option<ChatId> {
        match (self.single, named) {
            (Some(single), Some(named)) => (single == named).then_some(named),
            (single, named) => named.or(single),
        }
    }

    pub(super) fn is_single(&self) -> bool {
        self.single.is_some()
    }

    /// Where a chat is, or would be, among those followed.
    fn find(&self, chat_id: ChatId) -> Result<usize, usize> {
        self.chats.binary_search_by_key(&chat_id, |followed| followed.chat_id)
    }

    fn get(&self, chat_id: ChatId) -> Option<&Followed> {
        self.chats.get(self.find(chat_id).ok()?)
    }

    fn get_mut(&mut self, chat_id: ChatId) -> Option<&mut Followed> {
        let index = self.find(chat_id).ok()?;
        self.chats.get_mut(index)
    }

    pub(super) fn follows(&self, chat_id: ChatId) -> bool {
        self.find(chat_id).is_ok()
    }

    pub(super) fn followed(&self) -> Vec<ChatId> {
        self.chats.iter().map(|followed| followed.chat_id).collect()
    }

    /// Up to where a followed chat has been given, and in which history.
    pub(super) fn position(&self, chat_id: ChatId) -> Option<(i64, Epoch)> {
        self.get(chat_id).map(|followed| (followed.ev, Arc::clone(&followed.epoch)))
    }

    /// All of a chat up to `ev` has been given.
    pub(crate) fn set_position(&mut self, chat_id: ChatId, ev: i64, epoch: &str) {
        match self.find(chat_id) {
            Ok(index) => {
                let followed = &mut self.chats[index];
                followed.ev = ev;
                if *followed.epoch != *epoch {
                    followed.epoch = epoch.into();
                }
            }
            Err(index) => {
                self.chats.insert(index, Followed { chat_id, ev, epoch: epoch.into() });
            }
        }
    }

    pub(super) fn unfollow(&mut self, chat_id: ChatId) -> bool {
        self.find(chat_id).map(|index| self.chats.remove(index)).is_ok()
    }

    /// Takes a delivery; frames to send are pushed to `out`.
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
                if user_id != self.user_id && self.follows(chat_id) {
                    out.push(frame);
                }
                Effect::Nothing
            }
            Delivery::Deleted { chat_id, epoch } => {
                let Some(followed) = self.get(chat_id) else { return Effect::Nothing };
                if followed.epoch != epoch {
                    return Effect::CatchUp(chat_id);
                }
                self.unfollow(chat_id);
                if self.is_single() {
                    let epoch = &*epoch;
                    out.push(
                        ServerFrame::ChatDeleted { chat_id, total_unread: None, epoch }.encode(),
                    );
                    return Effect::Close(Close::ChatGone);
                }
                // The inbox tells of it, once, also where the chat was not followed.
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
        let Some(followed) = self.get_mut(chat_id) else { return Effect::Nothing };
        if followed.epoch != *epoch {
            // Its number means nothing here, whichever of the two is gone.
            return Effect::CatchUp(chat_id);
        }
        if ev == followed.ev + 1 {
            followed.ev = ev;
            out.push(frame);
            return Effect::Nothing;
        }
        // Given already with what was read when the chat was followed; or, after a full queue, the
        // first that fit again.
        if ev <= followed.ev { Effect::Nothing } else { Effect::CatchUp(chat_id) }
    }

    fn on_fill(&mut self, chat_id: ChatId, fill: &Fill, out: &mut Vec<Frame>) -> Effect {
        let Some(followed) = self.get_mut(chat_id) else { return Effect::Nothing };
        if followed.epoch != fill.epoch {
            return Effect::CatchUp(chat_id);
        }
        if fill.head_ev <= followed.ev {
            return Effect::Nothing;
        }
        if fill.after_ev > followed.ev {
            return Effect::CatchUp(chat_id);
        }
        out.push(ServerFrame::Catchup { chat_id, after_ev: followed.ev }.encode());
        out.extend(
            fill.frames.iter().filter(|(ev, _)| *ev > followed.ev).map(|(_, frame)| frame.clone()),
        );
        followed.ev = fill.head_ev;
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
        let Some(followed) = self.get_mut(chat_id) else { return Effect::Nothing };
        match reason {
            // Past the gap already.
            ResetReason::TooFar if followed.epoch == *epoch && followed.ev >= head_ev => {
                return Effect::Nothing;
            }
            // Followed after the change of histories, and so not concerned. But until this the hub was in the
            // old one, and what has come since was not given out.
            ResetReason::UnknownPosition if followed.epoch == *epoch && followed.ev == head_ev => {
                return Effect::Nothing;
            }
            ResetReason::UnknownPosition if followed.epoch == *epoch && followed.ev < head_ev => {
                return Effect::CatchUp(chat_id);
            }
            ResetReason::TooFar | ResetReason::UnknownPosition => {}
        }
        followed.ev = head_ev;
        followed.epoch = Arc::clone(epoch);
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
        assert_eq!(out.len(), 4, "a second fill of the same brings nothing");
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
        assert_eq!(out.len(), 5, "back again: the head is behind what was given");
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
        assert!(out.is_empty() && session.follows(CHAT));
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
