"""The Lua scripts of the Redis state: each is one transaction, and harmless when sent twice."""

from __future__ import annotations

# KEYS: lock, holder, fence, schema   ARGV: random part, holder, milliseconds, schema
ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held then
  if string.sub(held, -string.len(ARGV[1])) ~= ARGV[1] then return false end
else
  held = redis.call('INCR', KEYS[3]) .. ':' .. ARGV[1]
end
redis.call('SET', KEYS[1], held, 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('SET', KEYS[4], ARGV[4]) end
return held
"""

# KEYS: lock, holder   ARGV: token
RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2])
"""

# Shared by the two below. KEYS 1..4: journal, order, intended, sequence.
_JOURNAL = """
local at = 1
local function take() local value = ARGV[at]; at = at + 1; return value end
local function says(text, ending) return text and string.sub(text, -string.len(ending)) == ending end
local function write_entries()
  for _ = 1, tonumber(take()) do
    local id, text, intended = take(), take(), take()
    local known = redis.call('HGET', KEYS[1], id)
    if not known then redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[4]), id) end
    if not (says(known, '"outcome":"written"}') and says(text, '"outcome":"left"}')) then
      redis.call('HSET', KEYS[1], id, text)
    end
    if intended == '1' then redis.call('SADD', KEYS[3], id) else redis.call('SREM', KEYS[3], id) end
  end
end
local function trim(kept)
  local excess = redis.call('ZCARD', KEYS[2]) - kept
  if excess <= 0 then return end
  local last = excess + redis.call('SCARD', KEYS[3]) - 1
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, last)) do
    if excess > 0 and redis.call('SISMEMBER', KEYS[3], id) == 0 then
      redis.call('ZREM', KEYS[2], id)
      redis.call('HDEL', KEYS[1], id)
      excess = excess - 1
    end
  end
end
"""

# KEYS 5: fence   ARGV: number of the run's lock or '', entries (count, then id, text, '1' when intended), journal limit
INTEND = (
    _JOURNAL
    + """
local fence = take()
if fence ~= '' and tonumber(redis.call('GET', KEYS[5]) or 0) > tonumber(fence) then return 'FENCED' end
write_entries()
trim(tonumber(take()))
return 'DONE'
"""
)

# KEYS 5..9: done, summary, runs, schema, fence; 10..: one a memory section
# ARGV: run id, number of its lock or '', run text, list limit, done limit, schema; additions, totals
# (entry id, name), puts, entries, journal limit, memory (section number, id, text, '1' to keep),
# each with its count first. A total goes up only if its entry does not stand as written yet.
COMMIT = (
    _JOURNAL
    + """
local run_id, fence, run = take(), take(), take()
local listed, remembered, schema = tonumber(take()), tonumber(take()), take()
if redis.call('ZSCORE', KEYS[5], run_id) then return 'AGAIN' end
if fence ~= '' and tonumber(redis.call('GET', KEYS[9]) or 0) > tonumber(fence) then return 'FENCED' end
for key, kind in pairs({[KEYS[6]] = 'hash', [KEYS[7]] = 'list'}) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then return 'TYPE' .. key end
end
if redis.call('EXISTS', KEYS[8]) == 0 then redis.call('SET', KEYS[8], schema) end
redis.call('ZADD', KEYS[5], redis.call('INCR', KEYS[4]), run_id)
redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -remembered - 1)
local function raise(name, amount)
  local now = redis.call('HGET', KEYS[6], name)
  if now and not string.match(now, '^-?%d+$') then redis.call('HSET', KEYS[6], name, '0') end
  redis.call('HINCRBY', KEYS[6], name, amount)
end
for _ = 1, tonumber(take()) do raise(take(), take()) end
for _ = 1, tonumber(take()) do
  local id, name = take(), take()
  if not says(redis.call('HGET', KEYS[1], id), '"outcome":"written"}') then raise(name, 1) end
end
for _ = 1, tonumber(take()) do redis.call('HSET', KEYS[6], take(), take()) end
redis.call('LPUSH', KEYS[7], run)
redis.call('LTRIM', KEYS[7], 0, listed - 1)
write_entries()
trim(tonumber(take()))
for _ = 1, tonumber(take()) do
  local key, id, text, keep = KEYS[9 + tonumber(take())], take(), take(), take()
  if keep == '1' then redis.call('HSET', key, id, text) else redis.call('HDEL', key, id) end
end
return 'DONE'
"""
)
