"""Makes Redis inboxes for tests: each test has an empty Redis that it may harm."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions
from imd.protocol.ids import ServerClock
from imd.store.redis.connection import RedisConnection
from imd.store.redis.inbox import RedisInbox
from tests.contract.support import InboxHarness
from tests.support.group_end import at_group_end, group_cache
from tests.support.servers import RedisServer

# No test waits for it: all of them kill Redis, and none pauses it.
ANSWER_SECONDS = 60.0

# Expiries, the ends of leases, when devices were last seen, until when agents are online, when clientMsgIds
# were used, and when the turns that hold them began.
_GROW_OLDER = """
local seconds = tonumber(ARGV[1])
local function each_value(key, pattern, unit)
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local older = string.gsub(all[i + 1], pattern, function(before, t)
      return string.format('%s%.0f', before, t - seconds * (unit or 1))
    end)
    if all[i] ~= '' then redis.call('HSET', key, all[i], older) end
  end
end
for _, key in ipairs(redis.call('KEYS', '*')) do
  if string.find(key, ':channels$') then each_value(key, '^(.* )(%d+)$') end
  if string.find(key, ':devices$') then each_value(key, '^(%s*)(%d+)') end
  if string.find(key, '^imd:sent:') then
    local began, kept_for = string.match(redis.call('HGET', key, ''), '^(%d+)( %d+)$')
    redis.call('HSET', key, '', string.format('%.0f', began - seconds) .. kept_for)
    each_value(key, '^(%S+ )(%d+)', 1000)
    each_value(key, '^(%S+ %S+ %S+ )(%d+)$', 1000)
  end
  local left = redis.call('PTTL', key)
  if left >= 0 then redis.call('PEXPIRE', key, left - 1000 * seconds) end
end
for _, agent in ipairs(redis.call('ZRANGE', 'imd:desk:online', 0, -1)) do
  redis.call('ZINCRBY', 'imd:desk:online', -seconds, agent)
end
"""


@group_cache
def redis_server() -> RedisServer:
    """A server that may be harmed, ended with the test process."""
    folder = Path(tempfile.mkdtemp(prefix="imd-redis-"))
    server = RedisServer(folder)
    server.start()
    at_group_end(shutil.rmtree, folder, ignore_errors=True)
    at_group_end(server.kill)
    return server


class RedisHarness(InboxHarness, unittest.TestCase):
    """`redis` is a connection of the test's own, to look at keys and to break things."""

    timeout = 300

    async def setUp(self) -> None:
        self.server = redis_server()
        self.redis = RedisConnection(reactor, self.server.url, "test", ANSWER_SECONDS)
        self.addCleanup(self.redis.stop)
        await self.redis.start()
        await self.redis.command("FLUSHALL")

    async def make_inbox(self, options: InboxOptions, *, lossless: bool = False) -> RedisInbox:
        inbox = RedisInbox(
            reactor,
            self.server.url,
            options,
            ServerClock(),
            lossless=lossless,
            timeout_seconds=ANSWER_SECONDS,
        )
        self.addCleanup(inbox.stop)
        await inbox.start()
        return inbox

    async def advance(self, seconds: float) -> None:
        # Redis' own time is the clock, and stands above tests: instead all that it has grows older.
        await self.redis.command("EVAL", _GROW_OLDER, 0, int(seconds))
