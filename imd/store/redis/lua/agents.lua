-- The agents online: a sorted set of agents by the end of their last lease.

local ONLINE = 'imd:desk:online'

-- Redis' clock was set back, so recorded lease ends lie too far ahead. Agents that are here renew within one lease.
if set_back then
  for _, agent in ipairs(redis.call('ZRANGEBYSCORE', ONLINE, '(' .. now_s + lease_s, '+inf')) do
    redis.call('ZADD', ONLINE, now_s + lease_s, agent)
  end
end

local function agent_online_until(agent, ends)
  redis.call('ZADD', ONLINE, ends, agent)
end
