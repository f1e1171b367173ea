-- Put before every script of this folder, behind its flags. The table is a hash: the name of each node →
-- `<renewed, ms> <bus address> <row>`, and under the empty name `<run of Redis> <since when, ms>`.
local nodes, lease_ms = KEYS[1], tonumber(ARGV[1])
local wishes = nodes .. ':wishes'

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- Names the run of Redis. It changes with a restart, and when a replica takes over, though its process stays the same.
local function run()
  local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  return id .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
end

local function split(value)
  local renewed, bus, row = string.match(value, '^(%d+) (%S+) (.*)$')
  return tonumber(renewed or '0'), bus, row
end

local function silent_ms(value)
  return now_ms - (split(value))
end

-- How long the table has existed in this run of Redis; nil if it has not.
local function age_ms()
  local born = redis.call('HGET', nodes, '')
  if not born then return nil end
  local born_run, since = string.match(born, '^(%w+) (%d+)$')
  if born_run ~= run() then return nil end
  return math.max(0, now_ms - tonumber(since))
end

-- {age, name, row, name, row, …} of the rows whose leases have not ended.
local function live(age)
  local reply = {age or 0}
  local all = redis.call('HGETALL', nodes)
  for i = 1, #all, 2 do
    if all[i] ~= '' and silent_ms(all[i + 1]) < lease_ms then
      local _, _, row = split(all[i + 1])
      reply[#reply + 1] = all[i]
      reply[#reply + 1] = row or ''
    end
  end
  return reply
end
