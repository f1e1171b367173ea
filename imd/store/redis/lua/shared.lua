-- A message to a list is stored once. Its recipients' inboxes hold '@' and its id, which no JSON object begins with.

local function shared_key(member)
  return 'imd:shared:' .. string.sub(member, 2)
end

local function share(id, body, inboxes)
  local member = '@' .. id
  redis.call('HSET', shared_key(member), 'body', body, 'left', inboxes)
  redis.call('EXPIRE', shared_key(member), keep_s + 172800)
  return member
end

local function is_shared(member)
  return string.byte(member) == 64
end

-- The body of an inbox's member; false if a shared one has expired. One call may read many inboxes with the same
-- members, so bodies are remembered.
local shared_bodies = {}

local function body_of(member)
  if not is_shared(member) then return member end
  local body = shared_bodies[member]
  if body == nil then
    body = redis.call('HGET', shared_key(member), 'body')
    shared_bodies[member] = body
  end
  return body
end

-- How many inboxes each shared message has left in this call. `reply` writes the counts, once for each message.
local released = {}

local function release_one(member)
  if is_shared(member) then released[member] = (released[member] or 0) + 1 end
end

local function release(members)
  for _, member in ipairs(members) do release_one(member) end
end
