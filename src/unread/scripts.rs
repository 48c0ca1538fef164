//! The scripts that run inside Redis on a user's hash; [`super`] describes a hash.
//!
//! A deleted chat leaves a tombstone, `gone|` and its time, which no value replaces, because a late
//! write would restore the chat's counter; a group that the user is out of leaves the `rev`, `|out|` and the
//! time, which only their return replaces. A write may be late by a command's time-out, by a statement's where
//! a sweeper reads first, or by a pause of its replica. The number of chats that two users open and delete is
//! unbounded, so tombstones are dropped after an hour, long after any of these.

use crate::broker::Script;

/// Largest hash that is read, in fields: Redis does nothing else for about 13 ms meanwhile. Postgres
/// counts for users with more chats.
pub(super) const MOST_FIELDS: usize = 20_000;

/// Functions of all scripts, preceded by `most_fields`: they store values, judge and drop tombstones.
const SHARED: &str = r"
local function gone_at(value)
  return tonumber(string.match(value, '^gone|(%d+)$') or string.match(value, '^%d+|out|(%d+)$'))
end
local function now() return redis.call('TIME')[1] end
local function forgettable() return tonumber(now()) - 3600 end

-- Whether a value is newer: by its version; of a group by rev, then ev. Who is out is so from rev on.
local function is_newer(field, new, old)
  local first, second = string.match(new, '^(%d+)|([^|]*)')
  local had, behind = string.match(old, '^(%d+)|([^|]*)')
  first, had = tonumber(first), tonumber(had) or -1
  if first ~= had or #field == 36 then return first > had end
  return (tonumber(second) or math.huge) > (tonumber(behind) or math.huge)
end

-- Stores a value unless the old one is a tombstone for good, or at least as new.
local function store(key, field, new, old)
  if old and (string.sub(old, 1, 5) == 'gone|' or not is_newer(field, new, old)) then return end
  local was = old and gone_at(old)
  local is = string.sub(new, -4) == '|out'
  if is then new = new .. '|' .. now() end
  redis.call('HSET', key, field, new)
  if is and not was then redis.call('HINCRBY', key, 'tombstones', 1) end
  if was and not is then redis.call('HINCRBY', key, 'tombstones', -1) end
end

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
  end
  redis.call('HSET', key, 'swept', page[1])
  if dropped > 0 then
    redis.call('HINCRBY', key, 'tombstones', -dropped)
    redis.call('HDEL', key, 'filler')
  end
end
";

/// Writes changes and publishes. KEYS are users' hashes, groups' heads behind them, since a head must not be read
/// without what its commit changed of members, and channels at the end, since whoever hears of a change may read
/// counters. ARGV has the expiry in seconds, the beginning of heads' keys, then for each hash the number of pairs, their epoch, and the pairs
/// of field and value; for each head the word `head`, epoch, generation (empty: unknown) and value; for each
/// channel the word `publish` and a payload.
///
/// A later epoch restarts the hash. Any other foreign epoch changes no value but makes the hash incomplete, as
/// the hash's own epoch may be the lost one. `gone` becomes a tombstone and sweeps some fields, so that there
/// are rarely more tombstones than those of an hour.
///
/// A head is replaced by one of at least its revision; that of a deleted chat, `gone`, by none. One of a foreign
/// epoch is removed, unless the new one's is later.
const WRITE: &str = r"
local function write_head(key, epoch, generation, new)
  local old = redis.call('GET', key)
  local its_epoch, its_generation, numbers
  if old then its_epoch, its_generation, numbers = string.match(old, '^([^|]*)|([^|]*)|(.*)$') end
  if its_epoch and its_epoch ~= epoch and not is_later(epoch, its_epoch) then
    redis.call('DEL', key)
    return
  end
  if its_epoch == epoch then
    if numbers == 'gone' then return end
    local had = tonumber(string.match(numbers, '^(%d+)|')) or -1
    if new ~= 'gone' and tonumber(string.match(new, '^(%d+)|')) < had then return end
    if generation == '' then generation = its_generation end
  end
  redis.call('SET', key, epoch .. '|' .. generation .. '|' .. new, 'EX', ARGV[1])
end

local function write_hash(key, epoch, first, last)
  -- The first pair's old value is read with the epoch, as most have no other pair.
  local own, old = unpack(redis.call('HMGET', key, 'epoch', ARGV[first]))
  if own and own ~= epoch and is_later(epoch, own) then
    redis.call('UNLINK', key)
    own, old = false, false
  end
  if not own then redis.call('HSET', key, 'epoch', epoch) end
  local foreign = own and own ~= epoch
  if foreign then redis.call('HDEL', key, 'complete', 'filler') end
  for i = foreign and last + 1 or first, last, 2 do
    if ARGV[i + 1] == 'gone' then
      local old, group = unpack(redis.call('HMGET', key, ARGV[i], ARGV[2] .. ARGV[i]))
      redis.call('HSET', key, ARGV[i], 'gone|' .. now())
      if not old or not gone_at(old) then redis.call('HINCRBY', key, 'tombstones', 1) end
      redis.call('HDEL', key, ARGV[2] .. ARGV[i])
      if group and gone_at(group) then redis.call('HINCRBY', key, 'tombstones', -1) end
      sweep(key, 100)
    else
      if i > first then old = redis.call('HGET', key, ARGV[i]) end
      store(key, ARGV[i], ARGV[i + 1], old)
    end
  end
  redis.call('EXPIRE', key, ARGV[1])
end

local at = 3
for k = 1, #KEYS do
  if ARGV[at] == 'publish' then
    redis.call('PUBLISH', KEYS[k], ARGV[at + 1])
    at = at + 2
  elseif ARGV[at] == 'head' then
    write_head(KEYS[k], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    at = at + 4
  else
    local last = at + 1 + 2 * tonumber(ARGV[at])
    write_hash(KEYS[k], ARGV[at + 1], at + 2, last)
    at = last + 1
  end
end
return 1";

/// Reads a hash, and the heads of its groups in the same instant. `KEYS[1]` is a user's hash; ARGV has epoch,
/// generation, and 1, or 0 in a cluster, where heads are on other servers: a group's field is named as the key
/// of its head, which spares two texts for each. Returns one text, with fields and values on a line each
/// (neither contains a line break), because hundreds of small strings cost a replica ten times what they cost
/// Redis; then the word `heads`, and a line for each group in the order of the fields. Returns nil if the hash
/// is incomplete, foreign or too large.
const READ: &str = r"
local is = redis.call('HMGET', KEYS[1], 'complete', 'epoch', 'generation', 'tombstones')
if is[1] ~= '1' or is[2] ~= ARGV[1] or is[3] ~= ARGV[2] or crowded(KEYS[1], is[4]) then
  return false
end
local all = redis.call('HGETALL', KEYS[1])
local keys, count = {}, 0
for i = 1, ARGV[3] == '1' and #all or 0, 2 do
  if #all[i] > 36 then
    count = count + 1
    keys[count] = all[i]
  end
end
if count == 0 then return table.concat(all, '\n') end
local size = #all + 1
all[size] = 'heads'
-- unpack() takes some thousands at most.
for from = 1, count, 1000 do
  local heads = redis.call('MGET', unpack(keys, from, math.min(from + 999, count)))
  for i = 1, #heads do all[size + i] = heads[i] or '' end
  size = size + #heads
end
return table.concat(all, '\n')";

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
for i = 5, #ARGV, 2 do store(KEYS[1], ARGV[i], ARGV[i + 1], redis.call('HGET', KEYS[1], ARGV[i])) end
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
            fill: with_shared(FILL),
        }
    }
}
