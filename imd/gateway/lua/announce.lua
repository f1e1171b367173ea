#!lua flags=allow-oom
-- Arguments: lease, name, bus address, WebSocket address, row, after how many ms of silence a node at the
-- same address may take the row over. Reply: {'ok' or 'taken', wish or '', age, name, row, …}.
local name, bus, websocket, row, takeover_ms = ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])

local function taken()
  local held = redis.call('HGET', nodes, name)
  if not held then return false end
  local _, holder, its_row = split(held)
  if holder == bus then return false end
  local silent = silent_ms(held)
  if silent >= lease_ms then return false end
  local ok, decoded = pcall(cjson.decode, its_row)
  local same_place = ok and decoded.websocket == websocket
  return not (same_place and silent >= takeover_ms)
end

local state, wished = 'taken', ''
if not taken() then
  state = 'ok'
  local all = redis.call('HGETALL', nodes)
  local others = 0
  for i = 1, #all, 2 do
    if all[i] ~= '' and all[i] ~= name then
      if silent_ms(all[i + 1]) < lease_ms then
        others = others + 1
      else
        redis.call('HDEL', nodes, all[i])
        redis.call('HDEL', wishes, all[i])
      end
    end
  end
  local mine = redis.call('HGET', nodes, name)
  local alone = others == 0 and not (mine and silent_ms(mine) < lease_ms)
  -- A table that was empty is a new one: the others may be about to announce themselves.
  if alone or not age_ms() then redis.call('HSET', nodes, '', run() .. ' ' .. now_ms) end
  redis.call('HSET', nodes, name, now_ms .. ' ' .. bus .. ' ' .. row)
  local holder, what = string.match(redis.call('HGET', wishes, name) or '', '^(%S+) (%S+)$')
  if holder == bus then
    wished = what
  elseif holder then
    redis.call('HDEL', wishes, name)
  end
end
local reply = {state, wished}
for _, part in ipairs(live(age_ms())) do reply[#reply + 1] = part end
return reply
