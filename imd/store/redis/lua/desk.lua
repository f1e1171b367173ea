-- Serves the desk: takes visitors back from agents that are gone, and gives waiting visitors to agents online.
--
-- First come, first served; at most fifty visitors a call, and as many messages as one call may move. No items.
-- Reply: {now_ms, run, deliveries, waiting, overflown}: {user, epoch, seq, channels, body} for each delivery, the number of
-- visitors that still wait, and the number of messages that have left agents' full inboxes.
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

-- A visitor that has been silent for a day leaves its agent. If it is owed an answer it stays, but is no load.
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

-- Returns true if the visitor got everything, and the call may move more.
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
  -- A visitor whose keys are broken leaves the queue, so that the others are served.
  if not ok then redis.call('ZREM', WAITING, visitor) elseif not goes_on then break end
end
return reply(deliveries, redis.call('ZCARD', WAITING), overflown)
