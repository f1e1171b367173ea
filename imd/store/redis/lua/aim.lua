#!lua flags=allow-oom
-- Finds the channels that typing or a signal goes to. It changes nothing but the expiry of a room's copy.
-- Items: {sender, its channel, kind, target, most}. Kinds and targets: p another user; v a visitor's own conversation;
-- w a visitor; g a list of others; # a room.
-- Reply: {now_ms, run, outcomes}: {0, {user, channels, user, channels...}, own channels} | {3, why} not allowed
-- | {11} no copy of the room | {12} no member | {13} closed | {17} too many.

local function blocked_between(sender, other)
  return blocking.between(blocking.key(sender), other)
end

-- A pair needs no more than a look at its blocks; of a list, those whom a block is in the way of are left out.
local function to_users(sender, users)
  local found = {}
  for _, user in ipairs(users) do
    if user ~= sender and not blocked_between(sender, user) then
      local channels = with_state(user)
      if channels ~= '' then found[#found + 1], found[#found + 2] = user, channels end
    end
  end
  return found
end

local function to_room(sender, room, most)
  local copy = copy_of(room)
  if not copy then return nil, {11} end
  local own = place_in(copy, sender)
  if not own then return nil, {12} end
  if copy.posting == 'a' and string.sub(copy.roles, own, own) == 'm' then
    return nil, {3, 'posting: owner and admins only'}
  end
  if copy.closed then return nil, {13} end
  if #copy.users > most then return nil, {17} end
  local found = {}
  for _, user in ipairs(copy.users) do
    local channels = user ~= sender and with_state(user) or ''
    if channels ~= '' then found[#found + 1], found[#found + 2] = user, channels end
  end
  return found
end

return reply(each(function(item)
  local sender, channel, kind, target, most = item[1], item[2], item[3], item[4], item[5]
  local found, refused
  if kind == '#' then
    found, refused = to_room(sender, target, most)
  elseif kind == 'g' then
    if #target > most then refused = {17} else found = to_users(sender, target) end
  elseif kind == 'p' then
    if blocked_between(sender, target) then return {0, {}, ''} end
    found = to_users(sender, {target})
  elseif kind == 'w' then
    local channels = with_state(target)
    found = channels ~= '' and {target, channels} or {}
  else
    local agent = present_agent(sender)
    local channels = agent and with_state(agent) or ''
    found = channels ~= '' and {agent, channels} or {}
  end
  return refused or {0, found, with_state(sender, channel)}
end))
