#!lua
-- Brings a room up to date with a document.
-- It places the events that are not in inboxes yet, in order, then writes the copy if the document is newer.
--
-- Items: one array {room, run, read at, version, users, joined, roles, rules, entries}. `run` is the run of Redis that the
-- reader knew, and `read at` the time in ms, before the document was read. An entry is {version, name and record of its
-- clientMsgId, 'actor:device:', body, users, body, users...}; the last body is for the actor's own devices, too.
-- Reply: {now_ms, run, placed, state, overflown, deliveries}. `state`: 0 done | 1 call again: there is more to place
-- | 2 the document was read in another run, or too long ago. `placed` holds the versions that were placed. Deliveries are
-- those to users with channels: {user, epoch, seq, channels, place of the entry, place of the body}.
local PLACED_AT_ONCE = 1000
local SHARED_FROM = 8
local room, read_in, read_at, version = items[1], items[2], items[3], items[4]
local users, joined, roles, rules, entries = items[5], items[6], items[7], items[8], items[9]

if not is_fresh(read_in, read_at) then return reply({}, 2, 0, {}) end

local copy = redis.call('HMGET', room_key(room), 'run', 'version', 'placed')
local placed_up_to = tonumber(copy[3] or '0')
local overflown, count, placed, deliveries = 0, 0, {}, {}
local inboxes, changed = {}, {}

local function put(user, member, shared, entry, body)
  local inbox = inboxes[user]
  if not inbox then
    local ok
    ok, inbox = pcall(open_inbox, user)
    -- A user whose keys are broken gets no event; the others do.
    if not ok then return end
    inboxes[user] = inbox
  end
  if inbox.count == 0 then changed[#changed + 1] = inbox end
  count = count + 1
  local seq = shared and add_all(inbox, {member}, true) or add(inbox, member)
  if inbox.channels ~= '' then
    deliveries[#deliveries + 1] = {user, inbox.epoch, seq, inbox.channels, entry, body}
  end
end

local function place(n, entry)
  local known, own = pcall(copied_to, entry[4])
  for i = 5, #entry, 2 do
    local member, users = entry[i], entry[i + 1]
    local shared, body = #users >= SHARED_FROM, (i - 5) / 2
    if known and own and i == #entry - 1 then put(own, member, false, n - 1, body) end
    if shared then member = share(string.match(entry[3], '^%S+') .. ':' .. body, member, #users) end
    for _, user in ipairs(users) do put(user, member, shared, n - 1, body) end
  end
  remember(entry[2], entry[3])
end

local function recipients_of(entry)
  local n = 0
  for i = 6, #entry, 2 do n = n + #entry[i] end
  return n
end

local more, names = false, {}
for n, entry in ipairs(entries) do names[n] = entry[2] end
if #names > 0 then known, turn = recall_all(names) end

for n, entry in ipairs(entries) do
  if entry[1] > placed_up_to then
    if count > 0 and count + recipients_of(entry) > PLACED_AT_ONCE then
      more = true
      break
    end
    place(n, entry)
    placed_up_to = entry[1]
    placed[#placed + 1] = entry[1]
  end
end

local at = room_key(room)
if not more and (copy[1] ~= run_text or version > tonumber(copy[2] or '0')) then
  redis.call('HSET', at, 'run', run_text, 'version', format('%.0f', version), 'members', cmsgpack.pack({users, joined}),
    'roles', roles, 'rules', rules)
  placed_up_to = math.max(placed_up_to, version)
end
redis.call('HSET', at, 'placed', format('%.0f', placed_up_to))
redis.call('EXPIRE', at, COPY_S)
for _, inbox in ipairs(changed) do overflown = overflown + write(inbox) end
write_remembered()
return reply(placed, more and 1 or 0, overflown, deliveries)
