-- Inboxes that messages are put into, and room in them.

local DROPPED_AT_ONCE = 256

-- So many inboxes that get a message to many have their expiry put off in a call. The rest is left to later messages.
expiry.at_once, expiry.put_off = 100, 0

-- Remove everything up to a number from an inbox. Returns how many messages that were.
-- The head holds the number of the last shared message: members up to it are read first, to release shared ones.
local function drop_up_to(user, last)
  local inbox = key(user, 'inbox')
  local shared = tonumber(redis.call('HGET', key(user, 'head'), 'shared')) or 0
  local dropped = 0
  if shared > 0 then
    local some
    repeat
      some = redis.call('ZRANGEBYSCORE', inbox, '-inf', math.min(shared, last), 'LIMIT', 0, DROPPED_AT_ONCE)
      release(some)
      if #some > 0 then dropped = dropped + redis.call('ZREMRANGEBYRANK', inbox, 0, #some - 1) end
    until #some < DROPPED_AT_ONCE
    if shared > last then return dropped end
    redis.call('HDEL', key(user, 'head'), 'shared')
  end
  return dropped + redis.call('ZREMRANGEBYSCORE', inbox, '-inf', last)
end

-- Call after messages were put into an inbox. An empty one had no key, so no expiry.
function expiry.see_to(inbox)
  local user, day = inbox.user, inbox.stale
  if day and inbox.shared and not is_visitor(user) then
    if expiry.put_off >= expiry.at_once then
      local late = today - day > expiry.late_days
      if late then redis.call('EXPIRE', key(user, 'head'), keep_s + expiry.head_spare_s) end
      if late or inbox.size == 0 then redis.call('EXPIRE', key(user, 'inbox'), keep_s + expiry.spare_s) end
      return
    end
    expiry.put_off = expiry.put_off + 1
  end
  if day then
    expiry.postpone(user)
  elseif inbox.size == 0 then
    redis.call('EXPIRE', key(user, 'inbox'), keep_s + expiry.spare_s)
  end
end

-- An inbox to be written to. Everything that a delivery depends on is read here: a user whose keys are broken
-- fails before anything is written.
local function open_inbox(user)
  local at, head_at = key(user, 'inbox'), key(user, 'head')
  local epoch, seq, stale, new = head(user, true, head_at)
  local inbox = {
    user = user, at = at, head_at = head_at, epoch = epoch, seq = seq, stale = stale, size = redis.call('ZCARD', at),
    channels = live_channels(user), added = {0, 0}, count = 0
  }
  if new then inbox.new = true end
  return inbox
end

-- Give a message the next number in an open inbox.
local function add(inbox, member)
  local added, at, seq = inbox.added, 2 * inbox.count, inbox.seq + 1
  -- As text: Redis formats a Lua number with 17 digits, which takes much longer.
  added[at + 1], added[at + 2] = format('%d', seq), member
  inbox.count, inbox.seq = inbox.count + 1, seq
  return seq
end

-- `add` for several members; returns the first one's number. `shared`: the members are those of shared messages.
local function add_all(inbox, members, shared)
  local added, at, seq, count = inbox.added, 2 * inbox.count, inbox.seq, #members
  for i = 1, count do
    added[at + 2 * i - 1], added[at + 2 * i] = format('%d', seq + i), members[i]
  end
  inbox.count, inbox.seq = inbox.count + count, seq + count
  if shared then inbox.shared = inbox.seq end
  return seq + 1
end

local write
do
  -- Inboxes that get the same messages would need the same work in the same call. So each has its own share of it: a number
  -- out of its epoch, which is random or one of a row.
  local function share_of(inbox)
    return tonumber(string.sub(inbox.epoch, -3), 16) or 0
  end

  -- Redis turns a sorted set with a long member, or with more than 128, into a skip list, all members at once. Therefore
  -- each inbox turns earlier, at its own size.
  local LONG_MEMBER = string.rep('-', 65)
  local TURNS_FROM, TURNS_WITHIN = 64, 61

  -- Call after shared messages were put into an inbox.
  local function turn_in_time(inbox)
    local due = TURNS_FROM + share_of(inbox) % TURNS_WITHIN
    if inbox.size < due and inbox.size + inbox.count >= due then
      redis.call('ZADD', inbox.at, '0', LONG_MEMBER)
      redis.call('ZREM', inbox.at, LONG_MEMBER)
    end
  end

  -- In a big room the inboxes of all who never came get full. Each makes room for so many messages at once, at every so
  -- many-th number, and has them to spare until then. An odd number: all epochs that were drawn alone end with a 1.
  local AT_ONCE = math.min(63, 2 * math.floor(unopened_messages / 256) + 1)

  -- Remove so many of the oldest messages, shared ones or not. Returns how many that were.
  local function drop_oldest(inbox, count)
    local dropped = redis.call('ZPOPMIN', inbox.at, count)
    for i = 1, #dropped, 2 do release_one(dropped[i]) end
    return #dropped / 2
  end

  -- Call after messages were put into an inbox that may be full. Returns how many of the oldest left it.
  local function make_room(inbox)
    local size = inbox.size + inbox.count
    local is_turn = (inbox.seq + share_of(inbox)) % AT_ONCE < inbox.count
    if not is_turn and size <= max_messages then return 0 end
    local most = max_messages
    if inbox.new or redis.call('HEXISTS', inbox.head_at, 'unopened') == 1 then most = unopened_messages end
    local over = size - most
    if over <= 0 then return 0 end
    -- Many inboxes get a shared message, and most of those of members who are away for long are full.
    if inbox.shared and over <= DROPPED_AT_ONCE then return drop_oldest(inbox, over) end
    -- An inbox has no holes, so the numbers tell how many messages are left.
    return drop_up_to(inbox.user, inbox.seq - most)
  end

  -- Write the additions to an open inbox. Returns how many of the oldest messages left because it was full.
  function write(inbox)
    local added, last, at, head_at, shared = inbox.added, 2 * inbox.count, inbox.at, inbox.head_at, inbox.shared
    if last == 2 then
      redis.call('ZADD', at, added[1], added[2])
    else
      for i = 1, last, PASSED do
        redis.call('ZADD', at, unpack(added, i, math.min(i + PASSED - 1, last)))
      end
    end
    if inbox.new then
      if FIRST_LEVEL then
        redis.call('HSET', head_at, 'epoch', inbox.epoch, 'n', run_text, 'run', run_id)
      else
        redis.call('HSET', head_at, 'epoch', inbox.epoch, 'n', run_text, 'unopened', '1')
      end
    end
    local seq, before = added[last - 1], inbox.size
    if shared then
      redis.call('HSET', head_at, 'seq', seq, 'shared', shared == inbox.seq and seq or format('%d', shared))
      if before < TURNS_FROM + TURNS_WITHIN then turn_in_time(inbox) end
    else
      redis.call('HSET', head_at, 'seq', seq)
    end
    if inbox.stale or before == 0 then expiry.see_to(inbox) end
    return before + inbox.count <= unopened_messages and 0 or make_room(inbox)
  end
end
