-- ARGV[2..]: entry ids. Pictures that running requests draw from them will not be kept. Returns the dropped states and
-- entries.
local dropped = {states = {}, entries = {}}
for i = 2, #ARGV do
  drop_entry(ARGV[i], dropped)
  bury(PURGED, ARGV[i])
end
return {dropped.states, dropped.entries}
