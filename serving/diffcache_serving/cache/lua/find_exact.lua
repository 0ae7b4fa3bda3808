-- ARGV[2]: digest of a request. Returns its entry's id, or nothing.
return redis.call('HGET', EXACT, ARGV[2])
