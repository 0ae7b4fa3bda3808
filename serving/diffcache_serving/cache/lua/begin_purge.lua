-- ARGV[2..]: what the purge means, and how many purges are remembered. From here on no insertion passes that has not
-- seen it.
redis.call('HINCRBY', META, 'purges', 1)
redis.call('LPUSH', PURGES, ARGV[2])
redis.call('LTRIM', PURGES, 0, tonumber(ARGV[3]) - 1)
return 'OK'
