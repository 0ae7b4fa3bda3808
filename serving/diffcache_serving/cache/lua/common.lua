-- The beginning of every script. KEYS[1]: the prefix of all keys of this cache, with the hash tag that keeps them on
-- one node. ARGV[1]: the contents that the caller knows. They differ after a FLUSHALL or a restart without data.
local base = KEYS[1]
local META, ENTRIES, EXACT = base .. ':meta', base .. ':entries', base .. ':exact'
local FAMILIES, RETIRED, MODELS = base .. ':families', base .. ':retired', base .. ':models'
local GRANTS, GONE, PURGED, PURGES = base .. ':grants', base .. ':gone', base .. ':purged', base .. ':purges'
local TOMBSTONES = 10000 -- number of remembered ids; an insertion that arrives after more drops than this would succeed

local function entry_key(id) return base .. ':entry:' .. id end
local function state_key(id) return base .. ':state:' .. id end
local function order_key(family) return base .. ':order:' .. family end

-- Returns a double as text that converts back to the same double.
local function exactly(number) return string.format('%.17g', number) end

local function meta(name) return tonumber(redis.call('HGET', META, name) or 0) end

local function current_family() return redis.call('HGET', META, 'family') or '' end

-- Returns a state's member in the order. Of equal scores the older state is evicted first, as in SQLite.
local function place(created, id) return string.format('%016.0f:%s', created, id) end

local function now() return tonumber(redis.call('TIME')[1]) end

-- Remembers an id, and forgets the oldest beyond TOMBSTONES.
local function bury(key, id)
  redis.call('ZADD', key, now(), id)
  redis.call('ZREMRANGEBYRANK', key, 0, -TOMBSTONES - 1)
end

-- Adds to a count by name, and drops the name at zero. Returns the count.
local function count(key, name, change)
  local left = redis.call('HINCRBY', key, name, change)
  if left <= 0 then redis.call('HDEL', key, name) end
  return left
end

-- Returns {id, entry, kind, k, bytes, checksum, uses, score} for RedisLedger; nil if the state does not exist.
local function read_state(id)
  local found = redis.call('HMGET', state_key(id), 'entry', 'kind', 'k', 'bytes', 'checksum', 'uses', 'score')
  if not found[1] then return nil end
  return {id, unpack(found)}
end

-- Returns the ids in an entry's field `states`, which is `KIND:ID KIND:ID`.
local function state_ids(states)
  local ids = {}
  for id in string.gmatch(states or '', ':(%S+)') do ids[#ids + 1] = id end
  return ids
end

local function drop_entry_row(id, family, exact, model)
  redis.call('DEL', entry_key(id))
  redis.call('ZREM', ENTRIES, id)
  if redis.call('HGET', EXACT, exact) == id then redis.call('HDEL', EXACT, exact) end
  if count(FAMILIES, family, -1) <= 0 then redis.call('HDEL', RETIRED, family) end
  count(MODELS, model, -1)
  redis.call('HINCRBY', META, 'entries', -1)
  bury(GONE, id)
end

-- Drops a state, and with its last state the entry. Adds both to `dropped`, which is {states = {}, entries = {}}.
local function drop_state(id, dropped)
  local state = read_state(id)
  if not state then return end
  local entry = redis.call('HMGET', entry_key(state[2]), 'states', 'family', 'exact', 'model')
  local created = redis.call('HGET', state_key(id), 'created')
  redis.call('DEL', state_key(id))
  redis.call('HINCRBY', META, 'states', -1)
  redis.call('HINCRBY', META, 'bytes', -tonumber(state[5]))
  dropped.states[#dropped.states + 1] = state
  if not entry[2] then return end -- only if Redis itself has evicted a key
  redis.call('ZREM', order_key(entry[2]), place(created, id))
  local left = {}
  for kind, other in string.gmatch(entry[1], '(%a+):(%S+)') do
    if other ~= id then left[#left + 1] = kind .. ':' .. other end
  end
  if #left > 0 then
    redis.call('HSET', entry_key(state[2]), 'states', table.concat(left, ' '))
  else
    drop_entry_row(state[2], entry[2], entry[3], entry[4])
    dropped.entries[#dropped.entries + 1] = state[2]
  end
end

local function drop_entry(id, dropped)
  for _, state in ipairs(state_ids(redis.call('HGET', entry_key(id), 'states'))) do drop_state(state, dropped) end
end

-- Returns {order, member, score} of the next state to evict: from the family that was retired first, else the lowest of
-- the current family.
local function lowest()
  local order, longest
  local retired = redis.call('HGETALL', RETIRED)
  for i = 1, #retired, 2 do
    local since = tonumber(retired[i + 1])
    if redis.call('EXISTS', order_key(retired[i])) == 1 and (not longest or since < longest) then
      order, longest = order_key(retired[i]), since
    end
  end
  order = order or order_key(current_family())
  local found = redis.call('ZRANGE', order, 0, 0, 'WITHSCORES')
  if not found[1] then return nil end
  return {order, found[1], tonumber(found[2]), longest ~= nil}
end

-- Evicts at most `most` states, until the needed bytes and entries fit into the budget. Returns whether they fit, or
-- nothing is left. The age L rises to each evicted score (GreedyDual), except for states of retired families, because
-- they are evicted out of order.
local function make_room(bytes, entries, budget_bytes, budget_entries, most, dropped)
  for _ = 0, most do
    local fits = meta('bytes') + bytes <= budget_bytes and meta('entries') + entries <= budget_entries
    local next = not fits and lowest()
    if not next then return true end
    if not next[4] then redis.call('HSET', META, 'age', exactly(math.max(meta('age'), next[3]))) end
    drop_state(string.match(next[2], ':(.*)'), dropped)
    redis.call('ZREM', next[1], next[2]) -- also if its hash does not exist; otherwise this loop would never end
  end
  return false
end

if redis.call('HGET', META, 'contents') ~= ARGV[1] then
  return redis.error_reply('LOST the ledger has other contents than before')
end
