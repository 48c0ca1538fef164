//! Copies of the unread counters in Redis, so that a badge needs no query.
//!
//! `unread:{user_id}` is a hash: `chat_id` →
//! `version|unread|last_seq|read_seq|activity|mentions|flags|room_name`, for chats of two. Only a higher
//! version replaces a value, so writes may arrive twice, late and in any order. A hash belongs to one epoch of
//! the database and ignores all others: a higher number of a lost history would win for ever. A hash is used
//! only if it is marked complete, by the present generation of Redis and in the present epoch; otherwise it is
//! filled from Postgres.
//!
//! A message of a group would change a value for each member, so theirs is of a revision and lags behind:
//! the key of its head → `rev|ev|counted|` and the rest as above, or `rev|out|` and a time. It is written
//! when the member's own part changes: at their messages, marks, settings, mentions. What others wrote since is
//! the difference to `head:{chat_id}` = `epoch|generation|ev|counted|last_seq|activity|recount_ev`, one value
//! for all members. Only after a change that counts for members differently, such as a deletion, Postgres is
//! asked, once for each reader.
//!
//! [`scripts`] run inside Redis and keep a hash small.

mod counter;
mod scripts;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use fred::types::Value;
use uuid::Uuid;

pub use self::counter::{Copies, Counter, CounterChange, UserCounters};
use self::{
    counter::{Change, encode_head},
    scripts::{MOST_FIELDS, Scripts},
};
use crate::{
    broker::{Call, RedisClient, RedisUnavailable, Work},
    history::History,
    model::{ChatId, Epoch, UserId},
    store::MemberState,
};

/// Expiry of a hash after its last write, in seconds (7 days). Later it is filled from Postgres again.
const KEEP_SECONDS: i64 = 7 * 24 * 3_600;

/// Counters that a fill stores in one call: Redis does nothing else for about 1 ms.
const FILL_CHUNK: usize = 1_000;

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

    /// Writes copies in one round trip. Each replaces an older one only.
    async fn write(&self, copies: &Copies) -> Result<(), RedisUnavailable> {
        let redis = &self.shared.redis;
        redis.run(&redis.together(self.writes(copies))).await.map(drop)
    }

    /// Returns the work of writing copies, whose script also publishes.
    pub(crate) fn writes(&self, copies: &Copies) -> Work<'_> {
        let Copies { changes, heads, ended } = copies;
        let start_of_heads = self.head_key("");
        let mut pairs: HashMap<(&UserId, &Epoch), Vec<Value>> = HashMap::new();
        for Change { user, epoch, counter } in changes {
            let (field, value) = counter.encode(&start_of_heads);
            let theirs =
                pairs.entry((user, epoch)).or_insert_with(|| vec![0.into(), (&**epoch).into()]);
            theirs.extend([field.into(), value.into()]);
        }
        let counted = pairs.into_iter().map(|((user, _), mut theirs)| {
            theirs[0] = Value::Integer((theirs.len() / 2 - 1) as i64);
            (self.key(user), theirs)
        });
        let mut keys: Vec<(String, Vec<Value>)> = counted.collect();
        let redis = &self.shared.redis;
        if !redis.is_clustered() {
            let generation = redis.generation().unwrap_or_default();
            let head = |chat_id: ChatId, epoch: &Epoch, value: String| {
                let args =
                    vec!["head".into(), (&**epoch).into(), (&*generation).into(), value.into()];
                (self.head_key(&chat_id.to_string()), args)
            };
            keys.extend(heads.values().map(|of| head(of.chat_id, &of.epoch, encode_head(of))));
            keys.extend(ended.iter().map(|(id, epoch)| head(*id, epoch, "gone".to_owned())));
        }
        Work {
            script: &self.shared.scripts.write,
            args: vec![KEEP_SECONDS.into(), start_of_heads.into()],
            keys,
        }
    }

    /// Reads what is copied of `user`, unordered. `None` if there is no complete copy of the present
    /// generation, or if it is too large to be read from Redis.
    pub async fn read(&self, user: &UserId) -> Result<Option<UserCounters>, RedisUnavailable> {
        let redis = &self.shared.redis;
        // While the generation is unknown, no copy can be trusted or stored.
        let before = redis.generation().ok_or(RedisUnavailable)?;
        let epoch = self.shared.history.current();
        let with_heads = i64::from(!redis.is_clustered());
        let args = vec![(&*epoch).into(), (&*before).into(), with_heads.into()];
        let call = Call::new(&self.shared.scripts.read, self.key(user), args);
        let answer = redis.run(&[call]).await?.pop().ok_or(RedisUnavailable)?;
        // Compared again: the answer may come from a server that was restarted in between.
        if answer.is_null() || redis.generation().as_deref() != Some(&*before) {
            return Ok(None);
        }
        let text = std::str::from_utf8(answer.as_bytes().ok_or(RedisUnavailable)?)
            .map_err(|_| RedisUnavailable)?;
        Ok(Some(UserCounters::decode(text, &epoch, &before)))
    }

    /// Reads the counters of `user`, unordered, from the copy, which may not know those of some groups. If
    /// there is no copy, runs `load` (a query of Postgres, at most once), stores its result as the copy and
    /// returns the counters of all chats. Concurrent requests of one user on this replica wait for the first
    /// one's fill. Redis can't make this fail, and delays it by a few command time-outs at most.
    pub async fn read_or_fill<E, F>(
        &self,
        user: &UserId,
        load: impl FnOnce() -> F,
    ) -> Result<UserCounters, E>
    where
        F: Future<Output = Result<(Epoch, Vec<MemberState>), E>>,
    {
        let counters = |loaded: (Epoch, Vec<MemberState>)| UserCounters::loaded(&loaded.1);
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
        let (epoch, states) = load().await?;
        // Counters of an epoch that this replica does not know yet are returned, but not stored.
        if self.shared.history.is_current(&epoch)
            && let Ok(Some(filler)) = filler
            && states.len() <= MOST_FIELDS
        {
            // After a failure the next reader fills.
            if let Ok(true) = self.fill(user, filler, &epoch, &states).await {
                let mut heads = Copies::default();
                states.iter().filter_map(MemberState::head).for_each(|head| heads.add_head(head));
                let _ = self.write(&heads).await;
            }
        }
        Ok(UserCounters::loaded(&states))
    }

    /// Corrects the copy after Postgres was asked for groups that it did not know, and gave `states`. Of those
    /// that are not among them the user is no member, and Redis did not learn of it.
    pub async fn correct(&self, user: &UserId, unknown: &[(ChatId, i64)], states: &[MemberState]) {
        // A cluster has no heads, so it would not know more.
        let of_use = if self.shared.redis.is_clustered() { &[] } else { states };
        let (mut copies, epoch) = (Copies::of(of_use), self.shared.history.current());
        let found: HashSet<ChatId> = states.iter().map(|state| state.chat_id).collect();
        for &(chat_id, rev) in unknown.iter().filter(|(chat_id, _)| !found.contains(chat_id)) {
            // Above the value that was read, and below any of a return, which is two changes later.
            copies.add(user, &epoch, CounterChange::Out { chat_id, rev: rev + 1 });
        }
        // If it fails, the next reader corrects it.
        let _ = self.write(&copies).await;
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
        let call = Call::new(&self.shared.scripts.begin_fill, self.key(user), args);
        let answers = self.shared.redis.run(&[call]).await?;
        Ok(is_done(&answers).then_some(filler))
    }

    /// Stores the states of all chats part by part, unless another fill begins. The last part marks the
    /// hash complete.
    async fn fill(
        &self,
        user: &UserId,
        filler: Filler,
        epoch: &Epoch,
        states: &[MemberState],
    ) -> Result<bool, RedisUnavailable> {
        let (mut rest, start_of_heads) = (states, self.head_key(""));
        loop {
            let part;
            (part, rest) = rest.split_at(rest.len().min(FILL_CHUNK));
            let last = i64::from(rest.is_empty());
            let mut args: Vec<Value> =
                vec![KEEP_SECONDS.into(), filler.0.as_str().into(), (&**epoch).into(), last.into()];
            for state in part {
                let (field, value) = CounterChange::of(state).encode(&start_of_heads);
                args.extend([field.into(), value.into()]);
            }
            let call = Call::new(&self.shared.scripts.fill, self.key(user), args);
            let stored = is_done(&self.shared.redis.run(&[call]).await?);
            if !stored || rest.is_empty() {
                return Ok(stored);
            }
        }
    }

    fn key(&self, user: &UserId) -> String {
        self.shared.redis.key(&format!("unread:{user}"))
    }

    /// The key of a group's head.
    fn head_key(&self, chat_id: &str) -> String {
        self.shared.redis.key(&format!("head:{chat_id}"))
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
