-- ARGV[2..]: state ids. Returns the dropped states and entries.
local dropped = {states = {}, entries = {}}
for i = 2, #ARGV do drop_state(ARGV[i], dropped) end
return {dropped.states, dropped.entries}
