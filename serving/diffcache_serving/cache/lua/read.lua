-- ARGV[2..]: entry ids. Returns {id, exact, model, data, states} of each that exists.
local found = {}
for i = 2, #ARGV do
  local entry = redis.call('HMGET', entry_key(ARGV[i]), 'exact', 'model', 'data', 'states')
  if entry[1] then
    local states = {}
    for _, id in ipairs(state_ids(entry[4])) do states[#states + 1] = read_state(id) end
    found[#found + 1] = {ARGV[i], entry[1], entry[2], entry[3], states}
  end
end
return found
