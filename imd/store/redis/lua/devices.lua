-- A user's devices: their channels, and the facts beside their cursors.

-- Returns the channel's id and the end of its lease in seconds; '' and 0 for no channel.
local function split_channel(value)
  if not value then return '', 0 end
  local blank = string.find(value, ' ', 1, true)
  return string.sub(value, 1, blank - 1), tonumber(string.sub(value, blank + 1))
end

-- The ids of a user's live channels in one text. Nearly every user has one or none.
local function live_channels(user)
  local live = ''
  local all = redis.call('HGETALL', key(user, 'channels'))
  for i = 2, #all, 2 do
    local channel, ends = split_channel(all[i])
    if ends > now_s then live = live == '' and channel or live .. ' ' .. channel end
  end
  return live
end

-- Returns when the device was last seen, its cursor's epoch, its last attempt ('-' for none) and its flags:
-- e(phemeral), a(nswers visitors). The epoch is UNCONFIRMED until the device has read that it was not recovered.
local UNCONFIRMED = '-'
local function device_info(value)
  if not value then return now_s, '', '-', '' end
  local seen, epoch, attempt, flags = string.match(value, '^(%d+) (%S+) (%S+) (%S*)$')
  return tonumber(seen), epoch, attempt, flags
end

local function set_device_info(user, device, epoch, attempt, flags)
  redis.call('HSET', key(user, 'devices'), device,
    format('%d %s %s %s', now_s, epoch, attempt, flags))
end
