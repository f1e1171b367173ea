#!lua flags=allow-oom
-- Renews channels' leases, and returns the heads of their inboxes.
-- Items: {user, device, channel, answers visitors, renew}.
-- Reply: {now_ms, run, heads}: {held, epoch, head}; behind it, if the lease had ended, the user and the addresses of the
-- nodes that watch it.
return reply(each(function(item)
  local user, device, channel = item[1], item[2], item[3]
  local channels = key(user, 'channels')
  local current, ends = split_channel(redis.call('HGET', channels, device))
  local held = current == channel
  local epoch, seq, stale = head(user)
  if held and item[5] then
    redis.call('HSET', channels, device, channel .. ' ' .. (now_s + lease_s))
    if item[4] then agent_online_until(user, now_s + lease_s) end
    local seen, cursor_epoch, attempt, flags = device_info(redis.call('HGET', key(user, 'devices'), device))
    if now_s - seen > 3600 then set_device_info(user, device, cursor_epoch, attempt, flags) end
    if stale then
      if not is_newcomer(user) then
        expiry.postpone(user)
      elseif is_due(user) then
        hold_newcomer(user)
      end
    end
  end
  local outcome = {held, epoch, seq}
  return held and item[5] and ends <= now_s and tell_watchers(outcome, user) or outcome
end))
