-- Devices' cursors: moving them, trimming inboxes by them, dropping devices unseen for keep_days.

local function cursors_of(user)
  return redis.call('HGETALL', key(user, 'cursors'))
end

-- Remove the messages that every device has acknowledged. Devices unseen for keep_days are dropped, and do not count.
-- `cursors`: the reply of HGETALL.
local function trim(user, cursors)
  local least
  if #cursors == 2 then
    least = tonumber(cursors[2])
  else
    local seen = {}
    local infos = redis.call('HGETALL', key(user, 'devices'))
    for i = 1, #infos, 2 do seen[infos[i]] = device_info(infos[i + 1]) end
    for i = 1, #cursors, 2 do
      local device, cursor = cursors[i], tonumber(cursors[i + 1])
      local _, ends = split_channel(redis.call('HGET', key(user, 'channels'), device))
      if ends <= now_s and (seen[device] or now_s) < now_s - keep_s then
        drop_device(user, device)
      elseif not least or cursor < least then
        least = cursor
      end
    end
  end
  if least then drop_up_to(user, least) end
end

-- Move a device's cursor: forward only, and not past the last number.
local function acknowledge(user, device, acked, seq)
  local cursors = cursors_of(user)
  local own = 1
  while own < #cursors and cursors[own] ~= device do own = own + 2 end
  acked = math.min(acked, seq)
  if not cursors[own] or acked > tonumber(cursors[own + 1]) then
    redis.call('HSET', key(user, 'cursors'), device, acked)
    cursors[own], cursors[own + 1] = device, acked
    trim(user, cursors)
  end
end
