//! Entry points for `cargo bench` (`benches/micro.rs`): the hub and a session without Redis, Postgres
//! or a socket.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::{
    hub::{Hub, Inbox, queue},
    metrics::Metrics,
    model::{ChatId, ChatKind, Epoch, Head, Membership, Role, UserId},
    protocol::{AddressedFrame, Frame, Publication},
    socket::session::{Effect, Session},
};

const CHAT: ChatId = ChatId::nil();

/// The head of an empty group, of which every follower may see all.
fn head(epoch: &str, members: usize) -> Head {
    Head {
        kind: ChatKind::Group,
        ev: 0,
        seq: 0,
        epoch: epoch.to_owned(),
        receipts: false,
        member_count: i32::try_from(members).unwrap_or(i32::MAX),
        reader: Membership { role: Role::Member, first_seq: 1, read_seq: 0 },
        peer_read_seq: None,
    }
}

/// A hub with followers of one chat, each with its session.
#[derive(Debug)]
pub struct Fanout {
    hub: Hub,
    sockets: Vec<(Inbox, Session)>,
    epoch: Epoch,
    ev: i64,
    frame: Frame,
}

impl Fanout {
    /// `frame` is what each publication carries.
    pub fn new(followers: usize, user_id: &UserId, frame: Frame) -> Self {
        let hub = Hub::new(Arc::<Metrics>::default());
        let epoch = Epoch::from("e1");
        let head = head(&epoch, followers);
        let sockets = (0..followers)
            .map(|_| {
                let (queue, inbox) = queue();
                hub.add_subscriber(CHAT, &queue);
                let mut session = Session::new(user_id.clone(), None, Some(CHAT));
                session.set_position(CHAT, &head);
                (inbox, session)
            })
            .collect();
        hub.note_head(CHAT, 0, &epoch);
        Self { hub, sockets, epoch, ev: 0, frame }
    }

    /// Receives the next publication and queues it for every follower.
    pub fn publish(&mut self) {
        self.ev += 1;
        let event = Publication::Event {
            epoch: Epoch::clone(&self.epoch),
            ev: self.ev,
            micros: 0,
            trace: None,
            frame: AddressedFrame::to_all(self.frame.clone()),
        };
        self.hub.receive(CHAT, event);
    }

    /// Takes what is queued and has each session decide on it. Returns how many frames go out.
    pub fn decide(&mut self) -> usize {
        let mut out = Vec::new();
        for (inbox, session) in &mut self.sockets {
            for delivery in inbox.take().now_or_never().unwrap_or_default() {
                let effect = session.on_delivery(&delivery, &mut out);
                debug_assert_eq!(effect, Effect::Nothing);
            }
        }
        out.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_follower_gets_every_publication() {
        let user_id = UserId::parse("alice").expect("valid");
        let mut fanout = Fanout::new(3, &user_id, Frame::from_static(b"{}"));
        fanout.publish();
        fanout.publish();
        assert_eq!(fanout.decide(), 6);
        assert_eq!(fanout.decide(), 0);
    }
}
