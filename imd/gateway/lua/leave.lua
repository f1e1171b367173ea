#!lua flags=allow-oom
-- Arguments: lease, name, bus address. Reply: 1 if the row was this run's.
local name, bus = ARGV[2], ARGV[3]
local held = redis.call('HGET', nodes, name)
if not held then return 0 end
local _, holder = split(held)
if holder ~= bus then return 0 end
redis.call('HDEL', nodes, name)
redis.call('HDEL', wishes, name)
if #live(0) == 1 then redis.call('DEL', nodes, wishes) end
return 1
