-- No items. Takes visitors back from agents that are gone, and gives waiting ones to agents online,
-- first come first served, fifty at a time, and no more messages than one call may move.
-- Reply: {now_ms, run, deliveries, visitors that still wait, overflown}: {user, epoch, seq, channels, body}; so many messages have left
-- agents' full inboxes.
local deliveries, overflown = {}, 0

local taken = 0
for _, agent in ipairs(redis.call('ZRANGEBYSCORE', ONLINE, '-inf', now_s - grace_s)) do
  for _, name in ipairs({'visitors', 'silent'}) do
    for _, visitor in ipairs(redis.call('SRANDMEMBER', key(agent, name), 50 - taken)) do
      pcall(take_back, agent, visitor)
      taken = taken + 1
    end
  end
  if redis.call('EXISTS', key(agent, 'visitors'), key(agent, 'silent')) == 0 then redis.call('ZREM', ONLINE, agent) end
  if taken >= 50 then break end
end

-- A visitor that has been silent for long belongs to nobody, and is no load, unless it is owed an answer: then it is no load.
for _, agent in ipairs(redis.call('ZRANGEBYSCORE', ONLINE, '(' .. now_s, '+inf')) do
  for _, visitor in ipairs(redis.call('SRANDMEMBER', key(agent, 'visitors'), 10)) do
    local agent_at = key(visitor, 'agent')
    if redis.call('GET', agent_at) ~= agent then
      redis.call('SREM', key(agent, 'visitors'), visitor)
    elseif redis.call('TTL', agent_at) < keep_s - AGENT_KEPT_S and
      redis.call('EXISTS', key(visitor, 'unanswered')) == 1 then
      redis.call('SMOVE', key(agent, 'visitors'), key(agent, 'silent'), visitor)
    end
  end
end

-- Gives whether it was served, and there is room for more.
local function serve(visitor)
  local agent = present_agent(visitor)
  if not agent then
    agent = least_loaded()
    if not agent then return false end
    claim(visitor, agent)
  end
  local complete, left = hand_over(visitor, agent, deliveries)
  overflown = overflown + left
  return complete
end

for _, visitor in ipairs(redis.call('ZRANGE', WAITING, 0, 49)) do
  local ok, goes_on = pcall(serve, visitor)
  -- One whose keys are broken keeps nobody else waiting.
  if not ok then redis.call('ZREM', WAITING, visitor) elseif not goes_on then break end
end
return reply(deliveries, redis.call('ZCARD', WAITING), overflown)
