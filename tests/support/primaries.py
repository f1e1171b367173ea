"""Redis servers that follow one another and lead again, and an address that leads to one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from tests.protocol.clusters import RawRedis
from tests.support.servers import HOST, RedisServer, wait_until

FOLLOW_SECONDS = 180.0


class Primary(RedisServer):
    """A Redis that may be a replica for some time; it writes whatever it answers to its file first."""

    def __init__(self, folder: Path, *options: str, **more: Any) -> None:
        at_once = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        debug = ("--enable-debug-command", "yes")
        more.setdefault("appendfsync", "always")
        super().__init__(folder, options=[*at_once, *debug, *options], **more)

    def ask(self, *words: str | int) -> Any:
        """One command, on a connection of its own."""
        connection = RawRedis(self.url)
        try:
            return connection(*words)
        finally:
            connection.close()

    def replication(self) -> dict[str, str]:
        """The fields of INFO replication."""
        lines = self.ask("INFO", "replication").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def follow(self, other: RedisServer) -> None:
        """Become a replica, and get all that the other one has."""
        self.ask("REPLICAOF", HOST, other.port)
        connection = RawRedis(other.url)

        def caught_up() -> bool:
            # First how far the other one is: it goes on meanwhile.
            said = connection("INFO", "replication")
            offset = int(said.split(b"master_repl_offset:")[1].split()[0])
            found = self.replication()
            up = found["master_link_status"] == "up" and b"port=%d,state=online" % self.port in said
            return up and int(found["slave_repl_offset"]) >= offset

        try:
            wait_until(caught_up, FOLLOW_SECONDS, "the replica does not catch up")
        finally:
            connection.close()

    def lead(self) -> None:
        """Be a primary, with what it has."""
        self.ask("REPLICAOF", "NO", "ONE")


class _Client(ProxyServer):
    factory: Address

    def connectionMade(self) -> None:
        self.factory.clients.append(self)
        super().connectionMade()


class Address(ProxyFactory):
    """The address that nodes know, as a name or a virtual IP would be."""

    protocol = _Client
    noisy = False

    def __init__(self, server: RedisServer) -> None:
        super().__init__(HOST, server.port)
        self.clients: list[Any] = []
        self._listening: Any = reactor.listenTCP(0, self, interface=HOST)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self._listening.getHost().port}/0"

    def lead_to(self, server: RedisServer) -> None:
        """New connections go there; those that are there stay where they are."""
        self.port = server.port

    def cut(self) -> None:
        """End all connections."""
        clients, self.clients = self.clients, []
        for client in clients:
            client.transport.abortConnection()

    async def end(self) -> None:
        self.cut()
        await self._listening.stopListening()
