#!lua flags=allow-oom
-- Registers channels, within a user's limits on channels and devices, and returns where their devices start to read.
--
-- Items: {user, device, channel, attempt or '-', epoch or '', seq, ephemeral, answers visitors, page size,
-- resume, sync, further flags}.
-- Reply: {now_ms, run, outcomes}: {0, seq, recovered, replaced channel or '', epoch, head, page, user and
-- addresses of the nodes that watch it, if any} | {1} superseded
-- | {2} too many channels.

local function drop_surplus_devices(user, keep_device)
  local surplus = redis.call('HLEN', key(user, 'cursors')) - max_devices - 1
  if surplus <= 0 then return end
  local others = {}
  for _, device in ipairs(redis.call('HKEYS', key(user, 'cursors'))) do
    if device ~= keep_device then
      local _, ends = split_channel(redis.call('HGET', key(user, 'channels'), device))
      local seen = device_info(redis.call('HGET', key(user, 'devices'), device) or '0 - - ')
      others[#others + 1] = {device, ends > now_s and ends or 0, seen}
    end
  end
  table.sort(others, function(a, b)
    if a[2] ~= b[2] then return a[2] < b[2] end
    if a[3] ~= b[3] then return a[3] < b[3] end
    return a[1] < b[1]
  end)
  for i = 1, surplus do drop_device(user, others[i][1]) end
end

-- Returns the number that reading starts after, and whether it continues without a hole. An inbox that no device had
-- opened keeps fewer messages, so its first device is not recovered if some have left.
local function start_of(user, device, info_epoch, epoch, seq, wanted_epoch, wanted_seq)
  local first_of_all = redis.call('HDEL', key(user, 'head'), 'unopened') == 1
  local first = redis.call('ZRANGE', key(user, 'inbox'), 0, 0, 'WITHSCORES')
  local low = first[2] and tonumber(first[2]) - 1 or seq
  if wanted_epoch == epoch and wanted_seq >= low and wanted_seq <= seq then return wanted_seq, true end
  local own = redis.call('HGET', key(user, 'cursors'), device)
  if not own then return low, wanted_epoch == '' and not (first_of_all and low > 0 and unopened_messages < max_messages) end
  own = tonumber(own)
  local clamped = math.max(low, math.min(own, seq))
  return clamped, wanted_epoch == '' and info_epoch == epoch and clamped == own
end

local function connect(item)
  local user, device, channel, attempt = item[1], item[2], item[3], item[4]
  local channels = key(user, 'channels')
  local ephemeral, answers, sync = item[7], item[8], item[11]
  local _, info_epoch, last_attempt = device_info(redis.call('HGET', key(user, 'devices'), device))
  local current, ends = split_channel(redis.call('HGET', channels, device))
  local replaced = ends > now_s and current ~= channel and current or ''
  local later = attempt ~= '-' and last_attempt ~= '-' and tonumber(attempt) - tonumber(last_attempt) or 0
  -- A channel that registers again yields to the present one, unless the present one has an older attempt: then a node
  -- that hung has sent an old connect frame after the lease had run out.
  if later < 0 and (replaced ~= '' or item[10]) or later == 0 and replaced ~= '' and item[10] then return {1} end

  local others = 0
  local all = redis.call('HGETALL', channels)
  for i = 1, #all, 2 do
    local _, other_ends = split_channel(all[i + 1])
    if all[i] ~= device then
      if other_ends > now_s then
        others = others + 1
      else
        redis.call('HDEL', channels, all[i])
        local _, other_epoch, _, flags = device_info(redis.call('HGET', key(user, 'devices'), all[i]))
        if string.find(flags, 'e', 1, true) then drop_device(user, all[i]) end
      end
    end
  end
  if others >= max_channels then return {2} end

  local epoch, seq = head(user)
  local start, recovered = start_of(user, device, info_epoch, epoch, seq, item[5], item[6])
  redis.call('HSET', key(user, 'cursors'), device, start)
  -- A channel that registers again may not have read yet that it was not recovered.
  local confirmed = recovered and not (item[10] and info_epoch == UNCONFIRMED)
  set_device_info(user, device, confirmed and epoch or UNCONFIRMED, attempt ~= '-' and attempt or last_attempt,
    (ephemeral and 'e' or '') .. (answers and 'a' or '') .. item[12])
  set_sync(user, device, sync and (ephemeral and 'e' or 'd') or '')
  -- A head that had expired has forgotten it. Nearly every user has no list.
  if redis.call('EXISTS', blocking.key(user)) == 1 then blocking.note(user) end
  redis.call('HSET', channels, device, channel .. ' ' .. (now_s + lease_s))
  drop_surplus_devices(user, device)
  trim(user, cursors_of(user))
  if is_newcomer(user) then hold_newcomer(user) else expiry.postpone(user) end
  if answers then agent_online_until(user, now_s + lease_s) end
  return tell_watchers({0, start, recovered, replaced, epoch, seq, page(user, start, item[9])}, user)
end

return reply(each(connect))
