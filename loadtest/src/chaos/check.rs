//! The final check, once all is healed and quiet: what clients received against what is stored.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use beseda_protocol::model::{Chat, ChatId, ChatKind, MessageId, Notify};
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::{
    audit, check_files,
    check_groups::{self, behind},
    context::{Person, SimContext},
    counters::{Counts, Unread},
    findings::{Kind, lock},
    history::{Deletion, KnownChat, Sent},
    list::Inbox,
    stack::Stack,
    stored::{self, Membership, Row, Stored},
    subscriber::Subscriber,
};

/// Time-out for quiescence after the last fault: the service checks for lost changes every 5 s, so
/// three checks must have found them.
const SETTLE: Duration = Duration::from_secs(15);

/// Longest delivery to an open socket, from the commit or the end of the last fault, in microseconds:
/// the head check's interval of 5 s, its jitter, and a reconnect.
const OVERDUE: i64 = 8_000_000;

const POLL: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Page {
    results: Vec<Chat>,
    next: Option<String>,
}

pub(super) struct Judge<'a> {
    pub context: &'a SimContext,
    pub stack: &'a Stack,
    pub people: &'a [Person],
    pub inboxes: &'a [Arc<Inbox>],
}

impl Judge<'_> {
    /// Waits for quiescence or the time-out, and then checks everything. Returns the duration of the
    /// wait.
    pub(super) async fn judge(&self) -> Result<Duration, tokio_postgres::Error> {
        let began = Instant::now();
        let mut client = self.stack.database().await?;
        let deadline = began + SETTLE;
        // The snapshot found at rest is judged: another one would be of a later moment.
        let stored = loop {
            let stored = stored::read(&mut client).await?;
            let Some(why) = self.unrest(&client, &stored).await? else { break stored };
            if Instant::now() > deadline {
                self.add(Kind::Late, format!("not at rest after {SETTLE:?}: {why}"));
                break stored;
            }
            tokio::time::sleep(POLL).await;
        };
        for subscriber in lock(&self.context.subscribers).iter() {
            self.check_seat(subscriber, &stored);
        }
        for inbox in self.inboxes {
            self.check_inbox(inbox, &stored);
        }
        let took = began.elapsed();
        for (arrival, took) in self.context.timeline.overdue(OVERDUE) {
            let what = format!("{} came {} ms late", arrival.message_id, took / 1_000);
            self.add(Kind::Late, what);
        }
        for (what, sql) in stored::EMPTY {
            let rows = stored::rows(&client, sql).await?;
            if !rows.is_empty() {
                self.add(Kind::Left, format!("{what}: {} of them, {}", rows.len(), rows[0]));
            }
        }
        let audit = audit::read(&client).await?;
        check_groups::check_given(self.context, &audit);
        check_groups::check_senders(self.context, &audit, &stored);
        let users: Vec<String> = self.people.iter().map(|person| person.id.clone()).collect();
        for wrong in check_groups::check_audit(&audit, &stored, &users) {
            self.add(Kind::State, wrong);
        }
        self.check_chats(&stored);
        self.check_sends(&stored);
        self.check_marks(&stored);
        let files = self.context.history.files();
        for wrong in check_files::check(&client, &self.stack.attachments, &files).await? {
            self.add(Kind::State, wrong);
        }
        self.check_reactions(&stored, &stored::all_reactions(&client).await?);
        for person in self.people {
            self.check_counters(person, &stored).await;
        }
        Ok(took)
    }

    fn add(&self, kind: Kind, what: impl AsRef<str>) {
        self.context.findings.add(kind, what);
    }

    /// Returns the reason why it is too early to judge by `stored`.
    async fn unrest(
        &self,
        client: &Client,
        stored: &Stored,
    ) -> Result<Option<String>, tokio_postgres::Error> {
        for (number, replica) in self.stack.replicas().enumerate() {
            if !replica.is_ready().await {
                return Ok(Some(format!("replica {number} is not ready")));
            }
        }
        for (what, sql) in &stored::EMPTY[5..] {
            let rows = stored::rows(client, sql).await?;
            if let Some(row) = rows.first() {
                return Ok(Some(format!("{what}: {row}")));
            }
        }
        let subscribers = lock(&self.context.subscribers);
        let late = subscribers
            .iter()
            .filter(|subscriber| !is_over(subscriber))
            .find_map(|subscriber| behind(subscriber, stored.get(&subscriber.chat_id)));
        let inbox = self.inboxes.iter().find_map(|inbox| {
            let wrong = self.list_differs(inbox, stored)?;
            Some(format!("the inbox of {}: {wrong}", inbox.person.id))
        });
        Ok(late.or(inbox))
    }

    /// Checks that each pair has one chat, that each chat was opened, and that no deleted one remains.
    fn check_chats(&self, stored: &Stored) {
        let (known, loose) = (self.context.history.chats(), self.context.history.loose_pairs());
        for (chat_id, chat) in stored {
            let mut members: Vec<&String> = chat.members.keys().collect();
            members.sort();
            match known.get(chat_id) {
                Some(known) if known.deletion == Deletion::Acknowledged => {
                    self.add(Kind::Lost, format!("the deleted chat {chat_id} is there"));
                }
                Some(known) if !is_of(known, &members) => {
                    self.add(Kind::Leak, format!("{chat_id} has the members {members:?}"));
                }
                Some(_) => {}
                None => {
                    let pair = |pair: &[String; 2]| pair.iter().all(|one| members.contains(&one));
                    if !loose.iter().any(pair) || chat.last_seq > 0 {
                        self.add(Kind::State, format!("nobody opened {chat_id}, {members:?}"));
                    }
                }
            }
        }
        for (chat_id, chat) in known {
            if chat.deletion == Deletion::Never && !stored.contains_key(&chat_id) {
                self.add(Kind::Lost, format!("the chat {chat_id} of {:?}", chat.members));
            }
        }
    }

    /// Checks that every acknowledged message is stored once, as acknowledged and changed since, and that
    /// no other message is stored.
    fn check_sends(&self, stored: &Stored) {
        let sends = self.context.history.sends();
        for (id, sent) in &sends {
            let Some(chat) = stored.get(&sent.chat_id) else { continue };
            let Some(known) = sent.acknowledged else { continue };
            match chat.messages.get(&known.seq) {
                Some(row) if row.message_id == known.message_id => self.check_row(id, sent, row),
                other => {
                    let what = format!("{id} was acknowledged as {known:?}; there is {other:?}");
                    self.add(Kind::Lost, what);
                }
            }
        }
        for (chat_id, chat) in stored {
            for (seq, row) in &chat.messages {
                if row.is_system && chat.kind == ChatKind::Group {
                    continue;
                }
                let sent = row.client_msg_id.as_ref().and_then(|id| sends.get(id));
                if !sent.is_some_and(|s| s.chat_id == *chat_id && s.sender == row.sender) {
                    self.add(Kind::State, format!("nobody sent {seq} of {chat_id}: {row:?}"));
                }
            }
        }
    }

    fn check_row(&self, id: &str, sent: &Sent, row: &Row) {
        let right = match sent.deletion {
            Deletion::Acknowledged => row.deleted,
            Deletion::Never if row.deleted => false,
            _ => row.deleted || row.text == sent.text || sent.loose.contains(&row.text),
        };
        if !right {
            self.add(Kind::State, format!("{id} is to be {sent:?} and is {row:?}"));
        }
    }

    fn check_marks(&self, stored: &Stored) {
        for ((chat_id, user), read_seq) in self.context.history.marks() {
            let Some(chat) = stored.get(&chat_id) else { continue };
            let member = chat.members.get(&user);
            let is_out = member.is_none() && chat.kind == ChatKind::Group;
            if !is_out && member.is_none_or(|member| member.shown.read_seq < read_seq) {
                self.add(
                    Kind::Lost,
                    format!("{user} read {chat_id} up to {read_seq}; there is {member:?}"),
                );
            }
        }
    }

    /// Checks that every acknowledged reaction to a live message is there, or is not.
    fn check_reactions(&self, stored: &Stored, there: &HashSet<(MessageId, String, String)>) {
        let rows = stored.values().flat_map(|chat| chat.messages.values());
        let live: HashSet<MessageId> =
            rows.filter(|row| !row.deleted).map(|row| row.message_id).collect();
        for (key, wanted) in self.context.history.reactions() {
            if live.contains(&key.0) && !wanted.loose && there.contains(&key) != wanted.present {
                self.add(Kind::Lost, format!("the reaction {key:?} is to be {wanted:?}"));
            }
        }
    }

    /// Checks that a follower has what is stored: every message, every marker.
    fn check_seat(&self, subscriber: &Subscriber, stored: &Stored) {
        if is_over(subscriber) {
            return;
        }
        let chat = stored.get(&subscriber.chat_id);
        if let Some(why) = behind(subscriber, chat) {
            return self.add(Kind::Lost, why);
        }
        let member = chat.and_then(|chat| Some((chat, chat.members.get(&subscriber.user)?)));
        // Out of it, and told so.
        let Some((chat, member)) = member else { return };
        for wrong in check_groups::check_membership(subscriber, chat) {
            self.add(Kind::State, shorten(wrong));
        }
        let model = lock(&subscriber.model);
        let first_seq = member.shown.first_seq;
        for (seq, row) in chat.messages.range(first_seq..) {
            let same = match model.messages.get(seq) {
                Some(known) => {
                    (known.message_id, known.ev, known.deleted)
                        == (row.message_id, row.ev, row.deleted)
                        && known.text == row.text
                        && known.carried == row.carried
                }
                None => model.is_paged && *seq <= model.floor,
            };
            if !same {
                let known = model.messages.get(seq);
                let what = format!("{} has {known:?} as {seq}, stored is {row:?}", subscriber.name);
                self.add(Kind::State, what);
            }
        }
        if model.messages.last_key_value().is_some_and(|(seq, _)| *seq > chat.last_seq) {
            self.add(Kind::State, format!("{} has messages that are not stored", subscriber.name));
        }
        for (user, member) in chat.members.iter().filter(|_| chat.receipts) {
            let read_seq = model.reads.get(user).copied().unwrap_or(0);
            if read_seq != member.shown.read_seq {
                let what =
                    format!("{} has {user} at {read_seq}, stored is {member:?}", subscriber.name);
                self.add(Kind::State, what);
            }
        }
    }

    fn check_inbox(&self, inbox: &Inbox, stored: &Stored) {
        if let Some(wrong) = self.list_differs(inbox, stored) {
            self.add(Kind::State, format!("the inbox of {}: {wrong}", inbox.person.id));
        }
    }

    /// Describes the difference between a list and what is stored.
    fn list_differs(&self, inbox: &Inbox, stored: &Stored) -> Option<String> {
        let list = lock(&inbox.list);
        let expected = chats_of(&inbox.person.id, stored);
        if !list.live {
            return Some("not live".to_owned());
        }
        for (chat_id, member) in &expected {
            let shown = list.chats.get(chat_id);
            if shown != Some(&member.shown) {
                return Some(format!("{chat_id} is {shown:?} and not {:?}", member.shown));
            }
        }
        if let Some(chat_id) = list.chats.keys().find(|id| !expected.contains_key(*id)) {
            return Some(format!("{chat_id} is gone, and shown"));
        }
        let sum: i64 = expected.values().map(|member| member.recount.0).sum();
        let total = list.total.filter(|total| *total != sum)?;
        Some(format!("total_unread is {total} and not {sum}"))
    }

    /// Checks the unread counters in Postgres, from every replica, and in the list.
    async fn check_counters(&self, person: &Person, stored: &Stored) {
        let memberships = chats_of(&person.id, stored);
        for (chat_id, member) in &memberships {
            if member.counted() != member.recount {
                self.add(Kind::Unread, format!("{} in {chat_id}: {member:?}", person.id));
            }
        }
        let badge: i64 = memberships.values().map(|member| badge(member)).sum();
        let expected: HashMap<ChatId, Counts> =
            memberships.into_iter().map(|(chat_id, member)| (chat_id, member.recount)).collect();
        for replica in 0..self.context.replicas.len() {
            let unread = self.ask(replica, person, "/api/v1/chats/unread/").await;
            if let Some(unread) = unread.and_then(|answer| answer.read::<Unread>().ok()) {
                self.compare(person, replica, "/chats/unread/", &expected, unread.counts());
                if !unread.is_summed() || unread.badge != badge {
                    let what = format!(
                        "{}: total {}, mentions {}, badge {} of {badge}, {expected:?}",
                        person.id, unread.total, unread.total_mentions, unread.badge
                    );
                    self.add(Kind::Unread, shorten(what));
                }
            }
            let mut told = HashMap::new();
            let mut lists = vec![String::new(), "&filter=archived".to_owned()];
            while let Some(list) = lists.pop() {
                let path = format!("/api/v1/chats/?limit=100{list}");
                let Some(answer) = self.ask(replica, person, &path).await else { break };
                let Ok(page) = answer.read::<Page>() else { break };
                let counts = |chat: &Chat| (chat.unread_count, chat.unread_mentions);
                told.extend(page.results.iter().map(|chat| (chat.chat_id, counts(chat))));
                let filter = if list.contains("archived") { "&filter=archived" } else { "" };
                lists.extend(page.next.map(|next| format!("{filter}&cursor={next}")));
            }
            self.compare(person, replica, "/chats/", &expected, told);
        }
    }

    async fn ask(
        &self,
        replica: usize,
        person: &Person,
        path: &str,
    ) -> Option<super::context::Answer> {
        let answer = self.context.once(replica, &Method::GET, path, person, None).await;
        let good = answer.filter(|answer| answer.status == 200);
        if good.is_none() {
            self.add(Kind::Answer, format!("GET {path} on replica {replica} after all was healed"));
        }
        good
    }

    fn compare(
        &self,
        person: &Person,
        replica: usize,
        what: &str,
        expected: &HashMap<ChatId, Counts>,
        told: HashMap<ChatId, Counts>,
    ) {
        if told != *expected {
            let differ: Vec<_> = expected
                .keys()
                .chain(told.keys())
                .filter(|chat_id| expected.get(*chat_id) != told.get(*chat_id))
                .map(|id| format!("{id}: {:?}, recount {:?}", told.get(id), expected.get(id)))
                .collect();
            let what = format!("{what} of {} on replica {replica}: {differ:?}", person.id);
            self.add(Kind::Unread, shorten(what));
        }
    }
}

/// Returns a user's chats.
fn chats_of<'a>(user: &str, stored: &'a Stored) -> HashMap<ChatId, &'a Membership> {
    let chats = stored.iter();
    chats.filter_map(|(chat_id, chat)| Some((*chat_id, chat.members.get(user)?))).collect()
}

/// Returns what a chat adds to the badge.
fn badge(member: &Membership) -> i64 {
    let (unread, mentions) = member.recount;
    match member.shown.notify {
        _ if member.shown.archived => 0,
        Notify::All => unread,
        Notify::Mentions => mentions,
        Notify::None => 0,
    }
}

/// True if nothing is expected of a subscriber any more: another one took its place, or its direct chat is gone.
fn is_over(subscriber: &Subscriber) -> bool {
    subscriber.retired.load(Ordering::Relaxed)
        || subscriber.kind == ChatKind::Direct && subscriber.is_gone()
}

/// True if these are the members that a chat may have.
fn is_of(known: &KnownChat, members: &[&String]) -> bool {
    let may_be = members.iter().all(|member| known.members.contains(member));
    may_be && (known.kind == ChatKind::Group || members.len() == known.members.len())
}

fn shorten(what: String) -> String {
    what.chars().take(600).collect()
}
