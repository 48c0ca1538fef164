//! A client's model of one chat, kept by the rules of the protocol; it reports violations. No I/O.

use std::collections::{BTreeMap, HashMap};

use beseda_protocol::{
    bounds::MAX_REPLAY,
    model::{ChatId, ChatKind, Member, Message, MessageId, MessageKind},
};

use super::{
    change::{Change, Party, carried},
    findings::Kind,
    frame::Frame,
    membership::Membership,
};

/// The floor of a client that knows no message of the chat: above all possible ones.
const NOTHING: i64 = i64::MAX / 2;

/// A message in the client's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub message_id: MessageId,
    pub ev: i64,
    pub text: String,
    /// See [`carried`].
    pub carried: String,
    pub deleted: bool,
}

/// A violation of the protocol.
pub(super) type Broken = (Kind, String);

#[derive(Debug, Clone)]
pub(super) struct Model {
    chat_id: ChatId,
    party: Party,
    /// All changes up to here were received.
    pub position: i64,
    pub epoch: Option<String>,
    /// True after `synced`: from then on numbers have no gaps.
    pub in_step: bool,
    /// By `seq`.
    pub messages: BTreeMap<i64, Known>,
    pub reads: HashMap<String, i64>,
    /// Messages up to here were never requested, or are not the user's to see.
    pub floor: i64,
    /// True if messages are known from a page of history on.
    pub is_paged: bool,
    /// Of a group.
    pub group: Option<Membership>,
}

impl Model {
    /// Creates the model of a client that knows nothing and requests everything.
    pub(super) fn new(chat_id: ChatId, party: Party) -> Self {
        let is_group = party.kind == ChatKind::Group;
        Self {
            chat_id,
            group: is_group.then(|| Membership::new(&party.own, true)),
            party,
            position: 0,
            epoch: None,
            in_step: false,
            messages: BTreeMap::new(),
            reads: HashMap::new(),
            // In a group the first message that the user may see is the first that is told.
            floor: if is_group { NOTHING } else { 0 },
            is_paged: false,
        }
    }

    /// Creates the model of a client that has read a page of history as of `head_ev`.
    pub(super) fn from_history(
        chat_id: ChatId,
        party: Party,
        page: &[Message],
        (head_seq, head_ev, epoch): (i64, i64, String),
    ) -> Self {
        let mut model = Self::new(chat_id, party);
        if model.group.is_some() {
            model.group = Some(Membership::new(&model.party.own, false));
        }
        model.is_paged = true;
        model.position = head_ev;
        model.epoch = Some(epoch);
        model.floor = page.first().map_or(head_seq, |message| message.seq - 1);
        model.messages = page.iter().map(|message| (message.seq, known(message))).collect();
        model
    }

    fn is_member(&self, user: &str) -> bool {
        self.party.members.iter().any(|member| member == user)
    }

    /// Returns the model of a client that begins anew.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.chat_id, self.party.clone())
    }

    /// True if the client must begin anew: the user was out meanwhile, and has come back.
    pub(super) fn must_begin_anew(&self) -> bool {
        self.in_step && self.group.as_ref().is_some_and(|group| group.came_back)
    }

    /// True if the list of members must be read.
    pub(super) fn wants_members(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.is_wanted)
    }

    /// Takes the list of members, which was read after the position.
    pub(super) fn on_list(&mut self, members: &[Member]) {
        members.iter().for_each(|member| self.note_marker(member));
        if let Some(group) = &mut self.group {
            group.on_list(members);
        }
    }

    fn note_marker(&mut self, member: &Member) {
        if let Some(read_seq) = member.read_seq {
            let known = self.reads.entry(member.user.user_id.as_str().to_owned()).or_default();
            *known = read_seq.max(*known);
        }
    }

    /// Returns the highest `seq` that the client knows.
    fn top(&self) -> i64 {
        self.messages.last_key_value().map_or(self.floor, |(seq, _)| *seq)
    }

    /// Applies a frame of this chat. Returns its change; violations go to `broken`.
    pub(super) fn apply(
        &mut self,
        frame: &Frame,
        broken: &mut Vec<Broken>,
    ) -> Option<(i64, Change)> {
        match frame.kind.as_str() {
            "subscribed" => {
                self.in_step = false;
                if self.epoch.is_some() && self.epoch != frame.epoch {
                    broken.push((Kind::State, format!("another epoch: {frame:?}")));
                }
                self.epoch.clone_from(&frame.epoch);
                None
            }
            "synced" => {
                self.on_synced(frame.ev, broken);
                None
            }
            "catchup" => {
                if !self.in_step || frame.after_ev != self.position {
                    let at = self.position;
                    broken.push((
                        Kind::Order,
                        format!(
                            "catchup after {} at ev {at}, in step: {}",
                            frame.after_ev, self.in_step
                        ),
                    ));
                }
                self.in_step = false;
                None
            }
            "reset" => {
                // The database is never restored in these runs, so the only reason is a position of long ago.
                let is_far = frame.head_ev - self.position > MAX_REPLAY
                    && frame.reason.as_deref() == Some("too_far");
                if !is_far {
                    broken.push((Kind::State, format!("reset at ev {}: {frame:?}", self.position)));
                }
                // As after an empty page of history: what the newest message is, the next one tells.
                let epoch = self.epoch.take().unwrap_or_default();
                let head = (NOTHING, frame.head_ev, epoch);
                *self = Self::from_history(self.chat_id, self.party.clone(), &[], head);
                None
            }
            "message.created" | "message.updated" => {
                let Some(message) = &frame.message else {
                    broken.push((Kind::Answer, format!("no message in {frame:?}")));
                    return None;
                };
                self.on_number(&frame.kind, frame.ev, broken);
                self.on_message(&frame.kind, frame.ev, message, broken);
                Some((frame.ev, Change::of(message)))
            }
            "message.deleted" => {
                self.on_number(&frame.kind, frame.ev, broken);
                self.on_deleted(frame, broken)
            }
            "chat.read" => self.on_read(frame, broken),
            "skipped" | "chat.changed" | "member.joined" | "member.updated" | "member.left" => {
                self.on_number(&frame.kind, frame.ev, broken);
                self.on_group(frame, broken)
            }
            _ => None,
        }
    }

    fn on_synced(&mut self, ev: i64, broken: &mut Vec<Broken>) {
        if self.in_step || ev < self.position {
            let (at, in_step) = (self.position, self.in_step);
            broken.push((Kind::Order, format!("synced {ev} at ev {at}, in step: {in_step}")));
        }
        self.position = ev;
        self.in_step = true;
        if let Some(group) = &mut self.group {
            group.on_synced();
        }
        self.lower_floor();
        let known = i64::try_from(self.messages.range(self.floor + 1..).count());
        if self.floor < NOTHING && known != Ok(self.top() - self.floor) {
            let (top, floor) = (self.top(), self.floor);
            broken.push((
                Kind::Gap,
                format!("synced at {ev} with {known:?} messages of {} to {top}", floor + 1),
            ));
        }
    }

    /// True after a reset, until the first new message tells which ones are of before.
    fn awaits_newest(&self) -> bool {
        self.is_paged && self.floor == NOTHING && self.messages.is_empty()
    }

    /// In a group that is known from its beginning on, the first message is that of the user's history.
    fn lower_floor(&mut self) {
        let came_back = self.group.as_ref().is_none_or(|group| group.came_back);
        if self.floor == NOTHING
            && !came_back
            && let Some((seq, _)) = self.messages.first_key_value()
        {
            self.floor = seq - 1;
        }
    }

    /// Checks that numbers have no gaps in step, and ascend in a catch-up.
    fn on_number(&mut self, kind: &str, ev: i64, broken: &mut Vec<Broken>) {
        let at = self.position;
        if ev <= at {
            broken
                .push((Kind::Doubled, format!("ev {ev} after ev {at}, in step: {}", self.in_step)));
        } else if self.in_step && ev != at + 1 && kind != "skipped" {
            broken.push((Kind::Gap, format!("ev {ev} after ev {at} in step")));
        }
        self.position = self.position.max(ev);
    }

    fn on_message(&mut self, kind: &str, ev: i64, message: &Message, broken: &mut Vec<Broken>) {
        let mut wrong = |kind: Kind, what: &str| {
            broken.push((kind, format!("{what}: ev {ev}, {message:?}")));
        };
        let is_theirs = match &message.sender_id {
            Some(sender) => self.is_member(sender.as_str()),
            None => self.group.is_some() && message.kind == MessageKind::System,
        };
        if message.chat_id != self.chat_id || !is_theirs {
            wrong(Kind::Leak, "a message of another chat or person");
        }
        if message.ev != ev {
            wrong(Kind::Order, "a message with another ev than its frame");
        }
        let created = kind == "message.created";
        // Live, a message that has lost its last reaction is updated, too.
        if message.deleted_at.is_some() || created && message.is_changed() {
            wrong(Kind::Answer, "a message in the wrong frame");
        }
        if self.awaits_newest() {
            if !created || !self.in_step {
                return;
            }
            self.floor = message.seq - 1;
        }
        let (top, in_step, floor) = (self.top(), self.in_step, self.floor);
        match self.messages.get(&message.seq) {
            Some(known) if known.message_id != message.message_id => {
                wrong(Kind::Order, "another message has that seq");
            }
            // Read anew, a message whose reactions came and went is as it was sent.
            Some(known) if created && (in_step || known.ev == message.ev) => {
                wrong(Kind::Doubled, "created twice");
            }
            Some(known) if known.deleted => wrong(Kind::State, "edited after its deletion"),
            Some(_) => {}
            None if created && in_step && message.seq != top + 1 && floor < NOTHING => {
                wrong(Kind::Gap, &format!("created in step after seq {top}"));
            }
            None if !created && in_step && message.seq > floor => {
                wrong(Kind::Lost, "edited in step, never created");
            }
            None => {}
        }
        self.messages.insert(message.seq, known(message));
        if in_step {
            self.lower_floor();
        }
    }

    fn on_deleted(&mut self, frame: &Frame, broken: &mut Vec<Broken>) -> Option<(i64, Change)> {
        let &Frame { ev, seq, message_id: Some(message_id), .. } = frame else {
            broken.push((Kind::Answer, format!("no message_id in {frame:?}")));
            return None;
        };
        match self.messages.get(&seq) {
            Some(known) if known.message_id != message_id => {
                broken.push((Kind::Order, format!("another message has that seq: {frame:?}")));
            }
            Some(known) if known.deleted => {
                broken.push((Kind::Doubled, format!("deleted twice: {frame:?}")));
            }
            None if self.in_step && seq > self.floor => {
                broken.push((Kind::Lost, format!("deleted in step, never created: {frame:?}")));
            }
            _ => {}
        }
        if !self.awaits_newest() {
            let (text, carried) = (String::new(), String::new());
            let known = Known { message_id, ev, text, carried, deleted: true };
            self.messages.insert(seq, known);
        }
        let (text, carried) = (String::new(), String::new());
        let change =
            Change::Message { message_id, seq, text, carried, edited: false, deleted: true };
        Some((ev, change))
    }

    fn on_read(&mut self, frame: &Frame, broken: &mut Vec<Broken>) -> Option<(i64, Change)> {
        let user = frame.user_id.clone().unwrap_or_default();
        let own = user == self.party.own;
        // `None`: the client does not know yet whether markers take a revision.
        let receipts = self.group.as_ref().map_or(Some(true), |group| group.receipts);
        if frame.ev > 0 {
            self.on_number(&frame.kind, frame.ev, broken);
        }
        if !self.is_member(&user) || frame.ev == 0 && !own {
            broken.push((Kind::Leak, format!("a stranger's marker: {frame:?}")));
            return None;
        }
        let listed = self.group.as_ref().is_some_and(|group| group.listed);
        let before = self.reads.get(&user).copied().unwrap_or(0);
        // In a resume, the member's own frame has the marker already.
        let again = frame.read_seq == before && self.group.is_some() && !self.in_step;
        if frame.read_seq <= before && !again && !listed && frame.ev > 0 {
            broken.push((Kind::Order, format!("a marker went back from {before}: {frame:?}")));
        }
        if self.in_step && receipts == Some(frame.ev == 0) {
            broken.push((Kind::State, format!("receipts: {receipts:?}, and yet {frame:?}")));
        }
        self.reads.insert(user.clone(), frame.read_seq.max(before));
        (frame.ev > 0).then_some((frame.ev, Change::Read { user, read_seq: frame.read_seq }))
    }

    /// Applies a frame that only groups have.
    fn on_group(&mut self, frame: &Frame, broken: &mut Vec<Broken>) -> Option<(i64, Change)> {
        let named = frame.members.iter().chain(frame.member.as_deref());
        let mut users =
            named.map(|member| member.user.user_id.as_str()).chain(frame.user_id.as_deref());
        if let Some(stranger) = users.find(|user| !self.is_member(user)) {
            broken.push((Kind::Leak, format!("{stranger} is of no such group: {frame:?}")));
        }
        frame.members.iter().chain(frame.member.as_deref()).for_each(|one| self.note_marker(one));
        let Some(group) = &mut self.group else {
            broken.push((Kind::Answer, format!("in a direct chat: {frame:?}")));
            return None;
        };
        let mut came_back = false;
        let change = match (frame.kind.as_str(), &frame.user_id) {
            ("chat.changed", _) => {
                group.on_changed(frame);
                let (title, receipts) = (frame.title.clone(), frame.receipts.as_bool());
                Some(Change::Group { title, receipts })
            }
            ("member.left", Some(user)) => {
                if !group.on_left(user) {
                    broken.push((Kind::Leak, format!("one's own leaving: {frame:?}")));
                }
                Some(Change::Member { user: user.clone(), role: None })
            }
            ("member.joined" | "member.updated", _) => {
                let joined = frame.kind == "member.joined";
                let named: Vec<&Member> =
                    frame.members.iter().chain(frame.member.as_deref()).collect();
                for member in &named {
                    came_back |= group.on_member(member, joined);
                }
                match named[..] {
                    [] => {
                        broken.push((Kind::Answer, format!("nobody in {frame:?}")));
                        None
                    }
                    // Of those who joined together, a resume gives whom it may and who has not changed since.
                    [member] if !joined || self.in_step => Some(Change::Member {
                        user: member.user.user_id.as_str().to_owned(),
                        role: Some(member.role),
                    }),
                    _ => None,
                }
            }
            _ => None,
        };
        if came_back {
            self.floor = NOTHING;
        }
        Some((frame.ev, change?))
    }
}

fn known(message: &Message) -> Known {
    Known {
        message_id: message.message_id,
        ev: message.ev,
        text: message.text.clone(),
        carried: carried(&message.reactions, message.pinned_at.is_some()),
        deleted: message.deleted_at.is_some(),
    }
}

#[cfg(test)]
mod tests;
