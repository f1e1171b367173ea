#!lua
-- Places messages in inboxes, or with the desk.
--
-- Items: six arrays. All but `senders` have an element for each message:
--   names: the name that its clientMsgId is remembered under, or '';
--   records: the text that is remembered, "id time checksum";
--   recipients: the recipient | {recipients}, of an event maybe one or none | the place of an earlier message with the same list
--     | {'', visitor, its `to` or ''} for a message from a visitor | {'<', visitor, sender} for one to a visitor
--     | {'#', room, sender, ...} for one to a room, as in roomitems.lua;
--   bodies;
--   senders: 'user:device:', each once;
--   sender_of: the place of the message's sender in `senders`; 0: its own inbox gets no copy.
-- Reply: {now_ms, run, inboxes, placed, others, overflown, opened}.
--   inboxes: flat: epoch, channels (a text), epoch, channels... An inbox is named by the place of its epoch; those that the
--     rest of the reply does not name are left out.
--   placed: two numbers a message: its inbox and its number there; 0, 0 stands for the next element of `others`.
--   others: {0, inbox, seq, inbox, seq...}
--     | {1, id, time, agent or '', room version or 0, who was left out}: a resend
--     | {2}: its clientMsgId was used for another message
--     | {3, why}: not allowed
--     | {4, why}: failed
--     | {5, agent, deliveries with user and body}: a visitor's
--     | {6, place, seq, seq...}: in the inboxes of the message at that place
--     | {7, place, n}: in the same inboxes, with numbers that are n higher
--     | {8, ms}: it would begin too many inboxes before that time has passed
--     | {9}: it would begin more inboxes than a sender may in any hour
--     | {10, inbox, seq, outcome}: in the sender's own inbox, too
--     | {11}: there is no copy of the room | {12}: the sender is no member of the room | {13}: the room is closed
--     | {14, ...}: in the inboxes of a room
--     | {15}: its id is too old
--     | {16, {places}, {0, inbox, seq...}}: in a list's inboxes but for the recipients at these places, whom a block leaves out.
--   overflown: messages that have left full inboxes. opened: inboxes that are new.
-- A call without messages is a probe: an error says why none would be placed.
-- The first line makes a full Redis refuse the whole call. Writes come last, and must not fail.
local names, records, recipients, bodies = items[1], items[2], items[3], items[4]
local sender_of = items[6]
local overflown, any_new = 0, false
all_known, known, turn = pcall(recall_all, names)

-- Inboxes that this call has touched: each is read once and written once. `inboxes_of_list`: by its message's place.
local inboxes, touched, changed, inboxes_of_list = {}, {}, {}, {}

local function inbox_of(user)
  local inbox = open_inbox(user)
  touched[user] = inbox
  any_new = any_new or inbox.new
  return inbox
end

local function opened(user)
  return touched[user] or inbox_of(user)
end

-- The inbox's name. The reply has only the inboxes that it names.
local function named(inbox)
  local n = inbox.n
  if not n then
    n = #inboxes + 1
    inboxes[n], inboxes[n + 1] = inbox.epoch, inbox.channels
    inbox.n = n
  end
  return n
end

local function will_change(inbox)
  if inbox.count == 0 then changed[#changed + 1] = inbox end
end

-- Called before the desk, which reads and writes inboxes itself: nothing read before is valid afterwards.
local function write_all()
  for _, inbox in ipairs(changed) do overflown = overflown + write(inbox) end
  touched, changed, inboxes_of_list, room_inboxes = {}, {}, {}, {}
end

-- The users whose own inboxes get a copy, by the places of senders; and the keys of those with blocks, false if no sender
-- has any. A user whose keys are broken has no device.
local own_of, blocked_of = {}, false
for n, sender in ipairs(items[5]) do
  local ok, user, flagged = pcall(copied_to, sender)
  own_of[n] = ok and user
  if flagged and not FIRST_LEVEL then
    blocked_of = blocked_of or {}
    blocked_of[n] = blocking.key(flagged)
  end
end

-- Whether a message's id is too old; false instead of a function if none is. And the outcome of one that is.
local is_late, place_late
do
  -- Below an id that somebody has read up to, nothing appears that took longer.
  local LATE_MS = 5000

  local function check(i)
    local made_ms = tonumber(string.sub(records[i], 1, 12), 16)
    return made_ms and now_ms - made_ms > LATE_MS
  end

  -- The ids of a call rise.
  is_late = records[1] and not FIRST_LEVEL and check(1) and check

  function place_late(i)
    local to = recipients[i]
    local visitor = type(to) == 'table' and to[1] == '' and to[2] or nil
    return names[i] ~= '' and sent_before(names[i], records[i], visitor) or {15}
  end
end

-- Put a member into a sender's own inbox, which was opened before. Returns the outcome, which holds the other one.
local function add_own(inbox, member, shared, outcome)
  will_change(inbox)
  return {10, named(inbox), add_all(inbox, {member}, shared), outcome}
end

-- Nearly every message has one recipient. Returns inbox and number, or an outcome. Never raises.
-- `blocked`: the sender's key of blocks, if it has any.
local function place_for_one(name, record, user, body, own, blocked)
  local inbox, own_inbox = touched[user]
  if not inbox then
    local ok
    ok, inbox = pcall(inbox_of, user)
    if not ok then return failed(inbox) end
  end
  if own and own ~= user then
    local ok
    ok, own_inbox = pcall(opened, own)
    if not ok then return failed(own_inbox) end
  end
  if name ~= '' then
    local before = sent_before(name, record)
    if before then return before end
  end
  if blocked and not blocking.lets_pass(body) then
    local ok, found = pcall(blocking.between, blocked, user)
    if not ok then return failed(found) end
    if found then return {3, 'one of the two blocks the other'} end
  end
  if inbox.count == 0 then
    if inbox.new then
      local ok, refused = pcall(refuse_new, {inbox}, body)
      if not ok then return failed(refused) end
      if refused then return refused end
    end
    changed[#changed + 1] = inbox
  end
  if name ~= '' then remember(name, record) end
  if own_inbox then return add_own(own_inbox, body, false, {0, named(inbox), add(inbox, body)}) end
  return named(inbox), add(inbox, body)
end

-- A message to a visitor. From its agent it counts as the answer.
local function place_answer(name, record, to, body, own)
  local outcome, seq = place_for_one(name, record, to[2], body, own)
  -- The message is placed even if the desk's keys are broken.
  if seq or outcome[1] == 10 then pcall(answered, to[2], to[3]) end
  return outcome, seq
end

local place_for_visitor
do
  -- A visitor's first message gives it an agent or puts it into the line. So only then its expiry is seen to.
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
        expiry.postpone(visitor)
        complete, left = hand_over(visitor, agent, deliveries)
      end
    end
    if agent and complete then
      local given = given_to(visitor, agent)
      left = left + give(visitor, agent, {body}, deliveries)
      note_given(visitor, agent, {body}, given)
    else
      if wait(visitor) then expiry.postpone(visitor) end
      redis.call('RPUSH', key(visitor, 'waiting'), body)
      redis.call('LTRIM', key(visitor, 'waiting'), -max_messages, -1)
      redis.call('EXPIRE', key(visitor, 'waiting'), keep_s)
    end
    overflown = overflown + left
    return {5, agent or '', deliveries}
  end

  function place_for_visitor(name, record, to, body, own)
    local before = name ~= '' and sent_before(name, record, to[2])
    if before then return before end
    -- Read before anything is written, and again, as the desk writes inboxes itself.
    if own then opened(own) end
    local outcome = place_at_desk(to[2], to[3], body)
    if outcome[1] == 3 then return outcome end
    if name ~= '' then remember(name, record) end
    return own and add_own(opened(own), body, false, outcome) or outcome
  end
end

local place_in_lists
do
  local SHARED_FROM = 8 -- recipients

  local function has(users, wanted)
    for n = 1, #users do
      if users[n] == wanted then return true end
    end
    return false
  end

  -- Neighbouring messages to one list, that of the message at `first`. They go into its inboxes together, so the numbers of
  -- the first that is placed, the leader, give the numbers of the others. Returns outcomes by place.
  local function place_for_list(from, last, first)
    local users, list, outcomes, own_inboxes = recipients[first], inboxes_of_list[first], {}, {}
    if not list then
      list = {}
      for n = 1, #users do list[n] = opened(users[n]) end
      inboxes_of_list[first] = list
    end
    for i = from, last do
      local own = own_of[sender_of[i]]
      if own and not has(users, own) then own_inboxes[i] = opened(own) end
    end
    local members, member_of, leader, shared = {}, {}, nil, #users >= SHARED_FROM
    for i = from, last do
      local name, record, member, ok = names[i], records[i], bodies[i], true
      local outcome = name ~= '' and sent_before(name, record)
      if not outcome and any_new and not leader then outcome = refuse_new(list, member) end
      if not outcome and shared then
        ok, member = pcall(share, string.match(record, '^%S+'), member, #users + (own_inboxes[i] and 1 or 0))
        outcome = not ok and failed(member)
      end
      if not outcome then
        if name ~= '' then remember(name, record) end
        if leader then outcome = {7, leader, #members} else leader = i end
        members[#members + 1] = member
        member_of[i] = member
      end
      outcomes[i] = outcome
    end
    if not leader then return outcomes end
    -- `list.first`: the place of the message whose outcome names its inboxes.
    local outcome, width = {6, list.first}, 1
    if not list.first then
      list.first, outcome, width = leader, {0}, 2
    end
    local at = #outcome
    for n = 1, #users do
      local inbox = list[n]
      will_change(inbox)
      if width == 2 then outcome[at + 1] = named(inbox) end
      outcome[at + width] = add_all(inbox, members, shared)
      at = at + width
    end
    outcomes[leader] = outcome
    for i = from, last do
      if member_of[i] and own_inboxes[i] then
        outcomes[i] = add_own(own_inboxes[i], member_of[i], shared, outcomes[i])
      end
    end
    return outcomes
  end

  -- The recipients of a list whom a block leaves out, by place; nil for none. `users`: the list; `first`: where it came first.
  local left_out = {}

  local function left_out_of(i, users, first)
    local sender = sender_of[i]
    if not blocked_of[sender] or blocking.lets_pass(bodies[i]) then return nil end
    local name = sender .. ' ' .. first
    local left = left_out[name]
    if left == nil then
      left = false
      for n = 1, #users do
        if blocking.between(blocked_of[sender], users[n]) then
          left = left or {}
          left[n] = true
        end
      end
      left_out[name] = left
    end
    return left or nil
  end

  -- A message to a list some of whom do not get it, and do not find out.
  local function place_for_some(i, users, left)
    local name, record, member = names[i], records[i], bodies[i]
    local before = name ~= '' and sent_before(name, record)
    if before then return before end
    local own, getting, places, without = own_of[sender_of[i]], {}, {}, {}
    for n = 1, #users do
      if left[n] then
        places[#places + 1], without[#without + 1] = n - 1, users[n]
      else
        getting[#getting + 1] = opened(users[n])
      end
    end
    local own_inbox = own and not has(users, own) and opened(own)
    local refused = any_new and refuse_new(getting, member)
    if refused then return refused end
    local count = #getting + (own_inbox and 1 or 0)
    local shared = count >= SHARED_FROM
    if shared then member = share(string.match(record, '^%S+'), member, count) end
    if name ~= '' then
      remember(name, format('%s %s 0 %s', record, string.match(record, '^%S+ (%S+)'), table.concat(without, ',')))
    end
    local outcome = {0}
    for _, inbox in ipairs(getting) do
      will_change(inbox)
      outcome[#outcome + 1] = named(inbox)
      outcome[#outcome + 1] = add_all(inbox, {member}, shared)
    end
    outcome = {16, places, outcome}
    return own_inbox and add_own(own_inbox, member, shared, outcome) or outcome
  end

  -- Place the message at `i` to a list, and those that stand next to it and go to the same users. Returns the last one's
  -- place. Never raises.
  function place_in_lists(i, put_outcome)
    local to, last = recipients[i], i
    local first = type(to) == 'table' and i or to
    local users = recipients[first]
    if blocked_of then
      local ok, left = pcall(left_out_of, i, users, first)
      if left then
        local outcome = left
        if ok then ok, outcome = pcall(place_for_some, i, users, left) end
        put_outcome(i, ok and outcome or failed(outcome))
        return i
      end
    end
    while recipients[last + 1] == first and not (is_late and is_late(last + 1)) do
      if blocked_of then
        local ok, left = pcall(left_out_of, last + 1, users, first)
        if left or not ok then break end
      end
      last = last + 1
    end
    local ok, outcomes = pcall(place_for_list, i, last, first)
    for place = i, last do put_outcome(place, ok and outcomes[place] or failed(outcomes)) end
    return last
  end
end

-- A probe. Redis has not refused the call, so it is no replica, not full and so on. Left to check: whether the script may
-- run what messages need, and whether the remembered clientMsgIds can be read.
if #names == 0 then
  local why = all_known and missing_permission() or not all_known and error_text(known)
  if why then return redis.error_reply(why) end
end

do
  local placed, others = {}, {}

  local function put_outcome(i, outcome)
    others[#others + 1] = outcome
    placed[2 * i - 1], placed[2 * i] = 0, 0
  end

  local i = 1
  while i <= #names do
    local to, last, own = recipients[i], i, own_of[sender_of[i]]
    if is_late and is_late(i) then
      put_outcome(i, place_late(i))
    elseif type(to) == 'string' then
      local outcome, seq = place_for_one(names[i], records[i], to, bodies[i], own, blocked_of and blocked_of[sender_of[i]])
      if seq then placed[2 * i - 1], placed[2 * i] = outcome, seq else put_outcome(i, outcome) end
    elseif type(to) == 'table' and to[1] == '<' then
      local outcome, seq = place_answer(names[i], records[i], to, bodies[i], own)
      if seq then placed[2 * i - 1], placed[2 * i] = outcome, seq else put_outcome(i, outcome) end
    elseif type(to) == 'table' and to[1] == '' then
      local ok, outcome = pcall(place_for_visitor, names[i], records[i], to, bodies[i], own)
      put_outcome(i, ok and outcome or failed(outcome))
    elseif type(to) == 'table' and to[1] == '#' then
      local ok, outcome = pcall(place_in_room, names[i], records[i], to, bodies[i], own, opened, will_change, named)
      put_outcome(i, ok and outcome or failed(outcome))
    else
      last = place_in_lists(i, put_outcome)
    end
    i = last + 1
  end
  write_all()
  write_remembered()
  return reply(inboxes, placed, others, overflown, opened_count)
end
