//! What runs inside Redis on a user's hash; [`super`] says what is in one.
//!
//! A deleted chat leaves a tombstone, `gone|` and its time, which no value replaces: a write may be
//! late by a command's time-out, by a statement's where a sweeper reads first, or by as long as its
//! replica stood still, and would bring the chat's counter back. Nothing bounds how many chats two
//! people open and delete, so tombstones go after an hour, long after anything of that.

use crate::broker::Script;

/// Most fields that a hash is read with: Redis does nothing else for some 13 ms meanwhile. Who has more
/// chats is counted by Postgres.
pub(super) const MOST_FIELDS: usize = 20_000;

/// Before each of them but FILL, with `most_fields`: how tombstones are judged and cleared away.
const SHARED: &str = r"
local function gone_at(value) return tonumber(string.match(value, '^gone|(%d+)$')) end
local function forgettable() return tonumber(redis.call('TIME')[1]) - 3600 end

-- Whether reading the hash costs too much: it is large, or most of it is tombstones, past some that never
-- matter.
local function crowded(key, tombstones)
  local size = redis.call('HLEN', key)
  return size > most_fields or 2 * (tonumber(tombstones) or 0) > size + 64
end

-- Whether a history is a later one of the same installation: what comes last in an epoch is the timeline,
-- eight digits, which grow. After a restore nobody can tell.
local function is_later(epoch, than)
  return string.sub(epoch, 1, -9) == string.sub(than, 1, -9) and epoch > than
end

-- Goes through some of the fields, on from where the last one ended, and drops old tombstones. A fill
-- that is under way may have been read before such a chat was deleted, so it is called off.
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

/// `KEYS` users' hashes. ARGV: seconds to live, then for each key how many pairs follow, their epoch, and
/// these: chat and value. With a later history the hash begins anew. What is of any other one changes
/// no value; but the hash is not complete any more, as its own may be the one that is gone. `gone` becomes a tombstone, and pays for the clearing: each looks at some fifty fields,
/// so that there are never many more than those of an hour.
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

/// `KEYS[1]` a user's hash. ARGV: epoch, generation. All of it as one text, a field and its value on a
/// line each (neither ever holds a line break), as hundreds of small strings cost us ten times what they
/// cost Redis. Nothing, and at no cost, where it is not to be believed or too dear.
const READ: &str = r"
local is = redis.call('HMGET', KEYS[1], 'complete', 'epoch', 'generation', 'tombstones')
if is[1] ~= '1' or is[2] ~= ARGV[1] or is[3] ~= ARGV[2] or crowded(KEYS[1], is[4]) then
  return false
end
return table.concat(redis.call('HGETALL', KEYS[1]), '\n')";

/// `KEYS[1]` a user's hash. ARGV: seconds to live, epoch, generation, filler. Clears away what
/// another generation left, and names who is about to fill. Tombstones stay for their hour, unless the
/// database itself went back to before them. Of a hash that takes long it clears some thousand fields
/// a call; 0: until the rest is gone, nobody fills.
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
    if #chat == 36 and not (at and at >= since) then
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

/// `KEYS[1]` a user's hash. ARGV: seconds to live, filler, epoch, 1 where nothing follows or 0, then pairs
/// as in [`WRITE`]. Does nothing unless everything written since this filler began is still there, in the
/// history that was read.
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
