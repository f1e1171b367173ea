-- Users who block each other.
-- 'imd:{<user>}:blocked' is a hash: '' -> "run version", of the user's own list; '>other' -> the run of Redis: the user
-- blocks the other; '<other' -> the run: the other blocks the user. Both sides are written together, so a sender's hash
-- alone tells. An entry of another run does not count: that run may have forgotten, or gone back to, anything.
-- A user with entries has the line 'b' in front of the devices in the head's field 'sync', which is read for each sender.

local blocking = {}

function blocking.key(user)
  return key(user, 'blocked')
end

-- Whether either of the two blocks the other; `at`: the key of one.
function blocking.between(at, other)
  local found = redis.call('HMGET', at, '>' .. other, '<' .. other)
  return found[1] == run_text or found[2] == run_text
end

-- How many entries a user has, of whatever run.
function blocking.count(user)
  local at = blocking.key(user)
  return redis.call('HLEN', at) - redis.call('HEXISTS', at, '')
end

-- Have the line 'b' say whether the user has entries.
function blocking.note(user)
  local at, count = key(user, 'head'), blocking.count(user)
  local before = redis.call('HGET', at, 'sync') or ''
  local has = string.byte(before) == 98
  if count > 0 and not has then
    redis.call('HSET', at, 'sync', before == '' and 'b' or 'b\n' .. before)
    -- A head that was missing has this field alone: it counts as missing still.
    if redis.call('PTTL', at) < 0 then redis.call('EXPIRE', at, keep_s + expiry.head_spare_s) end
  elseif count == 0 and has then
    if #before == 1 then redis.call('HDEL', at, 'sync') else redis.call('HSET', at, 'sync', string.sub(before, 3)) end
  end
  return count
end

-- Recalls of one's own messages pass.
function blocking.lets_pass(body)
  return string.sub(body, 1, 16) == '{"kind":"recall"'
end
