-- This script does not begin with common.lua. KEYS[1]: as there. ARGV: format, id and contents for a new ledger.
-- Returns {id, contents, format} in force.
local META = KEYS[1] .. ':meta'
redis.call('HSETNX', META, 'format', ARGV[1])
redis.call('HSETNX', META, 'id', ARGV[2])
redis.call('HSETNX', META, 'contents', ARGV[3])
return redis.call('HMGET', META, 'id', 'contents', 'format')
