-- Copies of rooms.
-- 'imd:room:<id>' is a hash: run, version, members (users and joining versions, packed; roles, a letter each), rules, and
-- `placed`: the highest version whose event is in inboxes. A copy of another run may have missed a change, so it does not
-- count; its note of events does, since it is as old as the inboxes are.

local COPY_S = 604800

local function room_key(room)
  return 'imd:room:' .. room
end

-- The copy of a room: {version, users, joined, roles, posting = 'a' for admins, history = 'a' for all, closed};
-- nil if there is none of this run.
local function copy_of(room)
  local found = redis.call('HMGET', room_key(room), 'run', 'version', 'members', 'roles', 'rules')
  if found[1] ~= run_text or not found[3] then return nil end
  local members = cmsgpack.unpack(found[3])
  redis.call('EXPIRE', room_key(room), COPY_S)
  return {
    version = tonumber(found[2]), users = members[1], joined = members[2], roles = found[4],
    posting = string.sub(found[5], 1, 1), history = string.sub(found[5], 2, 2), closed = string.sub(found[5], 3, 3) == '1'
  }
end

-- The place of a user in a copy; nil if the user is no member.
local function place_in(copy, user)
  local users = copy.users
  for n = 1, #users do
    if users[n] == user then return n end
  end
  return nil
end
