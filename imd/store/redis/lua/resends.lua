-- Recognising resends: the clientMsgIds that were used within dedup_s.
--
-- 'imd:sent:<turn>' is a hash: sender, device and clientMsgId -> "id time checksum", the time of the last use if there
-- was a second one, the room's version if it went to a room, and the users whom a block left out of a list, with commas
-- between them; times in ms. '' -> when the turn began, and the dedup_s that it is kept for, in s. A turn lasts dedup_s, so
-- every use that counts is in the present turn or the one before. 'imd:sent' is the present turn. For a batch this is a
-- handful of commands and a few bytes a message. A key with an expiry for each would cost more than all else.

local function sent_key(turn)
  return 'imd:sent:' .. turn
end

-- Put one turn's records under these names into `known`. Returns when that turn began and the dedup_s that it is kept
-- for; nil for a turn that does not exist.
local function recall(known, turn, names)
  for first = 1, #names, PASSED do
    local last = math.min(first + PASSED - 1, #names)
    local found = redis.call('HMGET', sent_key(turn), unpack(names, first, last))
    for i = 1, last - first + 1 do
      if found[i] then known[names[first + i - 1]] = found[i] end
    end
  end
  local began, kept_for = string.match(redis.call('HGET', sent_key(turn), '') or '', '^(%d+) (%d+)$')
  return tonumber(began), tonumber(kept_for)
end

-- A turn is unlinked when the turn after the next begins. If none begins, it expires some time later.
local function keep(turn, began)
  redis.call('HSET', sent_key(turn), '', format('%d %d', began, dedup_s))
  for _, at in ipairs({'imd:sent', sent_key(turn - 1), sent_key(turn)}) do
    redis.call('EXPIRE', at, 3 * dedup_s + 60)
  end
end

-- Returns the records that are known under these names, and the turn to remember new ones in.
local function recall_all(names)
  local known, turn = {}, tonumber(redis.call('GET', 'imd:sent') or '0')
  local began, kept_for = recall(known, turn, names)
  if began and math.abs(now_s - began) < dedup_s then
    local newer = known
    known = {}
    recall(known, turn - 1, names)
    for name, record in pairs(newer) do known[name] = record end
    if kept_for < dedup_s then keep(turn, began) end
    return known, turn
  end
  redis.call('UNLINK', sent_key(turn - 1))
  redis.call('SET', 'imd:sent', turn + 1)
  keep(turn + 1, now_s)
  return known, turn + 1
end

-- Set by the script that includes this part.
local all_known, known, turn
local remembered, remembered_count = {}, 0

local function remember(name, record)
  known[name] = record
  remembered[remembered_count + 1], remembered[remembered_count + 2] = name, record
  remembered_count = remembered_count + 2
end

local function write_remembered()
  for i = 1, remembered_count, PASSED do
    redis.call('HSET', sent_key(turn), unpack(remembered, i, math.min(i + PASSED - 1, remembered_count)))
  end
end

local function failed(why)
  return {4, error_text(why)}
end

-- The message that a clientMsgId was used for within dedup_s: its id, time, checksum, room version and who was left out,
-- '' for nobody; nil if there is none.
local function first_use(known, name)
  local first = known[name]
  if not first then return nil end
  local id, at, checksum, used, version, left = string.match(first, '^(%S+) (%S+) (%S+) ?(%S*) ?(%d*) ?(%S*)$')
  if not id then error('not as it was remembered: ' .. name, 0) end
  if tonumber(used ~= '' and used or at) + 1000 * dedup_s <= now_ms then return nil end
  return id, tonumber(at), checksum, tonumber(version ~= '' and version or '0'), left
end

-- The outcome for a message that was sent before; nil for a new one. Not called for a message without a name.
local function sent_before(name, record, visitor)
  if not all_known then return failed(known) end
  if not known[name] then return nil end
  local ok, id, at, checksum, version, left = pcall(first_use, known, name)
  if not ok then return failed(id) end
  if not id then return nil end
  if checksum ~= string.match(record, '^%S+ %S+ (%S+)') then return {2} end
  local more = left ~= '' and format(' %.0f %s', version, left) or version > 0 and ' ' .. version or ''
  remember(name, format('%s %.0f %s %.0f', id, at, checksum, now_ms) .. more)
  return {1, id, at, visitor and present_agent(visitor) or '', version, left}
end
