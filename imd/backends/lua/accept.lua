#!lua
-- Items, four for each message, in one flat array: sent key or ''; value "id time content"; the recipient, or
-- {recipients}, or for a visitor's {'', visitor, its `to` or ''}; body.
-- Reply: {now_ms, inboxes, placed, others, overflown}. An inbox is {epoch, channels}. `placed` has two numbers
-- for each message, its inbox and its number in there, or 0, 0 for the next of `others`:
-- {0, inbox, seq, inbox, seq...} | {1, id, time, agent or ''} | {2} | {3, why} | {4, why}
-- | {5, agent, deliveries with user and body}. `overflown` messages have left full inboxes.
-- The first line makes a full Redis refuse the whole call: what is written comes last, and must not fail.
local SHARED_FROM = 8 -- recipients
local overflown = 0

-- Inboxes that this call has touched: read once, written once.
local inboxes, touched, changed = {}, {}, {}

local function inbox_of(user)
  local inbox = touched[user]
  if not inbox then
    inbox = open_inbox(user)
    inbox.n = #inboxes + 1
    inboxes[inbox.n] = {inbox.epoch, inbox.channels}
    touched[user] = inbox
  end
  return inbox
end

local function put(inbox, member)
  if #inbox.added == 0 then changed[#changed + 1] = inbox end
  return add(inbox, member)
end

-- The desk reads inboxes and writes them itself: what is known of them ends there.
local function write_all()
  for _, inbox in ipairs(changed) do overflown = overflown + write(inbox) end
  touched, changed = {}, {}
end

local function place_at_desk(visitor, to, body)
  write_all()
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
    return {5, agent, deliveries}
  end
  wait(visitor)
  redis.call('RPUSH', key(visitor, 'waiting'), body)
  redis.call('LTRIM', key(visitor, 'waiting'), -max_messages, -1)
  redis.call('EXPIRE', key(visitor, 'waiting'), keep_s)
  return {5, '', deliveries}
end

-- The outcome for a message sent before under this key; otherwise nil, and it is remembered.
local function sent_before(sent, value, visitor)
  local first = redis.call('SET', sent, value, 'NX', 'GET', 'EX', dedup_s)
  if not first then return nil end
  local id, at, content = string.match(first, '^(%S+) (%S+) (%S+)$')
  if content ~= string.match(value, '%S+$') then return {2} end
  redis.call('EXPIRE', sent, dedup_s)
  return {1, id, tonumber(at), visitor ~= '' and present_agent(visitor) or ''}
end

-- Gives an outcome, or inbox and number of a message to one.
local function place(sent, value, to, body)
  if type(to) == 'string' then
    local inbox = inbox_of(to)
    local before = sent ~= '' and sent_before(sent, value, '')
    if before then return before end
    return inbox.n, put(inbox, body)
  end
  if to[1] == '' then
    local before = sent ~= '' and sent_before(sent, value, to[2])
    if before then return before end
    local ok, outcome = pcall(place_at_desk, to[2], to[3], body)
    if sent ~= '' and (not ok or outcome[1] == 3) then redis.call('DEL', sent) end
    if not ok then error(outcome, 0) end
    return outcome
  end
  local those = {}
  for i = 1, #to do those[i] = inbox_of(to[i]) end
  local before = sent ~= '' and sent_before(sent, value, '')
  if before then return before end
  local outcome, member = {0}, body
  if #to >= SHARED_FROM then member = share(string.match(value, '^%S+'), body, #to) end
  for i = 1, #to do
    outcome[2 * i] = those[i].n
    outcome[2 * i + 1] = put(those[i], member)
  end
  return outcome
end

local placed, others, n = {}, {}, 0
for i = 1, #items, 4 do
  local ok, outcome, seq = pcall(place, items[i], items[i + 1], items[i + 2], items[i + 3])
  if not ok then outcome = {4, type(outcome) == 'table' and outcome.err or tostring(outcome)} end
  if seq then
    placed[n + 1], placed[n + 2] = outcome, seq
  else
    placed[n + 1], placed[n + 2] = 0, 0
    others[#others + 1] = outcome
  end
  n = n + 2
end
write_all()
return reply(inboxes, placed, others, overflown)
