-- Visitors and their agents: assigning them, and moving their messages.
--
-- A visitor has two lists of messages. 'waiting': messages that no agent has got. 'unanswered': the newest messages that
-- agents have got since the last answer. The hash 'given' counts the latter: '' -> all of them; agent -> how many of them
-- that agent has got, so that it gets none twice. 'given' exists as long as the visitor has an agent.
-- WAITING holds the visitors that wait for an agent, or whose agent has not got everything yet.
--
-- At the first level nodes of 0.1 serve the same desk, and count nothing. Then a new agent gets what the last one has not
-- read, as from them: 'waiting' is the only list.
--
-- An agent has two sets of visitors. 'visitors' is its load. 'silent' holds visitors that have written nothing for a day
-- and are still owed an answer.

local WAITING, TURN = 'imd:desk:waiting', 'imd:desk:turn'
local AGENT_KEPT_S = 86400 -- a silent visitor keeps its agent so long; keep_s if it is owed an answer
local UNANSWERED = 50 -- messages
local UNREAD = 500 -- unread messages of an agent that are searched for a visitor without 'given'

-- The rest that this call may move out of the two lists. The node publishes all of it as one batch.
local messages_left, bytes_left = 1000, 1048576

local function is_waiting(visitor)
  return redis.call('ZSCORE', WAITING, visitor)
end

-- Put a visitor at the end of the waiting order. A visitor that waits already keeps its place, and false is returned.
local function wait(visitor)
  if is_waiting(visitor) then return false end
  redis.call('ZADD', WAITING, redis.call('INCR', TURN), visitor)
  return true
end

-- The agent online with the fewest visitors; false when none is online.
local function least_loaded()
  local best, load = false, 0
  for _, agent in ipairs(redis.call('ZRANGEBYSCORE', ONLINE, '(' .. now_s, '+inf')) do
    local visitors = redis.call('SCARD', key(agent, 'visitors'))
    if not best or visitors < load then best, load = agent, visitors end
  end
  return best
end

local function present_agent(visitor)
  local agent = redis.call('GET', key(visitor, 'agent'))
  if not agent then return false end
  local ends = redis.call('ZSCORE', ONLINE, agent)
  return ends and tonumber(ends) + grace_s > now_s and agent
end

-- Note that an agent has got these messages, and that they have no answer. `given`: how many there were before.
local function note_given(visitor, agent, bodies, given)
  if FIRST_LEVEL then return end
  local unanswered_at, given_at = key(visitor, 'unanswered'), key(visitor, 'given')
  redis.call('RPUSH', unanswered_at, unpack(bodies, math.max(1, #bodies - UNANSWERED + 1)))
  redis.call('LTRIM', unanswered_at, -UNANSWERED, -1)
  redis.call('HSET', given_at, '', given + #bodies, agent, given + #bodies)
  redis.call('EXPIRE', unanswered_at, keep_s)
  redis.call('EXPIRE', given_at, keep_s)
  redis.call('EXPIRE', key(visitor, 'agent'), keep_s)
end

-- The newest messages of an agent that none of its devices has acknowledged.
local unread_by = {}

local function unread_of(agent)
  if not unread_by[agent] then
    local most = 0
    for _, cursor in ipairs(redis.call('HVALS', key(agent, 'cursors'))) do
      most = math.max(most, tonumber(cursor))
    end
    unread_by[agent] = redis.call('ZREVRANGEBYSCORE', key(agent, 'inbox'), '+inf', '(' .. format('%.0f', most),
      'LIMIT', 0, UNREAD)
  end
  return unread_by[agent]
end

-- The messages of a visitor among them, the oldest first.
local function unread_from(agent, visitor)
  local own, bodies = '"userId":"' .. visitor .. '"', {}
  local unread = unread_of(agent)
  for i = #unread, 1, -1 do
    if not is_shared(unread[i]) and string.find(unread[i], own, 1, true) then bodies[#bodies + 1] = unread[i] end
  end
  return bodies
end

-- How many messages a visitor's agents have got since the last answer. Older versions did not count: then the messages
-- that the agent has not read are taken for unanswered.
local function given_to(visitor, agent)
  if FIRST_LEVEL then return 0 end
  local given = redis.call('HGET', key(visitor, 'given'), '')
  if given then return tonumber(given) end
  local bodies = unread_from(agent, visitor)
  if #bodies > 0 then note_given(visitor, agent, bodies, 0) end
  return #bodies
end

local function claim(visitor, agent)
  local owed = redis.call('EXISTS', key(visitor, 'unanswered')) == 1
  redis.call('SET', key(visitor, 'agent'), agent, 'EX', owed and keep_s or AGENT_KEPT_S)
  redis.call('SADD', key(agent, 'visitors'), visitor)
  if FIRST_LEVEL then return end
  redis.call('HSETNX', key(visitor, 'given'), '', 0)
  redis.call('EXPIRE', key(visitor, 'given'), keep_s)
end

-- A visitor has written, or was answered: it counts as its agent's load again.
local function wake(visitor, agent)
  if redis.call('SREM', key(agent, 'silent'), visitor) == 1 then redis.call('SADD', key(agent, 'visitors'), visitor) end
end

-- Take a visitor from an agent that has been gone for too long. It waits for another if one is online, or if it is owed
-- an answer.
local function take_back(agent, visitor)
  redis.call('SREM', key(agent, 'visitors'), visitor)
  redis.call('SREM', key(agent, 'silent'), visitor)
  if redis.call('GET', key(visitor, 'agent')) ~= agent then return end
  given_to(visitor, agent)
  redis.call('DEL', key(visitor, 'agent'))
  if FIRST_LEVEL then
    local unread = unread_from(agent, visitor)
    for i = #unread, 1, -1 do redis.call('LPUSH', key(visitor, 'waiting'), unread[i]) end
    redis.call('LTRIM', key(visitor, 'waiting'), -max_messages, -1)
    redis.call('EXPIRE', key(visitor, 'waiting'), keep_s)
  end
  if redis.call('EXISTS', key(visitor, 'unanswered'), key(visitor, 'waiting')) > 0 or least_loaded() then wait(visitor) end
end

-- The visitor's agent has answered, so the next agent does not get these messages.
local function answered(visitor, agent)
  if FIRST_LEVEL then return end
  if redis.call('GET', key(visitor, 'agent')) ~= agent then return end
  redis.call('DEL', key(visitor, 'unanswered'), key(visitor, 'given'))
  redis.call('HSET', key(visitor, 'given'), '', 0)
  redis.call('EXPIRE', key(visitor, 'given'), keep_s)
  redis.call('EXPIRE', key(visitor, 'agent'), AGENT_KEPT_S)
  wake(visitor, agent)
end

-- Put a visitor's messages into its agent's inbox. Returns how many of the oldest left because it was full.
local function give(visitor, agent, bodies, deliveries)
  local inbox = open_inbox(agent)
  for _, body in ipairs(bodies) do
    -- An agent may get back a visitor whose messages it still has: a number never moves.
    if not (FIRST_LEVEL and redis.call('ZSCORE', key(agent, 'inbox'), body)) then
      -- With user and body, since the node's request does not name them.
      deliveries[#deliveries + 1] = {agent, inbox.epoch, add(inbox, body), inbox.channels, body}
    end
  end
  if inbox.count == 0 then return 0 end
  return write(inbox)
end

-- Append to `taken` the bodies that this call may still move. Returns false if some are left.
local function take(bodies, from, taken)
  for i = from, #bodies do
    if messages_left <= 0 or bytes_left <= 0 then return false end
    taken[#taken + 1] = bodies[i]
    messages_left, bytes_left = messages_left - 1, bytes_left - #bodies[i]
  end
  return true
end

-- Give an agent its visitor's messages since the last answer: the newest that other agents have got, and all that
-- no agent has got. Returns whether that was all, and how many messages left the agent's full inbox.
local function hand_over(visitor, agent, deliveries)
  local waiting_at, given_at = key(visitor, 'waiting'), key(visitor, 'given')
  local waiting = redis.call('LLEN', waiting_at)
  local counts = redis.call('HMGET', given_at, '', agent)
  local given, got = tonumber(counts[1] or '0'), tonumber(counts[2] or '0')
  local again, old, complete = {}, {}, true
  if waiting < UNANSWERED and got < given then
    old = redis.call('LRANGE', key(visitor, 'unanswered'), math.max(got - given, waiting - UNANSWERED), -1)
    complete = take(old, 1, again)
  end
  local first = {}
  while complete and #first < waiting do
    local some = redis.call('LRANGE', waiting_at, #first, #first + 31)
    if #some == 0 then break end
    complete = take(some, 1, first)
  end
  local overflown = 0
  if #again > 0 then
    overflown = give(visitor, agent, again, deliveries)
    redis.call('HSET', given_at, '', given, agent, given - #old + #again)
  end
  if #first > 0 then
    overflown = overflown + give(visitor, agent, first, deliveries)
    redis.call('LTRIM', waiting_at, #first, -1)
    note_given(visitor, agent, first, given)
  end
  if complete then redis.call('ZREM', WAITING, visitor) else wait(visitor) end
  return complete, overflown
end
