//! What the calls of a race were told, and whether it was true.
//!
//! A state is of a version. What a member had unread at a version follows from what is known of each message: the
//! `ev` with which it was sent, those with which its mentions were edited, and that of its deletion.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use beseda::{
    model::{ChatId, Mentions, Message, MessageId, UserId},
    store::MemberState,
};

use super::tables::{Chat, Member, is_mentioned};

/// Revisions that a change of members takes beyond its first: of whoever hands over or inherits, and of what is
/// shown of the group.
const UNTOLD: usize = 2;

/// As the tables have them.
fn ids(mentions: &Mentions) -> Vec<String> {
    match mentions {
        Mentions::All => vec!["\u{1}".to_owned()],
        Mentions::Users(users) => users.iter().map(ToString::to_string).collect(),
    }
}

/// An `ev`, and whom the message mentioned from there on.
type Mentioned = (i64, Vec<String>);

#[derive(Debug)]
struct Sent {
    chat_id: ChatId,
    seq: i64,
    ev: i64,
    sender: String,
    mentions: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    sent: HashMap<MessageId, Sent>,
    replayed: Vec<(MessageId, i64)>,
    edits: HashMap<(ChatId, i64), Vec<Mentioned>>,
    deletions: HashMap<(ChatId, i64), i64>,
    /// Revisions of marks.
    marks: HashMap<ChatId, Vec<i64>>,
    /// The first revisions of changes of groups and of who belongs to them.
    changes: HashMap<ChatId, Vec<i64>>,
    states: Vec<MemberState>,
    /// Answers to silent marks: each is of its own row and of an `ev`, but not ordered by its version, as it is told
    /// without the chat's lock. Copies of groups' counters are ordered by `rev`, then `ev`.
    answers: Vec<MemberState>,
    /// How often each outcome was told.
    pub(super) tally: BTreeMap<String, usize>,
    pub(super) faults: Vec<String>,
}

impl Ledger {
    pub(super) fn count(&mut self, outcome: impl Into<String>) {
        *self.tally.entry(outcome.into()).or_default() += 1;
    }

    pub(super) fn was_sent(&mut self, message: &Message) {
        let Message { message_id, chat_id, seq, ev, .. } = *message;
        let sender = message.sender_id.as_ref().map(ToString::to_string).unwrap_or_default();
        let sent = Sent { chat_id, seq, ev, sender, mentions: ids(&message.mentions) };
        if let Some(before) = self.sent.insert(message_id, sent) {
            self.faults.push(format!("{message_id} was created twice: {before:?}, {message:?}"));
        }
    }

    pub(super) fn was_replayed(&mut self, message: &Message) {
        self.replayed.push((message.message_id, message.seq));
    }

    pub(super) fn was_edited(&mut self, message: &Message, ev: i64) {
        let edits = self.edits.entry((message.chat_id, message.seq)).or_default();
        edits.push((ev, ids(&message.mentions)));
    }

    pub(super) fn was_deleted(&mut self, message: &Message, ev: i64) {
        if let Some(before) = self.deletions.insert((message.chat_id, message.seq), ev) {
            self.faults.push(format!("deleted twice, with {before} and {ev}: {message:?}"));
        }
    }

    pub(super) fn was_marked(&mut self, chat_id: ChatId, ev: i64) {
        self.marks.entry(chat_id).or_default().push(ev);
    }

    pub(super) fn was_changed(&mut self, chat_id: ChatId, ev: i64) {
        self.changes.entry(chat_id).or_default().push(ev);
    }

    pub(super) fn was_told(&mut self, states: impl IntoIterator<Item = MemberState>) {
        self.states.extend(states);
    }

    pub(super) fn was_answered(&mut self, state: MemberState) {
        self.answers.push(state);
    }

    /// Compares with the tables of before and of now, when nothing races any more.
    pub(super) fn judge(
        mut self,
        start: &HashMap<ChatId, Chat>,
        end: &HashMap<ChatId, Chat>,
    ) -> Vec<String> {
        for edits in self.edits.values_mut() {
            edits.sort_unstable();
        }
        let mut faults = std::mem::take(&mut self.faults);
        for (message_id, seq) in &self.replayed {
            if self.sent.get(message_id).is_none_or(|sent| sent.seq != *seq) {
                faults.push(format!(
                    "{message_id} was replayed as {seq}: {:?}",
                    self.sent.get(message_id)
                ));
            }
        }
        let mut states: HashMap<(ChatId, &UserId), Told<'_>> = HashMap::new();
        for state in &self.states {
            states.entry((state.chat_id, &state.user_id)).or_default().states.push(state);
        }
        for state in &self.answers {
            states.entry((state.chat_id, &state.user_id)).or_default().answers.push(state);
        }
        for (chat_id, chat) in end {
            let history = self.history(&start[chat_id], chat, &mut faults);
            self.judge_evs(&start[chat_id], chat, &mut faults);
            let of_chat = states.iter().filter(|((of, _), _)| of == chat_id);
            for ((_, user), told) in of_chat {
                told.judge(chat, &history, user.as_str(), &mut faults);
            }
        }
        faults
    }

    /// What is known of a chat's messages, in their order.
    fn history(&self, start: &Chat, end: &Chat, faults: &mut Vec<String>) -> Vec<Past> {
        let past =
            |(message, before): (&super::tables::Message, Option<&super::tables::Message>)| {
                let was_live = before.is_none_or(|before| before.live);
                let deleted = (!message.live).then_some(if was_live { message.ev } else { 0 });
                let mut wrong = Vec::new();
                let told = self.sent.get(&message.id);
                let mut mentions = match (before, told) {
                    (Some(before), _) => vec![(0, before.mentions.clone())],
                    (None, Some(sent)) => {
                        if (sent.chat_id, sent.seq) != (end.id, message.seq)
                            || Some(&sent.sender) != message.sender.as_ref()
                        {
                            wrong.push(format!("told {sent:?}"));
                        }
                        vec![(sent.ev, sent.mentions.clone())]
                    }
                    (None, None) => vec![(message.ev, Vec::new())],
                };
                if told.is_none() && before.is_none() && message.sender.is_some() {
                    wrong.push("nobody was told".to_owned());
                }
                mentions
                    .extend(self.edits.get(&(end.id, message.seq)).into_iter().flatten().cloned());
                let latest = mentions.last().expect("the first");
                if message.live
                    && before.is_none()
                    && *latest != (message.ev, message.mentions.clone())
                {
                    wrong.push(format!("its latest change was told as {latest:?}"));
                }
                let told = self.deletions.get(&(end.id, message.seq));
                if told.is_some_and(|ev| deleted != Some(*ev)) {
                    wrong.push(format!("its deletion was told as {told:?}"));
                }
                faults.extend(wrong.into_iter().map(|wrong| format!("{message:?}: {wrong}")));
                Past { sender: message.sender.clone(), sent: mentions[0].0, mentions, deleted }
            };
        let before = start.messages.iter().map(Some).chain(std::iter::repeat(None));
        end.messages.iter().zip(before).map(past).collect()
    }

    /// Each revision is of one change that somebody was told of.
    fn judge_evs(&self, start: &Chat, end: &Chat, faults: &mut Vec<String>) {
        let id = end.id;
        let later = end.messages.iter().filter(|message| message.ev > start.last_ev);
        // Deletions, also by an erasure, which tells no revision, and system messages.
        let of_table = later.filter(|m| !m.live || m.sender.is_none()).map(|message| message.ev);
        let sent = self.sent.values().filter(|sent| sent.chat_id == id).map(|sent| sent.ev);
        let edits = self.edits.iter().filter(|((chat_id, _), _)| *chat_id == id);
        let edits = edits.flat_map(|(_, edits)| edits.iter().map(|(ev, _)| *ev));
        let marks = self.marks.get(&id).into_iter().flatten().copied();
        let changes: BTreeSet<i64> = self.changes.get(&id).into_iter().flatten().copied().collect();
        let mut claimed = changes.clone();
        for ev in of_table.chain(sent).chain(edits).chain(marks) {
            if !claimed.insert(ev) {
                faults.push(format!("{id}: ev {ev} was given twice"));
            }
        }
        let mut allowed = 0;
        for ev in start.last_ev + 1..=end.last_ev {
            if changes.contains(&ev) {
                allowed = UNTOLD;
            } else if claimed.contains(&ev) {
                allowed = 0;
            } else if allowed == 0 {
                faults.push(format!("{id}: ev {ev} is of no change"));
            } else {
                allowed -= 1;
            }
        }
        if let Some(last) = claimed.last().filter(|last| **last > end.last_ev) {
            faults.push(format!("{id}: ev {last} was told, and the last is {}", end.last_ev));
        }
    }
}

/// What is known of a message.
struct Past {
    sender: Option<String>,
    /// The `ev` with which it was sent; 0: before the race.
    sent: i64,
    mentions: Vec<Mentioned>,
    deleted: Option<i64>,
}

/// Unread messages and mentions of a member as of a revision, and the last `seq`.
fn truth(history: &[Past], user: &str, read_seq: i64, ev: i64) -> (i64, i64, i64) {
    let last = history.partition_point(|message| message.sent <= ev);
    let (mut unread, mut mentions) = (0, 0);
    let read = usize::try_from(read_seq).expect("a seq");
    for message in history[..last].iter().skip(read) {
        let of_others = message.sender.as_deref().is_some_and(|sender| sender != user);
        if of_others && message.deleted.is_none_or(|deleted| deleted > ev) {
            unread += 1;
            let then = message.mentions.iter().rfind(|(edited, _)| *edited <= ev);
            mentions += i64::from(then.is_some_and(|(_, ids)| is_mentioned(ids, user)));
        }
    }
    (unread, mentions, i64::try_from(last).expect("a seq"))
}

/// What was told of one member.
#[derive(Debug, Default)]
struct Told<'a> {
    states: Vec<&'a MemberState>,
    answers: Vec<&'a MemberState>,
}

impl Told<'_> {
    /// Each state was true at its version, each row has a `rev`, and each state a version.
    fn judge(&self, chat: &Chat, history: &[Past], user: &str, faults: &mut Vec<String>) {
        let mut by_rev: Vec<_> = self.states.iter().chain(&self.answers).collect();
        by_rev.sort_by_key(|state| state.rev);
        for state in &by_rev {
            let (unread, mentions, last_seq) = truth(history, user, state.read_seq, state.last_ev);
            let expected = if state.gone { (0, 0, last_seq) } else { (unread, mentions, last_seq) };
            if (state.unread, state.mentions, state.last_seq) != expected {
                faults.push(format!(
                    "told {state:?}, and unread, mentions, last_seq were {expected:?}"
                ));
            }
        }
        let own = |state: &MemberState| (state.read_seq, state.gone, state.flags);
        for pair in by_rev.windows(2) {
            let (one, two) = (pair[0], pair[1]);
            if one.rev == two.rev && own(one) != own(two) || one.read_seq > two.read_seq {
                faults
                    .push(format!("one rev of two rows, or a marker went back: {one:?}, {two:?}"));
            }
        }
        let mut states = self.states.clone();
        states.sort_by_key(|state| state.version());
        for pair in states.windows(2) {
            let (one, two) = (pair[0], pair[1]);
            let same = one.version() == two.version();
            if same && one != two || one.last_ev > two.last_ev || one.rev > two.rev {
                faults.push(format!("versions contradict each other: {one:?}, {two:?}"));
            }
        }
        let row = chat.members.iter().find(|member| member.user == user);
        if let Some(row) = row
            && !chat.direct
        {
            self.judge_copies(chat, row, faults);
        }
        let (Some(row), Some(latest)) = (row, states.last()) else { return };
        let latest_is_row =
            (latest.last_ev, latest.rev, latest.read_seq, latest.unread, latest.mentions)
                == (chat.last_ev, row.rev, row.read_seq, row.unread, row.mentions);
        let ahead =
            by_rev.last().is_some_and(|last| last.rev > row.rev || last.read_seq > row.read_seq);
        // In a direct chat every change is told to both.
        if ahead || chat.direct && !latest_is_row {
            faults
                .push(format!("the latest state that was told is {latest:?}, and the row {row:?}"));
        }
    }

    /// The copy that Redis would keep of these states is one, and the head of the group brings it up to date.
    fn judge_copies(&self, chat: &Chat, row: &Member, faults: &mut Vec<String>) {
        let mut copies: Vec<_> = self.states.iter().chain(&self.answers).collect();
        copies.sort_by_key(|state| (state.rev, state.last_ev));
        for pair in copies.windows(2) {
            let (one, two) = (pair[0], pair[1]);
            if (one.rev, one.last_ev) == (two.rev, two.last_ev) && one != two {
                faults.push(format!("two copies of one moment: {one:?}, {two:?}"));
            }
        }
        let Some(latest) = copies.last().filter(|latest| latest.rev == row.rev) else { return };
        let grown = latest.unread + chat.last_counted - latest.counted;
        if !row.left && chat.recount_ev <= latest.last_ev && grown != row.unread {
            faults.push(format!("{latest:?} has grown to {grown}, and the row {row:?}"));
        }
    }
}
