-- The run of Redis: within one run, nothing that was written is ever forgotten.
--
-- 'imd:run' is "n run-id replid at began": the run's number, the process, its data, and two times in ms of Redis' clock.
-- A former replica has a replid of its own, and shows a second one until its backlog ends. Without replicas the backlog
-- ends repl-backlog-ttl after the promotion, at the earliest. `at` is renewed more often than that.
-- 'imd:run:ids' has the earlier processes of this run, which only `lossless` knows: nodes of 0.1 note them in heads.

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

-- Whether another process than the one of `at` is that one, restarted. A former replica was running at that time; the bytes
-- that it got as a replica also tell if the machines' clocks differ, but CONFIG RESETSTAT forgets them. Redis notes the
-- second of its start, and `at` may be in the same one. In doubt it is no restart: a false alarm costs less than a message.
local function was_restarted(at)
  local info = redis.call('INFO', 'server', 'stats')
  local function field(name)
    return tonumber(string.match(info, '\n' .. name .. ':(%d+)'))
  end
  local time_us, up_s, got = field('server_time_usec'), field('uptime_in_seconds'), field('total_net_repl_input_bytes')
  if not time_us or not up_s or not got then return false end
  return got == 0 and math.floor(time_us / 1000000) - up_s >= math.floor(at / 1000)
end

-- Returns the run's number, and whether Redis' clock was set back since `at`.
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
    same = lossless and not was_replica and was_restarted(at)
  elseif replid ~= last_replid then
    local age = now_ms - at
    same = not was_replica and (backlog_ttl_s == 0 or age >= 0 and age < 1000 * backlog_ttl_s)
  else
    same = true
  end
  -- Another primary answered a write of this node after this run had begun, or just before. Devices that this run
  -- told of a loss may have been told too early. A clock that was set back leaves the order unknown.
  if same and left_run and left_run < n and (now_ms < began or left_ms_ago < now_ms - began + 1000) then
    same = false
  end
  if not same then
    n, began = math.max(now_ms, (n or 0) + 1, seen + 1), now_ms
  elseif id == run_id and replid == last_replid and now_ms >= at and
    now_ms - at < (backlog_ttl_s == 0 and 60000 or math.min(60000, 250 * backlog_ttl_s)) then
    return n
  end
  -- These keys outlive every head: once all heads are gone, nothing refers to a run.
  if not same then
    redis.call('DEL', 'imd:run:ids')
  elseif id ~= run_id then
    redis.call('SADD', 'imd:run:ids', id)
    redis.call('EXPIRE', 'imd:run:ids', keep_s + 604800)
  end
  redis.call('SET', 'imd:run', format('%.0f %s %s %.0f %.0f', n, run_id, replid, now_ms, began), 'EX', keep_s + 604800)
  return n, at and now_ms < at
end

local run, set_back = determine_run()
local run_text = format('%.0f', run)
