#!lua
-- Items: four arrays, with a place for each message: what its clientMsgId is remembered under or ''; value "id time
-- content"; the recipient, or {recipients}, or the place of an earlier message with the same ones, or for a visitor's
-- {'', visitor, its `to` or ''}, or for one to a visitor {'<', visitor, sender}; body.
-- Reply: {now_ms, run, inboxes, placed, others, overflown, opened}. `inboxes` is flat: epoch, channels (a text), epoch...; an inbox is
-- named by the place of its epoch. `placed` has two numbers for each message, its inbox and its number in there,
-- or 0, 0 for the next of `others`:
-- {0, inbox, seq, inbox, seq...} | {1, id, time, agent or ''} | {2} | {3, why} | {4, why}
-- | {5, agent, deliveries with user and body} | {6, place, seq, seq...}: in the inboxes of the message at that place
-- | {7, place, n}: in its inboxes, with numbers that are n higher | {8, ms}: it would open too many inboxes until then
-- | {9}: more than a sender may open in any hour.
-- `overflown` messages have left full inboxes; `opened` inboxes are new. No message is a look: an error says why none
-- would be placed.
-- The first line makes a full Redis refuse the whole call: what is written comes last, and must not fail.
local SHARED_FROM = 8 -- recipients
local names, values, recipients, bodies = items[1], items[2], items[3], items[4]
local HOUR_S = 3600
local overflown, opened_count, any_new = 0, 0, false

-- Inboxes that this call has touched: read once, written once. `opened`: those of a list, by its message's place.
local inboxes, touched, changed, opened = {}, {}, {}, {}

local function inbox_of(user)
  local inbox = touched[user]
  if not inbox then
    inbox = open_inbox(user)
    inbox.n = #inboxes + 1
    inboxes[inbox.n], inboxes[inbox.n + 1] = inbox.epoch, inbox.channels
    touched[user] = inbox
    any_new = any_new or inbox.new
  end
  return inbox
end

local function will_change(inbox)
  if inbox.count == 0 then changed[#changed + 1] = inbox end
end

-- The desk reads inboxes and writes them itself: what is known of them ends there.
local function write_all()
  for _, inbox in ipairs(changed) do overflown = overflown + write(inbox) end
  touched, changed, opened = {}, {}, {}
end

-- Nearly every id is percent-encoded already; one from a message is not.
local function encoded(id)
  return (string.gsub(id, '[^A-Za-z0-9._@-]', function(char) return format('%%%02X', string.byte(char)) end))
end

-- Why a message must not be put into these inboxes, if it must not: no device has ever opened some, and its sender has
-- made too many of that kind in the hour that began with the first. Counts them otherwise.
local function refuse_new(those, body)
  local new = 0
  for n = 1, #those do
    if those[n].new and those[n].count == 0 then new = new + 1 end
  end
  if new == 0 then return nil end
  if new_ids > 0 then
    if new > new_ids then return {9} end
    local at = key(encoded(cjson.decode(body).userId), 'opened')
    local before = tonumber(redis.call('GET', at) or '0')
    if before + new > new_ids then return {8, math.max(1, redis.call('PTTL', at))} end
    redis.call('INCRBY', at, new)
    if before == 0 then redis.call('EXPIRE', at, HOUR_S) end
  end
  opened_count = opened_count + new
  return nil
end

local function place_at_desk(visitor, to, body)
  write_all()
  local agent, deliveries = present_agent(visitor), {}
  local complete, left = true, 0
  if agent then
    if to ~= '' and to ~= agent then return {3, 'a visitor writes to its agent only'} end
    wake(visitor, agent)
    if is_waiting(visitor) then complete, left = hand_over(visitor, agent, deliveries) end
  else
    agent = least_loaded()
    if to ~= '' and to ~= agent then return {3, 'a visitor writes to its agent only'} end
    local gone = redis.call('GET', key(visitor, 'agent'))
    if gone then take_back(gone, visitor) end
    if agent then
      claim(visitor, agent)
      complete, left = hand_over(visitor, agent, deliveries)
    end
  end
  if agent and complete then
    local given = given_to(visitor, agent)
    left = left + give(visitor, agent, {body}, deliveries)
    note_given(visitor, agent, {body}, given)
  else
    wait(visitor)
    redis.call('RPUSH', key(visitor, 'waiting'), body)
    redis.call('LTRIM', key(visitor, 'waiting'), -max_messages, -1)
    redis.call('EXPIRE', key(visitor, 'waiting'), keep_s)
  end
  overflown = overflown + left
  return {5, agent or '', deliveries}
end

-- ---- clientMsgIds that were used lately
--
-- 'imd:sent:<turn>' is a hash: sender, device and clientMsgId -> "id time content", and the time of the last use
-- if it was used again, both in ms; '' -> when its turn began and the dedup_s it is kept for, in s. A turn takes
-- dedup_s, so the present one and the one before it hold all that counts. 'imd:sent' is the present turn. To many
-- messages this is a handful of commands, and a few bytes each, where a key with an expiry for each would be the
-- dearest part of them.

local function sent_key(turn)
  return 'imd:sent:' .. turn
end

-- What was remembered under these in one turn is put into `known`. Gives when that turn began and the dedup_s it is
-- kept for; nil for never.
local function recall(known, turn, names)
  for first = 1, #names, PASSED do
    local last = math.min(first + PASSED - 1, #names)
    local found = redis.call('HMGET', sent_key(turn), unpack(names, first, last))
    for i = 1, last - first + 1 do
      if found[i] then known[names[first + i - 1]] = found[i] end
    end
  end
  local began, kept_for = string.match(redis.call('HGET', sent_key(turn), '') or '', '^(%d+) (%d+)$')
  return tonumber(began), tonumber(kept_for)
end

-- A turn is unlinked when the one after the next begins, or goes by itself some time after that would have been.
local function keep(turn, began)
  redis.call('HSET', sent_key(turn), '', format('%d %d', began, dedup_s))
  for _, at in ipairs({'imd:sent', sent_key(turn - 1), sent_key(turn)}) do
    redis.call('EXPIRE', at, 3 * dedup_s + 60)
  end
end

-- What is known of these, and the turn to remember more in.
local function recall_all(names)
  local known, turn = {}, tonumber(redis.call('GET', 'imd:sent') or '0')
  local began, kept_for = recall(known, turn, names)
  if began and math.abs(now_s - began) < dedup_s then
    local newer = known
    known = {}
    recall(known, turn - 1, names)
    for name, value in pairs(newer) do known[name] = value end
    if kept_for < dedup_s then keep(turn, began) end
    return known, turn
  end
  redis.call('UNLINK', sent_key(turn - 1))
  redis.call('SET', 'imd:sent', turn + 1)
  keep(turn + 1, now_s)
  return known, turn + 1
end

local all_known, known, turn = pcall(recall_all, names)
local remembered, remembered_count = {}, 0

local function remember(name, value)
  known[name] = value
  remembered[remembered_count + 1], remembered[remembered_count + 2] = name, value
  remembered_count = remembered_count + 2
end

local function write_remembered()
  for i = 1, remembered_count, PASSED do
    redis.call('HSET', sent_key(turn), unpack(remembered, i, math.min(i + PASSED - 1, remembered_count)))
  end
end

local function failed(why)
  return {4, type(why) == 'table' and why.err or tostring(why)}
end

-- The outcome for a message that was sent before, or nil. Not asked for those without a name.
local function sent_before(name, value, visitor)
  if not all_known then return failed(known) end
  local first = known[name]
  if not first then return nil end
  local id, at, content, used = string.match(first, '^(%S+) (%S+) (%S+) ?(%S*)$')
  if not id then return failed('not as it was remembered: ' .. name) end
  if tonumber(used ~= '' and used or at) + 1000 * dedup_s <= now_ms then return nil end
  if content ~= string.match(value, '%S+$') then return {2} end
  remember(name, format('%s %s %s %.0f', id, at, content, now_ms))
  return {1, id, tonumber(at), visitor and present_agent(visitor) or ''}
end

-- ---- messages

-- Nearly every message has one recipient. Gives inbox and number, or an outcome; never an error.
local function place_for_one(name, value, user, body)
  local inbox = touched[user]
  if not inbox then
    local ok
    ok, inbox = pcall(inbox_of, user)
    if not ok then return failed(inbox) end
  end
  if name ~= '' then
    local before = sent_before(name, value)
    if before then return before end
  end
  if inbox.count == 0 then
    if inbox.new then
      local ok, refused = pcall(refuse_new, {inbox}, body)
      if not ok then return failed(refused) end
      if refused then return refused end
    end
    changed[#changed + 1] = inbox
  end
  if name ~= '' then remember(name, value) end
  return inbox.n, add(inbox, body)
end

-- A message to a visitor. If it is its agent's, that is an answer.
local function place_answer(name, value, to, body)
  local outcome, seq = place_for_one(name, value, to[2], body)
  -- It is placed, whatever the keys of the desk hold.
  if seq then pcall(answered, to[2], to[3]) end
  return outcome, seq
end

local function place_for_visitor(name, value, to, body)
  local before = name ~= '' and sent_before(name, value, to[2])
  if before then return before end
  local outcome = place_at_desk(to[2], to[3], body)
  if name ~= '' and outcome[1] ~= 3 then remember(name, value) end
  return outcome
end

-- Messages that follow each other to the same list, that of the one at `first`. They go into its inboxes together: the
-- numbers of one say those of the others. Gives their outcomes, by their places.
local function place_for_list(from, last, first)
  local users, those, outcomes = recipients[first], opened[first], {}
  if not those then
    those = {}
    for n = 1, #users do those[n] = touched[users[n]] or inbox_of(users[n]) end
    opened[first] = those
  end
  local members, leader, shared = {}, nil, #users >= SHARED_FROM
  for i = from, last do
    local name, value, member, ok = names[i], values[i], bodies[i], true
    local outcome = name ~= '' and sent_before(name, value)
    if not outcome and any_new and not leader then outcome = refuse_new(those, member) end
    if not outcome and shared then
      ok, member = pcall(share, string.match(value, '^%S+'), member, #users)
      outcome = not ok and failed(member)
    end
    if not outcome then
      if name ~= '' then remember(name, value) end
      if leader then outcome = {7, leader, #members} else leader = i end
      members[#members + 1] = member
    end
    outcomes[i] = outcome
  end
  if not leader then return outcomes end
  local outcome, width = {6, those.named}, 1
  if not those.named then
    those.named, outcome, width = leader, {0}, 2
  end
  local at = #outcome
  for n = 1, #users do
    local inbox = those[n]
    will_change(inbox)
    if width == 2 then outcome[at + 1] = inbox.n end
    outcome[at + width] = add_all(inbox, members, shared)
    at = at + width
  end
  outcomes[leader] = outcome
  return outcomes
end

-- Redis has not refused the call: it is no replica, not full, and so on. Whether the script may do what messages need,
-- and finds what it knows as it left it, shows here.
local NEEDED = {
  'HGET k f', 'HMGET k f', 'HGETALL k', 'HSET k f v', 'HDEL k f', 'HINCRBY k f 1', 'HVALS k', 'EXPIRE k 1', 'GET k', 'SET k v',
  'INCR k', 'DEL k', 'UNLINK k', 'ZADD k 1 m', 'ZCARD k', 'ZSCORE k m', 'ZREM k m', 'ZRANGEBYSCORE k 0 1',
  'ZREMRANGEBYRANK k 0 1', 'ZREMRANGEBYSCORE k 0 1', 'SADD k m', 'SREM k m', 'SCARD k', 'RPUSH k v', 'LLEN k',
  'LRANGE k 0 1', 'LTRIM k 0 1', 'HEXISTS k f', 'HSETNX k f v', 'EXISTS k', 'INCRBY k 1', 'PTTL k', 'ZREVRANGEBYSCORE k 1 0'
}

local function look()
  if not all_known then return failed(known)[2] end
  for _, needed in ipairs(NEEDED) do
    local command = {}
    for word in string.gmatch(needed, '%S+') do
      command[#command + 1] = word == 'k' and key('-', 'head') or word
    end
    if not redis.acl_check_cmd(unpack(command)) then return 'NOPERM ' .. command[1] .. ' on ' .. command[2] end
  end
end

if #names == 0 then
  local why = look()
  if why then return redis.error_reply(why) end
end

local placed, others = {}, {}

local function tell(i, outcome)
  others[#others + 1] = outcome
  placed[2 * i - 1], placed[2 * i] = 0, 0
end

local i = 1
while i <= #names do
  local to, last = recipients[i], i
  if type(to) == 'string' then
    local outcome, seq = place_for_one(names[i], values[i], to, bodies[i])
    if seq then placed[2 * i - 1], placed[2 * i] = outcome, seq else tell(i, outcome) end
  elseif type(to) == 'table' and to[1] == '<' then
    local outcome, seq = place_answer(names[i], values[i], to, bodies[i])
    if seq then placed[2 * i - 1], placed[2 * i] = outcome, seq else tell(i, outcome) end
  elseif type(to) == 'table' and to[1] == '' then
    local ok, outcome = pcall(place_for_visitor, names[i], values[i], to, bodies[i])
    tell(i, ok and outcome or failed(outcome))
  else
    local first = type(to) == 'table' and i or to
    while recipients[last + 1] == first do last = last + 1 end
    local ok, outcomes = pcall(place_for_list, i, last, first)
    for place = i, last do tell(place, ok and outcomes[place] or failed(outcomes)) end
  end
  i = last + 1
end
write_all()
write_remembered()
return reply(inboxes, placed, others, overflown, opened_count)
