#!lua flags=allow-oom
-- Looks clientMsgIds up, and changes nothing.
-- Items: {name}. Reply: {now_ms, run, outcomes}: {checksum, id, time, version, who was left out} | {} for one that was not used.
local names = {}
for i, item in ipairs(items) do names[i] = item[1] end
local turn = tonumber(redis.call('GET', 'imd:sent') or '0')
local known = {}
recall(known, turn - 1, names)
recall(known, turn, names)
return reply(each(function(item)
  local id, at, checksum, version, left = first_use(known, item[1])
  return id and {checksum, id, at, version, left} or {}
end))
