//! Unread counters, copied to Redis so that the badge needs no database.
//!
//! `unread:{user_id}` is a hash: `chat_id` → `ev|unread|last_seq|read_seq|activity|room_name`. A
//! value is only ever replaced by one of a higher `ev`, so that writes may come twice, late and in
//! any order. The hash is believed only where it says that it is complete, and that by the same
//! generation of Redis and of the database that are there now; else it is filled from Postgres.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use fred::types::Value;
use uuid::Uuid;

use crate::{
    broker::{Away, Call, Link, Script},
    model::{ChatId, UserId},
};

/// How long a hash lives after its last write, in seconds (7 days): who stays away longer is
/// counted anew from Postgres on return.
const KEEP_SECONDS: i64 = 7 * 24 * 3_600;

/// `KEYS` users' hashes. ARGV: seconds to live, then for each key how many pairs follow, and these:
/// chat and value. `gone` is a tombstone that no value replaces; it carries its time, so that it can
/// be cleared away.
const WRITE: &str = r"
local at = 2
for k = 1, #KEYS do
  local key, last = KEYS[k], at + 2 * tonumber(ARGV[at])
  for i = at + 1, last, 2 do
    local new, old = ARGV[i + 1], redis.call('HGET', key, ARGV[i])
    if new == 'gone' then
      redis.call('HSET', key, ARGV[i], 'gone|' .. redis.call('TIME')[1])
    elseif not old then
      redis.call('HSET', key, ARGV[i], new)
    elseif string.sub(old, 1, 5) ~= 'gone|' then
      local had = tonumber(string.match(old, '^(%d+)|')) or -1
      if tonumber(string.match(new, '^(%d+)|')) > had then
        redis.call('HSET', key, ARGV[i], new)
      end
    end
  end
  redis.call('EXPIRE', key, ARGV[1])
  at = last + 1
end
return 1";

/// `KEYS[1]` a user's hash. ARGV: seconds to live, epoch, generation, filler. Clears away what
/// another generation left and names who is about to fill. Tombstones of the last hour stay, as a
/// late write could undo a deletion, unless the database itself went back to before it.
const BEGIN_FILL: &str = r"
local was = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
if was[1] ~= ARGV[2] or was[2] ~= ARGV[3] then
  local all, keep = redis.call('HGETALL', KEYS[1]), {}
  local since = tonumber(redis.call('TIME')[1]) - 3600
  for i = 1, #all, 2 do
    local at = tonumber(string.match(all[i + 1], '^gone|(%d+)$'))
    if at and at > since and (not was[1] or was[1] == ARGV[2]) then
      keep[#keep + 1] = all[i]
      keep[#keep + 1] = all[i + 1]
    end
  end
  redis.call('DEL', KEYS[1])
  for i = 1, #keep, 2 do redis.call('HSET', KEYS[1], keep[i], keep[i + 1]) end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'generation', ARGV[3], 'filler', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1";

/// `KEYS[1]` a user's hash. ARGV: seconds to live, filler, then pairs as in [`WRITE`]. Does nothing
/// unless everything written since this filler began is still there.
const FILL: &str = r"
if redis.call('HGET', KEYS[1], 'filler') ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 2 do
  local new, old = ARGV[i + 1], redis.call('HGET', KEYS[1], ARGV[i])
  if not old then
    redis.call('HSET', KEYS[1], ARGV[i], new)
  elseif string.sub(old, 1, 5) ~= 'gone|' then
    local had = tonumber(string.match(old, '^(%d+)|')) or -1
    if tonumber(string.match(new, '^(%d+)|')) > had then
      redis.call('HSET', KEYS[1], ARGV[i], new)
    end
  end
end
redis.call('HDEL', KEYS[1], 'filler')
redis.call('HSET', KEYS[1], 'complete', '1')
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1";

/// `KEYS[1]` a user's hash: all of it as one text, a field and its value on a line each. (Neither ever
/// holds a line break.) Hundreds of small strings cost us ten times what they cost Redis.
const READ: &str = r"return table.concat(redis.call('HGETALL', KEYS[1]), '\n')";

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

/// What became of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterChange {
    Set(Counter),
    /// The room was deleted: nothing may bring it back.
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
    link: Link,
    /// Of the database; see [`Unread::set_epoch`].
    epoch: ArcSwap<String>,
    write: Script,
    read: Script,
    begin_fill: Script,
    fill: Script,
    /// Whose hash this replica is filling at the moment.
    filling: Mutex<HashMap<UserId, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to store what is about to be read from Postgres.
#[derive(Debug)]
struct Filler(String);

impl Unread {
    pub fn new(link: Link) -> Self {
        let shared = Shared {
            link,
            epoch: ArcSwap::default(),
            write: Script::new(WRITE),
            read: Script::new(READ),
            begin_fill: Script::new(BEGIN_FILL),
            fill: Script::new(FILL),
            filling: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Names the database's history: copies from another one (it went back in time, so that higher
    /// `ev` there mean nothing) are not believed.
    pub fn set_epoch(&self, epoch: &str) {
        self.shared.epoch.store(Arc::new(epoch.to_owned()));
    }

    /// Writes changes in one round trip; each counts only if it is newer than what is there.
    pub async fn write(&self, changes: &[(UserId, CounterChange)]) -> Result<(), Away> {
        let mut pairs: HashMap<&UserId, Vec<Value>> = HashMap::new();
        for (user, change) in changes {
            let (chat, value) = match change {
                CounterChange::Set(counter) => (counter.chat_id, counter.encode()),
                CounterChange::Gone { chat_id } => (*chat_id, "gone".to_owned()),
            };
            let theirs = pairs.entry(user).or_insert_with(|| vec![0.into()]);
            theirs.extend([chat.to_string().into(), value.into()]);
        }
        let counted = pairs.into_iter().map(|(user, mut theirs)| {
            theirs[0] = Value::Integer((theirs.len() / 2) as i64);
            (self.key(user), theirs)
        });
        let args = [KEEP_SECONDS.into()];
        self.shared.link.run_together(&self.shared.write, &args, counted.collect()).await.map(drop)
    }

    /// All counters of `user`, in no order; `None` where there is no complete copy of the present
    /// generation.
    pub async fn read(&self, user: &UserId) -> Result<Option<Vec<Counter>>, Away> {
        let link = &self.shared.link;
        let before = link.generation();
        let call = Call::new(self.key(user), Vec::new());
        let answer = link.run(&self.shared.read, &[call]).await?.pop().ok_or(Away)?;
        // Asked again: the answer may come from a server that was restarted in between.
        let (Some(before), Some(after)) = (before, link.generation()) else { return Ok(None) };
        let text = std::str::from_utf8(answer.as_bytes().ok_or(Away)?).map_err(|_| Away)?;
        let epoch = self.shared.epoch.load();
        let (mut counters, mut marks) = (Vec::new(), 0);
        let mut lines = text.split('\n');
        while let (Some(field), Some(value)) = (lines.next(), lines.next()) {
            match field {
                "complete" => marks += usize::from(value == "1"),
                "generation" => marks += usize::from(*value == *after),
                "epoch" => marks += usize::from(value == epoch.as_str()),
                chat => counters.extend(Counter::decode(chat, value)),
            }
        }
        Ok((before == after && marks == 3).then_some(counters))
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
        F: Future<Output = Result<Vec<Counter>, E>>,
    {
        match self.read(user).await {
            Ok(Some(counters)) => return Ok(counters),
            Ok(None) => {}
            Err(Away) => return load().await,
        }
        let turn = Turn::take(&self.shared, user);
        let first = turn.lock.try_lock();
        let _held = match first {
            Ok(held) => held,
            Err(_) => {
                drop(turn.lock.lock().await);
                // If the first one failed, all the others go their own way, at once.
                return match self.read(user).await {
                    Ok(Some(counters)) => Ok(counters),
                    Ok(None) | Err(Away) => load().await,
                };
            }
        };
        // Before Postgres is read: what is written from here on is kept, and wins if newer.
        let filler = self.begin_fill(user).await;
        let counters = load().await?;
        if let Ok(Some(filler)) = filler {
            // Without it the next reader fills.
            let _ = self.fill(user, filler, &counters).await;
        }
        Ok(counters)
    }

    async fn begin_fill(&self, user: &UserId) -> Result<Option<Filler>, Away> {
        let Some(generation) = self.shared.link.generation() else { return Ok(None) };
        let filler = Filler(Uuid::now_v7().to_string());
        let epoch = self.shared.epoch.load();
        let args = vec![
            KEEP_SECONDS.into(),
            epoch.as_str().into(),
            (&*generation).into(),
            filler.0.as_str().into(),
        ];
        let call = Call::new(self.key(user), args);
        self.shared.link.run(&self.shared.begin_fill, &[call]).await?;
        Ok(Some(filler))
    }

    async fn fill(
        &self,
        user: &UserId,
        filler: Filler,
        counters: &[Counter],
    ) -> Result<bool, Away> {
        let mut args: Vec<Value> = vec![KEEP_SECONDS.into(), filler.0.into()];
        for counter in counters {
            args.extend([counter.chat_id.to_string().into(), counter.encode().into()]);
        }
        let call = Call::new(self.key(user), args);
        let answers = self.shared.link.run(&self.shared.fill, &[call]).await?;
        Ok(answers.first().and_then(Value::as_i64) == Some(1))
    }

    fn key(&self, user: &UserId) -> String {
        self.shared.link.key(&format!("unread:{user}"))
    }
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("link", &self.shared.link).finish_non_exhaustive()
    }
}

/// A place in the queue of those who want one user's hash filled.
struct Turn<'a> {
    shared: &'a Shared,
    user: &'a UserId,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> Turn<'a> {
    fn take(shared: &'a Shared, user: &'a UserId) -> Self {
        let mut filling = shared.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = Arc::clone(filling.entry(user.clone()).or_default());
        Self { shared, user, lock }
    }
}

impl Drop for Turn<'_> {
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

    /// `None` for tombstones and for the hash's own fields.
    fn decode(field: &str, value: &str) -> Option<Self> {
        let chat_id = Uuid::parse_str(field).ok()?;
        let mut parts = value.splitn(6, '|');
        let mut number = || parts.next()?.parse().ok();
        let (ev, unread, last_seq) = (number()?, number()?, number()?);
        let (read_seq, activity) = (number()?, number()?);
        let room_name = parts.next()?.to_owned();
        Some(Self { chat_id, room_name, ev, unread, last_seq, read_seq, activity })
    }
}
