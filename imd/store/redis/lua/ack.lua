#!lua flags=allow-oom
-- Moves cursors, and trims inboxes.
-- Items: {user, device, channel, epoch, seq, start_confirmed}. Reply: {now_ms, run, heads}: {held, epoch, head}.
return reply(each(function(item)
  local user, device = item[1], item[2]
  local held = split_channel(redis.call('HGET', key(user, 'channels'), device)) == item[3]
  local epoch, seq = head(user)
  if held and epoch == item[4] then
    acknowledge(user, device, item[5], seq)
    if item[6] then
      local _, _, attempt, flags = device_info(redis.call('HGET', key(user, 'devices'), device))
      set_device_info(user, device, epoch, attempt, flags)
    end
  end
  return {held, epoch, seq}
end))
