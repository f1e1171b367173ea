-- The first part of every script: its arguments, the node's options, Redis' time.
--
-- Arguments: the run id of Redis' process; '1' if its restarts lose nothing; its repl-backlog-ttl in seconds; the highest
-- run number that the node has seen; random text for new epochs; one MessagePack array {options, items}. A new connection
-- adds two: the run whose write the node last had answered by another process, and how many ms ago that was.
-- Ids in keys arrive percent-encoded.
local run_id, lossless, backlog_ttl_s = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local seen, chance = tonumber(ARGV[4]), ARGV[5]
local request = cmsgpack.unpack(ARGV[6])
local left_run, left_ms_ago = tonumber(ARGV[7] or ''), tonumber(ARGV[8] or '')
local options, items = request[1], request[2]
local max_messages, dedup_s, keep_s, lease_s = options[1], options[2], options[3], options[4]
local max_devices, max_channels, grace_s = options[5], options[6], options[7]
local unopened_messages, new_ids = math.min(options[8], max_messages), options[9]
local visitor_s, newcomer_s = options[10], options[11]
-- At the first level nodes of 0.1 share these keys. They open inboxes without saying so, so none counts as unopened.
local FIRST_LEVEL = options[12] == 1
if FIRST_LEVEL then unopened_messages, new_ids = max_messages, 0 end

-- Lua passes at most about 8,000 arguments at once.
local PASSED = 4000

local format = string.format

local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now_ms = now_s * 1000 + math.floor(tonumber(time[2]) / 1000)

local function key(user, name)
  return 'imd:{' .. user .. '}:' .. name
end
