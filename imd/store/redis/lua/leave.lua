#!lua flags=allow-oom
-- Removes channels that still hold their device.
-- Items: {user, device, channel, epoch, seq, ephemeral}.
-- Reply: {now_ms, run, outcomes}: {held, user and addresses of the nodes that watch it, if any}.

-- The last lease end of the user's channels that answer visitors; now if there is none.
local function answers_until(user)
  local latest = now_s
  each_live(user, function(_, ends, flags)
    if string.find(flags, 'a', 1, true) then latest = math.max(latest, ends) end
  end)
  return latest
end

return reply(each(function(item)
  local user, device = item[1], item[2]
  local channels = key(user, 'channels')
  local held = split_channel(redis.call('HGET', channels, device)) == item[3]
  if held then
    local epoch, seq = head(user)
    local confirmed = epoch == item[4]
    if confirmed then acknowledge(user, device, item[5], seq) end
    redis.call('HDEL', channels, device)
    local _, cursor_epoch, attempt, flags = device_info(redis.call('HGET', key(user, 'devices'), device))
    if item[6] then
      drop_device(user, device)
      trim(user, cursors_of(user))
    else
      set_device_info(user, device, (confirmed or cursor_epoch == '') and epoch or cursor_epoch, attempt, flags)
    end
    if string.find(flags, 'a', 1, true) then agent_online_until(user, answers_until(user)) end
  end
  return held and tell_watchers({held}, user) or {held}
end))
