-- No items. Takes visitors back from agents that are gone, and gives waiting ones to agents online,
-- first come first served, fifty at a time. Reply: {now_ms, run, deliveries, visitors that still wait}: {user, epoch, seq, channels, body}.
local deliveries = {}

local taken = 0
for _, agent in ipairs(redis.call('ZRANGEBYSCORE', ONLINE, '-inf', now_s - grace_s)) do
  for _, visitor in ipairs(redis.call('SRANDMEMBER', key(agent, 'visitors'), 50 - taken)) do
    take_back(agent, visitor)
    taken = taken + 1
  end
  if redis.call('SCARD', key(agent, 'visitors')) == 0 then redis.call('ZREM', ONLINE, agent) end
  if taken >= 50 then break end
end

-- A visitor that has been silent for long belongs to nobody: its old agent's load must say so.
for _, agent in ipairs(redis.call('ZRANGEBYSCORE', ONLINE, '(' .. now_s, '+inf')) do
  for _, visitor in ipairs(redis.call('SRANDMEMBER', key(agent, 'visitors'), 10)) do
    if redis.call('GET', key(visitor, 'agent')) ~= agent then
      redis.call('SREM', key(agent, 'visitors'), visitor)
    end
  end
end

for _, visitor in ipairs(redis.call('ZRANGE', WAITING, 0, 49)) do
  local agent = least_loaded()
  if not agent then break end
  assign(visitor, agent, deliveries)
end
return reply(deliveries, redis.call('ZCARD', WAITING))
