#!lua
-- Counts the inboxes that a change of a room would begin, as a message to a list would. They are begun by room.lua.
-- Items: {sender, users}. Reply: {now_ms, run, outcomes}: {} | {8, ms} | {9}, as in accept.lua.
return reply(each(function(item)
  local new = 0
  for _, user in ipairs(item[2]) do
    if redis.call('EXISTS', key(user, 'head')) == 0 then new = new + 1 end
  end
  return new > 0 and refuse_openings(item[1], new) or {}
end))
