//! The leases in Redis.

use std::time::Duration;

use fred::{
    interfaces::{ClientLike, KeysInterface, SortedSetsInterface},
    types::{ClusterHash, CustomCommand, Expiration, Value, sorted_sets::Ordering},
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    broker::{Call, RedisClient, RedisUnavailable, Script, Work},
    model::UserId,
};

/// Duration of a lease: the documented minute from a replica's death until its users are offline, less a
/// sweep and some slack. It allows for two missed renewals.
pub(super) const LEASE: Duration = Duration::from_secs(45);
/// How long a hash outlives its leases, in milliseconds (one hour): the sweep that announces its end
/// needs it, and it expires by itself where even the sorted set was lost.
const KEEP_MS: i64 = 3_600_000;
/// Users in one command on the sorted set.
const MEMBERS_A_COMMAND: usize = 500;

/// Writes a lease. `KEYS[1]` is a user's hash; ARGV has the replica, the lease and the hash's expiry in ms.
/// Returns whether the user was not announced as online before, the lease's expiry, and the time now.
const RENEW: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local new = 1 - redis.call('EXISTS', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[1], now + ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {new, now + ARGV[2], now}";

/// Returns a digit for each of KEYS, users' hashes: 1 for a user with a live lease.
const LIVE: &str = r"
local t = redis.call('TIME')
local now, live = t[1] * 1000 + math.floor(t[2] / 1000), {}
for i = 1, #KEYS do
  live[i] = 0
  for _, expiry in ipairs(redis.call('HVALS', KEYS[i])) do
    if (tonumber(expiry) or 0) > now then live[i] = 1 end
  end
end
return table.concat(live)";

/// Ends a lease. `KEYS[1]` is a user's hash; ARGV has the replica, or '' to drop only expired leases.
/// Returns whether the hash (0) is missing, (1) still has leases, (2) was emptied by this call; whether
/// the replica's lease existed; the latest expiry in it, now or before; and the time now.
const LEAVE: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
if #all == 0 then return {0, 0, 0, now} end
local own, left, latest, last = 0, 0, 0, 0
for i = 1, #all, 2 do
  local expiry = tonumber(all[i + 1]) or 0
  last = math.max(last, expiry)
  if all[i] == ARGV[1] then own = 1 end
  if all[i] == ARGV[1] or expiry <= now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    left = left + 1
    latest = math.max(latest, expiry)
  end
end
if left > 0 then return {1, own, latest, now} end
return {2, own, last, now}";

/// The state of a user's hash after a leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// There was no hash.
    Missing,
    /// Other replicas hold leases, the longest `until` (ms since 1970).
    Others { had_own: bool, until: i64 },
    /// The call emptied it; its last lease was valid `until` (ms since 1970).
    Ended { until: i64 },
}

#[derive(Debug)]
pub(super) struct Leases {
    redis: RedisClient,
    replica: String,
    live: Script,
    renew: Script,
    leave: Script,
}

impl Leases {
    pub(super) fn new(redis: RedisClient, replica: Uuid) -> Self {
        let replica = replica.to_string();
        let [live, renew, leave] = [LIVE, RENEW, LEAVE].map(Script::new);
        Self { redis, replica, live, renew, leave }
    }

    pub(super) fn redis(&self) -> &RedisClient {
        &self.redis
    }

    /// Returns those of `users` with a live lease, in one round trip.
    pub(super) async fn live<'a>(
        &self,
        users: &[&'a UserId],
    ) -> Result<Vec<&'a UserId>, RedisUnavailable> {
        let keys = users.iter().map(|user| (self.key(user), Vec::new())).collect();
        let work = Work { script: &self.live, args: Vec::new(), keys };
        let answers = self.redis.run(&self.redis.together(work)).await?;
        let signs = answers.iter().filter_map(Value::as_bytes).flatten();
        Ok(users
            .iter()
            .zip(signs)
            .filter(|(_, sign)| **sign == b'1')
            .map(|(user, _)| *user)
            .collect())
    }

    /// Writes a lease for each of `users`. Returns for each whether they were not announced as online
    /// before, and the time.
    pub(super) async fn renew(
        &self,
        users: &[UserId],
    ) -> Result<Vec<(bool, Timestamp)>, RedisUnavailable> {
        let lease = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        let answers = self.call(&self.renew, users, || {
            vec![self.replica.as_str().into(), lease.into(), KEEP_MS.into()]
        });
        let answers = answers.await?;
        let numbers: Vec<[i64; 3]> = answers.into_iter().map(three).collect::<Result<_, _>>()?;
        self.note(users.iter().zip(&numbers).map(|(user, n)| (user, n[1]))).await?;
        Ok(numbers.into_iter().map(|[new, _, now]| (new == 1, timestamp(now))).collect())
    }

    /// Ends this replica's lease of each of `users`.
    pub(super) async fn leave(&self, users: &[UserId]) -> Result<Vec<Left>, RedisUnavailable> {
        let answers = self.call(&self.leave, users, || vec![self.replica.as_str().into()]).await?;
        let left: Vec<Left> = answers.into_iter().map(Left::parse).collect::<Result<_, _>>()?;
        let gone = users.iter().zip(&left);
        let gone = gone.filter(|(_, left)| !matches!(left, Left::Others { .. }));
        self.forget(gone.map(|(user, _)| user)).await?;
        Ok(left)
    }

    /// Drops expired leases of up to `limit` users. Returns those who went offline, each with the expiry
    /// of their last lease (ms since 1970).
    pub(super) async fn sweep(&self, limit: i64) -> Result<Vec<(UserId, i64)>, RedisUnavailable> {
        let pipeline = self.redis.pipeline()?;
        let time = CustomCommand::new_static("TIME", ClusterHash::Random, false);
        let _queued: Value =
            pipeline.custom::<_, Value>(time, vec![]).await.map_err(|_| RedisUnavailable)?;
        let time = self.redis.send(&pipeline, 1).await?.pop();
        let now = time.and_then(Result::ok).and_then(millis).ok_or(RedisUnavailable)?;

        let pipeline = self.redis.pipeline()?;
        let range = pipeline.zrangebyscore(self.index(), 0, now as f64, false, Some((0, limit)));
        let _queued: Value = range.await.map_err(|_| RedisUnavailable)?;
        let due = self
            .redis
            .send(&pipeline, 1)
            .await?
            .pop()
            .and_then(Result::ok)
            .ok_or(RedisUnavailable)?;
        let due: Vec<String> = due.convert().map_err(|_| RedisUnavailable)?;
        let due: Vec<UserId> = due.iter().filter_map(|user| UserId::parse(user)).collect();

        let answers = self.call(&self.leave, &due, || vec!["".into()]).await?;
        let left: Vec<Left> = answers.into_iter().map(Left::parse).collect::<Result<_, _>>()?;
        let (mut ended, mut gone, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (user, left) in due.into_iter().zip(left) {
            match left {
                Left::Missing => gone.push(user),
                Left::Others { until, .. } => others.push((user, until)),
                Left::Ended { until } => {
                    gone.push(user.clone());
                    ended.push((user, until));
                }
            }
        }
        // A user who returns at this moment is noted again by the next renewal, before the lease
        // expires. A failure here only means that they are swept once more.
        let _ = self.forget(gone.iter()).await;
        let _ = self.note(others.iter().map(|(user, until)| (user, *until))).await;
        Ok(ended)
    }

    /// Sets this replica's mark and returns whether it existed. A missing mark means that Redis was
    /// emptied.
    pub(super) async fn mark(&self) -> Result<bool, RedisUnavailable> {
        let pipeline = self.redis.pipeline()?;
        let key = self.redis.key(&format!("presence-mark:{}", self.replica));
        let keep = Some(Expiration::PX(KEEP_MS));
        let _queued: Value =
            pipeline.set(key, 1, keep, None, true).await.map_err(|_| RedisUnavailable)?;
        let was = self
            .redis
            .send(&pipeline, 1)
            .await?
            .pop()
            .and_then(Result::ok)
            .ok_or(RedisUnavailable)?;
        Ok(!was.is_null())
    }

    async fn call(
        &self,
        script: &Script,
        users: &[UserId],
        args: impl Fn() -> Vec<Value>,
    ) -> Result<Vec<Value>, RedisUnavailable> {
        let calls = users.iter().map(|user| Call::new(script, self.key(user), args()));
        self.redis.run(&calls.collect::<Vec<_>>()).await
    }

    /// Notes in the sorted set when each user's leases expire.
    async fn note(
        &self,
        users: impl Iterator<Item = (&UserId, i64)>,
    ) -> Result<(), RedisUnavailable> {
        let scored: Vec<(f64, String)> =
            users.map(|(user, until)| (until as f64, user.to_string())).collect();
        for chunk in scored.chunks(MEMBERS_A_COMMAND) {
            let pipeline = self.redis.pipeline()?;
            let order = Some(Ordering::GreaterThan);
            let add = pipeline.zadd(self.index(), None, order, false, false, chunk.to_vec());
            let _queued: Value = add.await.map_err(|_| RedisUnavailable)?;
            self.redis.send(&pipeline, 1).await?;
        }
        Ok(())
    }

    async fn forget(&self, users: impl Iterator<Item = &UserId>) -> Result<(), RedisUnavailable> {
        let members: Vec<String> = users.map(ToString::to_string).collect();
        for chunk in members.chunks(MEMBERS_A_COMMAND) {
            let pipeline = self.redis.pipeline()?;
            let _queued: Value =
                pipeline.zrem(self.index(), chunk.to_vec()).await.map_err(|_| RedisUnavailable)?;
            self.redis.send(&pipeline, 1).await?;
        }
        Ok(())
    }

    fn key(&self, user: &UserId) -> String {
        self.redis.key(&format!("presence:{user}"))
    }

    fn index(&self) -> String {
        self.redis.key("presence-leases")
    }
}

impl Left {
    fn parse(answer: Value) -> Result<Self, RedisUnavailable> {
        match answer.convert::<Vec<i64>>().map_err(|_| RedisUnavailable)?.as_slice() {
            [0, ..] => Ok(Self::Missing),
            [1, own, until, _] => Ok(Self::Others { had_own: *own == 1, until: *until }),
            [2, _, until, _] => Ok(Self::Ended { until: *until }),
            _ => Err(RedisUnavailable),
        }
    }
}

fn three(answer: Value) -> Result<[i64; 3], RedisUnavailable> {
    answer.convert::<Vec<i64>>().ok().and_then(|n| n.try_into().ok()).ok_or(RedisUnavailable)
}

/// Converts the answer to TIME (seconds, microseconds) to milliseconds.
fn millis(time: Value) -> Option<i64> {
    match time.convert::<Vec<i64>>().ok()?.as_slice() {
        [seconds, micros] => Some(seconds * 1_000 + micros / 1_000),
        _ => None,
    }
}

/// Converts Redis's clock, in milliseconds since 1970.
pub(super) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}
