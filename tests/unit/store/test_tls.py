"""A certificate that is not accepted: the reason is reported for each kind of server."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial import unittest

from imd.store.mongo.archive import MongoArchive
from imd.store.rabbit.connection import RabbitConnection
from imd.store.redis.connection import RedisConnection
from imd.store.tls import ServerTls
from tests.support.certificate import chain_endpoint, tls_endpoint, write_chain
from tests.support.rabbit import until


def has_tried(problem: Callable[[], str | None]) -> bool:
    return "not connected yet" not in (problem() or "")


def whole_chain(folder: Path) -> str:
    return chain_endpoint(folder, 0, "leaf.pem", f":extraCertChain={folder / 'middle.pem'}")


class Presenter(Protocol):
    """A server's side of a connection. It presents a certificate and says nothing."""

    def __init__(self, connections: set[Presenter]) -> None:
        self._connections = connections

    def connectionMade(self) -> None:
        self._connections.add(self)

    def connectionLost(self, reason: Any = None) -> None:
        self._connections.discard(self)


class TlsReasonTests(unittest.TestCase):
    """The servers speak no protocol; they only present a certificate."""

    timeout = 300

    async def shows(self, endpoint: str) -> int:
        """The port of a server with this endpoint."""
        connections: set[Presenter] = set()
        factory = Factory.forProtocol(partial(Presenter, connections))
        factory.noisy = False
        port = await serverFromString(reactor, endpoint).listen(factory)
        self.addCleanup(port.stopListening)
        # The clients are stopped before that; the server has still to hear of it.
        self.addCleanup(lambda: ensureDeferred(until(lambda: not connections, "no connection")))
        return int(port.getHost().port)

    async def problems(self, port: int, expected: str, host: str = "localhost") -> None:
        """Each kind of connection reports this reason."""
        rabbit = RabbitConnection(reactor, f"amqps://guest:guest@{host}:{port}/", "publisher")
        rabbit.start()
        # Not `slow`, however long the handshake takes.
        redis = RedisConnection(reactor, f"rediss://{host}:{port}/", "script", 60)
        redis.start()
        for stop in (rabbit.stop, redis.stop):
            self.addCleanup(stop)
        parts: list[Callable[[], str | None]] = [rabbit.problem, redis.problem]
        for problem in parts:
            await until(partial(has_tried, problem), "a problem")
            self.assertIn(f"tls, the certificate of {host} is not accepted: {expected}", problem() or "")

    def trusted(self, path: Path) -> None:
        """Trust only this certificate, as an operator configures it."""
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(path)
        if before is None:
            self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        else:
            self.addCleanup(os.environ.update, SSL_CERT_FILE=before)

    async def test_self_signed(self) -> None:
        await self.problems(await self.shows(tls_endpoint(Path(self.mktemp()), 0)), "it is self-signed")

    async def test_expired(self) -> None:
        folder = Path(self.mktemp())
        port = await self.shows(tls_endpoint(folder, 0, timedelta(days=-9)))
        self.trusted(folder / "cert.pem")
        await self.problems(port, "it has expired")

    async def test_unknown_issuer(self) -> None:
        folder = Path(self.mktemp())
        write_chain(folder)
        port = await self.shows(chain_endpoint(folder, 0, "leaf.pem"))
        await self.problems(port, "its issuer is not known")

    async def test_another_name(self) -> None:
        folder = Path(self.mktemp())
        write_chain(folder)
        port = await self.shows(whole_chain(folder))
        self.trusted(folder / "root.pem")
        await self.problems(port, "it is for another name", "127.0.0.1")

    async def test_good(self) -> None:
        """A trusted certificate for this name is accepted; the connection then fails for another reason."""
        folder = Path(self.mktemp())
        write_chain(folder)
        self.trusted(folder / "root.pem")
        port = await self.shows(whole_chain(folder))
        redis = RedisConnection(reactor, f"rediss://localhost:{port}/", "script", 1)
        redis.start()
        self.addCleanup(redis.stop)
        await until(lambda: "not connected yet" not in (redis.problem() or ""), "a problem")
        self.assertIn("slow", redis.problem() or "")

    async def test_mongodb(self) -> None:
        """MongoDB's driver reports the reason itself."""
        port = await self.shows(tls_endpoint(Path(self.mktemp()), 0))
        url = f"mongodb://localhost:{port}/?tls=true&serverSelectionTimeoutMS=500"
        archive = MongoArchive(reactor, url)
        archive.start()
        self.addCleanup(archive.stop)
        # A first try may be over before the handshake is.
        await until(lambda: "MongoDB: tls (" in (archive.problem() or ""), "the problem")
        self.assertIn("certificate verify failed", archive.problem() or "")

    def test_other_errors(self) -> None:
        """An error that is no TLS error has no TLS reason."""
        tls = ServerTls("localhost")
        self.assertIsNone(tls.reason(ConnectionRefusedError()))
        self.assertIsNone(tls.reason(None))
        self.assertIsNone(tls.reason(ssl.SSLError()))
