#!lua
-- Arguments: lease, name, 'drain' or 'undo'. Reply: the bus address of the live node of this name, or nil.
local name, what = ARGV[2], ARGV[3]
local held = name ~= '' and redis.call('HGET', nodes, name)
if not held or silent_ms(held) >= lease_ms then return false end
local _, bus = split(held)
redis.call('HSET', wishes, name, bus .. ' ' .. what)
return bus
