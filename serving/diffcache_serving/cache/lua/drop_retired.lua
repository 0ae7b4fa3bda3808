-- ARGV[2..]: time, maximum number of entries. Drops entries that were retired at or before that time. Returns the
-- dropped states and entries.
local before, most, dropped = tonumber(ARGV[2]), tonumber(ARGV[3]), {states = {}, entries = {}}
local retired = redis.call('HGETALL', RETIRED)
for i = 1, #retired, 2 do
  local order = order_key(retired[i])
  while tonumber(retired[i + 1]) <= before and #dropped.entries < most do
    local found = redis.call('ZRANGE', order, 0, 0)[1]
    if not found then break end
    local entry = redis.call('HGET', state_key(string.match(found, ':(.*)')), 'entry')
    if entry then drop_entry(entry, dropped) end
    redis.call('ZREM', order, found)
  end
end
return {dropped.states, dropped.entries}
