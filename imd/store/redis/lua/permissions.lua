-- Whether Redis' user may run the commands that any script runs. A call that comes here has run TIME and INFO.

local NEEDED = {
  'HGET k f', 'HMGET k f', 'HGETALL k', 'HSET k f v', 'HDEL k f', 'HINCRBY k f 1', 'HVALS k', 'EXPIRE k 1', 'GET k', 'SET k v',
  'INCR k', 'DEL k', 'UNLINK k', 'ZADD k 1 m', 'ZCARD k', 'ZSCORE k m', 'ZREM k m', 'ZRANGEBYSCORE k 0 1',
  'ZREMRANGEBYRANK k 0 1', 'ZREMRANGEBYSCORE k 0 1', 'SADD k m', 'SREM k m', 'SCARD k', 'RPUSH k v', 'LPUSH k v', 'LLEN k',
  'LRANGE k 0 1', 'LTRIM k 0 1', 'HEXISTS k f', 'HSETNX k f v', 'EXISTS k', 'INCRBY k 1', 'PTTL k', 'ZREVRANGEBYSCORE k 1 0',
  'ZPOPMIN k 1', 'SISMEMBER k m', 'HLEN k', 'HKEYS k', 'PERSIST k', 'TTL k', 'ZRANGE k 0 1', 'SRANDMEMBER k', 'SMOVE k k m'
}

-- The error for the first command that the user may not run; nil if it may run all.
local function missing_permission()
  for _, needed in ipairs(NEEDED) do
    local command = {}
    for word in string.gmatch(needed, '%S+') do
      command[#command + 1] = word == 'k' and key('-', 'head') or word
    end
    if not redis.acl_check_cmd(unpack(command)) then return 'NOPERM ' .. command[1] .. ' on ' .. command[2] end
  end
end
