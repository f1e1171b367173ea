#!lua
-- Brings users' lists of blocked users up to date with documents.
-- Items: {user, run, read at, version, users}. `run` is the run of Redis that the reader knew, and `read at` the time in
-- ms, before the document was read. Reply: {now_ms, run, outcomes}: 0 done, or a newer list is there | 1 the document was
-- read in another run, or too long ago.

-- An empty list stays for longer than FRESH_MS (fresh.lua).
local EMPTY_S = 3600

-- Write one side of an entry. A user whose keys are broken sends nothing, so its side does not matter.
local function put(user, field, on)
  pcall(function()
    local at = blocking.key(user)
    if on then redis.call('HSET', at, field, run_text) else redis.call('HDEL', at, field) end
    if blocking.note(user) > 0 then redis.call('PERSIST', at) else redis.call('EXPIRE', at, EMPTY_S) end
  end)
end

return reply(each(function(item)
  local user, read_in, read_at, version, users = item[1], item[2], item[3], item[4], item[5]
  if not is_fresh(read_in, read_at) then return 1 end
  local at = blocking.key(user)
  local held_run, held = string.match(redis.call('HGET', at, '') or '', '^(%d+) (%d+)$')
  if held_run == run_text and tonumber(held) >= version then return 0 end
  local wanted = {}
  for _, other in ipairs(users) do wanted['>' .. other] = true end
  for _, field in ipairs(redis.call('HKEYS', at)) do
    if string.byte(field) == 62 and not wanted[field] then
      redis.call('HDEL', at, field)
      put(string.sub(field, 2), '<' .. user, false)
    end
  end
  for _, other in ipairs(users) do
    redis.call('HSET', at, '>' .. other, run_text)
    put(other, '<' .. user, true)
  end
  redis.call('HSET', at, '', format('%s %.0f', run_text, version))
  if blocking.note(user) > 0 then redis.call('PERSIST', at) else redis.call('EXPIRE', at, EMPTY_S) end
  return 0
end))
