"""The servers that all tests of a process share."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TypeVar

from tests.support.group_end import at_group_end
from tests.support.servers.mongo import MongoServer
from tests.support.servers.rabbit import RabbitServer
from tests.support.servers.redis import RedisServer
from tests.support.servers.server import Server

ServerType = TypeVar("ServerType", bound=Server)


class SharedServers:
    """One server of each kind per process, started when first asked for; for tests that never harm them.

    Tests keep apart by database number, virtual host and database name. Each call without an argument
    gives one that nobody has had. Tests that stop or kill a server start one of their own.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd-servers-"))
        self._servers: dict[str, Server] = {}
        self._redis_numbers = itertools.count(1)
        self._mongo_numbers = itertools.count(1)
        self._vhosts: list[str] = []
        """of this group of tests"""

    @property
    def redis(self) -> RedisServer:
        return self._started(RedisServer)

    @property
    def rabbit(self) -> RabbitServer:
        return self._started(RabbitServer)

    @property
    def mongo(self) -> MongoServer:
        return self._started(MongoServer)

    def redis_url(self, db: int | None = None) -> str:
        """An empty database, or the one with this number (0 is never given out)."""
        redis = self.redis
        return redis.url_of(next(self._redis_numbers) if db is None else db)

    def amqp_url(self, vhost: str | None = None) -> str:
        """An empty virtual host, or the one with this name. It goes with the group of tests."""
        rabbit = self.rabbit
        if vhost is None:
            vhost = rabbit.new_vhost()
            if not self._vhosts:
                at_group_end(self._delete_vhosts)
            self._vhosts.append(vhost)
        return rabbit.url_of(vhost)

    def mongo_url(self, database: str | None = None) -> str:
        """An empty database, or the one with this name."""
        return self.mongo.url_of(f"test{next(self._mongo_numbers)}" if database is None else database)

    def end(self) -> None:
        """Kill all and remove their folder."""
        for server in self._servers.values():
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _delete_vhosts(self) -> None:
        # Sixty of them, with queues that nobody uses, cost a tenth of a processor.
        names, self._vhosts = self._vhosts, []
        rabbit = self._servers[RabbitServer.name]
        assert isinstance(rabbit, RabbitServer)
        if rabbit.running:
            rabbit.delete_vhosts(names)

    def _started(self, kind: type[ServerType]) -> ServerType:
        server = self._servers.setdefault(kind.name, kind(self.folder / kind.name))
        assert isinstance(server, kind)
        server.start()
        return server


@cache
def shared() -> SharedServers:
    """The servers that all tests of this process share; they end with it."""
    servers = SharedServers()
    atexit.register(servers.end)
    return servers
