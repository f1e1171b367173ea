-- Pages of an inbox.

-- At most `limit` messages after a number, and about 256 KiB: seq, body, seq, body...
-- Expired messages at the start are skipped; a later one ends the page.
local function page(user, after, limit)
  local flat, n, bytes = {}, 0, 0
  while n < limit and bytes < 262144 do
    local chunk = redis.call('ZRANGEBYSCORE', key(user, 'inbox'), '(' .. format('%.0f', after), '+inf',
      'WITHSCORES', 'LIMIT', 0, math.min(32, limit - n))
    if #chunk == 0 then break end
    for i = 1, #chunk, 2 do
      local body = body_of(chunk[i])
      if n > 0 and (not body or bytes + #body > 262144) then return flat end
      after = tonumber(chunk[i + 1])
      if body then
        n = n + 1
        flat[2 * n - 1], flat[2 * n] = after, body
        bytes = bytes + #body
      end
    end
  end
  return flat
end
