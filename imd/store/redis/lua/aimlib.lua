-- Channels by what their devices want or show, and the nodes that watch a user.

-- Calls `found(channel, end of its lease, its device's flags)` for each live channel of a user.
local function each_live(user, found)
  local all = redis.call('HGETALL', key(user, 'channels'))
  for i = 1, #all, 2 do
    local channel, ends = split_channel(all[i + 1])
    if ends > now_s then
      local _, _, _, flags = device_info(redis.call('HGET', key(user, 'devices'), all[i]))
      found(channel, ends, flags)
    end
  end
end

-- The live channels of a user with the feature `state`, in one text, without one of them.
local function with_state(user, without)
  local found = {}
  each_live(user, function(channel, _, flags)
    if channel ~= without and string.find(flags, 's', 1, true) then found[#found + 1] = channel end
  end)
  return table.concat(found, ' ')
end

-- The last lease end of the channels that a user may be seen by; 0 for none. And whether the user is staff.
local function seen_until(user)
  local latest, staff = 0, false
  each_live(user, function(_, ends, flags)
    if not string.find(flags, 'h', 1, true) then
      latest = math.max(latest, ends)
      staff = staff or string.find(flags, 't', 1, true) ~= nil
    end
  end)
  return latest, staff
end

-- 'imd:{<user>}:watch' is a hash: the address of a node that watches the user -> when its interest ends, in s.
local WATCH_S = 120

local function watch(user, address)
  local at = key(user, 'watch')
  local all = redis.call('HGETALL', at)
  for i = 1, #all, 2 do
    if tonumber(all[i + 1]) <= now_s then redis.call('HDEL', at, all[i]) end
  end
  redis.call('HSET', at, address, now_s + WATCH_S)
  redis.call('EXPIRE', at, WATCH_S + 60)
end

-- Append the user and the nodes that watch it to an outcome, if there are any.
local function tell_watchers(outcome, user)
  local all = redis.call('HGETALL', key(user, 'watch'))
  local from = #outcome
  for i = 1, #all, 2 do
    if tonumber(all[i + 1]) > now_s then
      if #outcome == from then outcome[from + 1] = user end
      outcome[#outcome + 1] = all[i]
    end
  end
  return outcome
end
