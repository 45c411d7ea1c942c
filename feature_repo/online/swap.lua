-- Replace a value unless it is no longer the old one; an empty argument stands for no value. Returns 1 if replaced.
local standing = redis.call('GET', KEYS[1]) or ''
if standing ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
