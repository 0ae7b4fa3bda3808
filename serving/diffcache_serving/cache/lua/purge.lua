-- ARGV[2..]: entry ids. What runs elsewhere draw from them will not be kept. Returns what went: states, entries.
local dropped = {states = {}, entries = {}}
for i = 2, #ARGV do
  drop_entry(ARGV[i], dropped)
  bury(PURGED, ARGV[i])
end
return {dropped.states, dropped.entries}
