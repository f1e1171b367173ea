#!lua flags=allow-oom
-- Items: {user, device, channel, answers visitors, renew, may return, ephemeral}.
-- Reply: {now_ms, heads}: {held, epoch, head}.
local heads = {}
for i, item in ipairs(items) do
  local user, device, channel = item[1], item[2], item[3]
  local channels = key(user, 'channels')
  local current = redis.call('HGET', channels, device)
  local held = split_channel(current) == channel
  local epoch, seq, stale = head(user)
  if item[5] and not current and item[6] then
    -- Nobody has the device, and this node has been renewing all along: Redis forgot.
    held = true
    set_device_info(user, device, epoch, '-', (item[7] and 'e' or '') .. (item[4] and 'a' or ''))
  end
  if held and item[5] then
    redis.call('HSET', channels, device, channel .. ' ' .. (now_s + lease_s))
    if item[4] then agent_online_until(user, now_s + lease_s) end
    local seen, cursor_epoch, attempt, flags = device_info(redis.call('HGET', key(user, 'devices'), device))
    if now_s - seen > 3600 then set_device_info(user, device, cursor_epoch, attempt, flags) end
    if stale then postpone_expiry(user) end
  end
  heads[i] = {held, epoch, seq}
end
return cmsgpack.pack({now_ms, heads})
