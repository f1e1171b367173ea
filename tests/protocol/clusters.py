"""A cluster of a test's own on the shared servers, and a look into what it keeps there."""

from __future__ import annotations

import itertools
import socket
from typing import Any
from urllib.parse import urlsplit

import hiredis
import pymongo

from tests.protocol.support import new_folder, started
from tests.support.nodes import Ini, NodeServer
from tests.support.servers import HOST, shared

_numbers = itertools.count(1)


class RawRedis:
    """A blocking connection that sends commands as they are. Bytes come back as bytes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((HOST, parts.port or 6379), timeout=60)
        self._reader = hiredis.Reader()
        self("SELECT", parts.path.strip("/"))

    def __call__(self, *words: str | int) -> Any:
        encoded = [str(word).encode() for word in words]
        request = b"*%d\r\n" % len(encoded)
        request += b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
        self._socket.sendall(request)
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        self._socket.close()


class Cluster:
    """Databases and a virtual host that nobody else has; `ini` is what all its nodes have in common."""

    def __init__(self, name: str, ini: Ini | None = None) -> None:
        servers = shared()
        self.name = name
        self.redis_url = servers.redis_url()
        self.amqp_url = servers.amqp_url()
        self.mongo_url = servers.mongo_url()
        self.ini: dict[str, dict[str, object]] = {
            "node": {"backend": "cluster"},
            # So that no message is refused, and no client is closed, while one waits for a busy machine.
            "websocket": {"pong_seconds": 60},
            "redis": {"url": self.redis_url, "timeout_seconds": 30},
            "rabbitmq": {"url": self.amqp_url, "confirm_seconds": 30},
            "mongodb": {"url": self.mongo_url},
        }
        for section, keys in (ini or {}).items():
            self.ini.setdefault(section, {}).update(keys)

    def node(self, ini: Ini | None = None) -> NodeServer:
        """One more node, not started."""
        merged = {section: dict(keys) for section, keys in self.ini.items()}
        for section, keys in (ini or {}).items():
            merged.setdefault(section, {}).update(keys)
        return NodeServer(new_folder(), merged, name=f"{self.name}-{next(_numbers)}")

    def start(self, count: int) -> list[NodeServer]:
        """Nodes that live as long as this process."""
        return [started(self.node()) for _ in range(count)]

    def redis(self, *words: str | int) -> Any:
        """One command, on a connection of its own."""
        connection = RawRedis(self.redis_url)
        try:
            return connection(*words)
        finally:
            connection.close()

    def archive(self) -> tuple[list[dict[str, Any]], list[list[tuple[str, int]]]]:
        """All documents of im_message, and the keys of its indexes."""
        with pymongo.MongoClient(self.mongo_url, serverSelectionTimeoutMS=60_000) as client:
            collection = client.get_default_database()["im_message"]
            indexes = [list(index["key"].items()) for index in collection.list_indexes()]
            return list(collection.find()), indexes
