-- ARGV[2..]: target of the purge, number of purges to remember. From now on an insertion that has not seen this purge
-- has to check again.
redis.call('HINCRBY', META, 'purges', 1)
redis.call('LPUSH', PURGES, ARGV[2])
redis.call('LTRIM', PURGES, 0, tonumber(ARGV[3]) - 1)
return 'OK'
