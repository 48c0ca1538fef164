//! What the tables say, in one snapshot, and whether a recount of it in memory agrees.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use beseda::model::{ChatId, MessageId};

use crate::harness::Psql;

/// In `messages.mentions` and `mentions`: everybody.
const EVERYBODY: &str = "\u{1}";

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: MessageId,
    pub(super) seq: i64,
    pub(super) ev: i64,
    counted: i64,
    /// `None`: a system message.
    pub(super) sender: Option<String>,
    /// User ids, or [`EVERYBODY`].
    pub(super) mentions: Vec<String>,
    pub(super) live: bool,
}

impl Message {
    /// Whether it counts as unread for a user who has not read it, and whether it mentions them.
    fn counts_for(&self, user: &str) -> (bool, bool) {
        let counts = self.live && self.sender.as_deref().is_some_and(|sender| sender != user);
        (counts, counts && is_mentioned(&self.mentions, user))
    }
}

/// Whether a list of a message's mentions has a user.
pub(super) fn is_mentioned(mentions: &[String], user: &str) -> bool {
    mentions.iter().any(|one| one == user || one == EVERYBODY)
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) user: String,
    pub(super) left: bool,
    owner: bool,
    first_seq: i64,
    pub(super) read_seq: i64,
    floor_seq: i64,
    floor_counted: i64,
    pub(super) own_after: i64,
    mention_seq: i64,
    pub(super) rev: i64,
    read_ev: i64,
    member_ev: i64,
    joined_ev: i64,
    /// As `member_states` tells them.
    pub(super) unread: i64,
    pub(super) mentions: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Chat {
    pub(super) id: ChatId,
    pub(super) direct: bool,
    pub(super) receipts: bool,
    pub(super) last_seq: i64,
    pub(super) last_ev: i64,
    pub(super) last_counted: i64,
    pub(super) dead: i64,
    last_dead_seq: i64,
    all_mention_seq: i64,
    pub(super) recount_ev: i64,
    info_ev: i64,
    member_count: i64,
    pub(super) messages: Vec<Message>,
    pub(super) members: Vec<Member>,
    /// Rows of `mentions`.
    mentions: BTreeSet<(String, i64)>,
    /// Rows of `dead_blocks`.
    blocks: BTreeMap<i64, i64>,
}

/// Messages first: whoever reads a snapshot of the five needs one transaction.
const MESSAGES: &str = "SELECT chat_id, message_id, seq, ev, counted, sender_id,
       array_to_string(mentions, ','), deleted_at IS NULL FROM messages ORDER BY chat_id, seq";

const CHATS: &str =
    "SELECT chat_id, kind = 'direct', receipts, last_seq, last_ev, last_counted, dead,
       last_dead_seq, all_mention_seq, recount_ev, info_ev, member_count FROM chats";

const MEMBERS: &str = "SELECT m.chat_id, m.user_id, m.left_ev IS NOT NULL, m.role = 'owner', m.first_seq,
       m.read_seq, m.floor_seq, m.floor_counted, m.own_after, m.mention_seq, m.rev, m.read_ev, m.member_ev,
       m.joined_ev, s.unread, s.mentions
  FROM members m, member_states(ARRAY[m.chat_id], ARRAY[m.user_id]) s ORDER BY m.chat_id, m.user_id";

const MENTIONS: &str = "SELECT chat_id, user_id, seq FROM mentions";

const BLOCKS: &str = "SELECT chat_id, block, dead FROM dead_blocks";

/// A row's values, taken one after the other.
struct Values<'a>(std::slice::Iter<'a, Option<String>>);

impl Values<'_> {
    fn text(&mut self) -> Option<&str> {
        self.0.next().expect("a column").as_deref()
    }

    fn value<T: std::str::FromStr>(&mut self) -> T {
        let value = self.text().and_then(|text| text.parse().ok());
        value.expect("a value of the column's type")
    }

    fn flag(&mut self) -> bool {
        self.text() == Some("t")
    }
}

/// Reads all chats of a database in one snapshot.
pub(super) async fn read(psql: &Psql) -> HashMap<ChatId, Chat> {
    psql.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await;
    let mut chats = HashMap::new();
    for row in psql.run(CHATS).await {
        let mut row = Values(row.iter());
        let chat = Chat {
            id: row.value(),
            direct: row.flag(),
            receipts: row.flag(),
            last_seq: row.value(),
            last_ev: row.value(),
            last_counted: row.value(),
            dead: row.value(),
            last_dead_seq: row.value(),
            all_mention_seq: row.value(),
            recount_ev: row.value(),
            info_ev: row.value(),
            member_count: row.value(),
            messages: Vec::new(),
            members: Vec::new(),
            mentions: BTreeSet::new(),
            blocks: BTreeMap::new(),
        };
        chats.insert(chat.id, chat);
    }
    for row in psql.run(MESSAGES).await {
        let mut row = Values(row.iter());
        let Some(chat) = chats.get_mut(&row.value::<ChatId>()) else { continue };
        chat.messages.push(Message {
            id: row.value(),
            seq: row.value(),
            ev: row.value(),
            counted: row.value(),
            sender: row.text().map(str::to_owned),
            mentions: row
                .text()
                .map_or_else(Vec::new, |ids| ids.split(',').map(str::to_owned).collect()),
            live: row.flag(),
        });
    }
    for row in psql.run(MEMBERS).await {
        let mut row = Values(row.iter());
        let Some(chat) = chats.get_mut(&row.value::<ChatId>()) else { continue };
        chat.members.push(Member {
            user: row.value(),
            left: row.flag(),
            owner: row.flag(),
            first_seq: row.value(),
            read_seq: row.value(),
            floor_seq: row.value(),
            floor_counted: row.value(),
            own_after: row.value(),
            mention_seq: row.value(),
            rev: row.value(),
            read_ev: row.value(),
            member_ev: row.value(),
            joined_ev: row.value(),
            unread: row.value(),
            mentions: row.value(),
        });
    }
    for row in psql.run(MENTIONS).await {
        let mut row = Values(row.iter());
        let Some(chat) = chats.get_mut(&row.value::<ChatId>()) else { continue };
        chat.mentions.insert((row.value(), row.value()));
    }
    for row in psql.run(BLOCKS).await {
        let mut row = Values(row.iter());
        let Some(chat) = chats.get_mut(&row.value::<ChatId>()) else { continue };
        chat.blocks.insert(row.value(), row.value());
    }
    psql.run("COMMIT").await;
    chats
}

/// Faults are lines: what is wrong, in which chat.
type Faults = Vec<String>;

impl Chat {
    /// All that a recount disagrees with.
    pub(super) fn recount(&self) -> Faults {
        let mut faults = Faults::new();
        let mut differ = |what: &str, kept: String, recount: String| {
            if kept != recount {
                faults.push(format!("{}: {what}: {kept}, a recount gives {recount}", self.id));
            }
        };
        let seqs: Vec<i64> = self.messages.iter().map(|m| m.seq).collect();
        let dense = seqs.iter().copied().eq(1..=self.last_seq);
        differ("seq is dense up to last_seq", true.to_string(), dense.to_string());
        let mut counted = 0;
        for message in &self.messages {
            counted += i64::from(message.sender.is_some());
            differ(
                &format!("counted of {}", message.seq),
                message.counted.to_string(),
                counted.to_string(),
            );
        }
        differ("last_counted", self.last_counted.to_string(), counted.to_string());
        let dead: Vec<i64> = self.messages.iter().filter(|m| !m.live).map(|m| m.seq).collect();
        differ("dead", self.dead.to_string(), dead.len().to_string());
        let last = dead.last().copied().unwrap_or_default();
        differ("last_dead_seq", self.last_dead_seq.to_string(), last.to_string());
        let mut blocks: BTreeMap<i64, i64> = BTreeMap::new();
        dead.iter().for_each(|seq| *blocks.entry(seq >> 12).or_default() += 1);
        differ("dead_blocks", format!("{:?}", self.blocks), format!("{blocks:?}"));
        let live = self.messages.iter().filter(|message| message.live);
        let said = live.flat_map(|m| m.mentions.iter().map(|user| (user.clone(), m.seq)));
        differ(
            "mentions",
            format!("{:?}", self.mentions),
            format!("{:?}", said.collect::<BTreeSet<_>>()),
        );
        let here: Vec<&Member> = self.members.iter().filter(|member| !member.left).collect();
        differ("member_count", self.member_count.to_string(), here.len().to_string());
        let owners = here.iter().filter(|member| member.owner).count();
        differ("owners", owners.to_string(), usize::from(!self.direct).to_string());
        self.recount_evs(&mut differ);
        here.iter().for_each(|member| self.recount_member(member, &mut differ));
        faults
    }

    /// An `ev` is of one change; those who joined together share theirs.
    fn recount_evs(&self, differ: &mut impl FnMut(&str, String, String)) {
        let mut evs: Vec<i64> = self.messages.iter().map(|message| message.ev).collect();
        evs.push(self.info_ev);
        evs.extend(self.members.iter().map(|member| member.read_ev));
        let joined = self.members.iter().filter(|member| member.member_ev == member.joined_ev);
        evs.extend(joined.map(|member| member.joined_ev).collect::<BTreeSet<_>>());
        let changed = self.members.iter().filter(|member| member.member_ev != member.joined_ev);
        evs.extend(changed.map(|member| member.member_ev));
        evs.retain(|ev| *ev > 0);
        let different: BTreeSet<i64> = evs.iter().copied().collect();
        differ("changes with an ev", evs.len().to_string(), different.len().to_string());
        let last = different.last().copied().unwrap_or_default();
        differ("last_ev", self.last_ev.to_string(), last.to_string());
    }

    fn recount_member(&self, me: &Member, differ: &mut impl FnMut(&str, String, String)) {
        let name = &me.user;
        let base = me.read_seq.max(me.first_seq - 1);
        let past = |seq: i64| self.messages.iter().filter(move |message| message.seq > seq);
        let counts = past(base).map(|message| message.counts_for(name));
        let (unread, mentions) = counts.fold((0_i64, 0_i64), |(all, to_me), (counts, mentions)| {
            (all + i64::from(counts), to_me + i64::from(mentions))
        });
        differ(
            &format!("unread and mentions of {name}"),
            format!("{} {}", me.unread, me.mentions),
            format!("{unread} {mentions}"),
        );
        let own = past(me.floor_seq).filter(|m| m.live && m.sender.as_ref() == Some(name)).count();
        differ(&format!("own_after of {name}"), me.own_after.to_string(), own.to_string());
        let below = self.messages.iter().filter(|m| m.seq <= me.floor_seq && m.sender.is_some());
        let below = below.count();
        differ(
            &format!("floor_counted of {name}"),
            me.floor_counted.to_string(),
            below.to_string(),
        );
        let passed = past(base).filter(|m| m.seq <= me.floor_seq && m.counts_for(name).0).count();
        differ(
            &format!("unread messages below the floor of {name}"),
            passed.to_string(),
            "0".to_owned(),
        );
        let holds = me.read_seq <= me.floor_seq && me.floor_seq <= self.last_seq;
        differ(&format!("read, floor, head of {name} ascend"), holds.to_string(), true.to_string());
        let top = |id: &str| {
            let rows = self.mentions.iter().filter(|(user, _)| user == id);
            rows.map(|(_, seq)| *seq).max().unwrap_or_default()
        };
        let bounded = top(name) <= me.mention_seq && top(EVERYBODY) <= self.all_mention_seq;
        differ(
            &format!("bounds of mentions of {name} hold"),
            bounded.to_string(),
            true.to_string(),
        );
    }
}

/// Asserts that a recount agrees in every chat, and returns what was read.
pub(super) async fn exact(psql: &Psql) -> HashMap<ChatId, Chat> {
    let chats = read(psql).await;
    let faults: Faults = chats.values().flat_map(Chat::recount).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    chats
}
