-- ARGV[2..]: family, now. Returns how many entries belong to other families.
-- No score changes: each family has its own order, and the orders of retired families are emptied first.
local family, since, others = ARGV[2], ARGV[3], 0
redis.call('HSET', META, 'family', family)
redis.call('HDEL', RETIRED, family)
local families = redis.call('HGETALL', FAMILIES)
for i = 1, #families, 2 do
  if families[i] ~= family then
    redis.call('HSETNX', RETIRED, families[i], since)
    others = others + tonumber(families[i + 1])
  end
end
return others
