//! The scripts that run inside Redis on a user's hash; [`super`] describes a hash.
//!
//! A deleted chat leaves a tombstone, `gone|` and its time, which no value replaces, because a late
//! write would restore the chat's counter. A write may be late by a command's time-out, by a
//! statement's where a sweeper reads first, or by a pause of its replica. The number of chats that two
//! users open and delete is unbounded, so tombstones are dropped after an hour, long after any of
//! these.
//!
//! That a user is in a group is only a hint to ask Postgres, which a late write may restore: so it needs no
//! tombstone, and that they are out of one may be dropped at any time.

use crate::broker::Script;

/// Largest hash that is read, in fields: Redis does nothing else for about 13 ms meanwhile. Postgres
/// counts for users with more chats.
pub(super) const MOST_FIELDS: usize = 20_000;

/// Functions of all scripts but FILL, preceded by `most_fields`: they judge and drop tombstones.
const SHARED: &str = r"
local function gone_at(value) return tonumber(string.match(value, '^gone|(%d+)$')) end
local function forgettable() return tonumber(redis.call('TIME')[1]) - 3600 end

-- Whether the hash is too expensive to read: it is large, or mostly tombstones. Some are always allowed.
local function crowded(key, tombstones)
  local size = redis.call('HLEN', key)
  return size > most_fields or 2 * (tonumber(tombstones) or 0) > size + 64
end

-- Whether an epoch is a later one of the same installation: it ends with the timeline, eight digits that
-- grow. After a restore the order of epochs is unknown.
local function is_later(epoch, than)
  return string.sub(epoch, 1, -9) == string.sub(than, 1, -9) and epoch > than
end

-- Scans some fields, from where the last sweep ended, and drops old tombstones. A fill in progress may
-- have been read before such a chat was deleted, so it is cancelled.
local function sweep(key, fields)
  local from = redis.call('HGET', key, 'swept') or '0'
  local page, dropped = redis.call('HSCAN', key, from, 'COUNT', fields), 0
  local before = forgettable()
  for i = 1, #page[2], 2 do
    local at = gone_at(page[2][i + 1])
    if at and at < before then dropped = dropped + redis.call('HDEL', key, page[2][i]) end
    if string.find(page[2][i + 1], '^%d+|out$') then redis.call('HDEL', key, page[2][i]) end
  end
  redis.call('HSET', key, 'swept', page[1])
  if dropped > 0 then
    redis.call('HINCRBY', key, 'tombstones', -dropped)
    redis.call('HDEL', key, 'filler')
  end
end
";

/// Writes changes. KEYS are users' hashes; ARGV has the expiry in seconds, then for each key the number
/// of pairs, their epoch, and the pairs of field and value. A later epoch restarts the hash. Any other
/// foreign epoch changes no value but makes the hash incomplete, as the hash's own epoch may be the lost
/// one. `gone` becomes a tombstone and sweeps some fields, so that there are rarely more tombstones than
/// those of an hour.
const WRITE: &str = r"
local at = 2
for k = 1, #KEYS do
  local key, epoch, last = KEYS[k], ARGV[at + 1], at + 1 + 2 * tonumber(ARGV[at])
  local own = redis.call('HGET', key, 'epoch')
  if own and own ~= epoch and is_later(epoch, own) then
    redis.call('UNLINK', key)
    own = false
  end
  if not own then redis.call('HSET', key, 'epoch', epoch) end
  local foreign = own and own ~= epoch
  if foreign then redis.call('HDEL', key, 'complete', 'filler') end
  for i = foreign and last + 1 or at + 2, last, 2 do
    local new, old = ARGV[i + 1], redis.call('HGET', key, ARGV[i])
    if new == 'gone' then
      redis.call('HSET', key, ARGV[i], 'gone|' .. redis.call('TIME')[1])
      if not old or not gone_at(old) then redis.call('HINCRBY', key, 'tombstones', 1) end
      redis.call('HDEL', key, 'g:' .. ARGV[i])
      sweep(key, 100)
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

/// Reads a hash. `KEYS[1]` is a user's hash; ARGV has epoch and generation. Returns one text, with fields
/// and values on a line each (neither contains a line break), because hundreds of small strings cost a
/// replica ten times what they cost Redis. Returns nil if the hash is incomplete, foreign or too large.
const READ: &str = r"
local is = redis.call('HMGET', KEYS[1], 'complete', 'epoch', 'generation', 'tombstones')
if is[1] ~= '1' or is[2] ~= ARGV[1] or is[3] ~= ARGV[2] or crowded(KEYS[1], is[4]) then
  return false
end
return table.concat(redis.call('HGETALL', KEYS[1]), '\n')";

/// Begins a fill. `KEYS[1]` is a user's hash; ARGV has the expiry in seconds, epoch, generation and filler.
/// Drops the values of another generation and stores the filler. Tombstones stay for their hour, unless
/// the database itself went back in time. A call drops some thousand fields at most; it returns 0, and
/// nobody fills, until the rest is dropped.
const BEGIN_FILL: &str = r"
local key = KEYS[1]
local was = redis.call('HMGET', key, 'epoch', 'generation', 'tombstones')
if was[1] ~= ARGV[2] or was[2] ~= ARGV[3] then
  redis.call('HDEL', key, 'complete', 'filler')
  local since = forgettable()
  if was[1] and was[1] ~= ARGV[2] then since = math.huge end
  local page, dropped = redis.call('HSCAN', key, 0, 'COUNT', 10000), 0
  for i = 1, #page[2], 2 do
    local chat, at = page[2][i], gone_at(page[2][i + 1])
    -- The hash's own fields have shorter names.
    if #chat >= 36 and not (at and at >= since) then
      local had = redis.call('HDEL', key, chat)
      if at then dropped = dropped + had end
    end
  end
  if dropped > 0 then redis.call('HINCRBY', key, 'tombstones', -dropped) end
  if page[1] ~= '0' then return 0 end
elseif crowded(key, was[3]) then
  sweep(key, 2000)
  if crowded(key, redis.call('HGET', key, 'tombstones')) then return 0 end
end
redis.call('HSET', key, 'epoch', ARGV[2], 'generation', ARGV[3], 'filler', ARGV[4])
redis.call('EXPIRE', key, ARGV[1])
return 1";

/// Stores a part of a fill. `KEYS[1]` is a user's hash; ARGV has the expiry in seconds, filler, epoch, 1 for
/// the last part or 0, then pairs as in [`WRITE`]. Does nothing if the filler or the epoch was replaced,
/// since writes since the fill began may then be lost.
const FILL: &str = r"
local is = redis.call('HMGET', KEYS[1], 'filler', 'epoch')
if is[1] ~= ARGV[2] or is[2] ~= ARGV[3] then return 0 end
for i = 5, #ARGV, 2 do
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
if ARGV[4] == '1' then
  redis.call('HDEL', KEYS[1], 'filler')
  redis.call('HSET', KEYS[1], 'complete', '1')
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1";

#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) write: Script,
    pub(super) read: Script,
    pub(super) begin_fill: Script,
    pub(super) fill: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let with_shared =
            |script| Script::new(format!("local most_fields = {MOST_FIELDS}\n{SHARED}{script}"));
        Self {
            write: with_shared(WRITE),
            read: with_shared(READ),
            begin_fill: with_shared(BEGIN_FILL),
            fill: Script::new(FILL),
        }
    }
}
