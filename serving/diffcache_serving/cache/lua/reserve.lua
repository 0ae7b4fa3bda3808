-- ARGV[2..]: bytes and entries needed, bytes and entries of the budget, maximum number of evictions.
-- Returns whether it fits now, the evicted states, the evicted entries.
local dropped = {states = {}, entries = {}}
local number = {}
for i = 2, 6 do number[i - 1] = tonumber(ARGV[i]) end
local fits = make_room(number[1], number[2], number[3], number[4], number[5], dropped)
return {fits and 1 or 0, dropped.states, dropped.entries}
