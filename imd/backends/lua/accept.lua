-- Items: {sent key or '', value "id time content", content, recipients, body, visitor or '', its `to` or ''}.
-- Reply: {now_ms, outcomes}; an outcome is {0, deliveries} | {1, id, time, agent or ''} | {2} | {3, why} | {4, why}
-- | {5, deliveries with user and body, agent}.
local outcomes = {}

-- Everything is read before anything is written, so that a recipient whose keys are broken fails the
-- whole message and leaves no half of it.
local function check(recipients)
  for _, user in ipairs(recipients) do
    redis.call('HGET', key(user, 'head'), 'seq')
    redis.call('ZCARD', key(user, 'inbox'))
    redis.call('HLEN', key(user, 'channels'))
  end
end

local function place_at_desk(visitor, to, body)
  local agent = present_agent(visitor)
  local deliveries = {}
  if not agent then
    agent = least_loaded()
    if to ~= '' and to ~= agent then return {3, 'a visitor writes to its agent only'} end
    local gone = redis.call('GET', key(visitor, 'agent'))
    if gone then take_back(gone, visitor) end
    if agent then assign(visitor, agent, deliveries) end
  elseif to ~= '' and to ~= agent then
    return {3, 'a visitor writes to its agent only'}
  end
  if agent then
    redis.call('EXPIRE', key(visitor, 'agent'), AGENT_KEPT_S)
    deliveries[#deliveries + 1] = desk_delivery(agent, body)
    return {5, deliveries, agent}
  end
  wait(visitor)
  redis.call('RPUSH', key(visitor, 'waiting'), body)
  redis.call('LTRIM', key(visitor, 'waiting'), -max_messages, -1)
  redis.call('EXPIRE', key(visitor, 'waiting'), keep_s)
  return {5, deliveries, ''}
end

local function place(item)
  local sent, value, content = item[1], item[2], item[3]
  if sent ~= '' then
    local first = redis.call('GET', sent)
    if first then
      local id, at, old = string.match(first, '^(%S+) (%S+) (%S+)$')
      if old ~= content then return {2} end
      redis.call('EXPIRE', sent, dedup_s)
      return {1, id, tonumber(at), item[6] ~= '' and present_agent(item[6]) or ''}
    end
  end
  local outcome
  if item[6] ~= '' then
    outcome = place_at_desk(item[6], item[7], item[5])
  else
    local recipients, deliveries = item[4], {}
    check(recipients)
    for i = 1, #recipients do deliveries[i] = deliver(recipients[i], item[5]) end
    outcome = {0, deliveries}
  end
  if sent ~= '' and outcome[1] ~= 3 then redis.call('SET', sent, value, 'EX', dedup_s) end
  return outcome
end

for i, item in ipairs(items) do
  local ok, outcome = pcall(place, item)
  if ok then
    outcomes[i] = outcome
  else
    outcomes[i] = {4, type(outcome) == 'table' and outcome.err or tostring(outcome)}
  end
end
return cmsgpack.pack({now_ms, outcomes})
