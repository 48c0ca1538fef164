//! Drawn schedules: what eight connections do at random, from a seed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use beseda::{
    config::SystemMessages,
    error::Error,
    model::{ChatId, ChatKind, Mentions, MessageId, UserId},
    store::{
        Changed, Draft, GroupLimits, MemberState, Mutation, MutationKind, MutationOutcome,
        MutationResult, SendOutcome, Store,
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{draft, keyed, ledger::Ledger, limits, mark};

/// Messages that may be sent again, and those that may be changed.
const KEPT: usize = 500;

/// Members who are never put out, so that no group ends: a chat's first ones.
pub(super) const FOUNDERS: usize = 4;

/// A chat of the schedule.
#[derive(Debug, Clone)]
pub(super) struct Raced {
    pub(super) id: ChatId,
    /// Of a group: with more members than these it loses its receipts. `None`: a direct chat.
    pub(super) receipt_members: Option<i32>,
    pub(super) founders: Vec<String>,
}

/// What all connections know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) chats: Vec<Raced>,
    pub(super) users: Vec<String>,
    ledger: Mutex<Ledger>,
    /// Sent, perhaps in vain.
    sent: Mutex<VecDeque<Draft>>,
    /// Created.
    known: Mutex<VecDeque<(ChatId, MessageId, UserId)>>,
    heads: Mutex<HashMap<ChatId, i64>>,
}

impl Shared {
    pub(super) fn new(chats: Vec<Raced>, users: Vec<String>, heads: HashMap<ChatId, i64>) -> Self {
        let (ledger, sent, known) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { chats, users, ledger, sent, known, heads: Mutex::new(heads) }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("nobody panics with it")
    }

    /// Whether the race is lost already.
    pub(super) fn has_faults(&self) -> bool {
        !self.ledger().faults.is_empty()
    }
}

/// One of the connections.
pub(super) struct Racer {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    pub(super) rng: StdRng,
}

impl Racer {
    pub(super) fn new(shared: &Arc<Shared>, store: Store, seed: u64) -> Self {
        Self { shared: Arc::clone(shared), store, rng: StdRng::seed_from_u64(seed) }
    }

    /// Does one thing, of those that are frequent more often.
    pub(super) async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.send().await,
            40..74 => self.mutate().await,
            74..78 => self.add().await,
            78..82 => self.join().await,
            82..88 => self.put_out().await,
            88..90 => self.ban().await,
            90..94 => self.change_member().await,
            94..96 => self.change_group().await,
            96..99 => self.set_own().await,
            _ => self.erase().await,
        }
    }

    pub(super) fn user(&mut self) -> UserId {
        let shared = Arc::clone(&self.shared);
        UserId::trusted(shared.users.choose(&mut self.rng).expect("users"))
    }

    /// Somebody who is likely to be a member.
    pub(super) fn user_of(&mut self, chat: &Raced) -> UserId {
        if self.rng.random_bool(0.5) {
            return UserId::trusted(chat.founders.choose(&mut self.rng).expect("founders"));
        }
        self.user()
    }

    pub(super) fn chat(&mut self) -> Raced {
        let shared = Arc::clone(&self.shared);
        shared.chats.choose(&mut self.rng).expect("chats").clone()
    }

    pub(super) fn group(&mut self) -> (Raced, GroupLimits) {
        loop {
            let chat = self.chat();
            let Some(receipt_members) = chat.receipt_members else { continue };
            let system = [SystemMessages::Off, SystemMessages::Small, SystemMessages::All];
            let system = *system.choose(&mut self.rng).expect("three");
            return (chat, limits(receipt_members, system));
        }
    }

    fn mentions(&mut self) -> Mentions {
        if self.rng.random_bool(0.25) {
            return Mentions::All;
        }
        let count = self.rng.random_range(1..=4);
        Mentions::Users((0..count).map(|_| self.user()).collect())
    }

    /// Who asks for a change of a group: the host application, or anybody.
    pub(super) fn asker(&mut self) -> Option<UserId> {
        self.rng.random_bool(0.7).then(|| self.user())
    }

    /// Notes an outcome. What is refused is an outcome; what fails is a fault.
    pub(super) fn settle<T>(&self, what: &str, outcome: Result<T, Error>) -> Option<T> {
        let mut ledger = self.shared.ledger();
        match outcome {
            Ok(value) => {
                ledger.count(format!("{what} ok"));
                Some(value)
            }
            Err(error @ (Error::Unavailable(_) | Error::Internal(_) | Error::Timeout)) => {
                ledger.faults.push(format!("{what} failed: {error:?}"));
                None
            }
            Err(error) => {
                ledger.count(format!("{what} {}", error.code()));
                None
            }
        }
    }

    pub(super) fn settle_change(
        &self,
        what: &str,
        chat_id: ChatId,
        outcome: Result<Option<Changed>, Error>,
    ) {
        if let Some(Some(changed)) = self.settle(what, outcome) {
            self.shared.ledger().was_changed(chat_id, changed.ev);
        }
    }

    /// Has the states of these members told.
    pub(super) async fn look(&self, chat_id: ChatId, users: impl IntoIterator<Item = UserId>) {
        let members: Vec<_> = users.into_iter().map(|user| (chat_id, user)).collect();
        let states = self.store.get_member_states(&members).await.map_err(Error::from);
        if let Some(states) = self.settle("look", states) {
            self.shared.ledger().was_told(states);
        }
    }

    /// Looks at everybody.
    pub(super) async fn look_around(&self, chat_id: ChatId) {
        self.look(chat_id, self.shared.users.iter().map(|id| UserId::trusted(id))).await;
    }

    async fn send(&mut self) {
        let size = *[1, 1, 1, 2, 5, 12, 40].choose(&mut self.rng).expect("sizes");
        let (mut batch, mut ids) = (Vec::<Draft>::new(), HashSet::new());
        for _ in 0..size {
            let draft = self.draft(batch.last());
            if ids.insert(draft.message_id) {
                batch.push(draft);
            }
        }
        let sent = self.store.send_messages(&batch).await.map_err(Error::from);
        let Some(sent) = self.settle("send", sent) else { return };
        let mut ledger = self.shared.ledger();
        ledger.was_told(sent.states);
        for outcome in sent.outcomes {
            match outcome {
                SendOutcome::Created { message, .. } => {
                    ledger.count("message created");
                    ledger.was_sent(&message);
                    let sender = message.sender_id.expect("of a user");
                    let mut known = self.shared.known.lock().expect("nobody panics with it");
                    keep(&mut known, (message.chat_id, message.message_id, sender));
                    let mut heads = self.shared.heads.lock().expect("nobody panics with it");
                    let head = heads.entry(message.chat_id).or_default();
                    *head = message.seq.max(*head);
                }
                SendOutcome::Replayed { message } => {
                    ledger.count("message replayed");
                    ledger.was_replayed(&message);
                }
                SendOutcome::Refused(error) => ledger.count(format!("message {}", error.code())),
            }
        }
    }

    /// A new message, or an earlier one again, seldom with other content.
    fn draft(&mut self, last: Option<&Draft>) -> Draft {
        let again = {
            let sent = self.shared.sent.lock().expect("nobody panics with it");
            let place = self.rng.random_range(0..=sent.len());
            if self.rng.random_bool(0.15) { sent.get(place).cloned() } else { None }
        };
        if let Some(again) = again {
            let other = self.rng.random_bool(0.1).then(|| b"other"[..].into());
            return Draft { digest: other.or(again.digest), ..again };
        }
        // Who writes more than one message of a batch.
        let last = last.filter(|_| self.rng.random_bool(0.2));
        let chat = self.chat();
        let sender = last.map_or_else(|| self.user_of(&chat), |last| last.sender_id.clone());
        let mentions = self.rng.random_bool(0.2).then(|| self.mentions());
        let draft = draft(chat.id, sender.as_str(), mentions);
        let key = draft.message_id.to_string();
        let draft = keyed(draft, &key);
        let mut sent = self.shared.sent.lock().expect("nobody panics with it");
        keep(&mut sent, draft.clone());
        draft
    }

    async fn mutate(&mut self) {
        let size = *[1, 1, 1, 2, 4, 12].choose(&mut self.rng).expect("sizes");
        let (mut batch, mut marked, mut changed) = (Vec::new(), HashSet::new(), HashSet::new());
        for _ in 0..size {
            let mutation = self.mutation();
            let Mutation { chat_id, user, kind } = &mutation;
            let is_first = match kind {
                MutationKind::Mark { .. } => marked.insert((*chat_id, user.clone())),
                MutationKind::Edit { message_id, .. } | MutationKind::Delete { message_id, .. } => {
                    changed.insert(*message_id)
                }
            };
            if is_first {
                batch.push(mutation);
            }
        }
        let mutated = self.store.mutate_chats(&batch).await.map_err(Error::from);
        let Some(mutated) = self.settle("mutate", mutated) else { return };
        let mut ledger = self.shared.ledger();
        // As the writer does: of groups no copies are made.
        let copied = |state: &MemberState| state.kind == ChatKind::Direct;
        ledger.was_told(mutated.states.into_iter().filter(copied));
        for (mutation, outcome) in batch.iter().zip(mutated.outcomes) {
            let done = match outcome {
                MutationOutcome::Done(done) => done,
                MutationOutcome::Refused(error) => {
                    ledger.count(format!("mutation {}", error.code()));
                    continue;
                }
            };
            match (&mutation.kind, done.result, done.changed_ev) {
                (MutationKind::Mark { .. }, MutationResult::Mark { state, .. }, ev) => {
                    if done.moved && ev.is_none() {
                        ledger.count("mark silent");
                        ledger.was_answered(*state);
                    } else {
                        ledger.count(if done.moved { "mark told" } else { "mark still" });
                        ledger.was_told([*state]);
                        ev.into_iter().for_each(|ev| ledger.was_marked(done.chat_id, ev));
                    }
                }
                (MutationKind::Edit { .. }, MutationResult::Message(message), Some(ev)) => {
                    ledger.count("message edited");
                    ledger.was_edited(&message, ev);
                }
                (MutationKind::Delete { .. }, MutationResult::Message(message), Some(ev)) => {
                    ledger.count("message deleted");
                    ledger.was_deleted(&message, ev);
                }
                _ => ledger.count("mutation without effect"),
            }
        }
    }

    /// A mark, to the head or near it; an edit or a deletion, of the author's own mostly.
    fn mutation(&mut self) -> Mutation {
        let known = {
            let known = self.shared.known.lock().expect("nobody panics with it");
            let place = self.rng.random_range(0..=known.len());
            known.get(place).cloned()
        };
        let (Some((chat_id, message_id, author)), true) = (known, self.rng.random_bool(0.35))
        else {
            let chat = self.chat();
            let (chat_id, reader) = (chat.id, self.user_of(&chat));
            let head =
                self.shared.heads.lock().expect("nobody panics with it").get(&chat_id).copied();
            let head = head.unwrap_or_default();
            let back = *[3, 20, 400, 2_000].choose(&mut self.rng).expect("distances");
            let up_to = self.rng.random_range((head - back).max(0)..=head + 2);
            let up_to = self.rng.random_bool(0.6).then_some(up_to);
            return mark(chat_id, reader.as_str(), up_to);
        };
        let user = if self.rng.random_bool(0.8) { author } else { self.user() };
        let kind = if self.rng.random_bool(0.5) {
            MutationKind::Delete { message_id, admin: self.rng.random_bool(0.2) }
        } else {
            let text = format!("edited {}", self.rng.random_range(0..3));
            let mentions = self.rng.random_bool(0.7).then(|| self.mentions());
            MutationKind::Edit { message_id, text, mentions }
        };
        Mutation { chat_id, user, kind }
    }
}

/// Adds one, and forgets the oldest of too many.
fn keep<T>(queue: &mut VecDeque<T>, value: T) {
    queue.push_back(value);
    if queue.len() > KEPT {
        queue.pop_front();
    }
}
