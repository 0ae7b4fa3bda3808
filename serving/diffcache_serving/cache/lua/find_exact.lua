-- ARGV[2]: digest of a request. Returns the id of its entry, or nothing.
return redis.call('HGET', EXACT, ARGV[2])
