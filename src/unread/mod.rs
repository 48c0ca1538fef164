//! Copies of the unread counters in Redis, so that a badge needs no query.
//!
//! `unread:{user_id}` is a hash: `chat_id` → `ev|unread|last_seq|read_seq|activity|room_name`. Only a
//! higher `ev` replaces a value, so writes may arrive twice, late and in any order. A hash belongs to
//! one epoch of the database and ignores all others: a higher `ev` of a lost history would win for
//! ever. A hash is used only if it is marked complete, by the present generation of Redis and in the
//! present epoch; otherwise it is filled from Postgres. [`scripts`] run inside Redis and keep a hash
//! small.

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

/// Expiry of a hash after its last write, in seconds (7 days). Later it is filled from Postgres again.
const KEEP_SECONDS: i64 = 7 * 24 * 3_600;

/// Smallest encoded counter, in bytes: two ids, four one-digit numbers, a time, line breaks.
const LEAST_OF_ONE: usize = 36 + 22 + 4 * 2 + 17 + 2;

/// Counters that a fill stores in one call: Redis does nothing else for about 1 ms.
const FILL_CHUNK: usize = 1_000;

/// A user's unread counter of one chat, as of `ev`.
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

/// A change of a user's counter, in an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub user: UserId,
    pub epoch: Epoch,
    pub counter: CounterChange,
}

/// The new value of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterChange {
    Set(Counter),
    /// The chat was deleted, and no late write may restore it.
    Gone {
        chat_id: ChatId,
    },
}

/// Reads and writes the copies of the counters. Cheap to clone.
#[derive(Clone)]
pub struct Unread {
    shared: Arc<Shared>,
}

struct Shared {
    redis: RedisClient,
    history: History,
    scripts: Scripts,
    /// One lock a user whose hash this replica is filling.
    filling: Mutex<HashMap<UserId, Arc<tokio::sync::Mutex<()>>>>,
}

/// The id of a fill in progress. Nothing can be stored for it once another fill has begun.
#[derive(Debug)]
struct Filler(String);

impl Unread {
    pub fn new(redis: RedisClient, history: History) -> Self {
        let shared = Shared { redis, history, scripts: Scripts::new(), filling: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The histories that this replica knows of.
    pub fn history(&self) -> &History {
        &self.shared.history
    }

    /// Writes changes in one round trip. Each replaces an older value only.
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
            .redis
            .run_together(&self.shared.scripts.write, &args, counted.collect())
            .await
            .map(drop)
    }

    /// Reads all counters of `user`, unordered. `None` if there is no complete copy of the present
    /// generation, or if it is too large to be read from Redis.
    pub async fn read(&self, user: &UserId) -> Result<Option<Vec<Counter>>, RedisUnavailable> {
        let redis = &self.shared.redis;
        // While the generation is unknown, no copy can be trusted or stored.
        let before = redis.generation().ok_or(RedisUnavailable)?;
        let epoch = self.shared.history.current();
        let call = Call::new(self.key(user), vec![(&*epoch).into(), (&*before).into()]);
        let answer =
            redis.run(&self.shared.scripts.read, &[call]).await?.pop().ok_or(RedisUnavailable)?;
        // Compared again: the answer may come from a server that was restarted in between.
        if answer.is_null() || redis.generation() != Some(before) {
            return Ok(None);
        }
        let text = std::str::from_utf8(answer.as_bytes().ok_or(RedisUnavailable)?)
            .map_err(|_| RedisUnavailable)?;
        Ok(Some(Counter::decode_all(text)))
    }

    /// Reads all counters of `user`, unordered, from the copy. If there is none, runs `load` (a query of
    /// Postgres, at most once) and stores its result as the copy. Concurrent requests of one user on this
    /// replica wait for the first one's fill. Redis can't make this fail, and delays it by a few command
    /// time-outs at most.
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
        let permit = FillPermit::take(&self.shared, user);
        let first = permit.lock.try_lock();
        let _held = match first {
            Ok(held) => held,
            Err(_) => {
                drop(permit.lock.lock().await);
                // If the first one failed, all others load at once, without waiting for each other.
                return match self.read(user).await {
                    Ok(Some(counters)) => Ok(counters),
                    Ok(None) | Err(RedisUnavailable) => load().await.map(counters),
                };
            }
        };
        // Before Postgres is read, so that a later write is kept and wins if newer.
        let filler = self.begin_fill(user).await;
        let (epoch, counters) = load().await?;
        // Counters of an epoch that this replica does not know yet are returned, but not stored.
        if self.shared.history.is_current(&epoch)
            && let Ok(Some(filler)) = filler
            && counters.len() <= MOST_FIELDS
        {
            // After a failure the next reader fills.
            let _ = self.fill(user, filler, &epoch, &counters).await;
        }
        Ok(counters)
    }

    /// Announces a fill. `None` if nothing can be stored now.
    async fn begin_fill(&self, user: &UserId) -> Result<Option<Filler>, RedisUnavailable> {
        let Some(generation) = self.shared.redis.generation() else { return Ok(None) };
        let filler = Filler(Uuid::now_v7().to_string());
        let epoch = self.shared.history.current();
        let args = vec![
            KEEP_SECONDS.into(),
            (&*epoch).into(),
            (&*generation).into(),
            filler.0.as_str().into(),
        ];
        let call = Call::new(self.key(user), args);
        let answers = self.shared.redis.run(&self.shared.scripts.begin_fill, &[call]).await?;
        Ok(is_done(&answers).then_some(filler))
    }

    /// Stores the counters part by part, unless another fill begins. The last part marks the hash
    /// complete.
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
            let stored = is_done(&self.shared.redis.run(&self.shared.scripts.fill, &[call]).await?);
            if !stored || rest.is_empty() {
                return Ok(stored);
            }
        }
    }

    fn key(&self, user: &UserId) -> String {
        self.shared.redis.key(&format!("unread:{user}"))
    }
}

/// Whether a script answered 1.
fn is_done(answers: &[Value]) -> bool {
    answers.first().and_then(Value::as_i64) == Some(1)
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("redis", &self.shared.redis).finish_non_exhaustive()
    }
}

/// Holds the lock that serializes the fills of one user's hash.
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
        // Two references, the map's and this one, mean that nobody else waits.
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

    /// Decodes a whole hash: fields and values in turn, a line each.
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

/// Splits at the first `separator`. Uses memchr, because the standard library's search showed in the
/// profile of users with hundreds of chats.
fn cut(text: &str, separator: u8) -> (&str, &str) {
    match memchr::memchr(separator, text.as_bytes()) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}
