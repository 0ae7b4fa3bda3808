-- ARGV[2..]: entry id, exact digest, family, model, created, data, key, parent, number of purges that the caller knows,
-- maximum number of evictions, bytes and entries of the budget (empty: no budget); then six values for each state: id,
-- kind, k, bytes, checksum, benefit.
-- Returns {inserted | again | purged, replaced states, replaced entries, evicted states, evicted entries}.
-- Replacing, making room and adding are one step. So reservations need not be counted, none is left behind, and the
-- budget is kept with any number of writers. LCBFU.score of a new state: H = L + b / bytes.
local id, exact, family, model, created, data, key = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local parent, purges, most, budget_bytes, budget_entries = ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local replaced, evicted = {states = {}, entries = {}}, {states = {}, entries = {}}
local function answer(what)
  return {what, replaced.states, replaced.entries, evicted.states, evicted.entries}
end
local function is_buried(graveyard, name) return redis.call('ZSCORE', graveyard, name) end

if is_buried(GONE, id) or is_buried(PURGED, id) or is_buried(PURGED, parent) then return answer('purged') end
if meta('purges') ~= tonumber(purges) then return answer('again') end
local bytes = 0
for i = 14, #ARGV, 6 do bytes = bytes + tonumber(ARGV[i + 3]) end
local older = redis.call('HGET', EXACT, exact)
if older then drop_entry(older, replaced) end
if budget_bytes ~= '' then
  local fits = make_room(bytes, 1, tonumber(budget_bytes), tonumber(budget_entries), tonumber(most), evicted)
  if not fits then return answer('again') end
end

local clock, age, states = redis.call('HINCRBY', META, 'clock', 1), meta('age'), {}
for i = 14, #ARGV, 6 do
  local state, kind, benefit = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 5])
  local score = exactly(age + benefit / tonumber(ARGV[i + 3]))
  redis.call('HSET', state_key(state), 'entry', id, 'kind', kind, 'k', ARGV[i + 2], 'bytes', ARGV[i + 3],
    'checksum', ARGV[i + 4], 'uses', 0, 'benefit', exactly(benefit), 'score', score, 'created', clock)
  redis.call('ZADD', order_key(family), score, place(clock, state))
  states[#states + 1] = kind .. ':' .. state
end
redis.call('HSET', entry_key(id), 'exact', exact, 'family', family, 'model', model, 'data', data, 'key', key,
  'states', table.concat(states, ' '))
redis.call('HSET', EXACT, exact, id)
redis.call('ZADD', ENTRIES, created, id)
redis.call('HINCRBY', FAMILIES, family, 1)
redis.call('HINCRBY', MODELS, model, 1)
if family ~= current_family() then redis.call('HSETNX', RETIRED, family, now()) end
redis.call('HINCRBY', META, 'entries', 1)
redis.call('HINCRBY', META, 'states', #states)
redis.call('HINCRBY', META, 'bytes', bytes)
return answer('inserted')
