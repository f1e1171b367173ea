-- Messages and events to rooms: their recipients are the members that the room has at this moment.

local SHARED_IN_ROOM_FROM = 8

-- Copies are read once in a call. `room_inboxes`: the members' inboxes, in their order; false where keys are broken.
local copies, room_inboxes = {}, {}

local function room_copy(room)
  local copy = copies[room]
  if copy == nil then
    copy = copy_of(room) or false
    copies[room] = copy
  end
  return copy
end

-- Why the sender at place `own` may not write; nil if it may. `rules`: p for what the rule on posting applies to, c for
-- what passes when the room is closed, a for what is for owner and admins; n: no inbox gets it.
local function refused_in(copy, own, rules)
  if string.sub(copy.roles, own, own) == 'm' then
    if copy.posting == 'a' and string.find(rules, 'p', 1, true) then return {3, 'posting: owner and admins only'} end
    if string.find(rules, 'a', 1, true) then return {3, 'mentions: @all is for owner and admins'} end
  end
  if copy.closed and not string.find(rules, 'c', 1, true) then return {13} end
  return nil
end

local function inboxes_of_room(room, copy, opened)
  local list = room_inboxes[room]
  if not list then
    list = {}
    for n, user in ipairs(copy.users) do
      local ok, inbox = pcall(opened, user)
      list[n] = ok and inbox
    end
    room_inboxes[room] = list
  end
  return list
end

-- The places of the members who get a message, in `list`; the sender's is the last one, if it gets a copy. An event about
-- a message from version `of_version` does not go to those who came later, unless the room shows them its history.
local function members_who_get(copy, list, own, of_version, copied)
  local getting, count, everybody = {}, 0, of_version < 0 or copy.history == 'a'
  for n = 1, #list do
    if list[n] and n ~= own and (everybody or copy.joined[n] <= of_version) then
      count = count + 1
      getting[count] = n
    end
  end
  if copied and list[own] then
    count = count + 1
    getting[count] = own
  end
  return getting, count
end

-- `to`: {'#', room, sender, of_version or -1, rules, split}. The room's version goes into the body behind its first `split`
-- bytes, unless these are all of it.
-- `copied`: the sender's own inbox gets a copy. Returns {14, version, members, user, inbox, seq, user, inbox, seq...}, of
-- members with channels, the sender last; or why it is not placed.
local function place_in_room(name, record, to, body, copied, opened, will_change, named)
  local before = name ~= '' and sent_before(name, record)
  if before then return before end
  local room, sender, of_version, split = to[2], to[3], to[4], to[6]
  local copy = room_copy(room)
  if not copy then return {11} end
  local own = place_in(copy, sender)
  if not own then return {12} end
  local refused = refused_in(copy, own, to[5])
  if refused then return refused end

  local to_nobody = string.find(to[5], 'n', 1, true)
  local list = to_nobody and {} or inboxes_of_room(room, copy, opened)
  local getting, count = members_who_get(copy, list, own, of_version, copied)
  local member, shared = body, count >= SHARED_IN_ROOM_FROM
  if split < #body then
    member = string.sub(body, 1, split) .. format('%.0f', copy.version) .. string.sub(body, split + 1)
  end
  if shared then member = share(string.match(record, '^%S+'), member, count) end
  if name ~= '' then
    remember(name, format('%s %s %.0f', record, string.match(record, '^%S+ (%S+)'), copy.version))
  end
  local outcome, at = {14, copy.version, #copy.users}, 3
  for i = 1, count do
    local inbox = list[getting[i]]
    will_change(inbox)
    local seq = add(inbox, member)
    if shared then inbox.shared = seq end
    if inbox.channels ~= '' then
      outcome[at + 1], outcome[at + 2], outcome[at + 3] = copy.users[getting[i]], named(inbox), seq
      at = at + 3
    end
  end
  return outcome
end
