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
  local all = redis.call('HVALS', key(user, 'channels'))
  for i = 1, #all do
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

-- The devices that want what their user's other devices send: the field 'sync' of the user's head. A line for each, 'd' or,
-- for an ephemeral one, 'e', and its name, which has no control characters. In front of them the line 'b', if the user
-- blocks anybody or is blocked (blocked.lua). Nearly every user has none.

local function sync_devices(user)
  return redis.call('HGET', key(user, 'head'), 'sync') or ''
end

-- Note whether a device wants it. `kind`: 'd', 'e' or '' for no.
local function set_sync(user, device, kind)
  local before, after = sync_devices(user), {}
  if before == '' and kind == '' then return end
  for line in string.gmatch(before, '[^\n]+') do
    if string.sub(line, 2) ~= device then after[#after + 1] = line end
  end
  if kind ~= '' then after[#after + 1] = kind .. device end
  if #after == 0 then
    redis.call('HDEL', key(user, 'head'), 'sync')
  else
    redis.call('HSET', key(user, 'head'), 'sync', table.concat(after, '\n'))
  end
end

-- The user of a sender, 'user:device:' in percent-encoded words, if another device than the sender's wants a copy; else
-- false. An ephemeral one counts as long as its channel lives. Then the user, if it has the line 'b'; else false.
local function copied_to(sender)
  local user, device = string.match(sender, '^([^:]*):([^:]*):$')
  local devices = sync_devices(user)
  if devices == '' then return false end
  local flagged = string.byte(devices) == 98 and user
  device = string.gsub(device, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end)
  for line in string.gmatch(devices, '[^\n]+') do
    local other = string.sub(line, 2)
    if other ~= device and other ~= '' then
      if string.byte(line) == 100 then return user, flagged end
      local _, ends = split_channel(redis.call('HGET', key(user, 'channels'), other))
      if ends > now_s then return user, flagged end
    end
  end
  return false, flagged
end

-- Forget a device.
local function drop_device(user, device)
  redis.call('HDEL', key(user, 'cursors'), device)
  redis.call('HDEL', key(user, 'devices'), device)
  set_sync(user, device, '')
end
