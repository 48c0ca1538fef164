//! A group, the hub and one member's socket, with publications that are lost, late and doubled: whatever
//! happens, the member is told of everything that is theirs, in order, and of nothing else.

use std::collections::{BTreeMap, VecDeque};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::{
    hub::{Hub, Inbox, Queue, queue},
    model::Membership,
    protocol::Publication,
};

const CHAT: ChatId = ChatId::nil();

#[derive(Debug, Clone, Copy)]
enum Act {
    Send,
    /// Of one of the messages.
    Edit(usize),
    /// Removes Alice, or adds her: she sees what is sent from then on.
    Turn,
    /// Makes Alice an admin, or a member again.
    Promote,
    /// Bob comes or goes.
    Bob,
}

/// What becomes of an act's publication.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    ArrivesTwice,
    /// After the next one.
    Late,
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Act(Act, Fate),
    /// The hub fills the gap that it has, with so many changes at most.
    Fill(usize),
    /// The socket takes what waits for it.
    Take,
    /// The hub compares its position with Postgres.
    Compare,
    /// Alice's client subscribes, where it may.
    Subscribe,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let act = prop_oneof![
        4 => Just(Act::Send),
        2 => (0usize..50).prop_map(Act::Edit),
        2 => Just(Act::Turn),
        1 => Just(Act::Promote),
        2 => Just(Act::Bob),
    ];
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::ArrivesTwice),
        2 => Just(Fate::Late),
        2 => Just(Fate::Lost),
    ];
    let step = prop_oneof![
        8 => (act, fate).prop_map(|(act, fate)| Step::Act(act, fate)),
        2 => prop_oneof![1usize..4, Just(usize::MAX)].prop_map(Step::Fill),
        4 => Just(Step::Take),
        1 => Just(Step::Compare),
        2 => Just(Step::Subscribe),
    ];
    prop::collection::vec(step, 0..120)
}

/// Who Alice was after a change: `None`: no member.
type Part = Option<(Role, i64)>;

/// What Postgres has.
#[derive(Debug)]
struct Stored {
    /// The `ev` of each message, by its number less one.
    messages: Vec<i64>,
    alice: Part,
    alice_ev: i64,
    bob_ev: i64,
    /// Alice's part after each change.
    parts: Vec<Part>,
}

impl Stored {
    fn ev(&self) -> i64 {
        self.parts.len() as i64
    }

    fn act(&mut self, act: Act) {
        let (ev, seq) = (self.ev() + 1, self.messages.len());
        match act {
            Act::Edit(number) if seq > 0 => self.messages[number % seq] = ev,
            Act::Send | Act::Edit(_) => self.messages.push(ev),
            Act::Turn => {
                self.alice = match self.alice {
                    Some(_) => None,
                    None => Some((Role::Member, seq as i64 + 1)),
                };
                self.alice_ev = ev;
            }
            Act::Promote => match &mut self.alice {
                Some((role, _)) => {
                    *role = if *role == Role::Member { Role::Admin } else { Role::Member };
                    self.alice_ev = ev;
                }
                None => self.bob_ev = ev,
            },
            Act::Bob => self.bob_ev = ev,
        }
        self.parts.push(self.alice);
    }

    /// The present state of what changed after a revision.
    fn changes(&self, after_ev: i64) -> Vec<(i64, AddressedFrame)> {
        let mut changes: Vec<(i64, AddressedFrame)> = Vec::new();
        let mut add = |ev: i64, audience, affected: &[&str], text: String| {
            if ev > after_ev {
                let affected = affected.iter().filter_map(|id| UserId::parse(id)).collect();
                let frame =
                    AddressedFrame { audience, affected, deferrable: false, frame: text.into() };
                changes.push((ev, frame));
            }
        };
        for (index, ev) in self.messages.iter().enumerate() {
            let seq = index as i64 + 1;
            add(*ev, Audience::SeeingSeq(seq), &[], format!("message {ev} {seq}"));
        }
        add(self.alice_ev, Audience::Admins, &["alice"], format!("member {} 0", self.alice_ev));
        add(self.bob_ev, Audience::Admins, &["bob"], format!("member {} 0", self.bob_ev));
        changes.sort_by_key(|(ev, _)| *ev);
        changes
    }

    fn may_see(part: Part, audience: Audience) -> bool {
        part.is_some_and(|(role, first_seq)| match audience {
            Audience::All => true,
            Audience::Admins => role >= Role::Admin,
            Audience::SeeingSeq(seq) => seq >= first_seq,
        })
    }

    fn head(&self, (role, first_seq): (Role, i64)) -> Head {
        Head {
            kind: ChatKind::Group,
            ev: self.ev(),
            seq: self.messages.len() as i64,
            epoch: "one".to_owned(),
            receipts: false,
            member_count: 2,
            reader: Membership { role, first_seq, read_seq: 0 },
            peer_read_seq: None,
        }
    }
}

/// What Alice's client has.
#[derive(Debug, Default)]
struct Client {
    position: i64,
    /// Between `catchup` or `subscribed` and `synced`: some numbers were superseded.
    replayed: bool,
    /// The `ev` of each message that it knows.
    messages: BTreeMap<i64, i64>,
}

struct World {
    stored: Stored,
    hub: Hub,
    queue: Queue,
    inbox: Inbox,
    session: Session,
    client: Client,
    late: VecDeque<Publication>,
}

impl World {
    fn new() -> Self {
        let (queue, inbox) = queue();
        let alice = Some((Role::Member, 1));
        Self {
            stored: Stored {
                messages: Vec::new(),
                alice,
                alice_ev: 1,
                bob_ev: 0,
                parts: vec![alice],
            },
            hub: Hub::new(Arc::default()),
            queue,
            inbox,
            session: Session::new(UserId::trusted("alice"), None, None),
            client: Client::default(),
            late: VecDeque::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Act(act, fate) => self.act(act, fate),
            Step::Fill(limit) => self.fill(limit),
            Step::Take => self.take(),
            Step::Compare => {
                for (chat_id, seen) in self.hub.cursors(None) {
                    let head_ev = self.stored.ev();
                    self.hub.compare(chat_id, seen, head_ev, &"one".into());
                }
            }
            Step::Subscribe => self.subscribe(),
        }
    }

    fn act(&mut self, act: Act, fate: Fate) {
        self.stored.act(act);
        let ev = self.stored.ev();
        let (_, frame) = self.stored.changes(ev - 1).pop().expect("an act changes one row");
        let event = Publication::Event { epoch: "one".into(), ev, micros: 0, trace: None, frame };
        let now = match fate {
            Fate::Arrives => vec![event],
            Fate::ArrivesTwice => vec![event.clone(), event],
            Fate::Lost => Vec::new(),
            Fate::Late => {
                self.late.push_back(event);
                return;
            }
        };
        for publication in now.into_iter().chain(std::mem::take(&mut self.late)) {
            self.hub.receive(CHAT, publication);
        }
    }

    fn fill(&mut self, limit: usize) {
        let gap = crate::hub::Gap(CHAT);
        if let Some((after_ev, epoch)) = self.hub.gap_start(gap) {
            let (mut frames, mut head_ev) = (self.stored.changes(after_ev), self.stored.ev());
            let whole = frames.len() <= limit;
            if !whole {
                frames.truncate(limit);
                head_ev = frames.last().map_or(head_ev, |(ev, _)| *ev);
            }
            self.hub.fill(gap, Fill { epoch, after_ev, frames, head_ev, whole });
            self.hub.gap_start(gap);
        }
    }

    fn subscribe(&mut self) {
        let Some(part) = self.stored.alice.filter(|_| !self.session.is_subscribed(CHAT)) else {
            return;
        };
        self.hub.add_subscriber(CHAT, &self.queue);
        let head = self.stored.head(part);
        let given_out = self.hub.note_head(CHAT, head.ev, &"one".into());
        self.client.replayed = true;
        self.replay(part);
        let (given_out, _) = given_out.expect("the same epoch");
        if self.client.position < given_out {
            self.catch_up();
        }
    }

    /// Sends Alice what she may read now after her position.
    fn replay(&mut self, part: (Role, i64)) {
        let news = self.stored.changes(self.client.position).into_iter();
        let told: Vec<Frame> = news
            .filter(|(_, one)| Stored::may_see(Some(part), one.audience))
            .map(|(_, one)| one.frame)
            .collect();
        told.iter().for_each(|frame| self.client.on_frame(frame));
        let head = self.stored.head(part);
        self.session.set_position(CHAT, &head);
        self.client.on_frame(&ServerFrame::Synced { chat_id: CHAT, ev: head.ev }.encode());
    }

    fn catch_up(&mut self) {
        let Some((after_ev, _)) = self.session.position(CHAT) else { return };
        let Some(part) = self.stored.alice else {
            self.session.unsubscribe(CHAT);
            self.hub.remove_subscriber(CHAT, &self.queue);
            return;
        };
        let mut out = Vec::new();
        self.session.tell_skipped(CHAT, &mut out);
        out.push(ServerFrame::Catchup { chat_id: CHAT, after_ev }.encode());
        out.iter().for_each(|frame| self.client.on_frame(frame));
        self.replay(part);
    }

    fn take(&mut self) {
        for delivery in self.inbox.take().now_or_never().unwrap_or_default() {
            let mut out = Vec::new();
            let effect = self.session.on_delivery(&delivery, &mut out);
            for frame in &out {
                self.check(frame);
                self.client.on_frame(frame);
            }
            match effect {
                Effect::CatchUp(_) => self.catch_up(),
                effect => assert_eq!(effect, Effect::Nothing),
            }
        }
    }

    /// A frame that the hub brought was Alice's when its change was made.
    fn check(&self, frame: &Frame) {
        if let Some((kind, ev, seq)) = parse(frame) {
            let part = self.stored.parts[ev as usize - 1];
            let audience =
                if kind == "message" { Audience::SeeingSeq(seq) } else { Audience::Admins };
            assert!(Stored::may_see(part, audience), "{frame:?} for {part:?}");
        }
    }

    /// Everything settles: late publications arrive, and the hub compares and fills.
    fn settle(&mut self) {
        for publication in std::mem::take(&mut self.late) {
            self.hub.receive(CHAT, publication);
        }
        for step in [Step::Take, Step::Compare, Step::Fill(usize::MAX), Step::Take, Step::Subscribe]
        {
            self.step(step);
        }
        let Some((_, first_seq)) = self.stored.alice else {
            assert!(!self.session.is_subscribed(CHAT));
            return;
        };
        let mut out = Vec::new();
        self.session.tell_skipped(CHAT, &mut out);
        out.iter().for_each(|frame| self.client.on_frame(frame));
        assert_eq!(self.client.position, self.stored.ev());
        let theirs = (1..).zip(&self.stored.messages).filter(|(seq, _)| *seq >= first_seq);
        for (seq, ev) in theirs {
            assert_eq!(self.client.messages.get(&seq), Some(ev), "message {seq}");
        }
    }
}

/// Kind, `ev` and `seq` of a change's frame.
fn parse(frame: &Frame) -> Option<(&str, i64, i64)> {
    let text = std::str::from_utf8(frame).expect("text");
    let mut words = text.split(' ');
    let kind = words.next().filter(|kind| ["message", "member"].contains(kind))?;
    let mut number = || words.next()?.parse().ok();
    Some((kind, number()?, number()?))
}

impl Client {
    fn on_frame(&mut self, frame: &Frame) {
        if let Some((kind, ev, seq)) = parse(frame) {
            assert!(
                ev == self.position + 1 || self.replayed && ev > self.position,
                "{ev} after {}",
                self.position
            );
            self.position = ev;
            if kind == "message" {
                self.messages.insert(seq, ev);
            }
            return;
        }
        let json: serde_json::Value = serde_json::from_slice(frame).expect("a frame");
        let ev = json["ev"].as_i64().or(json["after_ev"].as_i64()).expect("a number");
        match json["type"].as_str() {
            Some("skipped") => assert!(ev > self.position, "{ev} after {}", self.position),
            Some("catchup") => {
                assert_eq!(ev, self.position);
                self.replayed = true;
            }
            Some("synced") => self.replayed = false,
            other => panic!("{other:?}"),
        }
        self.position = ev;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_member_is_told_of_all_that_is_theirs_and_of_nothing_else(steps in steps()) {
        let mut world = World::new();
        world.subscribe();
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
    }
}
