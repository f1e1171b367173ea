-- Put before every script. Arguments: the run id of Redis' process, '1' if its restarts lose nothing, its repl-backlog-ttl in
-- seconds, the highest number of a run that the node has seen, chance for new epochs, and one MessagePack array
-- {options, items}; only on a new connection also the number of the run that the node last had a write answered by, in
-- another process, and how many ms ago. Ids in keys are percent-encoded already.
local run_id, lossless, backlog_ttl_s = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local seen, chance = tonumber(ARGV[4]), ARGV[5]
local request = cmsgpack.unpack(ARGV[6])
local left_run, left_ms_ago = tonumber(ARGV[7] or ''), tonumber(ARGV[8] or '')
local options, items = request[1], request[2]
local max_messages, dedup_s, keep_s, lease_s = options[1], options[2], options[3], options[4]
local max_devices, max_channels, grace_s = options[5], options[6], options[7]
local unopened_messages, new_ids = math.min(options[8], max_messages), options[9]

-- As many arguments as Lua can pass at once.
local PASSED = 4000

local format = string.format

local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now_ms = now_s * 1000 + math.floor(tonumber(time[2]) / 1000)
local today = math.floor(now_s / 86400)
local drawn = 0

-- ---- which run of Redis this is: within one, nothing that was written is ever forgotten
--
-- 'imd:run' is "n run-id replid at began", n being the run's number, the last two in ms of Redis' clock. A process that was a
-- replica has another replid, and says so by a second one, until its backlog ends without replicas: not sooner than
-- repl-backlog-ttl after, and `at` is renewed more often than that.

local replication = redis.pcall('INFO', 'replication')
if type(replication) ~= 'string' then
  return redis.error_reply('NOPERM scripts may not run INFO, which tells whether Redis has gone back in time: ' ..
    tostring(replication.err))
elseif string.find(replication, 'role:slave', 1, true) then
  return redis.error_reply('READONLY this is a replica, even if it may be written to')
end
local replid = string.match(replication, 'master_replid:(%w+)')
if not replid then
  return redis.error_reply('ERR INFO has no master_replid, so nothing tells whether Redis has gone back in time')
end

local function determine_run()
  local was_replica = not string.find(replication, 'master_replid2:0000000000000000000000000000000000000000', 1, true)
  local held = redis.pcall('GET', 'imd:run')
  local n, id, last_replid, at, began =
    string.match(type(held) == 'string' and held or '', '^(%d+) (%S+) (%S+) (%d+) (%d+)$')
  n, at, began = tonumber(n), tonumber(at), tonumber(began)
  local same
  if not n or n < seen then
    same = false
  elseif id ~= run_id then
    same = lossless and not was_replica
  elseif replid ~= last_replid then
    local age = now_ms - at
    same = not was_replica and (backlog_ttl_s == 0 or age >= 0 and age < 1000 * backlog_ttl_s)
  else
    same = true
  end
  -- The node had a write answered by another primary, while this run had begun or was about to: who was told of a loss
  -- by this run may have been told too early. When a clock was set back, nobody knows.
  if same and left_run and left_run < n and (now_ms < began or left_ms_ago < now_ms - began + 1000) then
    same = false
  end
  if not same then
    n, began = math.max(now_ms, (n or 0) + 1, seen + 1), now_ms
  elseif id == run_id and replid == last_replid and now_ms >= at and
    now_ms - at < (backlog_ttl_s == 0 and 60000 or math.min(60000, 250 * backlog_ttl_s)) then
    return n
  end
  -- It outlives every head: then there is nothing left to be wrong about.
  redis.call('SET', 'imd:run', format('%.0f %s %s %.0f %.0f', n, run_id, replid, now_ms, began), 'EX', keep_s + 259200)
  return n, at and now_ms < at
end

local run, set_back = determine_run()
local run_text = format('%.0f', run)

local function key(user, name)
  return 'imd:{' .. user .. '}:' .. name
end

-- A user's keys outlive keep_days of silence, then go; the head a little later than what it counts.
local function postpone_expiry(user)
  redis.call('HSET', key(user, 'head'), 'day', today)
  redis.call('EXPIRE', key(user, 'head'), keep_s + 172800)
  for _, name in ipairs({'inbox', 'cursors', 'devices', 'channels'}) do
    redis.call('EXPIRE', key(user, name), keep_s + 86400)
  end
end

-- The inbox's epoch and last number. A head of another run of Redis gets a new epoch: numbers may have been given out
-- that this run does not know of. `later`: one that is not there yet is made by the message that is put into it.
local function head(user, later)
  local at = key(user, 'head')
  local h = redis.call('HMGET', at, 'epoch', 'seq', 'n', 'day')
  local epoch, seq = h[1], tonumber(h[2] or '0')
  if not seq then error('not a number: seq of ' .. at, 0) end
  if not epoch or h[3] ~= run_text then
    drawn = drawn + 1
    epoch = chance .. format('%x', drawn)
    if later and not h[1] then return epoch, seq, true, true end
    redis.call('HSET', at, 'epoch', epoch, 'seq', seq, 'n', run_text)
    redis.call('EXPIRE', at, keep_s + 172800)
  end
  return epoch, seq, tonumber(h[4] or '0') ~= today
end

local function split_channel(value)
  if not value then return '', 0 end
  local blank = string.find(value, ' ', 1, true)
  return string.sub(value, 1, blank - 1), tonumber(string.sub(value, blank + 1))
end

-- The ids of a user's live channels, in one text: nearly always there is one, or none.
local function live_channels(user)
  local live = ''
  local all = redis.call('HGETALL', key(user, 'channels'))
  for i = 2, #all, 2 do
    local channel, ends = split_channel(all[i])
    if ends > now_s then live = live == '' and channel or live .. ' ' .. channel end
  end
  return live
end

-- What is known of a device beside its cursor: when it was seen, its cursor's epoch (UNTOLD until it has
-- read that it was not recovered), its last attempt ('-' for none) and flags: e(phemeral), a(nswers visitors).
local UNTOLD = '-'
local function device_info(value)
  if not value then return now_s, '', '-', '' end
  local seen, epoch, attempt, flags = string.match(value, '^(%d+) (%S+) (%S+) (%S*)$')
  return tonumber(seen), epoch, attempt, flags
end

local function set_device_info(user, device, epoch, attempt, flags)
  redis.call('HSET', key(user, 'devices'), device,
    format('%d %s %s %s', now_s, epoch, attempt, flags))
end

-- A message to many is kept once: their inboxes hold '@' and its id, which no JSON object begins with.
local function shared_key(member)
  return 'imd:shared:' .. string.sub(member, 2)
end

local function share(id, body, inboxes)
  local member = '@' .. id
  redis.call('HSET', shared_key(member), 'body', body, 'left', inboxes)
  redis.call('EXPIRE', shared_key(member), keep_s + 172800)
  return member
end

local function is_shared(member)
  return string.byte(member) == 64
end

-- The message that an inbox's member stands for; false if it was kept for longer than keep_days. Many inboxes may be
-- read in one call, and hold the same ones.
local shared_bodies = {}

local function body_of(member)
  if not is_shared(member) then return member end
  local body = shared_bodies[member]
  if body == nil then
    body = redis.call('HGET', shared_key(member), 'body')
    shared_bodies[member] = body
  end
  return body
end

-- These leave an inbox. How many inboxes each message has left is told at the end of the script, at once.
local released = {}

local function release(members)
  for _, member in ipairs(members) do
    if is_shared(member) then released[member] = (released[member] or 0) + 1 end
  end
end

-- What comes of each item. One whose keys are broken fails alone: a text says why.
local function each(work)
  local outcomes = {}
  for i, item in ipairs(items) do
    local ok, outcome = pcall(work, item)
    if not ok then outcome = type(outcome) == 'table' and outcome.err or tostring(outcome) end
    outcomes[i] = outcome
  end
  return outcomes
end

-- The script's reply. What no inbox has any more is forgotten.
local function reply(...)
  for member, times in pairs(released) do
    if redis.call('HINCRBY', shared_key(member), 'left', -times) <= 0 then
      redis.call('DEL', shared_key(member))
    end
  end
  return cmsgpack.pack({now_ms, run, ...})
end

-- Take everything up to a number out of an inbox; gives how many that were. Only what may be a message to many
-- is looked at first, a few at a time: the head knows the number of the last one.
local function drop_up_to(user, last)
  local inbox = key(user, 'inbox')
  local shared = tonumber(redis.call('HGET', key(user, 'head'), 'shared')) or 0
  local dropped = 0
  if shared > 0 then
    local some
    repeat
      some = redis.call('ZRANGEBYSCORE', inbox, '-inf', math.min(shared, last), 'LIMIT', 0, 256)
      release(some)
      if #some > 0 then dropped = dropped + redis.call('ZREMRANGEBYRANK', inbox, 0, #some - 1) end
    until #some < 256
    if shared > last then return dropped end
    redis.call('HDEL', key(user, 'head'), 'shared')
  end
  return dropped + redis.call('ZREMRANGEBYSCORE', inbox, '-inf', last)
end

-- Messages were put into an inbox that had `size` before. Emptied, its key and its expiry had gone.
local function see_to_expiry(user, stale, size)
  if stale then
    postpone_expiry(user)
  elseif size == 0 then
    redis.call('EXPIRE', key(user, 'inbox'), keep_s + 86400)
  end
end

-- An inbox to be written to. Reads all that a delivery depends on: a user whose keys are broken fails here,
-- before anything is written.
local function open_inbox(user)
  local epoch, seq, stale, new = head(user, true)
  return {
    user = user, epoch = epoch, seq = seq, stale = stale, size = redis.call('ZCARD', key(user, 'inbox')),
    channels = live_channels(user), added = {0, 0}, count = 0, shared = false, n = 0, new = new
  }
end

-- Give a message the next number in an open inbox.
local function add(inbox, member)
  local added, at, seq = inbox.added, 2 * inbox.count, inbox.seq + 1
  -- As text: what Lua passes as a number Redis writes with 17 digits first, which takes it much longer.
  added[at + 1], added[at + 2] = format('%d', seq), member
  inbox.count, inbox.seq = inbox.count + 1, seq
  return seq
end

-- The same for several; gives the first one's number. `shared`: the members stand for messages to many.
local function add_all(inbox, members, shared)
  local added, at, seq, count = inbox.added, 2 * inbox.count, inbox.seq, #members
  for i = 1, count do
    added[at + 2 * i - 1], added[at + 2 * i] = format('%d', seq + i), members[i]
  end
  inbox.count, inbox.seq = inbox.count + count, seq + count
  if shared then inbox.shared = inbox.seq end
  return seq + 1
end

-- Write what was added to an open inbox. Gives how many messages had to leave for it.
local function write(inbox)
  local user, added, last, head_at = inbox.user, inbox.added, 2 * inbox.count, key(inbox.user, 'head')
  for i = 1, last, PASSED do
    redis.call('ZADD', key(user, 'inbox'), unpack(added, i, math.min(i + PASSED - 1, last)))
  end
  if inbox.new then
    redis.call('HSET', head_at, 'epoch', inbox.epoch, 'n', run_text, 'unopened', '1')
  end
  if inbox.shared then
    redis.call('HSET', head_at, 'seq', format('%d', inbox.seq), 'shared', format('%d', inbox.shared))
  else
    redis.call('HSET', head_at, 'seq', format('%d', inbox.seq))
  end
  see_to_expiry(user, inbox.stale, inbox.size)
  local size, most = inbox.size + inbox.count, max_messages
  if size <= unopened_messages then return 0 end
  if inbox.new or redis.call('HEXISTS', head_at, 'unopened') == 1 then most = unopened_messages end
  -- An inbox has no holes: so many are left.
  return size > most and drop_up_to(user, inbox.seq - most) or 0
end

-- Forget what every device has; devices that nobody has seen for long no longer count. `cursors` as HGETALL gives
-- them.
local function trim(user, cursors)
  local least
  if #cursors == 2 then
    least = tonumber(cursors[2])
  else
    local seen = {}
    local infos = redis.call('HGETALL', key(user, 'devices'))
    for i = 1, #infos, 2 do seen[infos[i]] = device_info(infos[i + 1]) end
    for i = 1, #cursors, 2 do
      local device, cursor = cursors[i], tonumber(cursors[i + 1])
      local _, ends = split_channel(redis.call('HGET', key(user, 'channels'), device))
      if ends <= now_s and (seen[device] or now_s) < now_s - keep_s then
        redis.call('HDEL', key(user, 'cursors'), device)
        redis.call('HDEL', key(user, 'devices'), device)
      elseif not least or cursor < least then
        least = cursor
      end
    end
  end
  if least then drop_up_to(user, least) end
end

-- Up to `limit` messages after a number, and no more than about 256 KiB, flat: seq, body, seq, body...
-- Where a message is gone the page ends; it begins behind those that are.
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

local function cursors_of(user)
  return redis.call('HGETALL', key(user, 'cursors'))
end

-- Move a device's cursor. Never back, and never past what exists.
local function acknowledge(user, device, acked, seq)
  local cursors = cursors_of(user)
  local own = 1
  while own < #cursors and cursors[own] ~= device do own = own + 2 end
  acked = math.min(acked, seq)
  if not cursors[own] or acked > tonumber(cursors[own + 1]) then
    redis.call('HSET', key(user, 'cursors'), device, acked)
    cursors[own], cursors[own + 1] = device, acked
    trim(user, cursors)
  end
end

-- ---- agents

local ONLINE = 'imd:desk:online'

-- Redis' clock was set back: who is gone would be online for so much longer. Who is there is renewed within a lease.
if set_back then
  for _, agent in ipairs(redis.call('ZRANGEBYSCORE', ONLINE, '(' .. now_s + lease_s, '+inf')) do
    redis.call('ZADD', ONLINE, now_s + lease_s, agent)
  end
end

local function agent_online_until(agent, ends)
  redis.call('ZADD', ONLINE, ends, agent)
end
