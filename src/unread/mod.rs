//! Unread counters, copied to Redis so that the badge needs no database.
//!
//! `unread:{user_id}` is a hash: `chat_id` → `ev|unread|last_seq|read_seq|activity|room_name`. A
//! value is only ever replaced by one of a higher `ev`, so that writes may come twice, late and in
//! any order. A hash belongs to one history of the database, and listens to no other: a higher `ev`
//! of a history that is gone would win for ever. It is believed only where it says that it is
//! complete, and that by the generation of Redis and the history that are there now; else it is
//! filled from Postgres.
//! [`scripts`] has what happens inside Redis, and how a hash is kept small.

mod scripts;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use fred::types::Value;
use uuid::Uuid;

use self::scripts::{MOST_FIELDS, Scripts};
use crate::{
    broker::{Call, RedisClient, RedisUnavailable},
    history::History,
    model::{ChatId, Epoch, UserId},
};

/// How long a hash lives after its last write, in seconds (7 days): who stays away longer is
/// counted anew from Postgres on return.
const KEEP_SECONDS: i64 = 7 * 24 * 3_600;

/// Bytes that one counter takes of what is read: two ids, four numbers of a digit, a time, line breaks.
const LEAST_OF_ONE: usize = 36 + 22 + 4 * 2 + 17 + 2;

/// Counters that a fill stores with one call: about 1 ms in which Redis does nothing else.
const FILL_CHUNK: usize = 1_000;

/// What one person has not read in one chat, as of `ev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    pub chat_id: ChatId,
    pub room_name: String,
    pub ev: i64,
    pub unread: i64,
    pub last_seq: i64,
    pub read_seq: i64,
    /// When the chat was last active, in microseconds since 1970.
    pub activity: i64,
}

/// A person's counter that changed, in a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub user: UserId,
    pub epoch: Epoch,
    pub counter: CounterChange,
}

/// What became of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterChange {
    Set(Counter),
    /// The chat was deleted: nothing may bring it back.
    Gone {
        chat_id: ChatId,
    },
}

/// The copies of the counters. Cheap to clone.
#[derive(Clone)]
pub struct Unread {
    shared: Arc<Shared>,
}

struct Shared {
    link: RedisClient,
    history: History,
    scripts: Scripts,
    /// Whose hash this replica is filling at the moment.
    filling: Mutex<HashMap<UserId, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to store what is about to be read from Postgres.
#[derive(Debug)]
struct Filler(String);

impl Unread {
    pub fn new(link: RedisClient, history: History) -> Self {
        let shared = Shared { link, history, scripts: Scripts::new(), filling: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Writes changes in one round trip; each counts only if it is newer than what is there.
    pub async fn write(&self, changes: &[Change]) -> Result<(), RedisUnavailable> {
        let mut pairs: HashMap<(&UserId, &Epoch), Vec<Value>> = HashMap::new();
        for Change { user, epoch, counter } in changes {
            let (chat, value) = match counter {
                CounterChange::Set(counter) => (counter.chat_id, counter.encode()),
                CounterChange::Gone { chat_id } => (*chat_id, "gone".to_owned()),
            };
            let theirs =
                pairs.entry((user, epoch)).or_insert_with(|| vec![0.into(), (&**epoch).into()]);
            theirs.extend([chat.to_string().into(), value.into()]);
        }
        let counted = pairs.into_iter().map(|((user, _), mut theirs)| {
            theirs[0] = Value::Integer((theirs.len() / 2 - 1) as i64);
            (self.key(user), theirs)
        });
        let args = [KEEP_SECONDS.into()];
        self.shared
            .link
            .run_together(&self.shared.scripts.write, &args, counted.collect())
            .await
            .map(drop)
    }

    /// All counters of `user`, in no order; `None` where there is no complete copy of the present
    /// generation, or one that costs more to read than it is worth.
    pub async fn read(&self, user: &UserId) -> Result<Option<Vec<Counter>>, RedisUnavailable> {
        let link = &self.shared.link;
        // Unknown, nothing is believed, and nothing can be stored.
        let before = link.generation().ok_or(RedisUnavailable)?;
        let epoch = self.shared.history.current();
        let call = Call::new(self.key(user), vec![(&*epoch).into(), (&*before).into()]);
        let answer =
            link.run(&self.shared.scripts.read, &[call]).await?.pop().ok_or(RedisUnavailable)?;
        // Asked again: the answer may come from a server that was restarted in between.
        if answer.is_null() || link.generation() != Some(before) {
            return Ok(None);
        }
        let text = std::str::from_utf8(answer.as_bytes().ok_or(RedisUnavailable)?)
            .map_err(|_| RedisUnavailable)?;
        Ok(Some(Counter::decode_all(text)))
    }

    /// All counters of `user`, in no order: the copy, or else what `load` brings (from Postgres;
    /// it runs at most once), which is then kept as the copy. Requests of one user on this replica
    /// wait for the first one's filling. Redis can't make this fail, nor delay it by more than a
    /// few command time-outs.
    pub async fn read_or_fill<E, F>(
        &self,
        user: &UserId,
        load: impl FnOnce() -> F,
    ) -> Result<Vec<Counter>, E>
    where
        F: Future<Output = Result<(Epoch, Vec<Counter>), E>>,
    {
        let counters = |loaded: (Epoch, Vec<Counter>)| loaded.1;
        match self.read(user).await {
            Ok(Some(counters)) => return Ok(counters),
            Ok(None) => {}
            Err(RedisUnavailable) => return load().await.map(counters),
        }
        let turn = FillPermit::take(&self.shared, user);
        let first = turn.lock.try_lock();
        let _held = match first {
            Ok(held) => held,
            Err(_) => {
                drop(turn.lock.lock().await);
                // If the first one failed, all the others go their own way, at once.
                return match self.read(user).await {
                    Ok(Some(counters)) => Ok(counters),
                    Ok(None) | Err(RedisUnavailable) => load().await.map(counters),
                };
            }
        };
        // Before Postgres is read: what is written from here on is kept, and wins if newer.
        let filler = self.begin_fill(user).await;
        let (epoch, counters) = load().await?;
        // What is of another history than this replica goes by is answered, and not kept.
        if self.shared.history.is_current(&epoch)
            && let Ok(Some(filler)) = filler
            && counters.len() <= MOST_FIELDS
        {
            // Without it the next reader fills.
            let _ = self.fill(user, filler, &epoch, &counters).await;
        }
        Ok(counters)
    }

    /// `None` where nothing may be stored now.
    async fn begin_fill(&self, user: &UserId) -> Result<Option<Filler>, RedisUnavailable> {
        let Some(generation) = self.shared.link.generation() else { return Ok(None) };
        let filler = Filler(Uuid::now_v7().to_string());
        let epoch = self.shared.history.current();
        let args = vec![
            KEEP_SECONDS.into(),
            (&*epoch).into(),
            (&*generation).into(),
            filler.0.as_str().into(),
        ];
        let call = Call::new(self.key(user), args);
        let answers = self.shared.link.run(&self.shared.scripts.begin_fill, &[call]).await?;
        Ok(said_yes(&answers).then_some(filler))
    }

    /// Stores a part after the other, for as long as nobody else has begun to fill. Only with the last
    /// one the hash is complete.
    async fn fill(
        &self,
        user: &UserId,
        filler: Filler,
        epoch: &Epoch,
        counters: &[Counter],
    ) -> Result<bool, RedisUnavailable> {
        let mut rest = counters;
        loop {
            let part;
            (part, rest) = rest.split_at(rest.len().min(FILL_CHUNK));
            let last = i64::from(rest.is_empty());
            let mut args: Vec<Value> =
                vec![KEEP_SECONDS.into(), filler.0.as_str().into(), (&**epoch).into(), last.into()];
            for counter in part {
                args.extend([counter.chat_id.to_string().into(), counter.encode().into()]);
            }
            let call = Call::new(self.key(user), args);
            let stored = said_yes(&self.shared.link.run(&self.shared.scripts.fill, &[call]).await?);
            if !stored || rest.is_empty() {
                return Ok(stored);
            }
        }
    }

    fn key(&self, user: &UserId) -> String {
        self.shared.link.key(&format!("unread:{user}"))
    }
}

/// Whether a script has done what it was asked.
fn said_yes(answers: &[Value]) -> bool {
    answers.first().and_then(Value::as_i64) == Some(1)
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("link", &self.shared.link).finish_non_exhaustive()
    }
}

/// A place in the queue of those who want one user's hash filled.
struct FillPermit<'a> {
    shared: &'a Shared,
    user: &'a UserId,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> FillPermit<'a> {
    fn take(shared: &'a Shared, user: &'a UserId) -> Self {
        let mut filling = shared.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = Arc::clone(filling.entry(user.clone()).or_default());
        Self { shared, user, lock }
    }
}

impl Drop for FillPermit<'_> {
    fn drop(&mut self) {
        let mut filling = self.shared.filling.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own and this one: nobody else waits.
        if Arc::strong_count(&self.lock) <= 2 {
            filling.remove(self.user);
        }
    }
}

impl Counter {
    fn encode(&self) -> String {
        let Self { chat_id: _, room_name, ev, unread, last_seq, read_seq, activity } = self;
        format!("{ev}|{unread}|{last_seq}|{read_seq}|{activity}|{room_name}")
    }

    /// All that Redis gives of a hash: a field and its value in turn, a line each.
    fn decode_all(text: &str) -> Vec<Self> {
        let mut counters = Vec::with_capacity(text.len() / LEAST_OF_ONE);
        let mut rest = text;
        while !rest.is_empty() {
            let (chat, value);
            (chat, rest) = cut(rest, b'\n');
            (value, rest) = cut(rest, b'\n');
            counters.extend(Self::decode(chat, value));
        }
        counters
    }

    /// `None` for tombstones and for the hash's own fields.
    fn decode(field: &str, value: &str) -> Option<Self> {
        let chat_id = Uuid::parse_str(field).ok()?;
        let mut rest = value;
        let mut number = || {
            let digits;
            (digits, rest) = cut(rest, b'|');
            digits.parse().ok()
        };
        let (ev, unread, last_seq) = (number()?, number()?, number()?);
        let (read_seq, activity) = (number()?, number()?);
        let room_name = rest.to_owned();
        Some(Self { chat_id, room_name, ev, unread, last_seq, read_seq, activity })
    }
}

/// What is before the first `separator` and what is after it. The standard library's searcher showed in
/// the profile of people who have hundreds of chats.
fn cut(text: &str, separator: u8) -> (&str, &str) {
    match memchr::memchr(separator, text.as_bytes()) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}
