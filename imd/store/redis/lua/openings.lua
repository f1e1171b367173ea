-- The limit on inboxes that no device has ever opened, for each sender and hour.

local HOUR_S = 3600
local opened_count = 0

-- A sender's id comes from its message, so it is not percent-encoded yet.
local function encoded(id)
  return (string.gsub(id, '[^A-Za-z0-9._@-]', function(char) return format('%%%02X', string.byte(char)) end))
end

-- The outcome if a sender would begin so many more such inboxes than it may; otherwise nil, and they are counted.
-- The hour begins with a sender's first.
local function refuse_openings(sender, new)
  if new_ids > 0 then
    if new > new_ids then return {9} end
    local at = key(sender, 'opened')
    local before = tonumber(redis.call('GET', at) or '0')
    if before + new > new_ids then return {8, math.max(1, redis.call('PTTL', at))} end
    redis.call('INCRBY', at, new)
    if before == 0 then redis.call('EXPIRE', at, HOUR_S) end
  end
  opened_count = opened_count + new
  return nil
end

-- The same for the inboxes that a message is for.
local function refuse_new(wanted, body)
  local new = 0
  for n = 1, #wanted do
    if wanted[n].new and wanted[n].count == 0 then new = new + 1 end
  end
  if new == 0 then return nil end
  return refuse_openings(encoded(cjson.decode(body).userId), new)
end
