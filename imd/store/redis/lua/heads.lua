-- An inbox's head: its epoch and its last number, of one run of Redis.

local today = math.floor(now_s / 86400)
local today_text = format('%d', today)
local drawn = 0

-- A visitor is a newcomer until it has written or got a message. A newcomer's keys, its token among them, expire after
-- newcomer_s. Its head has no day, so its first message comes to expiry.postpone as each day's first message does.
local function is_visitor(user)
  return string.sub(user, 1, 8) == 'visitor-'
end

local function is_newcomer(user)
  return is_visitor(user) and redis.call('HEXISTS', key(user, 'head'), 'day') == 0 and
    redis.call('EXISTS', key(user, 'visitor')) == 0
end

-- Whether a newcomer's expiry has to be put off. A time that is too long comes of a clock that was set back.
local function is_due(user)
  local left = redis.call('PTTL', key(user, 'head')) / 1000
  return left < newcomer_s * 5 / 6 or left > newcomer_s
end

local function hold_newcomer(user)
  for _, name in ipairs({'head', 'cursors', 'devices', 'channels', 'newcomer'}) do
    redis.call('EXPIRE', key(user, name), newcomer_s)
  end
end

-- Called while messages are written, which must not fail.
local function keep_token(visitor)
  local token_hash = redis.pcall('GET', key(visitor, 'newcomer'))
  if type(token_hash) == 'string' then
    redis.call('SET', key(visitor, 'visitor'), token_hash, 'EX', visitor_s)
    redis.call('DEL', key(visitor, 'newcomer'))
  end
end

-- A user's keys expire some days after keep_days of silence; the head expires a little later than the keys that it
-- describes. Expiry is put off once a day, and for those who get messages to many up to `late_days` later. Nodes of 0.1 put
-- it off by less.
local expiry = {late_days = FIRST_LEVEL and 0 or 3}
expiry.spare_s = (1 + expiry.late_days) * 86400
expiry.head_spare_s = expiry.spare_s + 86400

function expiry.postpone(user)
  if is_visitor(user) then keep_token(user) end
  redis.call('HSET', key(user, 'head'), 'day', today)
  redis.call('EXPIRE', key(user, 'head'), keep_s + expiry.head_spare_s)
  for _, name in ipairs({'inbox', 'cursors', 'devices', 'channels'}) do
    redis.call('EXPIRE', key(user, name), keep_s + expiry.spare_s)
  end
end

-- Nodes of 0.1 know no number of a run, and note the run id of Redis' process in its place. Beside them each head has
-- both, and one that names a process of this run is good: otherwise an inbox would get a new epoch from each version in
-- turn.
local function keep_for_old_nodes(at, n, noted)
  if noted == run_id or not n and noted and redis.call('SISMEMBER', 'imd:run:ids', noted) == 1 then
    if not n then redis.call('HSET', at, 'n', run_text) end
    return not n or n == run_text
  end
  if n == run_text then redis.call('HSET', at, 'run', run_id) end
  return n == run_text
end

-- Returns epoch, last number, the day when expiry was put off last, false for today, and whether the head is new and
-- unwritten.
-- A head of another run gets a new epoch: that run may have given out numbers that this one has forgotten.
-- `later`: do not create a missing head; the message that is put into the inbox creates it.
-- `at`: the head's key, if it is known.
local function head(user, later, at)
  at = at or key(user, 'head')
  local h
  if FIRST_LEVEL then
    h = redis.call('HMGET', at, 'epoch', 'seq', 'n', 'day', 'run')
  else
    h = redis.call('HMGET', at, 'epoch', 'seq', 'n', 'day')
  end
  local epoch, seq = h[1], tonumber(h[2] or '0')
  if not seq then error('not a number: seq of ' .. at, 0) end
  local same = h[3] == run_text
  if FIRST_LEVEL and epoch then same = keep_for_old_nodes(at, h[3], h[5]) end
  if not epoch or not same then
    drawn = drawn + 1
    epoch = chance .. format('%x', drawn)
    if later and not h[1] then return epoch, seq, 0, true end
    redis.call('HSET', at, 'epoch', epoch, 'seq', seq, 'n', run_text)
    if FIRST_LEVEL then redis.call('HSET', at, 'run', run_id) end
    redis.call('EXPIRE', at, is_newcomer(user) and newcomer_s or keep_s + expiry.head_spare_s)
  end
  return epoch, seq, h[4] ~= today_text and tonumber(h[4] or '0')
end
