-- ARGV[2..]: state id, k, credit, share of the benefit that survives a hit (policies.CREDIT_DECAY).
-- policies.touch, then LCBFU.score: b = decay b + credit, H = L + b / bytes. An evicted state stays evicted.
local id, k, credit, decay = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local state = redis.call('HMGET', state_key(id), 'entry', 'bytes', 'benefit', 'created')
if not state[1] then return 0 end
local benefit = decay * tonumber(state[3]) + credit
local score = exactly(meta('age') + benefit / tonumber(state[2]))
local family = redis.call('HGET', entry_key(state[1]), 'family')
redis.call('HSET', state_key(id), 'benefit', exactly(benefit), 'score', score)
redis.call('HINCRBY', state_key(id), 'uses', 1)
redis.call('ZADD', order_key(family), 'XX', score, place(state[4], id))
redis.call('HINCRBY', META, 'clock', 1)
redis.call('HINCRBY', META, 'hits', 1)
redis.call('HSET', META, 'credits', exactly(meta('credits') + credit))
redis.call('HINCRBY', GRANTS, k, 1)
return 1
